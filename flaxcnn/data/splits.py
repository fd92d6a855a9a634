"""Which examples a run trains on and which it holds out: named splits, slices of them, stratified shares, folds.

Everything here depends on labels, on what examples are called within their source, and on a seed: it is the same on
any machine and file system.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from typing import Literal, TypeVar

import numpy as np

from flaxcnn.data.images import DataError
from flaxcnn.data.source import Source
from flaxcnn.errors import did_you_mean

Split = Literal["train", "val"]
SomeSource = TypeVar("SomeSource", bound=Source)
Splits = Mapping[str, Callable[[], SomeSource]]  # a data set's own splits, "all" where it has none
VAL_FRACTION = 0.2  # of each class, where nothing else is said
HELD_OUT = ("val", "validation", "valid", "test")  # the first of these that there is

_CHOOSE = "or choose by --data.train_split NAME --data.val_split NAME"
_SLICE = re.compile(r"(.+?)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?")


def choose(
    splits: Splits[SomeSource],
    split: Split,
    *,
    spec: str | None = None,
    val_fraction: float = VAL_FRACTION,
    fold: tuple[int, int] | None = None,
    seed: int = 0,
) -> SomeSource:
    """The training or the held-out part of a data set.

    Args:
        splits: the data set's own.
        split: "train" or "val".
        spec: a named split or a slice of one, as for `slice_of`, instead of what follows.
        val_fraction: the share of each class held out, where the data set has no such split.
        fold: (index, count): hold out that one of `count` equal parts of the training split, or of everything; a test
            split of its own is left alone.
        seed: which examples a share or a part is made of.

    Returns:
        The source.

    Raises:
        DataError: the data is missing, or has no such split, or is too small to be divided.
        ValueError: an argument is out of its range.
    """
    check_split(split, val_fraction)
    if spec is not None:
        return slice_of(splits, spec, seed=seed)
    meant = ("train", *HELD_OUT)
    if fold is None and (aside := sorted(name for name in splits if name not in meant and name.lower() in meant)):
        raise DataError(f"split {aside[0]!r}: write {aside[0].lower()}, in small letters", _CHOOSE)
    own = None if "all" in splits else next((name for name in HELD_OUT if name in splits), None)
    if split == "val" and own is not None and fold is None:
        return splits[own]()
    if not {"all", "train"} & splits.keys():
        raise DataError(f"there is no split 'train'; known: {', '.join(sorted(splits))}", _CHOOSE)
    source = splits["all" if "all" in splits else "train"]()
    if fold is not None:
        return source.select(fold_indices(source, fold, split, seed=seed))
    if own is not None:
        return source
    if len(splits) > 1:
        raise DataError(
            f"of the splits {' and '.join(sorted(splits))} none is called {', '.join(HELD_OUT[:-1])} or {HELD_OUT[-1]}",
            _CHOOSE,
        )
    return source.select(stratified(source, split, val_fraction, seed=seed))


def slice_of(splits: Splits[SomeSource], spec: str, *, seed: int = 0) -> SomeSource:
    """A named split, or a slice of one, such as `train[:90%]`, `train[90%:]` or `test[:1000]`.

    A slice is taken of the examples in an order that spreads every class evenly and does not depend on the order of
    the files: any slice has the classes in proportion, and slices that touch share no example.

    Args:
        splits: the data set's own.
        spec: a name, and in brackets where the slice begins and ends: in per cent or in examples, counted from the end
            where negative.
        seed: of the order.

    Raises:
        DataError: there is no such split, or nothing in the slice.
    """
    if spec in splits:
        return splits[spec]()
    match = _SLICE.fullmatch(spec)
    if match is None or "[" in match[1]:
        raise DataError(f"{spec!r} is no split: write a name, or a slice such as train[:90%] or train[:1000]")
    name, first, last = match.groups()
    if name not in splits:
        raise DataError(f"there is no split {name!r}{did_you_mean(name, splits)}")
    source = splits[name]()
    start, stop = (_position(word, len(source), default) for word, default in ((first, 0), (last, len(source))))
    if start >= stop:
        raise DataError(f"{spec}: no example of {len(source)} lies in this slice")
    return source.select(np.sort(even_order(source, seed=seed)[start:stop]))


def _position(word: str | None, total: int, default: int) -> int:
    if word is None:
        return default
    if word.endswith("%") and abs(int(word[:-1])) > 100:
        raise DataError(f"{word}: a slice of a split ends at 100%")
    position = round(total * int(word[:-1]) / 100) if word.endswith("%") else int(word)
    if abs(position) > total:
        raise DataError(f"{word}: a slice of this split ends at its {total} examples")
    return position + total if position < 0 else position


def even_order(source: Source, *, seed: int = 0) -> np.ndarray:
    """The examples in an order of which every stretch has the classes in proportion, (n,) indices."""
    places = np.empty(len(source))
    for members in _ranked(source, seed):
        places[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.lexsort((group_of(source), places))


def stratified(source: Source, split: Split, fraction: float, *, seed: int = 0) -> np.ndarray:
    """The indices, ascending, of the share of each class that is held out, or of the rest.

    Raises:
        DataError: a class has a single example.
    """
    chosen: list[int] = []
    for ranked in _ranked(source, seed):
        if len(ranked) < 2:
            raise DataError(
                f"{source.name(ranked[0])}: alone in its class, too few to hold a share out for val; "
                "add another image, or leave the class out"
            )
        held_out = min(max(round(len(ranked) * fraction), 1), len(ranked) - 1)
        chosen += ranked[:held_out] if split == "val" else ranked[held_out:]
    return np.array(sorted(chosen))


def fold_indices(source: Source, fold: tuple[int, int], split: Split, *, seed: int = 0) -> np.ndarray:
    """The indices, ascending, of one of several equal parts of every class, or of the rest.

    Args:
        source: the examples.
        fold: (index, count).
        split: "val" for the part, "train" for the rest.
        seed: of the division.

    Raises:
        ValueError: the fold is not one.
        DataError: a class has fewer examples than there are parts.
    """
    index, count = fold
    if count < 2 or not 0 <= index < count:
        raise ValueError(f"fold: expected (index, count) with 0 <= index < count and 2 or more folds, got {fold}")
    part = np.empty(len(source), np.int64)
    dealt = 0  # Dealing goes on from class to class, so that the parts are of one size.
    for members in _ranked(source, seed):
        if len(members) < count:
            raise DataError(
                f"{source.name(members[0])}: its class has {len(members)} examples, too few for {count} folds; "
                "take fewer folds, or add images"
            )
        part[members] = (dealt + np.arange(len(members))) % count
        dealt += len(members)
    return np.flatnonzero((part == index) == (split == "val"))


def group_of(source: Source) -> np.ndarray:
    """What a source is stratified by, (n,): its labels, or nothing where an example has several."""
    return source.labels if source.labels.ndim == 1 else np.zeros(len(source), np.int64)


def _ranked(source: Source, seed: int) -> list[list[int]]:
    """Each class's examples, ranked by a hash of their keys, which no order of listing can change."""
    groups = group_of(source)
    return [
        sorted(np.flatnonzero(groups == group).tolist(), key=lambda i: _digest(f"{seed}:{source.key(i)}"))
        for group in np.unique(groups)
    ]


def _digest(text: str) -> bytes:
    return hashlib.sha256(os.fsencode(text)).digest()


def check_split(split: str, val_fraction: float) -> None:
    """Raises ValueError unless both are what they should be."""
    if split not in ("train", "val"):
        raise ValueError(f'split: expected "train" or "val", got {split!r}')
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction: expected a share between 0 and 1, got {val_fraction}")
