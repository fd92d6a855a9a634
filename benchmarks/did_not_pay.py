"""Time what was tried to make networks faster on a CPU and is not used, beside what is used instead.

    python benchmarks/did_not_pay.py [--batch 16] [--image-size 160] [--repeats 9] [--only Winograd]

Both take turns, so that a change in the machine's load meets both. Times are medians in milliseconds, after one run
that does not count; the ratio is the median of the ratios within a turn, tried to used, and more than 1 means that the
trial is slower. `compiled` is the ratio of the times to compile them. The error is the largest difference between the
two results, relative to the largest number in them. All is in float32; the image size is that of networks.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple
from unittest.mock import patch

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from argument_types import pattern, positive
from jax import Array, lax
from jax.core import ShapedArray

import flaxcnn
from flaxcnn.cli.huge_pages import start_again_with_huge_pages
from flaxcnn.layers import conv_algorithms as ways
from flaxcnn.layers import lowering
from flaxcnn.layers.conv_algorithms import Geometry, Lowering

FOLDED = ("resnet18", "resnet50", "googlenet", "mobilenet_v2", "efficientnet_b0")

Way = Callable[[Geometry, Array, Array], Array]


class Trial(NamedTuple):
    """Two functions of the same arrays; the one tried is compiled within a context."""

    name: str
    used: Callable[..., Any]
    tried: Callable[..., Any]
    arrays: Callable[[], tuple[Any, ...]]
    trying: AbstractContextManager[Any] = nullcontext()


def shaped(batch: int, size: int, c_in: int, c_out: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> Geometry:
    """A convolution of square images, padded to keep their size up to the stride."""
    x = ShapedArray((batch, size, size, c_in), jnp.dtype("float32"))
    k = ShapedArray((kernel, kernel, c_in // groups, c_out), jnp.dtype("float32"))
    margins = ((kernel - 1) // 2, (kernel - 1) // 2)
    return Geometry(x, k, (stride, stride), (margins, margins), (1, 1), groups)


def drawn(*shapes: tuple[int, ...]) -> tuple[Array, ...]:
    """Numbers of a normal distribution, the same ones in every run."""
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return tuple(jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True))


def named(name: str, geometry: Geometry) -> str:
    """With the convolution, as benchmarks/convolution.py writes it."""
    (_, size, _, c_in), (kernel, _, _, c_out) = geometry.x.shape, geometry.k.shape
    stride, groups = geometry.strides[0], geometry.groups
    strided, grouped = f"/{stride}" * (stride > 1), f" g{groups}" * (groups > 1)
    return f"{name}: {size}px {c_in}-{c_out} {kernel}x{kernel}{strided}{grouped}"


def chosen(geometry: Geometry) -> Lowering:
    """What the library takes in training."""
    return lowering._in_training(lowering._choose(geometry), geometry)


def convolution(direction: str, name: str, geometry: Geometry, tried: Way) -> Trial:
    """A way to convolve, or to either gradient: `direction` is a field of `Lowering`."""
    x, k = geometry.x.shape, geometry.k.shape
    y = (x[0], *geometry.output_size, k[3])
    shapes = {"forward": (x, k), "input_gradient": (y, k), "kernel_gradient": (x, y)}[direction]
    used = getattr(chosen(geometry), direction)
    return Trial(named(name, geometry), partial(used, geometry), partial(tried, geometry), partial(drawn, *shapes))


def training(name: str, model: str, shape: tuple[int, ...], trying: AbstractContextManager[Any]) -> Trial:
    """A network's whole training step, with SGD, as it is and with the library changed."""
    network, optimizer = flaxcnn.create_model(model), flaxcnn.optim.sgd(0.1, momentum=0.9)
    step = flaxcnn.train.make_train_step(network, optimizer)

    def arrays() -> tuple[Any, ...]:
        (images,) = drawn(shape)
        state = flaxcnn.train.create_state(network, optimizer, initialised(network, images))
        return state, {"image": images, "label": jnp.arange(shape[0])}

    return Trial(f"{name}: {model}'s step", step, step, arrays, trying)


