"""Run by `test_parallel.py` in float64, in a process that has eight CPU devices."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxcnn import optim
from flaxcnn.build import build_put_batch
from flaxcnn.data import Preprocessing
from flaxcnn.inference import evaluate, make_eval_step
from flaxcnn.losses import softmax_cross_entropy
from flaxcnn.models import Classifier
from flaxcnn.train import create_state, make_train_step
from flaxcnn.train.averaging import moving_average
from flaxcnn.train.checkpoint import Checkpoints
from flaxcnn.train.parallel import AXIS, DataParallel, FullySharded, PerDevice
from tests.train.tiny import Tiny, TinyWithHeads, assert_close, assert_identical, differ, make_batch, make_variables

SGD = optim.sgd(0.05, momentum=0.9)
# At a smaller eps, Adam would make steps of the rounding that is the gradient of a bias in front of a BatchNorm.
ADAM = optim.adam(0.01, eps=1e-3)


class AllSharded(FullySharded):
    """Splits even the arrays of the tiny network."""

    min_size = 4


ARRANGEMENTS = [DataParallel, AllSharded, PerDevice]


def uneven_batch(seed: int) -> dict[str, np.ndarray]:
    """Each device's share has a mean and a variance of its own."""
    batch = make_batch(seed)
    images = batch["image"].astype(np.float64) * np.arange(1, 9).reshape(-1, 1, 1, 1)
    return {**batch, "image": images + np.arange(8).reshape(-1, 1, 1, 1)}


def in_float64(model: Classifier):
    return jax.tree.map(lambda x: x.astype(jnp.float64), make_variables(model))


def start(parallel: DataParallel, model: Classifier, optimizer: optax.GradientTransformation = SGD, **options):
    """The state and the step of a run."""
    state = create_state(model, optimizer, in_float64(model), average="average" in options)
    state = parallel.put_state(state)
    step = make_train_step(model, optimizer, axis_name=parallel.axis_name, **options)
    return state, parallel.jit_step(step, state)


def train(parallel: DataParallel, model: Classifier, optimizer=SGD, *, steps: int = 4, **options):
    state, step = start(parallel, model, optimizer, **options)
    sums = []
    for seed in range(steps):
        state, metrics = step(state, parallel.put_batch(uneven_batch(seed)))
        sums.append(jax.device_get(metrics))
    return state, sums


@lru_cache
def one_device(optimizer: optax.GradientTransformation):
    return jax.device_get(train(DataParallel(jax.devices()[:1]), Tiny(), optimizer))


@pytest.mark.parametrize("optimizer", [SGD, ADAM], ids=["sgd", "adam"])
@pytest.mark.parametrize("devices", [1, 2, 4, 8])
@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_training_is_that_of_one_device(arrangement: type[DataParallel], devices: int, optimizer) -> None:
    parallel = arrangement(jax.devices()[:devices])
    assert parallel.device_count == devices
    many, many_sums = jax.device_get(train(parallel, Tiny(axis_name=parallel.axis_name), optimizer))
    one, one_sums = one_device(optimizer)
    assert_close(many.params, one.params, rtol=1e-9, atol=1e-11)
    assert_close(many.opt_state, one.opt_state, rtol=1e-9, atol=1e-11)
    assert_close(many.batch_stats, one.batch_stats, rtol=1e-10, atol=1e-12)
    assert_close(many_sums, one_sums, rtol=1e-9, atol=1e-11)
    assert all(sums["count"] == 8 for sums in many_sums)


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_microbatches_and_a_moving_average_too(arrangement: type[DataParallel]) -> None:
    options = {"microbatches": 2, "average": moving_average(0.9, every=1, steps_per_epoch=4)}
    parallel = arrangement(jax.devices()[:4])
    # A mapped step drops out other units on every device.
    model = Tiny(axis_name=parallel.axis_name, dropout=0.0 if parallel.axis_name else 0.5)
    four, _ = train(parallel, model, **options)
    one, _ = train(DataParallel(jax.devices()[:1]), model.clone(axis_name=None), **options)
    assert_close(jax.device_get(four), jax.device_get(one), rtol=1e-9, atol=1e-11)
    assert differ(jax.device_get(one.average["params"]), jax.device_get(one.params))


@pytest.mark.parametrize("devices", [1, 4])
def test_microbatches_sum_to_the_large_batch(devices: int) -> None:
    model = TinyWithHeads()  # without BatchNorm
    parallel = DataParallel(jax.devices()[:devices])
    (one, one_sums), (parts, parts_sums) = (
        jax.device_get(train(parallel, model, microbatches=microbatches)) for microbatches in (1, 2)
    )
    assert_close(parts.params, one.params, rtol=1e-12, atol=1e-14)
    assert_close(parts_sums, one_sums, rtol=1e-12)


def test_a_device_normalises_with_its_own_share_and_the_firsts_statistics_stay() -> None:
    """As in DistributedDataParallel: gradients are averaged, the first process's buffers are everyone's."""
    model, optimizer, batch = Tiny(), optim.sgd(0.05), uneven_batch(0)
    parallel = PerDevice(jax.devices()[:2])
    state = create_state(model, optimizer, in_float64(model))
    step = jax.jit(make_train_step(model, optimizer))
    first, second = (
        step(state, {name: x[share] for name, x in batch.items()})[0] for share in np.split(np.arange(8), 2)
    )
    mapped = parallel.jit_step(make_train_step(model, optimizer, axis_name=AXIS), state)
    found, _ = mapped(parallel.put_state(state), parallel.put_batch(batch))
    assert_close(found.params, jax.tree.map(lambda a, b: (a + b) / 2, first.params, second.params), rtol=1e-10)
    assert_close(found.batch_stats, first.batch_stats, rtol=1e-12)


