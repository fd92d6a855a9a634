"""Time a training step against devices, parameters, batch and image size, and draw what was found.

    python benchmarks/scaling.py PICTURE.png

Weak scaling: as many images a device on 1, 2, 4 and 8 CPU devices, under each arrangement, each number of devices in a
process of its own. The devices share the machine's cores, and one alone uses all of them: what more devices can show
there is what the arrangement itself costs, as the time an image. Then, on one device, steps of networks of more and
more parameters, of larger batches and of larger images.

All steps are compiled and warm before the first measurement, then they take turns; a time is the median over the
rounds. Temporary memory is the compiler's plan for one device. A training step is forward, backward and an SGD update
with momentum.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

ARRANGEMENTS = ("jit", "fsdp", "pmap")
MODELS = ["resnet18", "resnet34", "resnet50", "resnet101"]


class Case(NamedTuple):
    """A training step."""

    devices: int
    arrangement: str
    model: str
    batch_size: int
    image_size: int


class Panels(NamedTuple):
    """The steps of each panel of the picture."""

    weak: list[Case]
    parameters: list[Case]
    batches: list[Case]
    sizes: list[Case]


def panels(models: list[str], counts: list[int]) -> Panels:
    """Weak scaling of the first model; on one device, all models, and the first in larger batches, of larger images."""
    model = models[0]
    return Panels(
        [Case(n, how, model, 8 * n, 64) for n in counts for how in ARRANGEMENTS],
        [Case(1, "jit", each, 8, 64) for each in models],
        [Case(1, "jit", model, n, 64) for n in (4, 8, 16, 32, 64)],
        [Case(1, "jit", model, 8, size) for size in (32, 64, 96, 128, 192)],
    )


def main() -> None:
    """Print a line a step, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--models", nargs="+", default=MODELS, help="the first for all panels; default: %(default)s")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8], help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    workers = {count: start_worker(count) for count in {1, *options.devices}}
    shown = panels(options.models, options.devices)
    cases = list(dict.fromkeys(itertools.chain(*shown)))
    try:
        for case in cases:  # the workers compile side by side
            send(workers[case.devices], case)
        facts = {case: receive(workers[case.devices]) for case in cases}
        times: dict[Case, list[float]] = {case: [] for case in cases}
        for number in range(options.rounds):
            for case in cases if number % 2 else reversed(cases):
                send(workers[case.devices], case)
                times[case].append(receive(workers[case.devices])["milliseconds"])
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()
    found = {case: {**facts[case], "milliseconds": statistics.median(times[case])} for case in cases}
    print("devices  arrangement  model      batch  pixels  parameters   ms a step  ms an image  temporary MB a device")
    for case, fact in found.items():
        print(
            f"{case.devices:7}  {case.arrangement:11}  {case.model:9}  {case.batch_size:5}  {case.image_size:6}  "
            f"{fact['parameters']:10,}  {fact['milliseconds']:10.1f}  {fact['milliseconds'] / case.batch_size:11.2f}  "
            f"{fact['temporary_bytes'] / 1e6:10.1f}"
        )
    draw(found, shown, options.picture)


def start_worker(devices: int) -> subprocess.Popen[str]:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "-c", "from benchmarks import scaling; scaling.serve()"],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        cwd=Path(__file__).resolve().parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def send(worker: subprocess.Popen[str], case: Case) -> None:
    assert worker.stdin
    print(json.dumps(case), file=worker.stdin, flush=True)


def receive(worker: subprocess.Popen[str]) -> dict[str, Any]:
    assert worker.stdout
    answer = worker.stdout.readline()
    if not answer:
        raise SystemExit(f"a process died: {worker.args}")
    return json.loads(answer)


def serve() -> None:
    """Answer on standard output: when first asked for a step with what it takes, then with its time."""
    from flaxcnn.cli.environment import give_cpu_devices_threads
    from flaxcnn.cli.huge_pages import start_again_with_huge_pages

    start_again_with_huge_pages()
    give_cpu_devices_threads()
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    steps: dict[Case, Step] = {}
    for line in sys.stdin:
        case = Case(*json.loads(line))
        if case in steps:
            steps[case].run()  # while the caches fill with its own data
            answer = {"milliseconds": 1000 * steps[case].run()}
        else:
            steps[case] = Step(case)
            answer = steps[case].facts
        print(json.dumps(answer), file=answers, flush=True)


