"""Time whole networks, training and inference: flaxcnn, XLA's own convolutions, PyTorch, `torch.compile`.

    python benchmarks/compare.py --models resnet50 mobilenet_v2 --batch 16 --image-size 160

Each contestant is a process of its own. All are loaded and warm before the first measurement, then they take turns,
so that a change in the machine's load meets all of them. A turn is two steps, of which the second counts; where a
step takes over ten seconds, one. A time is the median in milliseconds a step; a ratio is the median of the ratios
within a turn, and less than 1 means that flaxcnn is faster. flaxcnn asks for huge pages, as its train command does;
with GLIBC_TUNABLES=glibc.malloc.hugetlb=1 in the environment, PyTorch does too. A training step is forward, backward
and an SGD update with momentum, as `make_train_step` and PyTorch's users write it; PyTorch runs in channels-last
layout. Compile seconds include the first step. Memory is the most that the process had, in MiB, and in brackets the
most since its first step, when all had been compiled: as Linux counts it. Behind a ratio of times stand those of both.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from argument_types import Names, check_names, positive

MODELS = [
    "alexnet",
    "vgg11",
    "googlenet",
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "shufflenet_v1_g3",
    "shufflenet_v2_x1_0",
    "efficientnet_b0",
]
FRAMEWORKS = ("flaxcnn", "xla", "torch", "torch-compile")
PHASES = ("inference", "training")

Results = dict[str, dict[str, dict[str, Any]]]
"""What was measured, by phase, model and framework."""
Steps = Callable[[int], float]
"""Seconds of so many steps."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    some_of = "some of {}; default: %(default)s".format
    parser.add_argument("--models", nargs="+", action=Names, default=MODELS, help="default: %(default)s")
    parser.add_argument(
        "--frameworks", nargs="+", action=Names, default=["flaxcnn", "torch"], help=some_of(", ".join(FRAMEWORKS))
    )
    parser.add_argument("--phases", nargs="+", action=Names, default=PHASES, help="default: %(default)s")
    parser.add_argument("--batch", type=positive, default=16, help="images; default: %(default)s")
    parser.add_argument("--image-size", type=positive, default=160, help="pixels; default: %(default)s")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="default: %(default)s")
    parser.add_argument("--rounds", type=positive, default=9, help="turns of each contestant; default: %(default)s")
    parser.add_argument(
        "--seconds",
        type=float,
        default=60,
        help="start no turn of a model after these, but three; default: %(default)s",
    )
    parser.add_argument("--peak-tflops", type=float, help="of the device: adds the share of it that is used")
    parser.add_argument("--json", type=Path, help="write every time to this file; it keeps other models'")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        serve(arguments)
    else:
        check(parser, arguments)
        compare(arguments)


def check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """End the program with a line about what would end it only when the first measurements are done."""
    from flaxcnn import list_models

    check_names(parser, "--models", arguments.models, list_models())
    check_names(parser, "--frameworks", arguments.frameworks, FRAMEWORKS)
    check_names(parser, "--phases", arguments.phases, PHASES)
    if find_spec("torch") is None and {"torch", "torch-compile"} & set(arguments.frameworks):
        parser.error("argument --frameworks: PyTorch is not installed: pip install 'flaxcnn[test]'")
    if arguments.json:
        try:
            arguments.json.open("a").close()
            read(arguments.json)
        except (OSError, ValueError) as error:
            parser.error(f"argument --json: a file of measurements, or a new one, is wanted: {error}")


def compare(arguments: argparse.Namespace) -> None:
    """Measure model by model, and print a Markdown table a phase."""
    results: Results = {phase: {} for phase in arguments.phases}
    for model in arguments.models:
        for phase in arguments.phases:
            row = results[phase][model] = measure(model, phase, arguments)
            print(phase, line(model, row, arguments), file=sys.stderr, flush=True)
            if arguments.json:
                write(arguments.json, results)
    for phase, rows in results.items():
        print(f"\n{phase}, batch {arguments.batch}, {arguments.image_size} px, {arguments.dtype}\n")
        print(table(rows, arguments))


def read(path: Path) -> Results:
    """What was kept."""
    return json.loads(path.read_text() or "{}")


