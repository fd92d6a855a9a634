"""Pooling against torch.nn.functional, over kernel, stride, padding, ceil mode and sizes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxcnn.layers import adaptive_avg_pool, avg_pool, flatten, global_avg_pool, max_pool

torch = pytest.importorskip("torch", reason="PyTorch is the reference (pip install 'flaxcnn[test]')")
F = torch.nn.functional

SIZES = [(1, 1), (2, 3), (4, 5), (7, 7), (8, 9), (14, 15)]
WINDOWS = list(itertools.product([1, 2, 3, 5], [1, 2, 3], [0, 1, 2], [False, True]))


def make_images(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)


def to_nchw(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def cases() -> Iterator[tuple[tuple[int, int], int, int, int, bool]]:
    for size, (window, strides, padding, ceil_mode) in itertools.product(SIZES, WINDOWS):
        if 2 * padding <= window:
            yield size, window, strides, padding, ceil_mode


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("ceil_mode", [False, True], ids=["floor", "ceil"])
def test_max_pool(size: tuple[int, int], ceil_mode: bool) -> None:
    images = make_images(size)
    compared = 0
    for _, window, strides, padding, ceil in (case for case in cases() if case[0] == size):
        if ceil != ceil_mode:
            continue
        try:
            expected = F.max_pool2d(to_nchw(images), window, strides, padding, ceil_mode=ceil)
        except RuntimeError:
            with pytest.raises(ValueError, match=f"{size[0]}x{size[1]} pixels is too small for a {window}x{window}"):
                max_pool(jnp.asarray(images), window, strides, padding, ceil_mode=ceil)
            continue
        found = jax.jit(partial(max_pool, window=window, strides=strides, padding=padding, ceil_mode=ceil))(images)
        np.testing.assert_array_equal(found, expected.permute(0, 2, 3, 1), err_msg=f"{window} {strides} {padding}")
        compared += 1
    assert compared >= 6


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("ceil_mode", [False, True], ids=["floor", "ceil"])
@pytest.mark.parametrize("count_include_pad", [False, True])
def test_avg_pool(size: tuple[int, int], ceil_mode: bool, count_include_pad: bool) -> None:
    images = make_images(size)
    fields = {"ceil_mode": ceil_mode, "count_include_pad": count_include_pad}
    compared = 0
    for _, window, strides, padding, ceil in (case for case in cases() if case[0] == size):
        if ceil != ceil_mode:
            continue
        try:
            expected = F.avg_pool2d(to_nchw(images), window, strides, padding, **fields)
        except RuntimeError:
            with pytest.raises(ValueError, match=f"{size[0]}x{size[1]} pixels is too small for a {window}x{window}"):
                avg_pool(jnp.asarray(images), window, strides, padding, **fields)
            continue
        found = avg_pool(jnp.asarray(images), window, strides, padding, **fields)
        message = f"{window} {strides} {padding}"
        np.testing.assert_allclose(found, expected.permute(0, 2, 3, 1), rtol=0, atol=1e-6, err_msg=message)
        compared += 1
    assert compared >= 6


def test_pairs() -> None:
    images = make_images((9, 12))
    expected = F.max_pool2d(to_nchw(images), (2, 3), (1, 2), (0, 1))
    np.testing.assert_array_equal(max_pool(jnp.asarray(images), (2, 3), (1, 2), (0, 1)), expected.permute(0, 2, 3, 1))
    expected = F.avg_pool2d(to_nchw(images), (2, 4), (1, 2), (0, 2))
    np.testing.assert_allclose(
        avg_pool(jnp.asarray(images), (2, 4), (1, 2), (0, 2)), expected.permute(0, 2, 3, 1), rtol=0, atol=1e-6
    )


def test_too_much_padding() -> None:
    for pool in (max_pool, avg_pool):
        with pytest.raises(ValueError, match="padding 2 must be at most half the pooling window 3"):
            pool(jnp.zeros((1, 8, 8, 1)), 3, 2, 2)


def test_max_pool_of_integers() -> None:
    images = jnp.asarray([[-3, -4], [-5, -6]]).reshape(1, 2, 2, 1)
    np.testing.assert_array_equal(max_pool(images, 3, 1, 1).ravel(), [-3, -3, -3, -3])


def test_max_pool_gradient_goes_to_the_first_of_equals() -> None:
    images = np.zeros((1, 4, 4, 1), np.float32)
    found = jax.grad(lambda x: max_pool(x, 3, 2, 1).sum())(jnp.asarray(images))
    torch_images = to_nchw(images).requires_grad_()
    F.max_pool2d(torch_images, 3, 2, 1).sum().backward()
    np.testing.assert_array_equal(found[0, :, :, 0], torch_images.grad[0, 0])


@pytest.mark.parametrize("count_include_pad", [False, True])
@pytest.mark.parametrize(
    ("window", "strides", "padding", "ceil_mode"),
    [(3, 2, 1, False), (3, 2, 1, True), (2, 3, 1, True), (5, 3, 0, False), (6, 2, 3, False)],
    ids=str,
)
def test_avg_pool_derivatives(
    window: int, strides: int, padding: int, ceil_mode: bool, count_include_pad: bool
) -> None:
    """The gradient of a sum of cubes, and its product with a direction differentiated again."""
    images, direction = make_images((8, 9)), make_images((9, 8)).reshape(2, 8, 9, 3)
    fields = {"ceil_mode": ceil_mode, "count_include_pad": count_include_pad}

    def gradient(images: jax.Array) -> jax.Array:
        return jax.grad(lambda x: jnp.sum(avg_pool(x, window, strides, padding, **fields) ** 3))(images)

    found = gradient(jnp.asarray(images))
    second = jax.grad(lambda x: jnp.vdot(gradient(x), direction))(jnp.asarray(images))
    torch_images = to_nchw(images).requires_grad_()
    total = F.avg_pool2d(torch_images, window, strides, padding, **fields).pow(3).sum()
    (expected,) = torch.autograd.grad(total, torch_images, create_graph=True)
    (expected_second,) = torch.autograd.grad((expected * to_nchw(direction)).sum(), torch_images)
    np.testing.assert_allclose(found, expected.detach().permute(0, 2, 3, 1), rtol=0, atol=1e-5)
    np.testing.assert_allclose(second, expected_second.permute(0, 2, 3, 1), rtol=0, atol=1e-5)


def test_avg_pool_of_other_types_and_batches() -> None:
    """bfloat16 is added up in float32; of integers and of a batch of batches, the same means."""
    images = make_images((8, 9))
    expected = np.asarray(avg_pool(jnp.asarray(images), 3, 2, 1))
    half = avg_pool(jnp.asarray(images, jnp.bfloat16), 3, 2, 1)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), expected, rtol=0.02, atol=0.02)
    mapped = jax.vmap(lambda x: avg_pool(x, 3, 2, 1))(jnp.stack([images, -images]))
    np.testing.assert_allclose(mapped, np.stack([expected, -expected]), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(avg_pool(jnp.arange(4).reshape(1, 2, 2, 1), 2).ravel(), [1.5])


@pytest.mark.parametrize("target", [1, 4, (6, 6), 7, (3, 5)], ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_adaptive_avg_pool(size: tuple[int, int], target: int | tuple[int, int]) -> None:
    """To fewer pixels and to more."""
    images = make_images(size)
    found = adaptive_avg_pool(jnp.asarray(images), target)
    expected = F.adaptive_avg_pool2d(to_nchw(images), target).permute(0, 2, 3, 1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_global_pool_and_flatten() -> None:
    images = make_images((4, 5))
    expected = to_nchw(images).mean((2, 3))
    np.testing.assert_allclose(global_avg_pool(jnp.asarray(images)), expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(flatten(jnp.asarray(images)), to_nchw(images).flatten(1))