class Step:
    """A compiled training step and its state."""

    def __init__(self, case: Case):
        import jax
        import numpy as np

        from flaxcnn import create_model, optim
        from flaxcnn.train import create_state, make_train_step
        from flaxcnn.train.parallel import DataParallel, FullySharded, PerDevice

        devices = {"jit": DataParallel, "fsdp": FullySharded, "pmap": PerDevice}[case.arrangement]()
        assert devices.device_count == case.devices
        model = create_model(case.model, num_classes=1000, axis_name=devices.axis_name)
        optimizer = optim.sgd(0.01, momentum=0.9, weight_decay=1e-4)
        random = np.random.default_rng(0)
        shape = (case.batch_size, case.image_size, case.image_size, 3)
        images = random.normal(size=shape).astype(np.float32)
        self.batch = devices.put_batch({"image": images, "label": random.integers(1000, size=case.batch_size)})
        variables = jax.jit(lambda x: model.init(jax.random.key(0), x, train=False))(images[:1])
        self.state = devices.put_state(create_state(model, optimizer, variables))
        step = devices.jit_step(make_train_step(model, optimizer, axis_name=devices.axis_name), self.state)
        self.compiled = step.lower(self.state, self.batch).compile()
        self.facts = {
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(self.state.params)),
            "temporary_bytes": self.compiled.memory_analysis().temp_size_in_bytes,
        }
        self.run()

    def run(self) -> float:
        """Make a step; its seconds."""
        import jax

        began = time.perf_counter()
        self.state, _ = self.compiled(self.state, self.batch)
        jax.block_until_ready(self.state)
        return time.perf_counter() - began


def draw(found: dict[Case, dict[str, Any]], shown: Panels, path: Path) -> None:
    """Weak scaling as the time an image, the others as the time of a step, beside what would be in proportion."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.6), dpi=110, layout="constrained")
    weak, parameters, batches, sizes = figure.subplots(1, 4)
    colours = dict(zip(ARRANGEMENTS, ("#0072B2", "#D55E00", "#009E73"), strict=True))  # Okabe and Ito's
    for arrangement, colour in colours.items():
        own = [case for case in shown.weak if case.arrangement == arrangement]
        per_image = [found[case]["milliseconds"] / case.batch_size for case in own]
        weak.plot([case.devices for case in own], per_image, color=colour, marker="o", markersize=4, label=arrangement)
    weak.set(xscale="log", xlabel="CPU devices, 8 images each", ylabel="ms an image", ylim=(0, None))
    weak.minorticks_off()
    counts = sorted({case.devices for case in shown.weak})
    weak.set_xticks(counts, [str(count) for count in counts])
    weak.legend(frameon=False)
    lines = (
        (parameters, shown.parameters, "million parameters", lambda case: found[case]["parameters"] / 1e6),
        (batches, shown.batches, "images a batch", lambda case: case.batch_size),
        (sizes, shown.sizes, "thousand pixels an image", lambda case: case.image_size**2 / 1e3),
    )
    for axes, cases, label, of in lines:
        x, y = [of(case) for case in cases], [found[case]["milliseconds"] for case in cases]
        axes.plot(x, y, color="black", marker="o", markersize=4, label="measured")
        axes.plot(x, [y[-1] * each / x[-1] for each in x], color="#888888", linestyle="--", label="in proportion")
        axes.set(xscale="log", yscale="log", xlabel=label, ylabel="ms a step")
        axes.minorticks_off()
        axes.set_xticks(x, [f"{each:.2g}" for each in x])
        marks = [mark for mark in (20, 50, 100, 200, 500, 1000, 2000) if min(y) <= mark <= max(y)]
        axes.set_yticks(marks, [str(mark) for mark in marks])
        axes.legend(frameon=False)
    for axes in (weak, parameters, batches, sizes):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


if __name__ == "__main__":
    main()