def write(path: Path, results: Results) -> None:
    """Keep what was measured, a model a line, and what the file has of others."""
    kept = read(path)
    results = {phase: kept.get(phase, {}) | results.get(phase, {}) for phase in kept | results}
    phases = [
        f"{json.dumps(phase)}: {{\n"
        + ",\n".join(f"{json.dumps(model)}: {json.dumps(rows[model])}" for model in rows)
        + "\n}"
        for phase, rows in results.items()
    ]
    path.write_text("{\n" + ",\n".join(phases) + "\n}\n")


def measure(model: str, phase: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Every framework's times of one model, taken in turns."""
    workers = {framework: start_worker(framework, model, phase) for framework in arguments.frameworks}
    try:
        # One after another: what is compiled at the same time is not timed well.
        rows = {framework: ask(worker, "prepare") for framework, worker in workers.items()}
        for row in rows.values():
            row["milliseconds"] = []
        began = time.perf_counter()
        for number in range(arguments.rounds):
            for framework in workers if number % 2 else reversed(workers):
                answer = ask(workers[framework], "run")
                rows[framework]["milliseconds"].append(answer["milliseconds"])
                rows[framework]["steps_mib"] = answer["peak_mib"]
            if time.perf_counter() - began > arguments.seconds and number >= 2:
                break
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()
    return rows


def start_worker(framework: str, model: str, phase: str) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, *sys.argv[1:], "--models", model, "--phases", phase, "--worker", framework]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(worker: subprocess.Popen[str], question: str) -> dict[str, Any]:
    assert worker.stdin and worker.stdout
    print(question, file=worker.stdin, flush=True)
    answer = worker.stdout.readline()
    if not answer:
        raise SystemExit(f"the process died: {worker.args}")
    return json.loads(answer)


def over(row: dict[str, Any], framework: str) -> tuple[float, float, float]:
    """flaxcnn's time over another's, its memory, and its memory since the first step."""
    ours, theirs = row["flaxcnn"], row[framework]
    times = [a / b for a, b in zip(ours["milliseconds"], theirs["milliseconds"], strict=True)]
    peaks = [max(result["peak_mib"], result["steps_mib"]) for result in (ours, theirs)]
    return statistics.median(times), peaks[0] / peaks[1], ours["steps_mib"] / theirs["steps_mib"]


def ratios(time: float, memory: float, steps_memory: float) -> str:
    """A cell of the table."""
    return f"{time:.2f}, {memory:.2f} ({steps_memory:.2f})"


def line(model: str, row: dict[str, Any], arguments: argparse.Namespace) -> str:
    """A row of the Markdown table."""
    cells = [model]
    for framework in arguments.frameworks:
        result = row[framework]
        milliseconds = statistics.median(result["milliseconds"])
        steps, seconds = result["steps_mib"], result["compile_seconds"]
        step = f"{milliseconds:.{0 if milliseconds >= 100 else 1}f}"
        cell = f"{step} ms, {seconds:.0f} s, {max(result['peak_mib'], steps):.0f} ({steps:.0f}) MiB"
        if arguments.peak_tflops and "flops" in result:
            cell += f", {result['flops'] / milliseconds / 1e9 / arguments.peak_tflops:.0%}"
        cells.append(cell)
    if "flaxcnn" in row:
        cells += [ratios(*over(row, other)) for other in arguments.frameworks if other != "flaxcnn"]
    return "| " + " | ".join(cells) + " |"


def table(rows: dict[str, dict[str, Any]], arguments: argparse.Namespace) -> str:
    """A row a model, and the geometric means of the ratios."""
    others = [framework for framework in arguments.frameworks if framework != "flaxcnn"]
    header = ["model", *(f"{framework}: a step, compilation, memory" for framework in arguments.frameworks)]
    last = ["geometric mean"] + [""] * len(arguments.frameworks)
    if "flaxcnn" in arguments.frameworks:
        header += [f"to {other}: time, memory" for other in others]
        for other in others:
            last.append(
                ratios(*map(statistics.geometric_mean, zip(*(over(row, other) for row in rows.values()), strict=True)))
            )
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    lines += [line(model, row, arguments) for model, row in rows.items()]
    return "\n".join([*lines, "| " + " | ".join(last) + " |"])


