"""Time the convolutions of the library's networks: XLA's operation, `conv_lowering("auto")`, and PyTorch.

    python benchmarks/convolution.py [--batch 16] [--repeats 5] [--only depthwise]

The contestants take turns, so that a change in the machine's load meets all of them. A time is the median in
milliseconds; a ratio is the median of the ratios within a turn, and more than 1 means that "auto" is faster.

The limit is what the machine could do at best, in milliseconds: the larger of the multiply-adds at the rate of its
fastest matrix product, and of the bytes of both operands and the result, each moved once, at the rate at which an
array of so many bytes is doubled in place. Both rates are measured first. A convolution by fewer multiplications
(Winograd's) can pass it.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from argument_types import positive

from flaxcnn.layers.lowering import conv, conv_lowering

DIRECTIONS = ("forward", "input gradient", "kernel gradient")
MIB = 2**20


class Shape(NamedTuple):
    """A convolution as networks have it: square, padded to keep its size up to the stride."""

    name: str
    size: int
    c_in: int
    c_out: int
    kernel: int
    stride: int
    groups: int

    def __str__(self) -> str:
        kernel = f"{self.kernel}x{self.kernel}" + (f"/{self.stride}" if self.stride > 1 else "")
        groups = f" g{self.groups}" if self.groups > 1 else ""
        return f"{self.name}: {self.size}px {self.c_in}-{self.c_out} {kernel}{groups}"

    @property
    def output_size(self) -> int:
        return (self.size - 1) // self.stride + 1

    def operations(self, batch: int) -> int:
        """Multiplications and additions."""
        taps = self.kernel**2 * self.c_in // self.groups
        return 2 * batch * self.output_size**2 * taps * self.c_out

    def bytes(self, batch: int) -> int:
        """Of input, kernel and output, in float32."""
        images = self.size**2 * self.c_in + self.output_size**2 * self.c_out
        return 4 * (batch * images + self.kernel**2 * self.c_in // self.groups * self.c_out)


SHAPES = [
    Shape("depthwise", 112, 32, 32, 3, 1, 32),
    Shape("depthwise", 112, 96, 96, 3, 2, 96),
    Shape("depthwise", 80, 32, 32, 3, 1, 32),
    Shape("depthwise", 56, 144, 144, 3, 1, 144),
    Shape("depthwise", 28, 240, 240, 5, 2, 240),
    Shape("depthwise", 14, 480, 480, 3, 1, 480),
    Shape("depthwise", 14, 672, 672, 5, 1, 672),
    Shape("depthwise", 7, 960, 960, 5, 1, 960),
    Shape("pointwise", 56, 64, 256, 1, 1, 1),
    Shape("pointwise", 56, 256, 512, 1, 2, 1),
    Shape("pointwise", 14, 480, 112, 1, 1, 1),
    Shape("pointwise", 7, 960, 320, 1, 1, 1),
    Shape("grouped pointwise", 28, 240, 60, 1, 1, 3),
    Shape("grouped pointwise", 20, 240, 60, 1, 1, 3),
    Shape("grouped pointwise", 10, 480, 120, 1, 1, 3),
    Shape("grouped pointwise", 10, 120, 480, 1, 1, 3),
    Shape("grouped pointwise", 5, 960, 240, 1, 1, 3),
    Shape("grouped pointwise", 14, 192, 768, 1, 1, 8),
    Shape("grouped", 56, 128, 128, 3, 1, 32),
    Shape("grouped", 56, 256, 256, 3, 2, 32),
    Shape("grouped", 28, 256, 256, 3, 1, 32),
    Shape("grouped", 14, 512, 512, 3, 1, 32),
    Shape("grouped", 7, 1024, 1024, 3, 1, 32),
    Shape("dense", 224, 3, 32, 3, 2, 1),
    Shape("dense", 224, 3, 64, 7, 2, 1),
    Shape("dense", 224, 3, 64, 11, 4, 1),
    Shape("dense", 56, 64, 64, 3, 1, 1),
    Shape("dense", 56, 128, 128, 3, 2, 1),
    Shape("dense", 40, 64, 64, 3, 1, 1),
    Shape("dense", 40, 64, 192, 3, 1, 1),
    Shape("dense", 20, 128, 128, 3, 1, 1),
    Shape("dense", 40, 128, 128, 3, 2, 1),
    Shape("dense", 10, 256, 256, 3, 1, 1),
    Shape("dense", 5, 512, 512, 3, 1, 1),
    Shape("dense", 7, 512, 512, 3, 1, 1),
    Shape("dense", 2, 256, 256, 3, 1, 1),
    Shape("dense", 10, 512, 512, 3, 1, 1),
    Shape("dense", 80, 64, 128, 3, 1, 1),
    Shape("dense", 160, 3, 64, 7, 2, 1),
    Shape("dense", 160, 3, 32, 3, 2, 1),
    Shape("dense", 14, 256, 256, 3, 1, 1),
]


def jax_runs(shape: Shape, batch: int, mode: Literal["xla", "auto"]) -> list[Callable[[], object]]:
    """One function a direction, compiled."""
    padding = (shape.kernel - 1) // 2
    options = {"strides": (shape.stride,) * 2, "padding": ((padding, padding),) * 2, "groups": shape.groups}
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (batch, shape.size, shape.size, shape.c_in))
    kernel = jax.random.normal(keys[1], (shape.kernel, shape.kernel, shape.c_in // shape.groups, shape.c_out))
    y = jax.random.normal(keys[2], jax.eval_shape(partial(conv, **options), x, kernel).shape)

    def input_gradient(kernel: jax.Array, y: jax.Array) -> jax.Array:
        return jax.vjp(lambda x: conv(x, kernel, **options), jnp.zeros_like(x))[1](y)[0]

    def kernel_gradient(x: jax.Array, y: jax.Array) -> jax.Array:
        return jax.vjp(lambda kernel: conv(x, kernel, **options), jnp.zeros_like(kernel))[1](y)[0]

    def run(function: Callable, *operands: jax.Array) -> Callable[[], object]:
        compiled = jax.jit(function).lower(*operands).compile()
        return lambda: jax.block_until_ready(compiled(*operands))

    with conv_lowering(mode):
        return [
            run(partial(conv, **options), x, kernel),
            run(input_gradient, kernel, y),
            run(kernel_gradient, x, y),
        ]


def torch_runs(shape: Shape, batch: int) -> list[Callable[[], object]]:
    """One function a direction; channels last, PyTorch's faster layout for most of these."""
    import torch

    def random(*size: int) -> torch.Tensor:
        return torch.randn(size).contiguous(memory_format=torch.channels_last)

    x = random(batch, shape.c_in, shape.size, shape.size)
    weight = random(shape.c_out, shape.c_in // shape.groups, shape.kernel, shape.kernel)
    padding = (shape.kernel - 1) // 2
    forward = partial(torch.nn.functional.conv2d, stride=shape.stride, padding=padding, groups=shape.groups)
    y = torch.randn_like(forward(x, weight))

    def backward(*wanted: bool) -> object:
        window = [shape.stride] * 2, [padding] * 2, [1, 1], False, [0, 0], shape.groups
        return torch.ops.aten.convolution_backward(y, x, weight, None, *window, [*wanted, False])

    return [lambda: forward(x, weight), partial(backward, True, False), partial(backward, False, True)]


def take_turns(runs: dict[str, Callable[[], object]], repeats: int, seconds: float) -> dict[str, list[float]]:
    """Milliseconds of each contestant in each turn, after one turn that does not count."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    begin = time.perf_counter()
    for turn in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if turn > 0:
                times[name].append(1e3 * (time.perf_counter() - start))
        if turn > 0 and time.perf_counter() - begin > seconds:
            break
    return times


class Machine:
    """What this machine does at best."""

    def __init__(self, repeats: int = 20):
        self._repeats = repeats
        self._bytes_per_second: dict[int, float] = {}
        a = jax.random.normal(jax.random.key(0), (2048, 2048))
        product = jax.jit(jnp.matmul)
        seconds = [self._best(lambda: jax.block_until_ready(product(a, a)))]
        if importlib.util.find_spec("torch") is not None:
            import torch

            b = torch.randn(2048, 2048)
            seconds.append(self._best(lambda: b @ b))
        self.operations_per_second = 2 * 2048**3 / min(seconds)

    def bytes_per_second(self, size: int) -> float:
        """Read and written, of an array of about so many bytes that is doubled in place."""
        mib = max(1, round(size / MIB))
        if mib not in self._bytes_per_second:
            array = jnp.ones((mib * MIB // 4,))
            double = jax.jit(lambda x: 2 * x, donate_argnums=0)

            def run() -> None:
                nonlocal array
                array = jax.block_until_ready(double(array))

            self._bytes_per_second[mib] = 2 * mib * MIB / self._best(run)
        return self._bytes_per_second[mib]

    def limit(self, shape: Shape, batch: int) -> float:
        """Milliseconds below which no direction of a convolution comes."""
        size = shape.bytes(batch)
        return 1e3 * max(shape.operations(batch) / self.operations_per_second, size / self.bytes_per_second(size))

    def _best(self, run: Callable[[], object]) -> float:
        """Seconds; the first run does not count."""
        run()
        seconds = []
        for _ in range(self._repeats):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
        return min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=positive, default=16, help="images; default: %(default)s")
    parser.add_argument("--repeats", type=positive, default=5, help="turns; default: %(default)s")
    parser.add_argument(
        "--seconds", type=float, default=10, help="start no further turn of a row after this; default: %(default)s"
    )
    parser.add_argument("--only", default="", help="rows whose name starts with this")
    arguments = parser.parse_args()
    shapes = [shape for shape in SHAPES if shape.name.startswith(arguments.only)]
    if not shapes:
        names = ", ".join(dict.fromkeys(shape.name for shape in SHAPES))
        parser.error(f"argument --only: no row's name starts with {arguments.only!r}; there are {names}")

    with_torch = importlib.util.find_spec("torch") is not None
    contestants = ["xla", "auto", *(["torch"] if with_torch else [])]
    ratios = [f"{name}/auto" for name in contestants if name != "auto"]
    machine = Machine()
    rates = ", ".join(f"{machine.bytes_per_second(size * MIB) / 1e9:.0f} GB/s over {size} MiB" for size in (8, 64, 512))
    print(f"matrix product {machine.operations_per_second / 1e9:.0f} GFLOP/s, in place {rates}\n")
    print(f"{'':44}{'':16}" + "".join(f"{title:>12}" for title in [*contestants, *ratios, "limit"]))
    for shape in shapes:
        runs = {
            "xla": jax_runs(shape, arguments.batch, "xla"),
            "auto": jax_runs(shape, arguments.batch, "auto"),
        }
        if with_torch:
            runs["torch"] = torch_runs(shape, arguments.batch)
        for direction, *functions in zip(DIRECTIONS, *runs.values(), strict=True):
            times = take_turns(dict(zip(runs, functions, strict=True)), arguments.repeats, arguments.seconds)
            line = "".join(f"{statistics.median(times[name]):12.2f}" for name in contestants)
            for name in contestants:
                if name != "auto":
                    line += f"{statistics.median(map(float.__truediv__, times[name], times['auto'])):12.2f}"
            print(f"{shape!s:44}{direction:16}{line}{machine.limit(shape, arguments.batch):12.2f}", flush=True)


if __name__ == "__main__":
    main()
