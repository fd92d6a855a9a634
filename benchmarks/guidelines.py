"""Time the first two guidelines of ShuffleNetV2 on this machine: networks of equal multiply-adds, unequal in time.

    python benchmarks/guidelines.py

Every network is a chain of ten 1x1 convolutions with ReLU over 56x56 pixels, batch 8. All are compiled before the first
measurement, then take turns; a time is the median of the turns, in milliseconds a batch, and a ratio is the median of
the ratios to the first network within a turn.

- First guideline: from c1 channels to c2 and back, c1 : c2 from 1 : 1 to 1 : 16.
- Second: more groups, and as many more channels as keep the multiply-adds.

Reference: Ma et al., ShuffleNet V2, arXiv 1807.11164, sections 2 and 4.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from flaxcnn.layers import Conv

SIZE, BATCH, PAIRS = 56, 8, 5
"""Pixels of a side, images, and pairs of convolutions in a network."""
# c1 and c2 of each pair of 1x1 convolutions; their product is 16,384.
RATIOS = {"1 : 1": (128, 128), "1 : 4": (64, 256), "1 : 16": (32, 512)}
# Channels by groups; channels^2 / groups is 16,384.
GROUPS = {1: 128, 4: 256, 16: 512}


class Pointwise(nn.Module):
    """Pairs of 1x1 convolutions from `channels` to `inner` and back, each with ReLU."""

    channels: int
    inner: int
    groups: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(n, h, w, channels) to as many."""
        conv = partial(Conv, kernel_size=1, use_bias=False, feature_group_count=self.groups)
        for _ in range(PAIRS):
            x = nn.relu(conv(self.inner)(x))
            x = nn.relu(conv(self.channels)(x))
        return x


def main() -> None:
    """Measure and print a table a guideline."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=15)
    turns = parser.parse_args().turns
    by_ratio = {name: Pointwise(*channels) for name, channels in RATIOS.items()}
    by_groups = {str(groups): Pointwise(channels, channels, groups) for groups, channels in GROUPS.items()}
    report("c1 : c2", by_ratio, turns)
    report("groups", by_groups, turns)


def report(what: str, networks: dict[str, Pointwise], turns: int) -> None:
    """Time the networks in turns and print their table."""
    runs = {name: compiled(network) for name, network in networks.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(turns):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - began)
    first, *_ = times.values()
    print(
        f"\n| {what} | channels | million multiply-adds | memory accesses, M | ms | ratio |\n|---|--:|--:|--:|--:|--:|"
    )
    for name, network in networks.items():
        ratio = statistics.median(own / base for own, base in zip(times[name], first, strict=True))
        macs, accesses = (BATCH * value / 1e6 for value in counts(network))
        channels = f"{network.channels}, {network.inner}"
        milliseconds = 1000 * statistics.median(times[name])
        print(f"| {name} | {channels} | {macs:,.0f} | {accesses:.1f} | {milliseconds:.1f} | {ratio:.2f} |", flush=True)


def counts(network: Pointwise) -> tuple[int, int]:
    """Multiply-adds and numbers read and written, of one image; the paper's hw(c1 + c2) + c1 c2 / g a convolution."""
    pixels, c1, c2 = SIZE * SIZE, network.channels, network.inner
    weights = c1 * c2 // network.groups
    return 2 * PAIRS * pixels * weights, 2 * PAIRS * (pixels * (c1 + c2) + weights)


def compiled(network: Pointwise) -> Callable[[], Array]:
    """One batch through the network, warm."""
    images = jnp.ones((BATCH, SIZE, SIZE, network.channels))
    variables = jax.jit(network.init)(jax.random.key(0), images)
    apply = jax.jit(network.apply).lower(variables, images).compile()

    def run() -> Array:
        return apply(variables, images).block_until_ready()

    run()
    return run


if __name__ == "__main__":
    main()
