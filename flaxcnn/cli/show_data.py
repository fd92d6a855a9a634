"""Show what the network sees in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flaxcnn import data
from flaxcnn.build import build_model, build_preprocessing, build_sources, build_train_transform
from flaxcnn.cli.command_line import Parser, read_config
from flaxcnn.config import Config, ConfigError
from flaxcnn.data.check import class_counts
from flaxcnn.data.folder import skipped_lines
from flaxcnn.data.statistics import channel_statistics
from flaxcnn.data.transforms import to_pixels
from flaxcnn.visual.samples import samples_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DESCRIPTION = """Show what the network sees in training: a picture of augmented samples with their labels and of the
class balance, and the mean and the deviation of each channel.

--out FILE.png names the picture (data.png), --images N how many samples it has (48)."""
_COLUMNS = 8


def main(argv: Sequence[str]) -> int:
    """`show_data --config FILE [--out FILE.png] [--images N] [--section.field VALUE ...]`."""
    own = Parser("show_data", add_help=False)
    own.add_argument("--out", default="data.png")
    own.add_argument("--images", type=int, default=48)
    known, rest = own.parse_known_args(argv)
    config, _ = read_config(rest, prog="show_data", description=DESCRIPTION)
    if known.images < 1:
        raise ConfigError(f"--images must be 1 or more, not {known.images}")
    if not known.out.lower().endswith(".png"):
        raise ConfigError(f"--out must end in .png: {known.out}")
    if not Path(known.out).parent.is_dir():
        raise ConfigError(f"--out: there is no folder {Path(known.out).parent}")
    train, val = build_sources(config)
    model = build_model(config, len(train.class_names))
    transform, preprocessing = build_train_transform(config, model), build_preprocessing(config, model)
    counts = {split: class_counts(source) for split, source in (("train", train), ("val", val))}
    batch_figure(config, train, transform, counts, images=known.images).savefig(known.out)
    for line in skipped_lines(train, val):
        print(line)
    _print_counts({"train": train, "val": val}, counts)
    mean, std = (np.asarray(values, np.float32) for values in (transform.mean, transform.std))
    if transform.channels == 1:
        mean, std = mean.mean(), std.mean()
    found, deviation, number = channel_statistics(train, preprocessing)
    # Back from the normalised pixels to those in [0, 1].
    print(f"over {number:,} of {len(train):,} training images, as evaluation sees them:")
    print(f"  --data.mean {_numbers(found * std + mean)} --data.std {_numbers(deviation * std)}")
    print(f"the config has\n  --data.mean {_numbers(mean)} --data.std {_numbers(std)}")
    print(f"samples in {known.out}")
    return 0


def batch_figure(
    config: Config,
    train: data.Source,
    transform: data.TrainTransform,
    counts: Mapping[str, Mapping[str, int]],
    *,
    images: int,
) -> Figure:
    """The first images of the training that a config describes, as it sees them, and the class balance.

    Args:
        config: of the training.
        train: its examples.
        transform: its views of them.
        counts: split -> class -> images.
        images: to show, where there are as many.
    """
    batches = data.train_batches(
        train,
        transform,
        batch_size=min(images, len(train)),
        seed=config.train.seed,
        repeats=config.data.repeats,
        balanced=config.data.balanced,
        num_threads=1,
    )
    batch = next(batches)
    batches.close()
    pixels = to_pixels(batch["image"], transform.mean, transform.std)
    pixels = np.broadcast_to(pixels, (*pixels.shape[:3], 3))  # grey too
    return samples_figure(pixels, [label_text(train, row) for row in batch["label"]], counts, columns=_COLUMNS)


def label_text(source: data.Source, row: np.ndarray) -> str:
    """The name of a label, or those of several."""
    if np.ndim(row) == 0:
        return source.class_names[int(row)]
    return ", ".join(source.class_names[i] for i in np.flatnonzero(row)) or "none"


def _print_counts(sources: Mapping[str, data.Source], counts: Mapping[str, Mapping[str, int]]) -> None:
    for split, of in counts.items():
        least, most = (f"{of[name]:,} ({name})" for name in (min(of, key=of.__getitem__), max(of, key=of.__getitem__)))
        sizes = f"of {least} to {most}" if len({*of.values()}) > 1 else f"of {min(of.values()):,} each"
        print(f"{split}: {len(sources[split]):,} images, {len(of)} classes, {sizes}")


def _numbers(values: np.ndarray | np.floating) -> str:
    return " ".join(f"{value:.4f}" for value in np.broadcast_to(values, 3))
