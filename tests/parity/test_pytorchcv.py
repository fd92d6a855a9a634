"""A second reference: pytorchcv's MobileNet V1, which numbers the modules of timm's differently."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
import pytest

from flaxcnn import create_model, from_torch
from tests.references import make_images, randomise, relative_error, to_nchw, torch, torch_reference

pytorchcv = pytest.importorskip("pytorchcv.models.mobilenet")


@pytest.mark.parametrize(("suffix", "width"), {"": 1.0, "_075": 0.75, "_050": 0.5, "_025": 0.25}.items())
def test_mobilenet_v1(suffix: str, width: float) -> None:
    images = make_images((33, 47)).astype(np.float32)
    timms = randomise(torch_reference(f"mobilenet_v1{suffix}", num_classes=10), to_nchw(images)).state_dict()
    reference = pytorchcv.get_mobilenet(width, num_classes=10).eval()
    reference.load_state_dict(dict(zip(reference.state_dict(), timms.values(), strict=True)))
    reference.features.final_pool = torch.nn.AdaptiveAvgPool2d(1)  # its 7x7 window fits images of 224 pixels only
    for module in list(reference.modules()):
        for name, child in module.named_children():
            if isinstance(child, torch.nn.ReLU):
                setattr(module, name, torch.nn.ReLU6())  # the paper's code, and timm, bound it
    with torch.no_grad():
        expected = reference(to_nchw(images)).numpy()
    model = create_model(f"mobilenet_v1{suffix}", num_classes=10)
    found = jax.jit(partial(model.apply, train=False))(from_torch(model, timms), images)
    assert relative_error(found, expected) <= 1e-4
