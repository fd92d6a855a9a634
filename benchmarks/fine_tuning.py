"""Fine-tuning beside training from scratch: held-out accuracy against seconds, as a picture.

    python benchmarks/fine_tuning.py FOLDER PICTURE.png [--pictures 60 40] [--image-size 96] [--scratch-epochs 18]

Trains EfficientNet-Lite0 by each of `configs/flowers/` on the first pictures of each class of FOLDER, which holds
`train/` and `val/` with a folder a class each, and by the last of them once more from scratch. Seconds are those from
the start of the command to each evaluation, compilation included.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from flaxcnn.data.folder import IMAGE_SUFFIXES

SCRATCH = ["--model.weights", "None", "--optimizer.trainable", "--optimizer.factors", "--train.epochs"]
# Name, config, colour (Okabe and Ito's).
RUNS = (
    ("a new head on a frozen backbone", "new_head", "#009E73"),
    ("the last layers", "last_layers", "#E69F00"),
    ("a new head, then everything", "everything", "#0072B2"),
    ("everything from scratch", "everything", "#D55E00"),
)


def main() -> None:
    """Print each run's accuracies, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--pictures", type=int, nargs=2, default=(60, 40), help="of each class, to train and to test")
    parser.add_argument("--image-size", default="96")
    parser.add_argument("--scratch-epochs", default="18")
    options = parser.parse_args()
    curves = {}
    with tempfile.TemporaryDirectory() as few:
        for split, number in zip(("train", "val"), options.pictures, strict=True):
            link_first(options.folder / split, Path(few, split), number)
        for name, config, _ in RUNS:
            words = ["--config", f"configs/flowers/{config}.py", "--data.path", few]
            words += ["--data.image_size", options.image_size]
            curves[name] = train([*words, *SCRATCH, options.scratch_epochs] if "scratch" in name else words)
            print(f"{name}: " + "  ".join(f"{seconds:.0f} s {top1:.1%}" for seconds, top1 in curves[name]), flush=True)
            draw(curves, options.picture)


def link_first(source: Path, target: Path, number: int) -> None:
    """A folder a class, of links to the first so many of its pictures by name."""
    for folder in sorted(path for path in source.iterdir() if path.is_dir()):
        pictures = sorted(path for path in folder.iterdir() if path.name.lower().endswith(IMAGE_SUFFIXES))
        if len(pictures) < number:
            raise SystemExit(f"{folder} has {len(pictures)} pictures, not {number}: ask for fewer with --pictures")
        (target / folder.name).mkdir(parents=True)
        for picture in pictures[:number]:
            (target / folder.name / picture.name).symlink_to(picture.resolve())


def train(words: list[str]) -> list[tuple[float, float]]:
    """Train by the command; seconds since its start and accuracy of each evaluation."""
    curve: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as workdir:
        metrics, began = Path(workdir) / "metrics.jsonl", time.perf_counter()
        command = [sys.executable, "scripts/train.py", *words, "--workdir", workdir, "--train.report", "False"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        running = True
        while running:
            running = process.poll() is None
            time.sleep(0.1)
            lines = metrics.read_text().splitlines() if metrics.exists() else []
            evaluations = [json.loads(line)["top1"] for line in lines if '"eval"' in line and line.endswith("}")]
            seconds = time.perf_counter() - began
            curve += [(seconds, top1) for top1 in evaluations[len(curve) :]]
        if process.returncode:
            raise SystemExit(process.returncode)
    return curve


def draw(curves: dict[str, list[tuple[float, float]]], path: Path) -> None:
    """Draw accuracy against seconds."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    for name, _, colour in RUNS:
        if name in curves:
            seconds, top1 = zip(*curves[name], strict=True)
            axes.plot(seconds, top1, color=colour, marker="o", markersize=3, label=name)
    axes.set(xlabel="seconds", ylabel="held-out accuracy", xlim=(0, None), ylim=(0, 1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    main()
