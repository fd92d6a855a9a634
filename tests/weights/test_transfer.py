"""Trained weights as the start of another training, and what to do where a state dict is not one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from flaxcnn import WeightsError, create_model, from_torch, load_weights, save_weights, to_torch
from flaxcnn.models import Classifier, abstract_variables, with_head
from flaxcnn.weights import fitted, start_from
from flaxcnn.weights.transfer import with_channels


def random_variables(model: Classifier, channels: int = 3, seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: random.uniform(0.5, 1.5, leaf.shape).astype(np.float32), abstract_variables(model, channels)
    )


def state_dict_of(model: Classifier, channels: int = 3) -> dict[str, np.ndarray]:
    return to_torch(model, random_variables(model, channels, seed=1), channels=channels)


def assert_taken(loaded: Mapping[str, np.ndarray], weights: Mapping[str, np.ndarray], new: set[str]) -> None:
    """All of the weights but those of the new layers."""
    for key, array in loaded.items():
        if key not in new:
            np.testing.assert_array_equal(array, weights[key])


def test_a_head_for_other_classes_begins_at_zero() -> None:
    weights, model = state_dict_of(create_model("resnet18", num_classes=7)), create_model("resnet18", num_classes=3)
    variables, notes = start_from(model, random_variables(model), weights)
    assert notes == ("newly initialised for 3 classes: fc",)
    loaded = to_torch(model, variables)
    assert_taken(loaded, weights, {"fc.weight", "fc.bias"})
    assert all((leaf == 0).all() for leaf in variables["params"]["fc"].values())
    assert variables["params"]["fc"]["kernel"].shape == (512, 3)


def test_a_head_for_as_many_classes_is_taken() -> None:
    model = create_model("resnet18", num_classes=3)
    weights = state_dict_of(model)
    variables, notes = start_from(model, random_variables(model), weights)
    assert notes == ()
    assert_taken(to_torch(model, variables), weights, set())


def test_a_new_stack_on_a_backbone(tmp_path: Path) -> None:
    weights = state_dict_of(create_model("resnet18", num_classes=7))
    model = with_head(create_model("resnet18", num_classes=3), 8)
    initial = random_variables(model)
    variables, notes = start_from(model, initial, weights)
    assert notes == ("newly initialised for 3 classes: head.0, head.2",)
    jax.tree.map(np.testing.assert_array_equal, variables["params"]["head"], initial["params"]["head"])
    loaded = to_torch(model, variables)
    assert loaded["head.2.weight"].shape == (3, 8)
    new = {key for key in loaded if key.startswith("head")}
    assert_taken(loaded, {f"backbone.{key}": array for key, array in weights.items()}, new)

    # Such a network's own weights start another one.
    save_weights(model, variables, tmp_path / "w.safetensors")
    jax.tree.map(np.testing.assert_array_equal, load_weights(model, tmp_path / "w.safetensors"), variables)
    other = with_head(create_model("resnet18", num_classes=5), 8)
    again, notes = start_from(other, random_variables(other), loaded)
    assert notes == ("newly initialised for 5 classes: head.2",)
    jax.tree.map(np.testing.assert_array_equal, again["params"]["backbone"], variables["params"]["backbone"])


def test_a_stack_computes_what_it_says() -> None:
    model = with_head(create_model("lenet", num_classes=3), 8)
    variables, images = random_variables(model), np.ones((2, 32, 32, 3), np.float32)
    backbone = create_model("lenet", num_classes=0)
    features: Any = backbone.apply({"params": variables["params"]["backbone"]}, images, train=False)
    head = variables["params"]["head"]
    hidden = np.maximum(features @ head["0"]["kernel"] + head["0"]["bias"], 0)
    expected = hidden @ head["2"]["kernel"] + head["2"]["bias"]
    np.testing.assert_allclose(model.apply(variables, images, train=False), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="whole numbers above 0, not 0"):
        with_head(backbone, 0)


@pytest.mark.parametrize(("given", "channels"), [(3, 1), (3, 6), (1, 3)])
def test_other_channels(given: int, channels: int) -> None:
    model = create_model("resnet18", num_classes=3)
    weights = state_dict_of(model, given)
    variables, notes = start_from(model, random_variables(model, channels), weights, channels=channels)
    done = "summed over its 3" if channels == 1 else f"repeated from {given} to {channels}"
    assert notes == (f"first kernel (conv1.weight) {done} channels",)
    kernel = to_torch(model, variables, channels=channels)["conv1.weight"]
    assert kernel.shape == (64, channels, 7, 7)
    # A grey image is answered as before.
    np.testing.assert_allclose(kernel.sum(axis=1), weights["conv1.weight"].sum(axis=1), rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_other_channels_are_timms(channels: int) -> None:
    torch = pytest.importorskip("torch", reason="timm computes in it")
    manipulate = pytest.importorskip("timm.models._manipulate", reason="timm is the reference")
    model = create_model("resnet18", num_classes=3)
    weights = state_dict_of(model)
    ours, _ = with_channels(model, weights, channels)
    theirs = manipulate.adapt_input_conv(channels, torch.from_numpy(weights["conv1.weight"]))
    np.testing.assert_allclose(ours["conv1.weight"], theirs.numpy(), rtol=1e-6)


def wrapped(weights: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {prefix + key: array for key, array in weights.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: {"model": weights, "optimizer": {"state": {}}, "epoch": 3},
        lambda weights: {"state_dict": wrapped(weights, "model."), "hyper_parameters": {}},
        lambda weights: {"model_ema": weights, "epoch": 3},
        lambda weights: {"model": {"state_dict": weights}, "model_ema": {"no": 1}},
        lambda weights: wrapped(weights, "module."),
        lambda weights: wrapped(weights, "module._orig_mod."),
        lambda weights: {"n_averaged": 5, **wrapped(weights, "module.")},
    ],
    ids=["trainer", "Lightning", "only an average", "twice", "DataParallel", "compiled", "AveragedModel"],
)
def test_the_state_dict_inside_a_checkpoint_is_found(wrap: Callable[..., Any]) -> None:
    model = create_model("lenet", num_classes=3)
    weights = state_dict_of(model)
    assert_taken(to_torch(model, from_torch(model, wrap(weights))), weights, set())
    assert fitted(create_model("lenet"), wrap(weights)) == (model, 3)
    started = start_from(model, random_variables(model), wrap(weights))
    assert started.notes == ()  # its head too is taken
    assert_taken(to_torch(model, started.variables), weights, set())
    with pytest.raises(WeightsError, match=r"\(1 missing, 1 unexpected\): missing fc3.bias .*; unexpected fc4.bias"):
        from_torch(model, wrap({key.replace("fc3.bias", "fc4.bias"): array for key, array in weights.items()}))


@pytest.mark.parametrize(
    ("name", "channels", "options"),
    [
        ("lenet", 1, {"num_classes": 5}),
        ("lenet", 4, {"num_classes": 1}),
        ("inception_v1", 1, {"num_classes": 7, "aux_heads": False}),
    ],
)
def test_weights_tell_the_model_they_are_for(name: str, channels: int, options: dict[str, Any]) -> None:
    model = create_model(name, **options)
    shapes = to_torch(
        model, jax.tree.map(lambda a: np.zeros(a.shape), abstract_variables(model, channels)), channels=channels
    )
    assert fitted(create_model(name), shapes) == (model, channels)


def test_weights_that_tell_nothing_leave_the_model_as_it_is() -> None:
    model = create_model("resnet18", num_classes=9)
    for weights in ({}, {"conv1.weight": np.zeros(3), "fc.weight": np.zeros(()), "x": np.zeros(2)}):
        assert fitted(model, weights) == (model, 3)


def test_what_holds_no_state_dict() -> None:
    model = create_model("lenet", num_classes=3)
    weights = state_dict_of(model)

    class Module:
        def state_dict(self) -> dict[str, np.ndarray]:
            return weights

    for given, message in [
        ("model.pth", r"this is a path, not a state dict: load_weights\(model, 'model.pth'\) reads it"),
        (Path("model.pth"), "this is a path"),
        (Module(), r"this is a Module, not a state dict: pass its .state_dict\(\)"),
        ({"model": Module(), "epoch": 3}, r"its 'model' is a Module, not a tensor: pass its .state_dict\(\)"),
        ({"net": weights}, "its net is a dictionary, not a tensor; if the weights are there, give that entry"),
        ([1], "this is a list, not a state dict, which maps keys to arrays"),
        ({}, r"\(10 missing\)"),
        (wrapped(weights, "encoder."), r"\(10 missing, 10 unexpected\)"),
    ]:
        with pytest.raises(WeightsError, match=message):
            from_torch(model, given)  # pyright: ignore[reportArgumentType]


def test_many_wrong_keys_make_a_short_line_and_a_whole_message() -> None:
    model = create_model("resnet18", num_classes=3)
    weights = {key.replace("layer", "stage"): array for key, array in state_dict_of(model).items()}
    weights["fc.bias"] = np.zeros(4)
    with pytest.raises(WeightsError) as refusal:
        from_torch(model, weights)
    message, line = str(refusal.value), refusal.value.line
    wrong = [key for key in weights if key.startswith("stage")]
    assert len(wrong) == 95
    assert all(
        f"unexpected {key}" in message and f"missing {key.replace('stage', 'layer')}" in message for key in wrong
    )
    assert len(line) < 700
    assert "\n" not in line
    for part in (
        "(95 missing, 95 unexpected, 1 mis-shaped)",
        "missing layer1.0.bn1.bias (is it stage1.0.bn1.bias?)",
        "and 92 more missing",
        "and 92 more unexpected",
        "fc.bias has shape (4,), the model's is (3,)",
    ):
        assert part in line