def folding(model: str, shape: tuple[int, ...]) -> Trial:
    """A network's evaluation, with BatchNorm and without."""
    network = flaxcnn.create_model(model)

    def arrays() -> tuple[Any, ...]:
        (images,) = drawn(shape)
        variables = initialised(network, images)
        return variables, flaxcnn.fuse(network, variables)[1], images

    def used(variables: Any, folded: Any, images: Array) -> Any:
        return network.apply(variables, images, train=False)

    def tried(variables: Any, folded: Any, images: Array) -> Any:
        fused, _ = flaxcnn.fuse(network, variables)  # what it folds here is read by nothing, and not computed
        return fused.apply(folded, images, train=False)

    return Trial(f"BatchNorm folded: {model}", used, tried, arrays)


def initialised(network: nn.Module, images: Array) -> Any:
    """Fresh variables."""
    return jax.jit(partial(network.init, train=False))(jax.random.key(0), images[:1])


def sum_as_product(x: Array) -> Array:
    pixels = x.reshape(-1, x.shape[3])
    return (jnp.ones((1, pixels.shape[0])) @ pixels)[0]


# Of Winograd's F(m x m, 3x3): transforms of the input, the kernel and the output.
_F2 = ways._INPUT, ways._KERNEL, ways._OUTPUT
_F4 = (
    np.array(
        [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ]
    ),
    np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24,
    np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]),
)


def winograd(matrices: tuple[np.ndarray, ...], batched: bool, geometry: Geometry, x: Array, k: Array) -> Array:
    """F(m x m, 3x3) where m divides the size of the output; its products one by one, or as one batched product."""
    of_input, of_kernel, of_output = matrices
    m, places = of_output.shape
    (h, w), x = geometry.output_size, lax.optimization_barrier(ways._pad(geometry, x))
    rows, columns = x.shape[1] - places + 1, x.shape[2] - places + 1
    tiles = [[x[:, i : i + rows : m, j : j + columns : m] for j in range(places)] for i in range(places)]
    inputs = ways._transform(of_input, tiles)
    kernels = ways._transform(of_kernel, [[k[i, j] for j in range(3)] for i in range(3)])
    if batched:
        product = jnp.einsum("rcnhwi,rcio->rcnhwo", jnp.array(inputs), jnp.array(kernels))
        products = [list(row) for row in product]
    else:
        products = [[a @ b for a, b in zip(*pair, strict=True)] for pair in zip(inputs, kernels, strict=True)]
    y = jnp.stack([jnp.stack(row, axis=3) for row in ways._transform(of_output, products)], axis=2)
    return y.reshape(y.shape[0], h, w, k.shape[3])


def spread(geometry: Geometry, y: Array, k: Array) -> Array:
    """The input gradient as a convolution of the gradient, with zeros between its entries."""
    transposed, y, k = ways._transposed_convolution(geometry, y, k)
    spread = ways._pad(transposed, y)
    plain = transposed._replace(x=jax.typeof(spread), padding=((0, 0), (0, 0)), input_dilation=(1, 1))
    return ways.IM2COL.forward(plain, spread, k)


