"""The digits: what is in them, and how they split."""

from __future__ import annotations

from collections import Counter

import numpy as np

from flaxcnn.data import digits


def test_digits_hold_sklearns_images() -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    seen = set()
    for source in (digits("train"), digits("val")):
        assert source.class_names == tuple("0123456789")
        for i in range(len(source)):
            row = int(source.name(i).removeprefix("digits[").removesuffix("]"))
            seen.add(row)
            example = source[i]
            assert example["image"].mode == "RGB" and example["image"].size == (8, 8)
            assert example["label"] == source.labels[i] == bunch["target"][row]
            expected = np.rint(bunch["images"][row] / 16 * 255)  # (8, 8)
            np.testing.assert_array_equal(np.asarray(example["image"])[:, :, 1], expected)
    assert seen == set(range(1797))


def test_digits_split_is_fixed_and_stratified() -> None:
    train, val = digits("train"), digits("val")
    assert (len(train), len(val)) == (1438, 359)
    everything = Counter(np.concatenate([train.labels, val.labels]).tolist())
    held_out = Counter(val.labels.tolist())
    assert all(held_out[label] == round(count * 0.2) for label, count in everything.items())
    assert val.names == digits("val").names
    assert val.names != digits("val", seed=1).names
    # A split is part of every published number: these names change only by a decision to change them.
    assert [val.name(i) for i in range(4)] == ["digits[3]", "digits[5]", "digits[7]", "digits[14]"]
