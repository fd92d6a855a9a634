"""Train one network of every family on the embedded digits by one recipe, and write docs/results.md and its Chinese.

    python benchmarks/results_table.py

Every measurement is kept in a file of runs/results/, and the same command goes on from there. `--phases train` only
trains; `--phases time` only measures the time of an epoch, which wants the machine for itself.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import jax

from flaxcnn.build import build, build_batches, build_devices, build_step, initial_state
from flaxcnn.cli.command_line import load_config
from flaxcnn.cli.environment import set_up_jax
from flaxcnn.cli.huge_pages import start_again_with_huge_pages
from flaxcnn.config import Config

MODELS = [
    "lenet",
    "alexnet_half",
    "vgg11_bn",
    "googlenet",
    "resnet18",
    "resnext50_32x4d",
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "shufflenet_v1_g3",
    "shufflenet_v2_x1_0",
    "efficientnet_b0",
    "efficientnet_lite0",
]
ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "digits.py"
RESULTS = ROOT / "runs" / "results"
WARM_UP, TIMED = 3, 20
"""Updates before the measurement, and in it."""


def main() -> None:
    """Measure what is not known yet, and write the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, metavar="NAME", help="those to measure")
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=list(PHASES))
    options = parser.parse_args()
    start_again_with_huge_pages()
    set_up_jax("cpu")
    for phase in options.phases:
        for name in options.models:
            file = RESULTS / f"{name}.{phase}.json"
            if not file.exists():
                result = PHASES[phase](name)
                RESULTS.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(result) + "\n")
                print(f"{name}: {result}", flush=True)
    missing = [
        f"{name}.{phase}" for name in MODELS for phase in PHASES if not (RESULTS / f"{name}.{phase}.json").exists()
    ]
    if missing:
        print(f"not measured yet, so no page is written: {', '.join(missing)}")
    else:
        write_pages()


def train(name: str) -> dict[str, float]:
    """Train by the command; its last evaluation."""
    with tempfile.TemporaryDirectory() as workdir:
        command = [sys.executable, "scripts/train.py", "--config", str(CONFIG), "--model.name", name]
        # One evaluation and one checkpoint, which do not change the training.
        command += ["--device", "cpu", "--workdir", workdir, "--train.eval_every", str(config(name).train.epochs)]
        subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        *_, last = map(json.loads, (Path(workdir) / "metrics.jsonl").read_text().splitlines())
    return {"top1": last["top1"], "loss": last["loss"]}


def time_an_epoch(name: str) -> dict[str, float]:
    """The seconds of an epoch: of its updates, batches loaded meanwhile, without compilation and evaluation."""
    settings = config(name)
    experiment, devices = build(settings), build_devices(settings)
    state = devices.put_state(initial_state(settings, experiment))
    batches = build_batches(settings, experiment)
    batch = devices.put_batch(next(batches))
    step = devices.jit_step(build_step(settings, experiment, devices), state).lower(state, batch).compile()
    times = []
    for _ in range(WARM_UP + TIMED):
        began = time.perf_counter()
        state, metrics = step(state, batch)
        batch = devices.put_batch(next(batches))
        jax.block_until_ready((state, metrics))
        times.append(time.perf_counter() - began)
    batches.close()
    return {"seconds": statistics.median(times[WARM_UP:]) * experiment.schedule.steps_per_epoch}


PHASES = {"train": train, "time": time_an_epoch}
"""What is measured of each model, and is kept in a file of its own."""


def config(name: str) -> Config:
    """The recipe, for a model."""
    recipe = load_config(CONFIG)
    return replace(recipe, model=replace(recipe.model, name=name), device="cpu")


def write_pages(): ...


if __name__ == "__main__":
    main()
