"""Logits in float32 at the published image size, within 1e-4 of the largest."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from flaxcnn import create_model, from_torch
from tests.references import make_images, randomise, relative_error, to_nchw, torch, torch_reference
from tests.variants import each_probe


@each_probe
def test_logits(name: str) -> None:
    model = create_model(name, num_classes=10)
    # Two images a BatchNorm of the last, 7x7 stage are enough to calibrate it.
    images = make_images((model.image_size, model.image_size)).astype(np.float32)
    torch.manual_seed(0)
    reference = randomise(torch_reference(name, num_classes=10), to_nchw(images))
    with torch.no_grad():
        expected = reference(to_nchw(images))
    variables = from_torch(model, reference.state_dict())
    logits = jax.jit(partial(model.apply, train=False))(variables, jnp.asarray(images))
    assert logits.dtype == jnp.float32
    assert relative_error(logits, expected) <= 1e-4
