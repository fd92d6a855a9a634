"""The sums of a first course, as its slides have them and as the layers themselves do them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from flaxcnn.analysis import (
    basic_block_cost,
    bottleneck_cost,
    conv_cost,
    output_size,
    receptive_field,
    separable_cost,
)
from flaxcnn.layers import Conv


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_output_size_is_the_layers(kernel: int, stride: int, padding: int) -> None:
    conv = Conv(1, kernel, strides=stride, padding=padding)
    for size in (5, 8, 9):
        images = jax.ShapeDtypeStruct((1, size, size, 1), jnp.float32)
        output, _ = jax.eval_shape(conv.init_with_output, jax.random.key(0), images)
        assert output_size(size, kernel, stride, padding) == output.shape[1]


def test_output_size_of_nothing() -> None:
    with pytest.raises(ValueError, match="a window of 5 does not fit an input of 2 with 1 on either side"):
        output_size(2, 5, 1, 1)


def test_receptive_field() -> None:
    assert receptive_field([(3, 1)] * 2) == 5  # VGG's argument: two 3x3 see what a 5x5 sees,
    assert receptive_field([(3, 1)] * 3) == 7  # and three what a 7x7 sees
    assert receptive_field([(3, 2), (2, 2), (3, 1)]) == 13  # by hand: 3, (3 - 1) 2 + 2 = 6, (6 - 1) 2 + 3
    assert receptive_field([]) == 1


def test_separable() -> None:
    standard, separable = conv_cost(32, 64, 3, 112), separable_cost(32, 64, 3, 112)
    assert standard == (9 * 32 * 64, 9 * 32 * 64 * 112 * 112)
    assert separable == (9 * 32 + 32 * 64, (9 * 32 + 32 * 64) * 112 * 112)
    assert separable.macs / standard.macs == pytest.approx(1 / 64 + 1 / 9)


def test_bottleneck() -> None:
    assert bottleneck_cost(256, 64, 1).parameters == 69_632  # the slides' numbers
    assert basic_block_cost(256, 1).parameters == 1_179_648
    assert bottleneck_cost(256, 64, 7).macs == 69_632 * 49


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_conv_cost_is_the_layers(groups: int) -> None:
    conv = Conv(8, 3, padding=1, feature_group_count=groups, use_bias=False)
    variables = conv.init(jax.random.key(0), jnp.zeros((1, 5, 5, 4)))
    assert conv_cost(4, 8, 3, 5, groups=groups).parameters == variables["params"]["kernel"].size