def test_devices_drop_out_different_units() -> None:
    """With equal images, and dropout the same on both devices, two would have the loss of one."""
    model, optimizer = Tiny(dropout=0.5), optim.sgd(0.0)
    batch = {"image": np.ones((2, 8, 8, 3)) * np.arange(8).reshape(1, 8, 1, 1), "label": np.zeros(2, np.int32)}
    found = set()
    for devices, n in ((1, 1), (2, 2)):
        parallel = PerDevice(jax.devices()[:devices])
        state = parallel.put_state(create_state(model, optimizer, in_float64(model)))
        step = parallel.jit_step(make_train_step(model, optimizer, axis_name=AXIS), state)
        _, metrics = step(state, parallel.put_batch({name: x[:n] for name, x in batch.items()}))
        found.add(round(float(metrics["loss"] / metrics["count"]), 9))
    assert len(found) == 2


def test_batch_norm_sees_the_whole_batch() -> None:
    model = Tiny()
    variables, batch = in_float64(model), uneven_batch(0)
    kernel, bias = (np.asarray(variables["params"]["conv"][name]) for name in ("kernel", "bias"))
    patches = np.lib.stride_tricks.sliding_window_view(batch["image"], (3, 3), axis=(1, 2))  # (n, h, w, c, 3, 3)
    convolved = np.einsum("nhwcij,ijco->nhwo", patches, kernel) + bias
    norm = train(DataParallel(), model, steps=1)[0].batch_stats["norm"]
    np.testing.assert_allclose(norm["mean"], 0.1 * convolved.mean(axis=(0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(norm["var"], 0.9 + 0.1 * convolved.var(axis=(0, 1, 2), ddof=1), rtol=1e-9)


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_a_fully_sharded_state_is_split(devices: int) -> None:
    state, _ = train(AllSharded(jax.devices()[:devices]), Tiny(), steps=1)
    for params in (state.params, state.opt_state[1].trace):
        for array, share in (
            (params["conv"]["kernel"], (3, 3, 3, 8 // devices)),
            (params["norm"]["scale"], (8 // devices,)),
            (params["fc"]["kernel"], (8 // devices, 3)),
            (params["fc"]["bias"], (3,)),  # too small, and nothing that the devices divide
        ):
            assert [shard.data.shape for shard in array.addressable_shards] == [share] * devices


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_a_checkpoint_of_four_devices_goes_on_with_any(tmp_path: Path, arrangement: type[DataParallel]) -> None:
    parallel = arrangement(jax.devices()[:4])
    model = Tiny(axis_name=parallel.axis_name)
    state, step = start(parallel, model, ADAM)
    state, _ = step(state, parallel.put_batch(uneven_batch(0)))
    saved = jax.device_get(state)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state, {})
    checkpoints.close()
    uninterrupted, _ = jax.device_get(step(state, parallel.put_batch(uneven_batch(1))))
    for kind, devices in [
        (DataParallel, 1),
        (DataParallel, 8),
        (AllSharded, 1),
        (AllSharded, 2),
        (AllSharded, 8),
        (PerDevice, 8),
    ]:
        there = kind(jax.devices()[:devices])
        like, step = start(there, Tiny(axis_name=there.axis_name), ADAM)
        restored, _ = Checkpoints(tmp_path, read_only=True).restore(1, like)
        assert_identical(jax.device_get(restored), saved)
        assert jax.tree.map(lambda x: x.sharding, restored) == jax.tree.map(lambda x: x.sharding, like)
        after, _ = jax.device_get(step(restored, there.put_batch(uneven_batch(1))))
        assert_close(after, uninterrupted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("devices", [2, 4, 8])
@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_evaluation_counts_each_example_once(arrangement: type[DataParallel], devices: int) -> None:
    model, examples = Tiny(), 19
    variables = in_float64(model)
    parallel = arrangement(jax.devices()[:devices])
    assert parallel.round_up(7) == 8
    batches = []
    for first in range(0, examples, 8):
        batches.append({**make_batch(first), "mask": (first + np.arange(8) < examples).astype(np.float32)})
    step = parallel.jit(make_eval_step(model))
    found = evaluate(step, parallel.put_state(variables), map(parallel.put_batch, batches))

    images, labels = (np.concatenate([batch[name] for batch in batches])[:examples] for name in ("image", "label"))
    logits = model.apply(variables, images, train=False)
    assert found["examples"] == examples
    assert found["loss"] == pytest.approx(float(softmax_cross_entropy(logits, labels).mean()), rel=1e-9)
    assert found["top1"] == pytest.approx((np.asarray(logits).argmax(axis=1) == labels).mean(), rel=1e-9)


def test_a_batch_is_split_and_a_state_is_copied() -> None:
    parallel = DataParallel(jax.devices()[:4])
    images = parallel.put_batch(make_batch())["image"]
    assert [shard.data.shape[0] for shard in images.addressable_shards] == [2, 2, 2, 2]
    state = parallel.put_state({"w": np.ones(3)})
    assert [shard.data.shape for shard in state["w"].addressable_shards] == [(3,)] * 4


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_bytes_are_normalised_on_the_devices_that_they_are_split_over(arrangement: type[DataParallel]) -> None:
    parallel, preprocessing = arrangement(), Preprocessing(6)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 3), np.uint8)
    put_batch = build_put_batch(SimpleNamespace(preprocessing=preprocessing), parallel)  # type: ignore[arg-type]
    images = put_batch({"image": pixels})["image"]
    assert images.sharding == parallel.split
    assert [shard.data.shape[0] for shard in images.addressable_shards] == [1] * 8
    np.testing.assert_array_equal(images, [preprocessing.normalise(each) for each in pixels])
