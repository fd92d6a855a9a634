"""Fine-tuning: what is frozen, what trains and at which rate, against PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest
from jax import Array

from flaxcnn import create_model, from_torch, optim
from flaxcnn.layers import BatchNorm, Conv, Linear, global_avg_pool
from flaxcnn.models.classifier import Classifier
from flaxcnn.train import create_state, in_phases, make_train_step
from tests.train.tiny import CLASSES, SIZE, Tiny, assert_close, assert_identical, differ, make_batch, make_variables

BACKBONE = ("conv1", "bn1", "conv2", "bn2")


class Net(Classifier, kw_only=True):
    """Two convolutions with BatchNorm, and a linear layer."""

    num_classes: int = CLASSES
    image_size: int = SIZE

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Array:
        x = images
        for i in (1, 2):
            x = Conv(4, 3, padding=1, use_bias=False, name=f"conv{i}")(x)
            x = nn.relu(BatchNorm(use_running_average=not train, name=f"bn{i}")(x))
        return Linear(self.num_classes, name="fc")(global_avg_pool(x))


def torch_net() -> Any:
    """PyTorch's, with statistics at which a mistake shows."""
    torch = pytest.importorskip("torch", reason="PyTorch is the reference (pip install 'flaxcnn[test]')")

    class TorchNet(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = torch.nn.Conv2d(3, 4, 3, padding=1, bias=False), torch.nn.BatchNorm2d(4)
            self.conv2, self.bn2 = torch.nn.Conv2d(4, 4, 3, padding=1, bias=False), torch.nn.BatchNorm2d(4)
            self.fc = torch.nn.Linear(4, CLASSES)

        def forward(self, x: Any) -> Any:
            x = self.bn1(self.conv1(x)).relu()
            return self.fc(self.bn2(self.conv2(x)).relu().mean(dim=(2, 3)))

    torch.manual_seed(0)
    net = TorchNet()
    for norm in (net.bn1, net.bn2):
        for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
            tensor.uniform_(0.5, 1.5)
    return net


def freeze(net: Any, names: tuple[str, ...]) -> None:
    """As PyTorch's users do: no gradients, and `eval()` for the frozen modules."""
    net.train()
    for name in (*BACKBONE, "fc"):
        module = getattr(net, name)
        module.requires_grad_(name not in names)
        module.train(name not in names)


def train_torch(net: Any, optimizer: Any, steps: range) -> None:
    import torch

    for i in steps:
        batch = make_batch(i)
        images = torch.from_numpy(batch["image"].transpose(0, 3, 1, 2).copy())
        loss = torch.nn.functional.cross_entropy(net(images), torch.from_numpy(batch["label"]).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("trainable", "frozen"),
    [("", ()), ("conv2|bn2|fc", ("conv1", "bn1")), ("fc", BACKBONE), ("(?!bn)", ("bn1", "bn2"))],
    ids=["everything", "the last layers", "the head", "everything but BatchNorm"],
)
def test_frozen_networks_train_as_torchs(trainable: str, frozen: tuple[str, ...]) -> None:
    import torch

    net, model = torch_net(), Net()
    before = from_torch(model, net.state_dict())
    make_optimizer = partial(optim.sgd, momentum=0.9, weight_decay=0.1)
    optimizer = optim.by_group(make_optimizer, 0.1, before["params"], trainable={trainable: 0})
    state = create_state(model, optimizer, before)
    step = jax.jit(make_train_step(model, optimizer, trainable=trainable))
    for i in range(4):
        state, _ = step(state, make_batch(i))

    freeze(net, frozen)
    weights = [p for p in net.parameters() if p.requires_grad]
    train_torch(net, torch.optim.SGD(weights, 0.1, momentum=0.9, weight_decay=0.1), range(4))
    after = from_torch(model, net.state_dict())
    assert_close(state.variables, after, rtol=0, atol=1e-5)
    for collection, modules in state.variables.items():
        for name, leaves in modules.items():
            if name in frozen:
                assert_identical(leaves, before[collection][name])
            else:
                assert differ(leaves, before[collection][name])


def test_rates_of_groups_and_unfreezing_are_torchs() -> None:
    """Adam, whose state is that of a group's own steps; the rate falls at every step."""
    import torch

    net, model, rates = torch_net(), Net(), np.linspace(0.02, 0.01, 6)
    before = from_torch(model, net.state_dict())
    optimizer = optim.by_group(
        partial(optim.adam, weight_decay=0.1),
        lambda step: jax.numpy.asarray(rates, "float32")[step],
        before["params"],
        trainable={"fc": 0, "conv2|bn2": 2, "": 4},
        factors={"fc": 2.0, "conv1": 0.1, "conv": 0.5},
    )
    phases = {0: "fc", 2: "conv2|bn2|fc", 4: ""}
    steps = {first: jax.jit(make_train_step(model, optimizer, trainable=p)) for first, p in phases.items()}
    step, state = in_phases(steps), create_state(model, optimizer, before)
    for i in range(6):
        state, _ = step(state, make_batch(i))

    factors = {"fc": 2.0, "conv1": 0.1, "conv2": 0.5}
    adam = torch.optim.Adam([{"params": net.fc.parameters(), "name": "fc"}], weight_decay=0.1)
    for i in range(6):
        for name in {2: ("conv2", "bn2"), 4: ("conv1", "bn1")}.get(i, ()):
            adam.add_param_group({"params": getattr(net, name).parameters(), "name": name})
        freeze(net, {0: BACKBONE, 2: ("conv1", "bn1"), 4: ()}[i // 2 * 2])
        for group in adam.param_groups:
            group["lr"] = rates[i] * factors.get(group["name"], 1.0)
        train_torch(net, adam, range(i, i + 1))
    assert_close(state.variables, from_torch(model, net.state_dict()), rtol=0, atol=2e-5)


def test_phases_take_turns_from_where_a_run_goes_on() -> None:
    calls: list[str] = []

    def phase(name: str) -> Any:
        return lambda state, batch: calls.append(name)

    step = in_phases({0: phase("a"), 2: phase("b"), 3: phase("c")}, done=1)
    for _ in range(4):
        step(None, None)  # pyright: ignore[reportArgumentType]
    assert calls == ["a", "b", "c", "c"]


def test_no_optimiser_moves_what_is_frozen() -> None:
    """Even one that knows nothing of it, and decays all weights."""
    model = Net()
    optimizer = optim.sgd(0.1, momentum=0.9, weight_decay=0.1)
    state = create_state(model, optimizer, make_variables(model))
    new, _ = jax.jit(make_train_step(model, optimizer, trainable="fc"))(state, make_batch())
    new, _ = jax.jit(make_train_step(model, optimizer, trainable="fc"))(new, make_batch())
    assert_identical({k: new.params[k] for k in BACKBONE}, {k: state.params[k] for k in BACKBONE})
    assert_identical(new.batch_stats, state.batch_stats)
    assert differ(new.params["fc"], state.params["fc"])


def test_a_frozen_group_has_no_state_in_the_optimiser() -> None:
    params = make_variables(Net())["params"]
    optimizer = optim.by_group(partial(optim.sgd, momentum=0.9), 0.1, params, trainable={"fc": 0})
    assert sum(leaf.size for leaf in jax.tree.leaves(optimizer.init(params)) if leaf.ndim) == 4 * CLASSES + CLASSES


def test_dropout_is_off_within_a_module_of_which_nothing_trains() -> None:
    class Pair(Classifier, kw_only=True):
        """A dropout within each of two modules."""

        num_classes: int = CLASSES
        image_size: int = SIZE

        @nn.compact
        def __call__(self, images: Array, *, train: bool) -> Array:
            x = Tiny(num_classes=3, dropout=self.dropouts[0], name="backbone")(images, train=train)
            x = images + x.reshape(-1, 1, 1, 3)
            return Tiny(dropout=self.dropouts[1], name="head")(x, train=train)

        dropouts: tuple[float, float] = (0.0, 0.0)

    def losses(dropouts: tuple[float, float], trainable: str) -> set[float]:
        model, optimizer = Pair(dropouts=dropouts), optim.sgd(0.1)
        variables = make_variables(model)
        step = jax.jit(make_train_step(model, optimizer, trainable=trainable))
        states = [create_state(model, optimizer, variables, seed=seed) for seed in range(3)]
        return {float(step(state, make_batch())[1]["loss"]) for state in states}

    assert len(losses((0.5, 0.0), "head")) == 1
    assert len(losses((0.5, 0.0), "head|backbone.fc")) == 3
    assert len(losses((0.0, 0.5), "head.fc")) == 3


@pytest.mark.parametrize(
    ("trainable", "dropout", "is_random"),
    [("", 0.0, True), ("blocks.5|classifier", 0.0, True), ("classifier", 0.0, False), ("classifier", 0.5, True)],
)
def test_stochastic_depth_is_off_in_a_frozen_backbone(trainable: str, dropout: float, is_random: bool) -> None:
    """Not so the dropout before the classifier, which is the whole network's."""
    model, optimizer = create_model("efficientnet_lite0", image_size=32, dropout=dropout), optim.sgd(0.1)
    state = jax.eval_shape(lambda: create_state(model, optimizer, make_variables(model)))
    batch = {"image": jax.ShapeDtypeStruct((2, 32, 32, 3), "float32"), "label": jax.ShapeDtypeStruct((2,), "int32")}
    program = jax.make_jaxpr(make_train_step(model, optimizer, trainable=trainable))(state, batch)
    assert ("random_bits" in str(program)) == is_random


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("cnv1", r"no parameter's path begins with a match of 'cnv1'; did you mean conv1"),
        ("conv1.weight", r"did you mean .*conv1.kernel"),
        ("zzz", r"known: bn1, bn2, conv1, conv2, fc"),
        ("(", r"'\(' is no regular expression: missing \)"),
    ],
)
def test_a_pattern_that_matches_nothing_is_named(pattern: str, message: str) -> None:
    params: Mapping[str, Any] = make_variables(Net())["params"]
    with pytest.raises(ValueError, match=message):
        optim.matching(params, pattern)
    for groups in ({"trainable": {"": 0, pattern: 1}}, {"factors": {pattern: 0.1}}):
        with pytest.raises(ValueError, match=message):
            optim.by_group(optim.sgd, 0.1, params, **groups)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"remat": True}, {"microbatches": 2}], ids=["remat", "microbatches"])
def test_frozen_whatever_else_the_step_does(options: Mapping[str, Any]) -> None:
    model = create_model("resnet18", num_classes=CLASSES)
    optimizer = optim.sgd(0.1, momentum=0.9, weight_decay=0.1)
    batch = make_batch()
    batch["image"] = np.repeat(np.repeat(batch["image"], 4, axis=1), 4, axis=2)  # (n, 32, 32, 3)
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(0), batch["image"])
    state = create_state(model, optimizer, variables)
    pattern = "layer4|fc"
    plain, other = (
        jax.jit(make_train_step(model, optimizer, trainable=pattern, **each))(state, batch)[0] for each in ({}, options)
    )
    mask = optim.matching(state.params, pattern)
    for trains, before, after in zip(*map(jax.tree.leaves, (mask, state.params, other.params)), strict=True):
        assert trains or np.array_equal(before, after)
    frozen = {name: tree for name, tree in other.batch_stats.items() if name != "layer4"}
    assert_identical(frozen, {name: state.batch_stats[name] for name in frozen})
    if "remat" in options:
        assert_close(other.params, plain.params, rtol=1e-4, atol=1e-6)
    assert differ(other.params["fc"], state.params["fc"])
