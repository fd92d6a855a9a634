"""From a config to rates and optimisers."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from flaxcnn import create_model, save_weights
from flaxcnn.build import (
    build,
    build_learning_rate,
    build_model,
    build_optimizer,
    build_sources,
    build_teacher,
    initial_state,
)
from flaxcnn.config import (
    Config,
    ConfigError,
    DataConfig,
    DistillConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
    validate,
)
from flaxcnn.data import folder
from flaxcnn.models import abstract_variables
from flaxcnn.train import create_state
from flaxcnn.train.loop import Schedule

STEPS_PER_EPOCH = 5


def rates(epochs: int, **settings: Any) -> list[float]:
    config = validate(Config(train=TrainConfig(epochs=epochs), optimizer=OptimizerConfig(**settings)))
    total = epochs * STEPS_PER_EPOCH
    schedule = Schedule(total=total, steps_per_epoch=STEPS_PER_EPOCH, log_every=1, eval_every=1)
    rate = build_learning_rate(config, schedule)
    return [float(rate(step)) for step in range(total)]


def test_durations_are_in_epochs() -> None:
    found = rates(4, learning_rate=1.0, schedule="step", schedule_options={"step_size": 1.2, "gamma": 0.5})
    assert found == pytest.approx([0.5 ** (step // 6) for step in range(20)])
    found = rates(4, learning_rate=1.0, schedule="multi_step", schedule_options={"milestones": (1, 3), "gamma": 0.5})
    assert found == pytest.approx([1.0] * 5 + [0.5] * 10 + [0.25] * 5)


def test_by_epoch_the_rate_changes_between_epochs() -> None:
    found = rates(
        4, learning_rate=1.0, schedule="exponential", schedule_options={"gamma": 0.5}, schedule_by="epoch",
        warmup_epochs=1, warmup="constant", warmup_factor=0.1,
    )  # fmt: skip
    assert found == pytest.approx([0.1] * 5 + [1.0] * 5 + [0.5] * 5 + [0.25] * 5)


def test_gradients_are_clipped_before_the_optimizer_sees_them() -> None:
    settings = OptimizerConfig("sgd", clip_norm=1.0, options={"weight_decay": 0.5}, decay="kernels")
    config = replace(Config(), optimizer=settings)
    optimizer, _ = build_optimizer(config, create_model("lenet"), lambda step: jnp.asarray(1.0), steps_per_epoch=1)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    grads = {"kernel": jnp.full((2, 2), 6.0), "bias": jnp.zeros(2)}  # of norm 12
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -(0.5 + 0.5), rtol=1e-6)
    np.testing.assert_allclose(updates["bias"], 0.0)


def test_the_initial_state_is_of_the_seed_and_can_be_donated() -> None:
    config = Config(
        model=ModelConfig("lenet"),
        data=DataConfig("digits", image_size=32),
        train=TrainConfig(seed=3, ema_decay=0.9),
    )
    experiment = build(config)
    state = initial_state(config, experiment)
    variables = experiment.model.init(jax.random.key(3), jnp.zeros((1, 32, 32, config.data.channels)), train=False)
    expected = create_state(experiment.model, experiment.optimizer, variables, seed=3, average=True)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7), state, expected)
    leaves = jax.tree.leaves(state)
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)


def test_a_teacher_is_built_as_its_run_was_trained(tmp_path: Path) -> None:
    trained, classes = Config(model=ModelConfig("lenet", head=(8,))), ["cat", "dog", "owl"]
    model = build_model(trained, 3)
    variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), abstract_variables(model))
    save_weights(model, variables, tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text(json.dumps(trained.to_dict()))
    (tmp_path / "run" / "class_names.json").write_text(json.dumps(classes))

    config = Config(distill=DistillConfig("lenet", str(tmp_path / "run")))
    teacher, loaded = build_teacher(config, classes, 64) or (None, None)
    assert teacher == model
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)
    with pytest.raises(ConfigError, match=r"knows other classes \(cat, dog, owl, ...\) than the data \(dog, cat, owl"):
        build_teacher(config, ["dog", "cat", "owl"], 64)
    with pytest.raises(ConfigError, match="is a run of lenet, not of resnet18"):
        build_teacher(Config(distill=DistillConfig("resnet18", str(tmp_path / "run"))), classes, 64)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for label in ("cat", "dog"):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for i in range(5):
            Image.new("RGB", (4, 4)).save(tmp_path / "pictures" / label / f"{i}.png")
    return tmp_path / "pictures"


def test_a_data_set_that_is_not_split_is_listed_once(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = []
    scan = folder._scan
    monkeypatch.setattr(folder, "_scan", lambda root, names: listed.append(root) or scan(root, names))
    train, val = build_sources(Config(data=DataConfig("image_folder", path=str(pictures))))
    assert (len(train), len(val)) == (8, 2) and listed == [pictures]


@pytest.mark.parametrize("within", ["", "cache", "cat"])
def test_a_cache_within_the_data_is_refused(pictures: Path, within: str) -> None:
    """There it would be taken for a class."""
    config = Config(data=DataConfig("image_folder", path=str(pictures), cache=str(pictures / within)))
    with pytest.raises(ConfigError, match=r"^data.cache .* lies within data.path"):
        build_sources(config)
    assert sorted(path.name for path in pictures.iterdir()) == ["cat", "dog"]


def test_parts_that_share_examples_are_refused(pictures: Path) -> None:
    """By whatever makes both: training and `show_data`."""
    config = Config(data=DataConfig("image_folder", str(pictures), train_split="all[:70%]", val_split="all[60%:]"))
    with pytest.raises(ConfigError, match=r"^data.train_split and data.val_split share 1 examples, such as .*png"):
        build_sources(config)
