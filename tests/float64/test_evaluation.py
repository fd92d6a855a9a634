"""Every module's output in evaluation is PyTorch's, to 1e-11 of its largest value."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from flax.traverse_util import flatten_dict

from flaxcnn import create_model, from_torch
from flaxcnn.inference import features
from tests.references import (
    make_images,
    randomise,
    relative_error,
    to_nchw,
    torch,
    torch_reference,
    torch_stages,
)
from tests.variants import QUICK, each_block, image_sizes, training_size, variants_but_slow_beyond


@pytest.mark.usefixtures("forget_programs_after")
@variants_but_slow_beyond(QUICK)
def test_stages_and_logits_of_odd_images(name: str) -> None:
    compare_stages_and_logits(name, image_sizes(name)[1])


@pytest.mark.slow
@pytest.mark.usefixtures("forget_programs_after")
@each_block
def test_stages_and_logits_of_the_smallest_images(name: str) -> None:
    compare_stages_and_logits(name, image_sizes(name)[0])


def compare_stages_and_logits(name: str, size: tuple[int, int]) -> None:
    model = create_model(name, num_classes=10)
    torch.manual_seed(0)
    reference = torch_reference(name, num_classes=10).double()
    # Over fewer values, the statistics of B6 and B7 would let activations grow until rounding shows.
    randomise(reference, to_nchw(make_images(training_size(name), batch=8)))
    images = make_images(size)

    variables = from_torch(model, reference.state_dict())
    expected = torch_stages(reference, to_nchw(images))
    found = jax.jit(partial(features, model))(variables, jnp.asarray(images))
    assert found[""].dtype == jnp.float64
    compared = []
    for stage, output in expected.items():
        # A container may end elsewhere: pytorchcv's ShuffleNet counts the global pool to the features.
        if stage in found and found[stage].shape == output.shape:
            error = relative_error(found[stage], output)
            assert error <= 1e-11, f"{stage or 'the logits'} of {name} off by {error:.1e}, the first module to be"
            compared.append(stage)
    weighted = {".".join(path[:-1]) for path in flatten_dict(variables["params"]) if path[-1] == "kernel"}
    auxiliary = {module for module in weighted if module.startswith("aux")}
    assert weighted - auxiliary <= set(compared)
    assert compared[-1] == ""
