"""Look at a data set before it is trained on, and turn it into other forms."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import tyro

from flaxcnn import data
from flaxcnn.build import build_splits
from flaxcnn.cli.command_line import run_action
from flaxcnn.config import Config, ConfigError, DataConfig
from flaxcnn.data.check import Report, alone_in_class
from flaxcnn.data.split_folder import split_folder
from flaxcnn.data.splits import VAL_FRACTION

DESCRIPTION = "Look at a data set before it is trained on, and turn it into other forms."
_SHOWN = 5
_WITHOUT = "no label"

Folder = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FOLDER")]
NewFolder = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OUT")]
DataPath = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="PATH")]


def main(argv: Sequence[str]) -> int:
    """`prepare_data check|split|arrayrecord PATH ...`."""
    actions = {"check": check, "split": split, "arrayrecord": arrayrecord}
    return run_action(actions, argv, prog="prepare_data", description=DESCRIPTION)


def check(path: DataPath, val_fraction: float = VAL_FRACTION, json: bool = False) -> int:
    """Decode every image once; count, and name what is broken, doubled or leaked. Exit status 1 if there is any but
    doubled ones.

    Files that are no images by their ending are counted by it.

    Args:
        path: an image folder, or a manifest (.csv, .jsonl).
        val_fraction: held out where the data has no split of its own, as in training.
        json: print a JSON object.
    """
    _check_share(val_fraction)
    place = Path(path).expanduser()
    splits = _splits(place)
    sources = {name: make() for name, make in splits.items()}
    if "all" in splits and not alone_in_class(sources["all"]):
        whole = {"all": lambda: sources["all"]}
        sources = {split: data.choose(whole, split, val_fraction=val_fraction) for split in ("train", "val")}
    report = data.check_data(sources, place if place.is_dir() else None)
    print(_as_json(report) if json else _as_text(report))
    return 0 if report.is_clean else 1


def split(source: Folder, out: NewFolder, val_fraction: float = VAL_FRACTION, seed: int = 0) -> int:
    """Copy a folder with a folder a class to a new one with train/ and val/, a folder a class in each.

    Which images are held out depends on their names and the seed alone, so that it is the same on every machine.

    Args:
        source: with a folder a class; it is left as it is.
        out: a new folder.
        val_fraction: share of each class held out.
        seed: which share it is.
    """
    _check_share(val_fraction)
    counts = split_folder(Path(source).expanduser(), Path(out).expanduser(), val_fraction=val_fraction, seed=seed)
    width = max(map(len, counts["train"]))
    print(f"{'':<{width}}  train    val")
    for name, number in counts["train"].items():
        print(f"{name:<{width}}  {number:5}  {counts['val'][name]:5}")
    print(f"in {out}: add --data.path {out}")
    return 0


def arrayrecord(path: DataPath, out: str, name: str) -> int:
    """Write a data set as tensorflow-datasets' ArrayRecord files, for --data.name tfds. Files stay as they are.

    Args:
        path: an image folder, or a manifest (.csv, .jsonl).
        out: the folder for data sets, such as ~/tensorflow_datasets.
        name: of the new data set: lower case, digits and underscores.
    """
    splits = {split: make() for split, make in _splits(Path(path).expanduser()).items()}
    folder = data.write_arrayrecord(name, splits, Path(out).expanduser())
    written = data.tfds_splits(name, data_dir=folder.parents[1])
    total = ", ".join(f"{len(make()):,} {split}" for split, make in written.items())
    print(f"wrote {folder}: {total}\nuse it with --data.name tfds --data.builder {name} --data.path {out}")
    return 0


def _check_share(val_fraction: float) -> None:
    if not 0 < val_fraction < 1:
        raise ConfigError(f"--val_fraction must be above 0 and below 1, not {val_fraction}")


def _splits(path: Path) -> data.Splits:
    if not path.exists():
        raise ConfigError(f"{path}: there is no such folder or manifest")
    kind = "image_folder" if path.is_dir() else "manifest"
    return build_splits(Config(data=DataConfig(kind, path=str(path))))


def _as_json(report: Report) -> str:
    return json.dumps(asdict(report), indent=2)


def _as_text(report: Report) -> str:
    class_names = next(iter(report.counts.values()))
    width = max(len(_WITHOUT), *map(len, class_names))
    lines = [f"{'class':<{width}}" + "".join(f"  {split:>8}" for split in report.counts)]
    for name in class_names:
        lines.append(f"{name:<{width}}" + "".join(f"  {counts[name]:>8,}" for counts in report.counts.values()))
    rows = [("images", report.examples)] + [(_WITHOUT, report.unlabelled)] * any(report.unlabelled.values())
    lines += [f"{name:<{width}}" + "".join(f"  {n:>8,}" for n in numbers.values()) for name, numbers in rows]
    for side, (least, median, most) in report.sizes.items():
        lines.append(f"{side}: {least} to {most} pixels, median {median}")
    lines += _listed("broken", report.broken)
    if report.alone:
        lines += _listed("alone in its class, so that no share can be held out for val", report.alone)
    lines += _listed("of the same pixels in one split", [" = ".join(names) for names in report.duplicates])
    lines += _listed("of the same pixels in two splits (leaked)", [" = ".join(names) for names in report.leaked])
    lines += _listed("of the same pixels with different labels", [" = ".join(n) for n in report.contradictions])
    if report.passed_over:
        lines += _listed("images in no class folder of these splits", report.passed_over)
    lines += _others(report)
    return "\n".join(lines)


def _others(report: Report) -> list[str]:
    """A line of the files that are passed over, where there are any: pictures may be among them."""
    by_number = sorted(report.other_files.items(), key=lambda item: (-item[1], not item[0], item[0]))
    if not by_number:
        return []
    endings = ", ".join(f"{ending or 'without an ending'} {number}" for ending, number in by_number)
    return [f"no images by their ending: {sum(report.other_files.values())} ({endings})"]


def _listed(what: str, names: Sequence[str]) -> list[str]:
    more = [f"  ... and {len(names) - _SHOWN} more (--json lists all)"] if len(names) > _SHOWN else []
    return [f"{what}: {len(names)}", *(f"  {name}" for name in names[:_SHOWN]), *more]
