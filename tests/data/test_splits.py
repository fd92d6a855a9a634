"""Splits: what is in them, that they share nothing, and that they are the same everywhere."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

from flaxcnn.data import ArraySource, DataError, choose, digits, slice_of
from flaxcnn.data.splits import even_order, fold_indices

LABELS = np.repeat(np.arange(3), (50, 30, 20))


def source(labels: np.ndarray = LABELS, name: str = "row") -> ArraySource:
    images = np.zeros((len(labels), 1, 1), np.uint8)
    return ArraySource(images, labels, ("a", "b", "c"), tuple(f"{name}[{i}]" for i in range(len(labels))))


SPLITS = {"train": source, "test": lambda: source(LABELS[::10], "test")}


def test_named_splits() -> None:
    assert len(slice_of(SPLITS, "train")) == 100 and len(slice_of(SPLITS, "test")) == 10
    assert choose(SPLITS, "train").names == source().names
    assert choose(SPLITS, "val").names == SPLITS["test"]().names
    assert choose(SPLITS, "val", spec="train[:50%]").names == slice_of(SPLITS, "train[:50%]").names


@pytest.mark.parametrize(
    ("first", "second", "sizes"),
    [
        ("train[:90%]", "train[90%:]", (90, 10)),
        ("train[:33%]", "train[33%:]", (33, 67)),
        ("train[:10]", "train[10:]", (10, 90)),
        ("train[-20%:]", "train[:-20%]", (20, 80)),
        ("train[:-7]", "train[-7:]", (93, 7)),
        ("train[:]", "train[100%:101]", (100, 0)),
    ],
)
def test_slices_partition_in_proportion(first: str, second: str, sizes: tuple[int, int]) -> None:
    slices = [slice_of(SPLITS, spec) for spec in (first, second) if sizes != (100, 0) or spec == first]
    assert [len(part) for part in slices] == [size for size in sizes if size]
    assert sorted(name for part in slices for name in part.names) == sorted(source().names)
    for part in slices:
        counts = Counter(part.labels.tolist())
        assert all(abs(counts[label] - share * len(part)) <= 1 for label, share in ((0, 0.5), (1, 0.3), (2, 0.2)))
        assert list(part.names) == sorted(part.names, key=source().names.index)


def test_every_stretch_of_the_even_order_is_in_proportion() -> None:
    order = even_order(source())
    assert sorted(order) == list(range(100))
    for start in range(0, 100, 10):
        assert Counter(LABELS[order[start : start + 10]].tolist()) == {0: 5, 1: 3, 2: 2}


@pytest.mark.parametrize("count", [2, 3, 7])
def test_folds_are_as_even_as_sklearns(count: int) -> None:
    """Every example is held out once; a class is spread as evenly as by StratifiedKFold."""
    parts = [fold_indices(source(), (k, count), "val") for k in range(count)]
    assert sorted(np.concatenate(parts).tolist()) == list(range(100))
    for k, part in enumerate(parts):
        assert sorted([*part, *fold_indices(source(), (k, count), "train")]) == list(range(100))
    theirs = [test for _, test in StratifiedKFold(count).split(LABELS, LABELS)]
    for label in range(3):
        ours, reference = ([np.count_nonzero(LABELS[p] == label) for p in each] for each in (parts, theirs))
        assert sorted(ours) == sorted(reference)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_folds_leave_a_test_split_alone() -> None:
    train, val = (choose(SPLITS, split, fold=(1, 5)) for split in ("train", "val"))
    assert {*train.names, *val.names} == set(source().names) and len(val) == 20
    assert choose(SPLITS, "val", fold=(1, 5), seed=1).names != val.names


def test_splits_do_not_depend_on_the_order_of_the_examples() -> None:
    shuffled = source().select(np.random.default_rng(0).permutation(100))
    for spec in ("all[:30%]", "all[30%:60%]"):
        here, there = (slice_of({"all": lambda s=s: s}, spec) for s in (source(), shuffled))
        assert set(here.names) == set(there.names)
    for options in ({"fold": (0, 4)}, {"val_fraction": 0.3}):
        here, there = (choose({"all": lambda s=s: s}, "val", **options) for s in (source(), shuffled))
        assert set(here.names) == set(there.names)


def test_several_labels_are_divided_as_one_group() -> None:
    several = np.eye(3, dtype=np.float32)[LABELS]
    val = choose({"all": lambda: source(several)}, "val", val_fraction=0.3)
    assert len(val) == 30 and val.labels.shape == (30, 3)


def test_digits_have_folds_and_slices() -> None:
    from flaxcnn.data import digits_splits

    val = [choose(digits_splits(), "val", fold=(k, 5)).names for k in range(5)]
    assert len({name for part in val for name in part}) == sum(map(len, val)) == 1797
    assert choose(digits_splits(), "val", val_fraction=0.2).names == digits("val").names


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("trian", "there is no split 'trian'; did you mean train?"),
        ("train[:", "'train[:' is no split: write a name, or a slice such as"),
        ("train[1:2:3]", "is no split"),
        ("train[:150%]", "150%: a slice of a split ends at 100%"),
        ("train[50%:50%]", r"train[50%:50%]: no example of 100 lies in this slice"),
        ("test[10:]", "no example of 10"),
        ("test[:11]", "11: a slice of this split ends at its 10 examples"),
        ("test[-11:]", "-11: a slice of this split ends at its 10 examples"),
    ],
)
def test_bad_split_is_named(spec: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        slice_of(SPLITS, spec)
    assert message in str(caught.value)


def test_names_need_not_be_words() -> None:
    splits = {"train-2024": source, "a[1]": lambda: source(LABELS[:7])}
    assert len(slice_of(splits, "train-2024")) == 100 and len(slice_of(splits, "train-2024[:10%]")) == 10
    assert len(slice_of(splits, "a[1]")) == 7


def test_bad_fold_is_named() -> None:
    for fold in ((5, 5), (-1, 5), (0, 1)):
        with pytest.raises(ValueError, match=r"^fold: expected"):
            choose(SPLITS, "val", fold=fold)
    with pytest.raises(DataError, match=r"row\[\d+\]: its class has 20 examples, too few for 21 folds"):
        choose(SPLITS, "val", fold=(0, 21))


def test_a_split_that_might_be_held_out_is_not_left_aside() -> None:
    splits = {"train": SPLITS["train"], "validate": SPLITS["test"]}
    for split in ("train", "val"):
        with pytest.raises(
            DataError, match=r"none is called val, .*; or choose by .*--data\.val_split NAME$"
        ) as caught:
            choose(splits, split)
        assert str(caught.value).startswith("of the splits train and validate none")
    assert len(choose(splits, "val", spec="validate")) == 10
    splits = {"train": SPLITS["train"], "val": SPLITS["test"], "Test": SPLITS["test"]}
    for split in ("train", "val"):
        with pytest.raises(DataError, match=r"^split 'Test': write test, in small letters; or choose by --data"):
            choose(splits, split)
    assert len(choose(splits, "val", spec="Test")) == 10
    assert len(choose(splits, "val", fold=(0, 5))) == 20


def test_splits_of_other_names_must_be_named() -> None:
    with pytest.raises(
        DataError, match=r"no split 'train'; known: testing, training; or choose by --data\.train_split"
    ):
        choose({"training": SPLITS["train"], "testing": SPLITS["test"]}, "train")
