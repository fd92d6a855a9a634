"""Batches: determinism, resumption, exact counts, sharding, errors."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding
from PIL import Image

from flaxcnn.data import (
    DataError,
    Preprocessing,
    digits,
    eval_batches,
    steps_per_epoch,
    train_batches,
    training_order,
    view_rng,
)
from flaxcnn.data.source import Example

N = 23


class Numbers:
    """Example i is an image of the single value i, with label i; reading `broken` fails."""

    class_names = tuple(str(i) for i in range(N))
    labels = np.arange(N)

    def __init__(self, broken: int | None = None) -> None:
        self.broken = broken

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> Example:
        if index == self.broken:
            raise DataError(f"{self.name(index)}: broken")
        return {"image": Image.new("RGB", (2, 3), (index, 0, 0)), "label": index}

    def name(self, index: int) -> str:
        return f"number {index}"


class Twenty(Numbers):
    def __len__(self) -> int:
        return 20


def value(image: Image.Image) -> np.ndarray:
    return np.asarray(image, np.float32)


def value_and_noise(image: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """Noise in the third channel, after a pause that makes threads finish out of order."""
    time.sleep(1e-3 * (int(value(image)[0, 0, 0]) % 3))
    pixels = value(image)  # (3, 2, 3)
    pixels[:, :, 2] = rng.random((3, 2))
    return pixels


def take(batches, count: int) -> list[dict[str, np.ndarray]]:
    return list(itertools.islice(batches, count))


def train(
    count: int, *, source=None, view=value_and_noise, batch_size: int = 4, seed: int = 1, **options
) -> list[dict[str, np.ndarray]]:
    source = source or Numbers()
    with closing(train_batches(source, view, batch_size=batch_size, seed=seed, **options)) as batches:
        return take(batches, count)


def assert_same(one: list[dict[str, np.ndarray]], other: list[dict[str, np.ndarray]]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert a[key].dtype == b[key].dtype
            np.testing.assert_array_equal(a[key], b[key])


def labels(batches) -> list[int]:
    return np.concatenate([batch["label"] for batch in batches]).tolist()


def test_a_batch_holds_images_with_their_labels() -> None:
    for batch in train(3):
        assert batch["image"].shape == (4, 3, 2, 3) and batch["image"].dtype == np.float32
        assert batch["label"].shape == (4,) and batch["label"].dtype == np.int32
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["label"])


def test_every_example_once_an_epoch_in_a_new_order() -> None:
    batches = train(15)
    epochs = [labels(batches[i : i + 5]) for i in (0, 5, 10)]
    for epoch in epochs:
        assert len(set(epoch)) == len(epoch) == 20
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert epochs[0] != sorted(epochs[0])
    assert len({frozenset(epoch) for epoch in epochs}) > 1  # not always the same three are dropped


def test_order_is_uniform() -> None:
    """Each example comes first about equally often: 23 places, 2300 epochs."""
    epochs = train(2300, view=lambda image, _: value(image), batch_size=N)
    first = Counter(int(epoch["label"][0]) for epoch in epochs)
    assert len(first) == N and min(first.values()) > 55 and max(first.values()) < 145


def test_threads_change_nothing() -> None:
    assert_same(train(11, num_threads=1), train(11, num_threads=5))


def test_seed_changes_order_and_noise() -> None:
    one, other = train(5, seed=1), train(5, seed=2)
    assert labels(one) != labels(other)
    assert_same(one, train(5, seed=1))


def noises(batches) -> dict[int, np.ndarray]:
    return {int(n): image[:, :, 2] for b in batches for n, image in zip(b["label"], b["image"], strict=True)}


def test_view_depends_on_seed_epoch_and_example_only() -> None:
    first, second = noises(train(5)), noises(train(10)[5:])
    both = first.keys() & second.keys()
    assert both and not any(np.array_equal(first[n], second[n]) for n in both)
    flat = [noise.tobytes() for noise in first.values()]
    assert len(set(flat)) == len(flat)
    # In larger batches the same epoch holds the same examples, seen the same way.
    larger = noises(train(2, batch_size=10))
    assert labels(train(2, batch_size=10)) == labels(train(5))
    assert all(np.array_equal(larger[n], noise) for n, noise in first.items())


@pytest.mark.parametrize("options", [{}, {"repeats": 3}, {"balanced": True}])
def test_any_view_can_be_drawn_again(options: dict) -> None:
    source = Unbalanced()
    order = training_order(source, batch_size=4, seed=1, **options)
    for step, batch in enumerate(train(12, source=source, **options)):
        for image, label, shown in zip(batch["image"], batch["label"], order(step), strict=True):
            assert (image[0, 0, 0], label, shown.epoch) == (shown.example, source.labels[shown.example], step // 5)
            noise = view_rng(1, *shown).random((3, 2)).astype(np.float32)
            np.testing.assert_array_equal(image[:, :, 2], noise)


def test_a_view_that_cannot_be_made_tells_of_what_example() -> None:
    def fail(image: Image.Image, *_: object) -> np.ndarray:
        raise ZeroDivisionError

    for read in (lambda: train(1, view=fail), lambda: list(eval_batches(Numbers(), fail, batch_size=4))):
        with pytest.raises(ZeroDivisionError) as caught:
            read()
        assert re.fullmatch(r"in the transform of number \d+", caught.value.__notes__[0])


@pytest.mark.parametrize("other", [np.zeros((3, 2, 1), np.uint8), np.zeros((3, 2, 3), np.float32)])
def test_unlike_images_are_not_made_alike(other: np.ndarray) -> None:
    views = iter([np.zeros((3, 2, 3), np.uint8), other])
    with pytest.raises(
        ValueError, match=r"^transform: expected all images of a batch alike, got uint8 \(3, 2, 3\) and"
    ):
        train(1, view=lambda *_: next(views), num_threads=1)


def test_repeated_examples_come_in_a_row_each_seen_anew() -> None:
    batches = train(5, batch_size=4, repeats=3)
    shown = np.array(labels(batches))
    assert len(shown) == 20 and len(set(shown[:18].tolist())) == 6
    assert all(len(set(shown[i : i + 3].tolist())) == 1 for i in range(0, 18, 3))
    views = np.concatenate([batch["image"][:, :, :, 2] for batch in batches])
    assert len({view.tobytes() for view in views}) == 20
    for place, (number, view) in enumerate(zip(shown, views, strict=True)):
        expected = view_rng(1, 0, int(number), place % 3).random((3, 2)).astype(np.float32)
        np.testing.assert_array_equal(view, expected)


class Unbalanced(Numbers):
    """Classes of 17, 5 and 1 of the 23 examples."""

    class_names = ("a", "b", "c")
    labels = np.repeat(np.arange(3), (17, 5, 1))


def test_balanced_epochs_show_every_class_equally_often() -> None:
    batches = train(3, source=Unbalanced(), batch_size=23, balanced=True)
    for batch in batches:
        assert sorted(np.bincount(batch["label"]).tolist()) == [7, 8, 8]
        shown = Counter(batch["image"][:, 0, 0, 0].astype(int).tolist())
        assert max(shown[i] for i in range(17)) == 1  # none of the large class twice
        assert {shown[i] for i in range(17, 22)} <= {1, 2}
        assert len({view.tobytes() for view in batch["image"]}) == 23
    assert len({tuple(batch["image"][:, 0, 0, 0]) for batch in batches}) == 3
    assert len({i for batch in batches for i in batch["image"][:, 0, 0, 0] if i < 17}) > 8
    assert_same(batches, train(3, source=Unbalanced(), batch_size=23, balanced=True, num_threads=1))


def test_four_processes_share_an_epoch_whatever_the_order() -> None:
    for options in ({}, {"repeats": 2}, {"balanced": True}):
        source = Unbalanced()
        whole = labels(train(2, source=source, batch_size=8, **options))
        parts = [train(2, source=source, batch_size=8, shard=(i, 4), **options) for i in range(4)]
        assert labels(joined(parts)) == whole


@pytest.mark.parametrize("position", [0, 3, 5, 7, 12])
def test_resumed_run_continues_with_the_very_next_batch(position: int) -> None:
    batches = train_batches(Numbers(), value_and_noise, batch_size=4, seed=1, num_threads=2)
    take(batches, position)
    state = json.loads(json.dumps(batches.get_state()))
    expected = take(batches, 6)
    batches.close()

    resumed = train_batches(Numbers(), value_and_noise, batch_size=4, seed=1, num_threads=3)
    resumed.set_state(state)
    assert_same(take(resumed, 6), expected)
    resumed.set_state(state)  # back again, over what is already prefetched
    assert_same(take(resumed, 6), expected)
    resumed.close()


@pytest.mark.parametrize("count", [2, 3, 4])
def test_shards_make_up_the_batch(count: int) -> None:
    whole = train(7, batch_size=12)
    shards = [train(7, batch_size=12, shard=(i, count)) for i in range(count)]
    assert_same(joined(shards), whole)


@pytest.mark.parametrize("count", [2, 4])
def test_an_epoch_of_all_shards_is_the_data_set(count: int) -> None:
    source = Twenty()
    shards = [train(5, source=source, batch_size=4, shard=(i, count)) for i in range(count)]
    assert sorted(labels(itertools.chain(*shards))) == list(range(20))


@pytest.mark.parametrize("count", [2, 4])
def test_resumed_run_continues_in_another_number_of_processes(count: int) -> None:
    with closing(train_batches(Numbers(), value_and_noise, batch_size=4, seed=1)) as batches:
        take(batches, 8)
        state = json.loads(json.dumps(batches.get_state()))
        expected = take(batches, 6)
    shards = []
    for i in range(count):
        with closing(train_batches(Numbers(), value_and_noise, batch_size=4, seed=1, shard=(i, count))) as shard:
            shard.set_state(state)
            shards.append(take(shard, 6))
    assert_same(joined(shards), expected)


def joined(shards: list[list[dict[str, np.ndarray]]]) -> list[dict[str, np.ndarray]]:
    """The batches that shards have parts of."""
    return [
        {key: np.concatenate([part[key] for part in parts]) for key in parts[0]} for parts in zip(*shards, strict=True)
    ]


@pytest.mark.parametrize("batch_size", [1, 4, 23, 24, 40])
def test_evaluation_sees_every_example_once_in_order(batch_size: int) -> None:
    batches = list(eval_batches(Numbers(), value, batch_size=batch_size, num_threads=3))
    assert len(batches) == -(-N // batch_size)
    for batch in batches:
        assert batch["image"].shape == (batch_size, 3, 2, 3) and batch["image"].dtype == np.float32
        assert batch["label"].dtype == np.int32 and batch["mask"].dtype == np.float32
    mask = np.concatenate([batch["mask"] for batch in batches])
    images = np.concatenate([batch["image"] for batch in batches])
    assert mask.tolist() == [1] * N + [0] * (len(mask) - N)
    assert np.array(labels(batches))[mask == 1].tolist() == list(range(N))
    assert images[mask == 1][:, 2, 1, 0].tolist() == list(range(N))
    assert not images[mask == 0].any() and not np.array(labels(batches))[mask == 0].any()


@pytest.mark.parametrize("batch_size", [4, 8, 20, 28, 60])
def test_evaluation_shards_keep_step_and_make_up_the_batch(batch_size: int) -> None:
    whole = list(eval_batches(Numbers(), value, batch_size=batch_size))
    shards = [list(eval_batches(Numbers(), value, batch_size=batch_size, shard=(i, 4))) for i in range(4)]
    assert_same(joined(shards), whole)


@pytest.mark.parametrize("num_threads", [1, 3])
def test_broken_example_is_named_without_hanging(num_threads: int) -> None:
    def message(read: Callable[[], object]) -> str:
        with pytest.raises(DataError) as caught:
            read()
        return str(caught.value)

    source = Numbers(broken=17)
    expected = "number 17: broken"
    assert message(lambda: list(eval_batches(source, value, batch_size=4, num_threads=num_threads))) == expected
    assert message(lambda: train(6, source=source, num_threads=num_threads)) == expected


def test_threads_end() -> None:
    others = set(threading.enumerate())

    def wait_for_the_end() -> None:
        for thread in set(threading.enumerate()) - others:
            thread.join(timeout=10)
        assert set(threading.enumerate()) <= others

    batches = train_batches(Numbers(), value_and_noise, batch_size=4, seed=0, num_threads=2)
    next(batches)
    assert len(set(threading.enumerate()) - others) == 2
    batches.close()
    wait_for_the_end()
    list(eval_batches(Numbers(), value, batch_size=4, num_threads=2))
    wait_for_the_end()
    abandoned = eval_batches(Numbers(), value, batch_size=4, num_threads=2)
    next(abandoned)
    del abandoned
    wait_for_the_end()
    with pytest.raises(DataError) as failed:  # The traceback keeps the iterator alive.
        list(eval_batches(Numbers(broken=2), value, batch_size=4, num_threads=2))
    wait_for_the_end()
    del failed


def test_what_is_held_of_a_batch_is_never_written_again() -> None:
    """Of views, slices, JAX's arrays and buffers alike, while the memory of those let go serves again."""
    holds: tuple[Callable[[np.ndarray], Any], ...] = (
        lambda image: image,
        lambda image: image[1:, 0].T,
        memoryview,
        lambda image: np.asarray(memoryview(image)),
        lambda image: image.view(np.ndarray).reshape(-1)[::2],
        jax.device_put,
        lambda image: jax.make_array_from_process_local_data(SingleDeviceSharding(jax.devices()[0]), image),
        lambda image: jax.jit(jnp.negative)(image),
    )
    held, expected, addresses = [], [], []
    with closing(train_batches(Numbers(), value_and_noise, batch_size=4, seed=1, num_threads=2)) as batches:
        for step in range(60):
            image = next(batches)["image"]
            addresses.append(image.ctypes.data)
            if step % 3 == 0:
                hold = holds[step // 3 % len(holds)]
                held.append(hold(image))
                expected.append(np.array(hold(image.copy())))
            del image
    for one, other in zip(held, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    let_go = [address for step, address in enumerate(addresses) if step % 3]
    assert len(set(let_go)) < len(let_go)


def test_what_is_left_of_many_batches_is_bounded() -> None:
    code = """
import numpy as np, pathlib
from flaxcnn.data import synthetic, train_batches
resident = lambda: int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096
batches = train_batches(
    synthetic(64, image_size=1), lambda image, rng: np.ones((256, 256, 3), np.float32),
    batch_size=8, seed=0, num_threads=1,
)
next(batches)
before = resident()
held = [next(batches) for _ in range(40)]
assert resident() - before > 200e6
del held
next(batches)
assert resident() - before < 80e6, resident() - before
batches.close()
"""
    if not Path("/proc/self/statm").exists():
        pytest.skip("only Linux tells the memory of a process")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_steps_per_epoch() -> None:
    assert [steps_per_epoch(23, size) for size in (1, 4, 12, 23)] == [23, 5, 1, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "^batch_size: expected 1 to 23"),
        ({"batch_size": 24}, "^batch_size: expected 1 to 23"),
        ({"batch_size": 4, "shard": (0, 3)}, r"^batch_size: expected a multiple of 3 \(the shards\), got 4"),
        ({"batch_size": 4, "shard": (2, 2)}, "^shard: expected"),
        ({"batch_size": 4, "num_threads": 0}, "^num_threads: expected 1 or more"),
        ({"batch_size": 4, "seed": -1}, "^seed: expected 0 or more"),
        ({"batch_size": 4, "repeats": 0}, "^repeats: expected 1 to 23"),
    ],
)
def test_bad_argument_is_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_batches(Numbers(), value_and_noise, **{"seed": 0, **options})


def test_bad_evaluation_argument_is_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"^batch_size: expected"):
        eval_batches(Numbers(), value, batch_size=0)


def test_digits_through_the_loader() -> None:
    source = digits("val")
    batches = list(eval_batches(source, Preprocessing(32), batch_size=100))
    assert sum(batch["mask"].sum() for batch in batches) == len(source)
    np.testing.assert_array_equal(labels(batches)[: len(source)], source.labels)
    np.testing.assert_array_equal(batches[1]["image"][5], Preprocessing(32)(source[105]["image"]))


def test_import_is_cheap() -> None:
    code = """
import sys, flaxcnn.data
assert not {"PIL", "grain", "sklearn", "torch"} & set(sys.modules)
assert set(flaxcnn.data.__all__) <= set(dir(flaxcnn.data))
assert all(hasattr(flaxcnn.data, name) for name in flaxcnn.data.__all__)
assert not hasattr(flaxcnn.data, "nonsense")
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
