"""The sums of a first course, with the numbers in their formulas."""

from __future__ import annotations

from collections.abc import Sequence

from flaxcnn import analysis
from flaxcnn.analysis import Cost
from flaxcnn.cli.command_line import run_action
from flaxcnn.config import ConfigError

DESCRIPTION = """Do the sums of a first course on convolutional networks, and show how they are done.

The same for a whole network: summarize --model NAME."""


def main(argv: Sequence[str]) -> int:
    """`arithmetic output_size | receptive_field | separable | bottleneck [--FLAG VALUE ...]`."""
    actions = {
        "output_size": output_size,
        "receptive_field": receptive_field,
        "separable": separable,
        "bottleneck": bottleneck,
    }
    return run_action(actions, argv, prog="arithmetic", description=DESCRIPTION)


def output_size(size: int, kernel: int, stride: int = 1, padding: int = 0) -> int:
    """How many pixels a convolution or a pool leaves.

    Args:
        size: W, pixels of the input along an axis.
        kernel: F, of the window.
        stride: S.
        padding: P, on either side.
    """
    _check(size=size, kernel=kernel, stride=stride)
    _check(0, padding=padding)
    try:
        result = analysis.output_size(size, kernel, stride, padding)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    exact = (size - kernel + 2 * padding) / stride + 1
    rounded = "" if exact == result else f"{exact:g}, rounded down: "
    print("N = (W - F + 2 P) / S + 1")
    print(f"  = ({size} - {kernel} + 2 * {padding}) / {stride} + 1 = {rounded}{result}")
    return 0


def receptive_field(kernels: tuple[int, ...], strides: tuple[int, ...] = ()) -> int:
    """How many pixels a unit behind a chain of layers sees.

    Args:
        kernels: of the layers, the first one first.
        strides: as many; 1 for all if none is given.
    """
    strides = strides or (1,) * len(kernels)
    if len(strides) != len(kernels) or not kernels:
        raise ConfigError(f"--strides must be one a kernel: {len(kernels)} kernels, {len(strides)} strides")
    _check(kernels=min(kernels), strides=min(strides))
    print("F(i) = (F(i + 1) - 1) S + K, from the last layer to the first")
    field = 1
    for number in range(len(kernels), 0, -1):
        kernel, stride = kernels[number - 1], strides[number - 1]
        wider = analysis.receptive_field([(kernel, stride)], field)
        print(f"F({number}) = ({field} - 1) * {stride} + {kernel} = {wider}")
        field = wider
    return 0


def separable(inputs: int, features: int, kernel: int = 3, size: int = 1) -> int:
    """A standard convolution against a depthwise separable one.

    Args:
        inputs: M, channels of the input.
        features: N, channels of the output.
        kernel: K, of the window.
        size: D, height and width of the output.
    """
    _check(inputs=inputs, features=features, kernel=kernel, size=size)
    standard = analysis.conv_cost(inputs, features, kernel, size)
    cheaper = analysis.separable_cost(inputs, features, kernel, size)
    k, m, n, d = kernel, inputs, features, size
    print("                     multiply-adds")
    print(f"standard             K K M N D D = {k} * {k} * {m} * {n} * {d} * {d} = {standard.macs:,}")
    print(f"depthwise separable  K K M D D + M N D D = ({k} * {k} + {n}) * {m} * {d} * {d} = {cheaper.macs:,}")
    _ratio(cheaper, standard)
    print(f"1 / N + 1 / K^2 = {1 / n + 1 / k**2:.4f}")
    return 0


def bottleneck(channels: int, narrow: int, size: int = 1) -> int:
    """ResNet's plain block against its bottleneck, between as many channels.

    Args:
        channels: C, of input and output.
        narrow: B, channels inside the bottleneck.
        size: D, height and width.
    """
    _check(channels=channels, narrow=narrow, size=size)
    plain = analysis.basic_block_cost(channels, size)
    narrower = analysis.bottleneck_cost(channels, narrow, size)
    c, b = channels, narrow
    print("            parameters, and D D times as many multiply-adds")
    print(f"plain       2 (3 3 C C) = 2 * 9 * {c} * {c} = {plain.parameters:,}; MACs {plain.macs:,}")
    print(
        f"bottleneck  C B + 3 3 B B + B C = {c} * {b} + 9 * {b} * {b} + {b} * {c} = {narrower.parameters:,}; "
        f"MACs {narrower.macs:,}"
    )
    _ratio(narrower, plain)
    return 0


def _ratio(cheap: Cost, dear: Cost) -> None:
    part = cheap.macs / dear.macs
    print(f"that is {part:.4f} of it, {1 / part:.1f} times {'fewer' if part < 1 else 'as many'}")


def _check(least: int = 1, **numbers: int) -> None:
    for name, number in numbers.items():
        if number < least:
            raise ConfigError(f"--{name} must be {least} or more, not {number}")