def product_a_group(geometry: Geometry, x: Array, k: Array) -> Array:
    """im2col of each group times its kernel, as one batched product."""
    (kh, kw, c, c_out), groups = k.shape, geometry.groups
    padded = ways._pad(geometry, x)
    windows = [ways._window(geometry, padded, i, j) for i, j in np.ndindex(kh, kw)]
    windows = jnp.stack([window.reshape(*window.shape[:3], groups, c) for window in windows], axis=3)
    y = jnp.einsum("nhwtgi,tigo->nhwgo", windows, k.reshape(kh * kw, c, groups, c_out // groups))
    return y.reshape(*y.shape[:3], c_out)


def in_a_loop(geometry: Geometry, y: Array, k: Array) -> Array:
    """The input gradient of one block of groups after the other, in a loop."""
    blocks = ways._number_of_blocks(geometry)
    of_block = ways._geometry_of_block(geometry, blocks)
    parts = jnp.stack(jnp.split(y, blocks, axis=3))
    kernels = ways._block_kernels(geometry, k, blocks)
    gradients = lax.map(lambda pair: ways.XLA.input_gradient(of_block, *pair), (parts, kernels))
    return jnp.concatenate(list(gradients), axis=3)


def four_rows(geometry: Geometry, x: Array, y: Array) -> Array:
    """The kernel gradient of a depthwise convolution of stride 1, over four rows of all images at a time."""
    (kh, kw), (rows, columns), padded = geometry.kernel_size, geometry.output_size, ways._pad(geometry, x)

    def kernel_row(i: Array) -> Array:
        def add_rows(number: Array, sums: list[Array]) -> list[Array]:
            x_rows = lax.dynamic_slice_in_dim(padded, 4 * number + i, 4, axis=1)
            y_rows = lax.dynamic_slice_in_dim(y, 4 * number, 4, axis=1)
            return [total + x_rows[:, :, j : j + columns] * y_rows for j, total in enumerate(sums)]

        sums = lax.fori_loop(0, rows // 4, add_rows, [jnp.zeros_like(y[:, :4])] * kw)
        return jnp.stack([total.sum((0, 1, 2)) for total in sums])

    return lax.map(kernel_row, jnp.arange(kh))[:, :, None]


def space_to_depth(geometry: Geometry, x: Array, k: Array) -> Array:
    """A convolution of stride 2 as one of stride 1 over squares of 2x2 pixels, taken for channels."""
    (n, _, _, c), (kh, kw, _, c_out) = x.shape, k.shape
    x = ways._pad(geometry, x)
    x = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    h, w = x.shape[1] // 2, x.shape[2] // 2
    x = x[:, : 2 * h, : 2 * w].reshape(n, h, 2, w, 2, c).transpose(0, 1, 3, 2, 4, 5).reshape(n, h, w, 4 * c)
    k = jnp.pad(k, ((0, kh % 2), (0, kw % 2), (0, 0), (0, 0)))
    k = k.reshape((kh + 1) // 2, 2, (kw + 1) // 2, 2, c, c_out).transpose(0, 2, 1, 3, 4, 5)
    k = k.reshape((kh + 1) // 2, (kw + 1) // 2, 4 * c, c_out)
    y = lax.conv_general_dilated(x, k, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    rows, columns = geometry.output_size
    return y[:, :rows, :columns]


def whole_product(geometry: Geometry, x: Array, y: Array) -> Array:
    """The kernel gradient of a 1x1 convolution as one product over all pixels."""
    return jnp.einsum("nhwi,nhwo->io", x, y)[None, None]


def trials(batch: int, image_size: int) -> list[Trial]:
    """In the order of docs/speed.md."""
    forward, input_gradient, kernel_gradient = (partial(convolution, direction) for direction in Lowering._fields)
    of, images = partial(shaped, batch), (batch, image_size, image_size, 3)
    everywhere = patch.object(lowering, "_in_training", lambda way, geometry: way)
    one_block = patch.object(ways, "_number_of_blocks", lambda geometry: 1)
    batched = patch.object(lowering, "BLOCKED", ways._transposed(product_a_group))
    activations = partial(drawn, (batch, 80, 80, 64))
    return [
        Trial("sum as a product: 80px 64", lambda x: x.sum((0, 1, 2)), sum_as_product, activations),
        forward("Winograd over many pixels", of(80, 64, 128), ways.WINOGRAD.forward),
        training("Winograd in training", "resnet18", images, everywhere),
        forward("Winograd's F(4x4)", of(40, 64, 64), partial(winograd, _F4, False)),
        forward("Winograd's F(4x4)", of(20, 128, 64), partial(winograd, _F4, False)),
        forward("Winograd by a batched product", of(40, 64, 64), partial(winograd, _F2, True)),
        forward("im2col over more pixels", of(40, 128, 128), ways.IM2COL.forward),
        forward("im2col over more pixels", of(80, 64, 128), ways.IM2COL.forward),
        forward("im2col over more pixels", of(20, 32, 64), ways.IM2COL.forward),
        input_gradient("im2col of the spread gradient", of(20, 128, 256, stride=2), spread),
        input_gradient("im2col transposed", of(40, 128, 128, stride=2), ways.COL2IM.input_gradient),
        forward("a product a tap", of(20, 128, 128), ways.TAPS.forward),
        forward("a product a tap", of(10, 96, 208), ways.TAPS.forward),
        forward("a product a group", of(40, 128, 128, groups=32), product_a_group),
        training("a product a group", "shufflenet_v1_g3", images, batched),
        training("one block of groups", "shufflenet_v1_g3", images, one_block),
        input_gradient("blocks in a loop", of(28, 256, 256, groups=32), in_a_loop),
        kernel_gradient("four rows at a time", of(40, 144, 144, groups=144), four_rows),
        kernel_gradient("1x1 as one product", of(40, 64, 256, 1), whole_product),
        forward("stem by space-to-depth", of(160, 3, 64, 7, 2), space_to_depth),
        forward("stem by im2col", of(160, 3, 64, 7, 2), ways.IM2COL.forward),
        *(folding(model, images) for model in FOLDED),
    ]


def main() -> None:
    """Print a line a trial."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=positive, default=16, help="images; default: %(default)s")
    parser.add_argument(
        "--image-size", type=positive, default=160, help="of whole networks, in pixels; default: %(default)s"
    )
    parser.add_argument("--repeats", type=positive, default=9, help="turns; default: %(default)s")
    parser.add_argument(
        "--only", type=pattern, default="", help="trials whose name begins as this regular expression says"
    )
    arguments = parser.parse_args()
    chosen = [trial for trial in trials(arguments.batch, arguments.image_size) if arguments.only.match(trial.name)]
    if not chosen:
        parser.error(f"argument --only: {arguments.only.pattern!r} matches the beginning of no trial's name")
    start_again_with_huge_pages()  # as `train` does
    compiled(jnp.sin, (1.0,))  # or the first trial's would count what XLA does once
    print(f"{'':52}{'used':>10}{'tried':>10}{'ratio':>8}{'compiled':>10}{'error':>9}")
    for trial in chosen:
        print(f"{trial.name:52}{measured(trial, arguments.repeats)}", flush=True)


def measured(trial: Trial, repeats: int) -> str:
    """The numbers of its line."""
    arrays = trial.arrays()
    used, used_seconds = compiled(trial.used, arrays)
    with trial.trying:
        tried, tried_seconds = compiled(trial.tried, arrays)
    error = relative_error(used(*arrays), tried(*arrays))
    times = []
    for number in range(repeats):
        pair = [milliseconds(function, arrays) for function in ((used, tried), (tried, used))[number % 2]]
        times.append(pair[:: (1, -1)[number % 2]])
    ratio = statistics.median(b / a for a, b in times)
    a, b = (statistics.median(column) for column in zip(*times, strict=True))
    return f"{a:10.2f}{b:10.2f}{ratio:8.2f}{tried_seconds / used_seconds:10.2f}{error:9.0e}"


def compiled(function: Callable[..., Any], arrays: tuple[Any, ...]) -> tuple[Callable[..., Any], float]:
    """A program, and the seconds that it took to make it."""
    jax.clear_caches()  # of parts that were traced as they are without the trial
    start = time.perf_counter()
    program = jax.jit(lambda *arrays: function(*arrays)).lower(*arrays).compile()
    return program, time.perf_counter() - start


def relative_error(a: Any, b: Any) -> float:
    """The largest difference by the largest number."""
    differences = jax.tree.map(lambda x, y: jnp.abs(x - y).max(), a, b)
    return float(max(jax.tree.leaves(differences)) / max(jnp.abs(leaf).max() for leaf in jax.tree.leaves(a)))


def milliseconds(function: Callable[..., Any], arrays: tuple[Any, ...]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function(*arrays))
    return 1e3 * (time.perf_counter() - start)


if __name__ == "__main__":
    main()
