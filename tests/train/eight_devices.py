"""Run by `test_parallel.py` in float64, in a process that has eight CPU devices."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxcnn import optim
from flaxcnn.inference import evaluate, make_eval_step
from flaxcnn.models import Classifier
from flaxcnn.train import create_state, make_train_step
from flaxcnn.train.averaging import moving_average
from flaxcnn.train.checkpoint import Checkpoints
from flaxcnn.train.parallel import AXIS, DataParallel, FullySharded, PerDevice
from tests.train.tiny import Tiny, TinyWithHeads, assert_close, assert_identical, make_batch, make_variables

# Adam would make steps of the rounding that is the gradient of a bias in front of a BatchNorm.
OPTIMIZER = optim.sgd(0.05, momentum=0.9)


class AllSharded(FullySharded):
    """Splits even the arrays of the tiny network."""

    min_size = 4


def uneven_batch(seed: int) -> dict[str, np.ndarray]:
    """Each device's share has a mean and a variance of its own."""
    batch = make_batch(seed)
    images = batch["image"].astype(np.float64) * np.arange(1, 9).reshape(-1, 1, 1, 1)
    return {**batch, "image": images + np.arange(8).reshape(-1, 1, 1, 1)}


def in_float64(model: Classifier):
    return jax.tree.map(lambda x: x.astype(jnp.float64), make_variables(model))


def train(parallel: DataParallel, model: Classifier, steps: int = 4, **options):
    state = create_state(model, OPTIMIZER, in_float64(model), average="average" in options)
    state = parallel.put_state(state)
    step = make_train_step(model, OPTIMIZER, axis_name=parallel.axis_name, **options)
    step = parallel.jit_step(step, state)
    sums = []
    for seed in range(steps):
        state, metrics = step(state, parallel.put_batch(uneven_batch(seed)))
        sums.append(jax.device_get(metrics))
    return state, sums


@lru_cache
def one_device():
    return jax.device_get(train(DataParallel(jax.devices()[:1]), Tiny()))


@pytest.mark.parametrize("devices", [2, 4, 8])
@pytest.mark.parametrize("arrangement", [DataParallel, AllSharded, PerDevice])
def test_training_is_that_of_one_device(arrangement: type[DataParallel], devices: int) -> None:
    parallel = arrangement(jax.devices()[:devices])
    assert parallel.device_count == devices
    many, many_sums = jax.device_get(train(parallel, Tiny(axis_name=parallel.axis_name)))
    one, one_sums = one_device()
    assert_close(many.params, one.params, rtol=1e-9, atol=1e-11)
    assert_close(many.batch_stats, one.batch_stats, rtol=1e-10, atol=1e-12)
    assert_close(many_sums, one_sums, rtol=1e-9, atol=1e-11)
    assert all(sums["count"] == 8 for sums in many_sums)


def test_dropout_and_a_sharded_batch_of_microbatches_too() -> None:
    options = {"microbatches": 2, "average": moving_average(0.9, every=1, steps_per_epoch=4)}
    model = Tiny(dropout=0.5)
    one, four = (train(DataParallel(jax.devices()[:n]), model, **options)[0] for n in (1, 4))
    assert_close(jax.device_get(four), jax.device_get(one), rtol=1e-9, atol=1e-11)


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


def test_a_fully_sharded_state_is_split() -> None:
    state, _ = train(AllSharded(), Tiny(), steps=1)
    for kernel in (state.params["fc"]["kernel"], state.opt_state[1].trace["fc"]["kernel"]):
        assert kernel.shape == (4, 3)
        assert kernel.sharding.is_fully_replicated  # nothing that 8 divides
    four, _ = train(AllSharded(jax.devices()[:4]), Tiny(), steps=1)
    for kernel in (four.params["fc"]["kernel"], four.opt_state[1].trace["fc"]["kernel"]):
        assert [shard.data.shape for shard in kernel.addressable_shards] == [(1, 3)] * 4


@pytest.mark.parametrize("arrangement", [DataParallel, AllSharded])
def test_a_checkpoint_of_four_devices_goes_on_with_any(tmp_path: Path, arrangement: type[DataParallel]) -> None:
    state, _ = train(arrangement(jax.devices()[:4]), Tiny(), steps=1)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state, {})
    checkpoints.close()
    for there in (DataParallel(jax.devices()[:1]), AllSharded(jax.devices()[:2]), DataParallel()):
        like = there.put_state(create_state(Tiny(), OPTIMIZER, in_float64(Tiny()), seed=3))
        restored, _ = Checkpoints(tmp_path, read_only=True).restore(1, like)
        assert_identical(jax.device_get(restored), jax.device_get(state))
        assert jax.tree.map(lambda x: x.sharding, restored) == jax.tree.map(lambda x: x.sharding, like)


@pytest.mark.parametrize("arrangement", [DataParallel, AllSharded, PerDevice])
def test_evaluation_is_that_of_one_device(arrangement: type[DataParallel]) -> None:
    model = Tiny()
    variables = in_float64(model)
    results = []
    for parallel in (DataParallel(jax.devices()[:1]), arrangement(jax.devices()[:4])):
        assert parallel.round_up(6) == (6 if parallel.device_count == 1 else 8)
        batches = []
        for start in range(0, 20, 8):
            batch = make_batch(start)
            batch["mask"] = (start + np.arange(8) < 18).astype(np.float32)
            batches.append(parallel.put_batch(batch))
        step = parallel.jit(make_eval_step(model))
        results.append(evaluate(step, parallel.put_state(variables), batches))
    assert results[0]["examples"] == 18
    assert results[1] == pytest.approx(results[0], rel=1e-6)


def test_a_batch_is_split_and_a_state_is_copied() -> None:
    parallel = DataParallel(jax.devices()[:4])
    images = parallel.put_batch(make_batch())["image"]
    assert [shard.data.shape[0] for shard in images.addressable_shards] == [2, 2, 2, 2]
    state = parallel.put_state({"w": np.ones(3)})
    assert [shard.data.shape for shard in state["w"].addressable_shards] == [(3,)] * 4
