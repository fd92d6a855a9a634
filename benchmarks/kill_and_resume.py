"""Kill a training run with -9 again and again, and compare its end with that of a run that was left alone.

    python benchmarks/kill_and_resume.py --kills 50
    python benchmarks/kill_and_resume.py --kills 50 --processes 2      one of the two is killed, the other must end

The moments are random (`--seed`) and spread over the run: while a checkpoint is being written, between two, and
while the process starts. Every time, the run must go on from the last checkpoint that was complete; at the end,
parameters, statistics, optimiser state and records must be those of the other run, bit for bit. Of several processes,
one taken at random is killed, and the others must end by themselves, with a line that says why; while they start, and
still wait for each other, all are killed, as by what started them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

ROOT = Path(__file__).parents[1]
CONFIG = """
from flaxcnn.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config():
    return Config(
        model=ModelConfig({model!r}),
        data=DataConfig(image_size=32, batch_size=64, augment="pad_crop", padding=3),
        optimizer=OptimizerConfig("adam", learning_rate=2e-3),
        train=TrainConfig(epochs={epochs}, log_every=3, save_every=2, keep=2, report=False),
        device="cpu",
    )
"""
STEPS_PER_EPOCH = 22
PATIENCE = 90
"""Seconds in which the others must have noticed that a process is lost; JAX takes 30 where no connection breaks."""
LOST = ("where another process was lost, the same commands go on from the last checkpoint", "another task died")
"""What they must say: the command's line, or JAX's where that notices first and ends the process itself."""


def main() -> int:
    """Print what happened; the exit status says whether the two runs ended alike."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--model", default="lenet", help="lenet, or resnet18 for one with BatchNorm (slower)")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--processes", type=int, default=1, help="of the run, of one device each")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder / "compiled")
        config = folder / "config.py"
        config.write_text(CONFIG.format(model=options.model, epochs=options.epochs))
        Life(config, folder / "alone", options.processes).finish()
        during_save = live_and_die(config, folder / "killed", options)
        found = differences(folder / "alone", folder / "killed")
    print(
        f"{options.model}: {options.kills} kills, {during_save} of them while a checkpoint was being written: "
        + ("; ".join(found) if found else "the same parameters, statistics, optimiser state and records, bit for bit")
    )
    return 1 if found else 0


