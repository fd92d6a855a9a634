"""The moving average: counted as torchvision's training reference counts it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxcnn import optim
from flaxcnn.train import create_state, make_train_step
from flaxcnn.train.averaging import decay_per_update, moving_average, warmup_steps
from tests.train.tiny import Tiny, assert_close, assert_identical, make_batch, make_variables

STEPS_PER_EPOCH, EVERY, WARMUP_EPOCHS = 5, 2, 1


def test_averages_are_those_of_torchvisions_loop() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the reference (pip install 'flaxcnn[test]')")
    from torch.optim.swa_utils import AveragedModel

    model = torch.nn.BatchNorm2d(3)
    decay = decay_per_update(0.9, every=EVERY, batch_size=8, epochs=4)
    averaged = AveragedModel(model, avg_fn=lambda a, p, _: decay * a + (1 - decay) * p, use_buffers=True)
    average = moving_average(
        decay,
        every=EVERY,
        steps_per_epoch=STEPS_PER_EPOCH,
        copy_steps=warmup_steps(WARMUP_EPOCHS, STEPS_PER_EPOCH),
    )
    ours = {"weight": jnp.ones(3), "running_var": jnp.ones(3)}
    random = np.random.default_rng(0)
    for step in range(4 * STEPS_PER_EPOCH):
        new = {name: random.normal(size=3).astype(np.float32) for name in ours}
        with torch.no_grad():
            model.weight.copy_(torch.tensor(new["weight"]))
            model.running_var.copy_(torch.tensor(new["running_var"]))
        epoch, i = divmod(step, STEPS_PER_EPOCH)
        if i % EVERY == 0:
            averaged.update_parameters(model)
            if epoch < WARMUP_EPOCHS:
                averaged.n_averaged.fill_(0)
        ours = average(jnp.int32(step), ours, new)
        np.testing.assert_allclose(ours["weight"], averaged.module.weight.detach(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ours["running_var"], averaged.module.running_var, rtol=1e-5, atol=1e-6)


def test_the_decay_of_an_update_by_hand() -> None:
    # 0.00002 an image, 1,024 images a step, 32 steps an update, over 600 epochs.
    assert decay_per_update(0.99998, every=32, batch_size=1024, epochs=600) == pytest.approx(1 - 2e-5 * 32768 / 600)
    assert decay_per_update(0.5, every=32, batch_size=1024, epochs=1) == 0.0
    assert warmup_steps(0.5, 10) == 10


def test_the_step_averages_parameters_and_statistics() -> None:
    model, optimizer = Tiny(), optim.sgd(0.1)
    average = moving_average(0.75, every=1, steps_per_epoch=10)
    state = create_state(model, optimizer, make_variables(model), average=True)
    step = jax.jit(make_train_step(model, optimizer, average=average), donate_argnums=0)
    first, _ = step(state, make_batch(0))
    assert_identical(first.average, first.variables)
    kept = jax.tree.map(np.array, first.average)
    second, _ = step(first, make_batch(1))
    assert_close(
        second.average, jax.tree.map(lambda a, b: 0.75 * a + 0.25 * b, kept, second.variables), rtol=1e-6, atol=1e-7
    )