def serve(arguments: argparse.Namespace) -> None:
    """Answer the parent's questions on standard output."""
    if arguments.worker in ("flaxcnn", "xla"):
        from flaxcnn.cli.huge_pages import start_again_with_huge_pages

        start_again_with_huge_pages()
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    prepare = {
        "flaxcnn": prepare_flaxcnn,
        "xla": prepare_flaxcnn,
        "torch": prepare_torch,
        "torch-compile": prepare_torch,
    }
    run: Steps | None = None
    slow = False
    for question in sys.stdin:
        if question.strip() == "prepare":
            run, answer = prepare[arguments.worker](arguments)
            answer["peak_mib"] = peak_mib()
            Path("/proc/self/clear_refs").write_text("5")  # the peak, from here on
            slow = run(1) > 10  # it warms up by itself
            if not slow:
                run(1)
        else:
            assert run
            if not slow:
                run(1)  # while the caches fill with its own data, and the threads of others stop to spin
            answer = {"milliseconds": round(1000 * run(1), 2), "peak_mib": peak_mib()}
        print(json.dumps(answer), file=answers, flush=True)


def peak_mib() -> float:
    """The most memory that this process had since the count began."""
    return round(int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) / 1024, 1)


def prepare_flaxcnn(arguments: argparse.Namespace) -> tuple[Steps, dict[str, Any]]:
    """Compile a step and make one; "xla" is flaxcnn with XLA's own convolutions."""
    import jax
    import jax.numpy as jnp

    from flaxcnn import create_model, optim
    from flaxcnn.analysis import cost
    from flaxcnn.cli.environment import return_freed_memory
    from flaxcnn.layers import conv_lowering
    from flaxcnn.train import create_state, make_train_step

    training = arguments.phases == ["training"]
    model = create_model(arguments.models[0], num_classes=1000, dtype=jnp.dtype(arguments.dtype))
    optimizer = optim.sgd(0.01, momentum=0.9, weight_decay=1e-4)
    size = arguments.image_size
    image = jax.random.normal(jax.random.key(0), (arguments.batch, size, size, 3))
    label = jax.random.randint(jax.random.key(1), (arguments.batch,), 0, 1000)
    batch = {"image": image, "label": label}

    def initial(x: Any) -> Any:
        variables = model.init(jax.random.key(0), x, train=False)
        return create_state(model, optimizer, variables) if training else variables

    state = jax.jit(initial)(image[:1])
    return_freed_memory()
    with conv_lowering("xla" if arguments.worker == "xla" else "auto"):
        began = time.perf_counter()
        if training:
            step = jax.jit(make_train_step(model, optimizer), donate_argnums=0).lower(state, batch).compile()
        else:
            step = jax.jit(lambda v, x: model.apply(v, x, train=False)).lower(state, image).compile()

    def run(steps: int) -> float:
        nonlocal state
        began = time.perf_counter()
        for _ in range(steps):
            if training:
                state, _ = step(state, batch)
                jax.block_until_ready(state)
            else:
                jax.block_until_ready(step(state, image))
        return time.perf_counter() - began

    return_freed_memory()
    run(1)
    seconds = time.perf_counter() - began
    flops = 2 * cost(model, image_size=size).macs * arguments.batch * (3 if training else 1)
    return run, {"compile_seconds": round(seconds, 2), "flops": flops}


def prepare_torch(arguments: argparse.Namespace) -> tuple[Steps, dict[str, Any]]:
    """The network that the parity tests take for the reference, in channels-last layout on all cores."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import torch

    from tests.references import torch_reference

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    training = arguments.phases == ["training"]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, arguments.dtype)
    model = torch_reference(arguments.models[0]).to(device).train(training)
    model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    size = arguments.image_size
    image = torch.randn(arguments.batch, 3, size, size, device=device).to(memory_format=torch.channels_last)
    label = torch.randint(1000, (arguments.batch,), device=device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    autocast = torch.autocast(device, dtype, enabled=dtype != torch.float32)
    network = torch.compile(model) if arguments.worker == "torch-compile" else model

    def train_step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            outputs = network(image)
            logits, *aux = outputs if isinstance(outputs, tuple) else (outputs,)
            loss = torch.nn.functional.cross_entropy(logits, label)
            for head in aux:
                loss = loss + 0.3 * torch.nn.functional.cross_entropy(head, label)
        loss.backward()
        optimizer.step()

    def infer() -> None:
        with torch.inference_mode(), autocast:
            network(image)

    def run(steps: int) -> float:
        began = time.perf_counter()
        for _ in range(steps):
            train_step() if training else infer()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    return run, {"compile_seconds": round(run(1), 2)}


if __name__ == "__main__":
    main()
