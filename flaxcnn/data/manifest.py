"""Manifests: a CSV or JSON-lines file that names image files and their labels."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from flaxcnn.data.images import DataError
from flaxcnn.data.source import FolderSource
from flaxcnn.data.splits import HELD_OUT

LABEL_SEPARATOR = ";"
MANIFEST_SUFFIXES = (".csv", ".jsonl", ".json")


@dataclass(frozen=True)
class _Row:
    path: str
    labels: tuple[str, ...]
    split: str
    where: str  # for messages


def manifest_splits(path: str | os.PathLike[str]) -> dict[str, Callable[[], FolderSource]]:
    """The splits of a manifest, those that its column `split` names, or "all" where it has none.

    A row has a `path`, relative to the manifest's folder or absolute, and either a `label`, or `labels`: a list in
    JSON, `cat;outdoors` in CSV, and nothing for no label at all. With `labels` an example's label is a vector of zeros
    and ones. Spaces round the values of a CSV do not count. Classes are numbered in the order of their names, over all
    splits.

    Args:
        path: of a file that ends in .csv, .jsonl or .json (an object a line).

    Returns:
        The name of each split and a function that makes its source.

    Raises:
        DataError: names the line that is not right.
    """
    file = Path(path)
    if file.is_dir():
        raise DataError(f"{file}: a folder, not a manifest: for a folder a class, add --data.name image_folder")
    if not file.is_file():
        raise DataError(f"{file}: no such file; write one with a header path,label and a line an image")
    several, rows = _read(file)
    rows = [replace(row, path=_within(file.parent, row.path)) for row in rows]
    if not rows:
        raise DataError(f"{file}: it names no images")
    _check_unique(file, rows)
    class_names = tuple(sorted({label for row in rows for label in row.labels}))
    if len(class_names) < 2:
        raise DataError(f"{file}: expected two or more classes, found {len(class_names)}")
    splits = sorted({row.split for row in rows})
    if "" in splits and len(splits) > 1:
        raise DataError(f"{next(row.where for row in rows if not row.split)}: no split, where other lines have one")
    if not several and "train" in splits:
        known = {row.labels[0] for row in rows if row.split == "train"}
        for row in rows:
            if row.labels[0] not in known and row.split in HELD_OUT:
                raise DataError(f"{row.where}: class {row.labels[0]} has no image in train: add one, or leave it out")
    return {
        split or "all": partial(_source, file.parent, [row for row in rows if row.split == split], class_names, several)
        for split in splits
    }


def _read(file: Path) -> tuple[bool, list[_Row]]:
    """Whether a row may have several labels, and the rows."""
    if file.suffix.lower() not in MANIFEST_SUFFIXES:
        raise DataError(f"{file}: a manifest's name ends in .csv, .jsonl or .json")
    try:
        lines = list((_csv_lines if file.suffix.lower() == ".csv" else _json_lines)(file))
    except UnicodeError as error:
        raise DataError(f"{file}: its text is not UTF-8: save it as UTF-8") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read: {error}") from error
    several = bool(lines) and "labels" in lines[0][1]
    return several, [_row(where, values, several) for where, values in lines]


def _csv_lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with file.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream, skipinitialspace=True)  # or quotes behind a space were no quotes
        header = [name.strip(" ") for name in reader.fieldnames or ()]
        if header and ("path" not in header or not {"label", "labels"} & set(header)):
            separators = [name for name, mark in (("semicolons", ";"), ("tabs", "\t")) if mark in header[0]]
            advice = f"separate by commas, not by {separators[0]}" if separators else None
            if {"path", "label", "labels"} & {name.lower() for name in header} - {*header}:
                advice = "in small letters"
            shown = ",".join(header).replace("\t", " ")
            raise DataError(f"{file}: its header is {shown}; it has to have path and label (or labels)", advice)
        if {"label", "labels"} <= set(header):
            raise DataError(f"{file}: its header has label and labels: give one")
        if doubled := [name for name in ("path", "label", "labels", "split") if header.count(name) > 1]:
            raise DataError(f"{file}: its header has {doubled[0]} twice")
        for row in reader:
            where = f"{file}, line {reader.line_num}"
            if None in row:
                raise DataError(f"{where}: more values than the header has names")
            values: dict[str, Any] = {name.strip(): value and value.strip() for name, value in row.items()}
            if values.get("labels") is not None:
                values["labels"] = [label.strip() for label in values["labels"].split(LABEL_SEPARATOR) if label.strip()]
            yield where, values


def _json_lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with file.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{file}, line {number}: not JSON: {error}") from error
            if not isinstance(values, dict):
                raise DataError(f'{file}, line {number}: expected one object a line, as {{"path": ..., "label": ...}}')
            yield f"{file}, line {number}", values


def _row(where: str, values: dict[str, Any], several: bool) -> _Row:
    name = "labels" if several else "label"
    path, labels, split = values.get("path"), values.get(name), values.get("split")
    if not isinstance(path, str) or not path:
        raise DataError(f"{where}: no path")
    if not isinstance(split, (str, int, type(None))):
        raise DataError(f"{where}: split: expected a name, got {split!r}")
    if several:
        if not isinstance(labels, list):
            raise DataError(f"{where}: labels: expected a list, got {labels!r}")
    elif labels is None or labels == "":
        raise DataError(f"{where}: no label")
    else:
        labels = [labels]
    if not all(isinstance(label, (str, int)) and not isinstance(label, bool) for label in labels):
        advice = "several labels go by the name `labels`" if any(isinstance(label, list) for label in labels) else None
        raise DataError(f"{where}: {name}: expected names, got {labels!r}", advice)
    return _Row(path, tuple(map(str, labels)), "" if split is None else str(split), where)


def _within(root: Path, path: str) -> str:
    """A path from the manifest's folder, if it lies below that: the same wherever the folder is."""
    plain = Path(os.path.normpath(path))
    folder = Path(os.path.abspath(root))  # noqa: PTH100, which would follow links
    return (plain.relative_to(folder) if plain.is_relative_to(folder) else plain).as_posix()


def _check_unique(file: Path, rows: list[_Row]) -> None:
    seen: dict[str, str] = {}
    for row in rows:
        if row.path in seen:
            raise DataError(f"{row.where}: {row.path} was there before ({seen[row.path].removeprefix(f'{file}, ')})")
        seen[row.path] = row.where


def _source(root: Path, rows: list[_Row], class_names: tuple[str, ...], several: bool) -> FolderSource:
    number = {name: i for i, name in enumerate(class_names)}
    if several:
        labels = np.zeros((len(rows), len(class_names)), np.float32)
        for i, row in enumerate(rows):
            labels[i, [number[label] for label in row.labels]] = 1
    else:
        labels = np.array([number[row.labels[0]] for row in rows], np.int64)
    return FolderSource(root, tuple(row.path for row in rows), labels, class_names)
