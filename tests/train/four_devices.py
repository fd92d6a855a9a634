"""Run by `test_parallel.py` in a process that has four CPU devices."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from flaxcnn import optim
from flaxcnn.inference import evaluate, make_eval_step
from flaxcnn.train import create_state, make_train_step
from flaxcnn.train.parallel import DataParallel
from tests.train.tiny import Tiny, assert_close, make_batch, make_variables


def uneven_batch(seed: int) -> dict[str, np.ndarray]:
    """Each device's share has a mean and a variance of its own."""
    batch = make_batch(seed)
    batch["image"] = batch["image"] * np.arange(1, 9, dtype=np.float32).reshape(-1, 1, 1, 1)
    batch["image"] += np.arange(8, dtype=np.float32).reshape(-1, 1, 1, 1)
    return batch


def train(devices: int, steps: int = 5):
    parallel = DataParallel(jax.devices()[:devices])
    assert parallel.device_count == devices
    model, optimizer = Tiny(dropout=0.5), optim.sgd(0.05, momentum=0.9)
    state = parallel.put_state(create_state(model, optimizer, make_variables(model)))
    step = parallel.jit(make_train_step(model, optimizer), donate_state=True)
    sums = []
    for seed in range(steps):
        state, metrics = step(state, parallel.put_batch(uneven_batch(seed)))
        sums.append(jax.device_get(metrics))
    return jax.device_get(state), sums


@pytest.mark.parametrize("devices", [2, 4])
def test_training_is_that_of_one_device(devices: int) -> None:
    (one, one_sums), (many, many_sums) = train(1), train(devices)
    assert_close(many.params, one.params, rtol=1e-4, atol=1e-5)
    assert_close(many.batch_stats, one.batch_stats, rtol=1e-5, atol=1e-6)
    assert_close(many_sums, one_sums, rtol=1e-4)
    assert all(sums["count"] == 8 for sums in many_sums)


def test_batch_norm_sees_the_whole_batch() -> None:
    model, optimizer = Tiny(), optim.sgd(0.05)
    parallel = DataParallel()
    state = parallel.put_state(create_state(model, optimizer, make_variables(model)))
    batch = uneven_batch(0)
    kernel, bias = (np.asarray(state.params["conv"][name], np.float64) for name in ("kernel", "bias"))
    patches = np.lib.stride_tricks.sliding_window_view(batch["image"], (3, 3), axis=(1, 2))  # (n, h, w, c, 3, 3)
    convolved = np.einsum("nhwcij,ijco->nhwo", patches, kernel) + bias
    new, _ = parallel.jit(make_train_step(model, optimizer))(state, parallel.put_batch(batch))
    norm = new.batch_stats["norm"]
    np.testing.assert_allclose(norm["mean"], 0.1 * convolved.mean(axis=(0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(norm["var"], 0.9 + 0.1 * convolved.var(axis=(0, 1, 2), ddof=1), rtol=1e-4)


def test_evaluation_is_that_of_one_device() -> None:
    model = Tiny()
    variables = make_variables(model)
    results = []
    for devices in (1, 4):
        parallel = DataParallel(jax.devices()[:devices])
        assert parallel.round_up(6) == (6 if devices == 1 else 8)
        batches = []
        for start in range(0, 20, 8):
            batch = make_batch(start)
            batch["mask"] = (start + np.arange(8) < 18).astype(np.float32)
            batches.append(parallel.put_batch(batch))
        step = parallel.jit(make_eval_step(model))
        results.append(evaluate(step, parallel.put_state(variables), batches))
    assert results[0]["examples"] == 18
    assert results[1] == pytest.approx(results[0], rel=1e-5)


def test_a_batch_is_split_and_a_state_is_copied() -> None:
    parallel = DataParallel()
    images = parallel.put_batch(make_batch())["image"]
    assert [shard.data.shape[0] for shard in images.addressable_shards] == [2, 2, 2, 2]
    state = parallel.put_state({"w": np.ones(3)})
    assert [shard.data.shape for shard in state["w"].addressable_shards] == [(3,)] * 4