class Life:
    """The processes of a run, from their start to their end or death."""

    def __init__(self, config: Path, workdir: Path, processes: int):
        self.checkpoints = workdir / "checkpoints"
        self.began_at = self.latest()
        self.logs = [workdir.with_suffix(f".{index}.log") for index in range(processes)]
        port = free_port()
        self.processes = []
        for index, log in enumerate(self.logs):
            words = [sys.executable, "scripts/train.py", "--config", str(config), "--workdir", str(workdir)]
            if processes > 1:
                words += ["--distributed.coordinator", f"localhost:{port}"]
                words += ["--distributed.num_processes", str(processes), "--distributed.process_id", str(index)]
            with log.open("w") as file:
                self.processes.append(subprocess.Popen(words, stdout=file, stderr=file, cwd=ROOT))

    def latest(self) -> int:
        """Step of the last complete checkpoint, 0 if there is none."""
        names = os.listdir(self.checkpoints) if self.checkpoints.exists() else []  # noqa: PTH208, polled: must be fast
        return max((int(name) for name in names if name.isdecimal()), default=0)

    def is_saving(self) -> bool:
        """Whether a checkpoint is being written."""
        names = os.listdir(self.checkpoints) if self.checkpoints.exists() else []  # noqa: PTH208
        return any("orbax-checkpoint-tmp" in name for name in names)

    def wait_for(self, event: Callable[[], bool]) -> None:
        """Return as soon as it happens."""
        while not event():
            if any(process.poll() is not None for process in self.processes):
                self.kill_all()
                raise SystemExit(f"the run ended before it could be killed:\n{self.said()}")
            time.sleep(0.0005)

    def kill_all(self) -> bool:
        """End all without a word. Returns whether a checkpoint was being written."""
        for process in self.processes:
            process.kill()
            process.wait()
        self.check_start()
        return self.is_saving()

    def kill_one(self, victim: int) -> bool:
        """End one without a word, and wait until the others have noticed. Returns as `kill_all` does."""
        self.processes[victim].kill()
        saving = self.is_saving()
        others = [index for index in range(len(self.processes)) if index != victim]
        deadline = time.monotonic() + PATIENCE
        for index in others:
            try:
                self.processes[index].wait(max(deadline - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                self.kill_all()
                raise SystemExit(f"process {index} did not notice that {victim} was lost:\n{self.said()}") from None
        self.kill_all()
        for index in others:
            if not any(line in self.logs[index].read_text() for line in LOST):
                raise SystemExit(f"process {index} did not say that {victim} was lost:\n{self.said()}")
        return saving

    def finish(self) -> None:
        """Let it come to its end."""
        if any(process.wait() for process in self.processes):
            raise SystemExit(f"the run failed:\n{self.said()}")
        self.check_start()

    def said(self) -> str:
        """What the processes wrote."""
        return "\n".join(f"--- process {index}\n{log.read_text()}" for index, log in enumerate(self.logs))

    def check_start(self) -> None:
        """It lost at most what was done since the last checkpoint."""
        text = self.logs[0].read_text()
        if "compiling" in text and self.began_at and f"resuming from step {self.began_at} of" not in text:
            raise SystemExit(f"it did not go on from step {self.began_at}:\n{text}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def live_and_die(config: Path, workdir: Path, options: argparse.Namespace) -> int:
    """Kill a run at moments spread over its length, then let it end. Returns how many kills fell into a save."""
    during_save, startup, moments = 0, 5.0, random.Random(options.seed)
    for number in range(1, options.kills + 1):
        life = Life(config, workdir, options.processes)
        began = time.monotonic()
        kind = ("saving", "between", "starting")[number % 3 - 1]
        if kind == "starting":
            time.sleep(moments.uniform(0, startup))
        else:
            # The last checkpoints before the end are left for the last life.
            target = round((options.epochs * STEPS_PER_EPOCH - 4) * number / (options.kills + 1))
            life.wait_for(lambda: life.latest() > life.began_at)  # noqa: B023
            startup = time.monotonic() - began
            life.wait_for(lambda: life.latest() >= target)  # noqa: B023
            if kind == "saving":
                life.wait_for(life.is_saving)
                time.sleep(moments.uniform(0, 0.02))
            else:
                time.sleep(moments.uniform(0, 0.2))
        lived = time.monotonic() - began
        victim = moments.randrange(options.processes)
        saving = life.kill_all() if kind == "starting" else life.kill_one(victim)
        during_save += saving
        died = time.monotonic() - began - lived
        print(
            f"kill {number:2}: {kind}, after {lived:4.1f} s, at step {life.latest()} or later"
            + (", a checkpoint half written" if saving else "")
            + (f"; process {victim}, the others ended after {died:.1f} s" if options.processes > 1 else ""),
            flush=True,
        )
    Life(config, workdir, options.processes).finish()
    return during_save


def differences(one: Path, other: Path) -> list[str]:
    """What differs between the ends of two runs, but for their speed.

    Args:
        one: a run's folder.
        other: another's.

    Returns:
        A phrase for each difference; empty if the runs ended alike.
    """
    found = []
    first, second = final_arrays(one), final_arrays(other)
    if first.keys() != second.keys():
        return [f"different arrays: {sorted(first.keys() ^ second.keys())}"]
    for name, array in first.items():
        if array.dtype != second[name].dtype or array.tobytes() != second[name].tobytes():
            found.append(f"{name} differs")
    if records(one) != records(other):
        found.append("the records differ")
    return found


def final_arrays(workdir: Path) -> dict[str, np.ndarray]:
    """Everything in the last checkpoint by name."""
    step = max(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal())
    folder = workdir.absolute() / "checkpoints" / str(step) / "state"
    checkpointer = ocp.PyTreeCheckpointer()
    # As NumPy arrays, whatever devices they were on.
    saved: Any = checkpointer.metadata(folder).item_metadata
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved.tree)
    state = checkpointer.restore(folder, restore_args=as_numpy)
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def records(workdir: Path) -> list[dict[str, Any]]:
    """The records of a run without their speed."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "images_per_second"} for line in lines]


if __name__ == "__main__":
    sys.exit(main())
