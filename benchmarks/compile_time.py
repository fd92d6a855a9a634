"""Time the compilation of training steps: flaxcnn's lowerings and XLA's own convolutions, in turns.

    python benchmarks/compile_time.py --models resnet50

Each time is that of a process of its own, of tracing, lowering and compiling, without a cache and without the first
step. Printed are the medians in seconds, and the median of the ratios within a turn: more than 1 means that XLA's own
convolutions compile sooner.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

from argument_types import Names, check_names, positive


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", action=Names, default=["resnet50"], help="default: %(default)s")
    parser.add_argument("--batch", type=positive, default=16, help="images; default: %(default)s")
    parser.add_argument("--image-size", type=positive, default=160, help="pixels; default: %(default)s")
    parser.add_argument("--rounds", type=positive, default=5, help="turns; default: %(default)s")
    parser.add_argument("--worker", choices=["auto", "xla"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(seconds_to_compile(arguments))
        return
    from flaxcnn import list_models

    check_names(parser, "--models", arguments.models, list_models())
    lines = ["| model | flaxcnn, s | by XLA's own, s | ratio |", "|---|--:|--:|--:|"]
    for model in arguments.models:
        turns = [turn(model, number) for number in range(arguments.rounds)]
        ours, theirs = map(statistics.median, zip(*turns, strict=True))
        ratio = statistics.median(a / b for a, b in turns)
        lines.append(f"| {model} | {ours:.1f} | {theirs:.1f} | {ratio:.2f} |")
        print(*lines, sep="\n", flush=True)
        lines = []


def turn(model: str, number: int) -> list[float]:
    """Seconds by flaxcnn and by XLA's own, which take turns in being the first."""
    modes = ["auto", "xla"]
    seconds = {mode: in_a_process(model, mode) for mode in modes[:: (1, -1)[number % 2]]}
    return [seconds[mode] for mode in modes]


def in_a_process(model: str, mode: str) -> float:
    command = [sys.executable, __file__, *sys.argv[1:], "--models", model, "--worker", mode]
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if process.returncode:
        raise SystemExit(f"{model} was not compiled: see above")
    return float(process.stdout.splitlines()[-1])


def seconds_to_compile(arguments: argparse.Namespace) -> float:
    """Of the step that benchmarks/compare.py times."""
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    import jax
    import jax.numpy as jnp

    from flaxcnn import create_model, optim
    from flaxcnn.layers import conv_lowering
    from flaxcnn.train import create_state, make_train_step

    model = create_model(arguments.models[0], num_classes=1000)
    optimizer = optim.sgd(0.01, momentum=0.9, weight_decay=1e-4)
    image = jax.ShapeDtypeStruct((arguments.batch, arguments.image_size, arguments.image_size, 3), jnp.float32)
    batch = {"image": image, "label": jax.ShapeDtypeStruct((arguments.batch,), jnp.int32)}
    state = jax.eval_shape(
        lambda x: create_state(model, optimizer, model.init(jax.random.key(0), x, train=False)), image
    )
    jax.block_until_ready(jnp.zeros(()) + 1)  # the backend's own start is no compilation
    jax.clear_caches()  # of what has been traced for the state
    with conv_lowering(arguments.worker):
        began = time.perf_counter()
        jax.jit(make_train_step(model, optimizer), donate_argnums=0).lower(state, batch).compile()
        return time.perf_counter() - began


if __name__ == "__main__":
    main()
