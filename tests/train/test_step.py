"""The training step: against torch, and its promises."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxcnn import create_model, from_torch, optim
from flaxcnn.layers import BatchNorm, Conv, ConvNormAct, Linear, Sequential, conv_lowering, global_avg_pool
from flaxcnn.losses import softmax_cross_entropy
from flaxcnn.metrics import in_top_k
from flaxcnn.train import create_state, make_train_step
from flaxcnn.train.remat import rematerialized
from tests.train.tiny import Tiny, TinyWithHeads, assert_close, assert_identical, differ, make_batch, make_variables
from tests.variants import FAMILIES, small_size, variants_but_slow_beyond


def make(model, optimizer=None, seed: int = 0, **options):
    optimizer = optimizer or optim.sgd(0.1, momentum=0.9)
    state = create_state(model, optimizer, make_variables(model), seed=seed)
    return state, jax.jit(make_train_step(model, optimizer, **options))


def test_one_step_of_lenet_is_torchs() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the reference (pip install 'flaxcnn[test]')")
    from tests.reference_models import LeNet

    random = np.random.default_rng(0)
    images = random.normal(size=(8, 32, 32, 3)).astype(np.float32)
    labels = random.integers(10, size=8)
    torch.manual_seed(0)
    reference = LeNet(10)
    model = create_model("lenet", num_classes=10)
    variables = from_torch(model, reference.state_dict())

    output = reference(torch.tensor(images).permute(0, 3, 1, 2))
    loss = torch.nn.functional.cross_entropy(output, torch.tensor(labels))
    loss.backward()
    gradients = from_torch(model, {name: p.grad for name, p in reference.named_parameters()})["params"]

    # At rate 1 of plain SGD, what the parameters lose is the gradient.
    optimizer = optim.sgd(1.0)
    state = create_state(model, optimizer, variables)
    new, metrics = jax.jit(make_train_step(model, optimizer))(state, {"image": images, "label": labels})
    ours = jax.tree.map(lambda before, after: before - after, variables["params"], new.params)

    np.testing.assert_allclose(metrics["loss"] / 8, loss.item(), rtol=1e-5)
    assert metrics["top1"] == (output.argmax(dim=1) == torch.tensor(labels)).sum().item()
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(gradients), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * float(jnp.abs(b).max()))


def test_metrics_are_sums_over_the_batch() -> None:
    model = Tiny()
    state, step = make(model)
    batch = make_batch(n=7)
    _, metrics = step(state, batch)
    logits, _ = model.apply(state.variables, batch["image"], train=True, mutable=["batch_stats"])
    assert set(metrics) == {"loss", "top1", "count", "nonfinite"}
    np.testing.assert_allclose(metrics["loss"], softmax_cross_entropy(logits, batch["label"]).sum(), rtol=1e-5)
    assert metrics["top1"] == in_top_k(logits, batch["label"], 1).sum()
    assert metrics["count"] == 7
    assert metrics["nonfinite"] == 0


def test_the_step_is_pure() -> None:
    state, step = make(Tiny(dropout=0.5))
    before = jax.tree.map(np.array, state)
    first, second = step(state, make_batch()), step(state, make_batch())
    assert_identical(first, second)
    assert_identical(jax.tree.map(np.array, state), before)
    assert differ(first[0].params, state.params)
    assert differ(first[0].batch_stats, state.batch_stats)
    assert first[0].step == 1


def test_the_step_learns() -> None:
    state, step = make(Tiny(), optim.adam(1e-2))
    losses = []
    for _ in range(60):
        state, metrics = step(state, make_batch())
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.7 * losses[0]
    assert state.step == 60


def losses(model) -> dict[tuple[int, int], float]:
    """(seed, step) -> the loss of one and the same batch."""
    state, step = make(model)
    return {
        (seed, number): float(
            step(state.replace(seed=jnp.uint32(seed), step=jnp.int32(number)), make_batch())[1]["loss"]
        )
        for seed in (0, 1)
        for number in (0, 1, 2)
    }


def test_dropout_is_a_function_of_seed_and_step() -> None:
    first, again = losses(Tiny(dropout=0.5)), losses(Tiny(dropout=0.5))
    assert len(set(first.values())) == len(first)
    assert again == first
    assert len(set(losses(Tiny()).values())) == 1


def test_donation_leaves_the_callers_variables_alone() -> None:
    model, optimizer = Tiny(), optim.sgd(0.1, momentum=0.9)
    variables = make_variables(model)
    before = jax.tree.map(np.array, variables)
    state = create_state(model, optimizer, variables)
    step = jax.jit(make_train_step(model, optimizer), donate_argnums=0)
    for seed in range(3):
        state, _ = step(state, make_batch(seed))
    assert_identical(jax.tree.map(np.array, variables), before)
    assert differ(state.params, before["params"])


@pytest.mark.parametrize("weights", [{}, {"aux_weight": 0.7}])
def test_auxiliary_heads_count_for_their_weight(weights: dict[str, float]) -> None:
    model = TinyWithHeads()
    state, step = make(model, optim.sgd(1.0), **weights)
    batch = make_batch()
    new, metrics = step(state, batch)

    def mean_loss(params, head: int):
        return softmax_cross_entropy(
            model.apply({"params": params}, batch["image"], train=True)[head], batch["label"]
        ).mean()

    weight = weights.get("aux_weight", 0.3)
    main, aux2, aux1 = (mean_loss(state.params, head) for head in range(3))
    np.testing.assert_allclose(metrics["loss"] / 8, main + weight * (aux2 + aux1), rtol=1e-5)
    expected = jax.grad(lambda p: mean_loss(p, 0) + weight * (mean_loss(p, 1) + mean_loss(p, 2)))(state.params)
    assert_close(jax.tree.map(jnp.subtract, state.params, new.params), expected, atol=1e-6)


def test_top1_is_of_the_main_head() -> None:
    model = TinyWithHeads()
    state, step = make(model)
    batch = make_batch(n=32)
    logits = model.apply(state.variables, batch["image"], train=False)
    assert step(state, batch)[1]["top1"] == in_top_k(logits, batch["label"], 1).sum()


def test_the_loss_can_be_chosen() -> None:
    state, step = make(Tiny(), loss=lambda logits, labels: 0 * logits[:, 0] + 2)
    assert step(state, make_batch(n=5))[1]["loss"] == 10


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_is_flagged(value: float) -> None:
    state, step = make(Tiny())
    batch = make_batch()
    batch["image"][3, 2, 1, 0] = value
    assert step(state, batch)[1]["nonfinite"] == 1


def test_a_gradient_that_is_not_finite_is_flagged() -> None:
    # sqrt is 0 at 0, where its slope is infinite.
    state, step = make(Tiny(), loss=lambda logits, labels: jnp.sqrt(0 * logits[:, 0]))
    metrics = step(state, make_batch())[1]
    assert metrics["loss"] == 0
    assert metrics["nonfinite"] == 1


def test_any_optax_transformation_will_do() -> None:
    optimizer = optax.chain(optax.clip_by_global_norm(1e-3), optax.sgd(1.0))
    state, step = make(Tiny(), optimizer)
    new, _ = step(state, make_batch())
    moved = optax.tree.norm(jax.tree.map(jnp.subtract, new.params, state.params))
    np.testing.assert_allclose(moved, 1e-3, rtol=1e-3)


def test_mixing_is_a_function_of_seed_and_step_and_comes_before_the_loss() -> None:
    def shift(key, batch):
        return {**batch, "image": batch["image"] + jax.random.normal(key)}

    state, step = make(Tiny(), mixing=shift)
    _, plain = make(Tiny())
    batch = make_batch()
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(state.seed), state.step), 1)
    assert_close(step(state, batch)[0].params, plain(state, shift(key, batch))[0].params, atol=1e-6)
    assert differ(step(state, batch)[0].params, step(state.replace(step=state.step + 1), batch)[0].params)


def test_a_teacher_is_asked_for_its_logits_in_evaluation() -> None:
    teacher = Tiny(dropout=0.5)
    variables = make_variables(teacher, seed=5)
    batch = make_batch()
    logits = teacher.apply(variables, batch["image"], train=False)
    state, step = make(Tiny(), teacher=teacher, loss=lambda own, labels, theirs: (theirs**2).sum(axis=1) + labels)
    _, metrics = step(state, batch, variables)
    np.testing.assert_allclose(metrics["loss"], (logits**2).sum() + batch["label"].sum(), rtol=1e-5)


def test_labels_can_be_probabilities() -> None:
    state, step = make(Tiny())
    batch = make_batch()
    soft = {**batch, "label": np.eye(3, dtype=np.float32)[batch["label"]]}
    (one, metrics), (other, soft_metrics) = step(state, batch), step(state, soft)
    assert_close(one.params, other.params, atol=1e-6)
    assert metrics["top1"] == soft_metrics["top1"]


@pytest.mark.parametrize("microbatches", [2, 4])
def test_microbatches_sum_to_the_large_batch(microbatches: int) -> None:
    """Without BatchNorm. In float64 it is tested to rounding."""
    state, whole = make(TinyWithHeads())
    _, parts = make(TinyWithHeads(), microbatches=microbatches)
    (one, metrics), (other, sums) = whole(state, make_batch()), parts(state, make_batch())
    assert_close(one.params, other.params, atol=1e-6)
    assert_close(metrics, sums, rtol=1e-5)


def test_batch_norm_takes_microbatches_one_after_the_other() -> None:
    state, whole = make(Tiny(), optim.sgd(0.0))
    _, parts = make(Tiny(), optim.sgd(0.0), microbatches=2)
    batch = make_batch()
    one_by_one = state
    for first in (0, 1):
        one_by_one, _ = whole(one_by_one, {name: x[first::2] for name, x in batch.items()})
    assert_close(parts(state, batch)[0].batch_stats, one_by_one.batch_stats, rtol=1e-5, atol=1e-7)


PLAIN_STACKS = {"alexnet_half", "lenet", "vgg11"}


class Blocks(Tiny):
    """Three blocks of convolution, BatchNorm and ReLU, and a dropout."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        block = partial(ConvNormAct, 8, 3, conv=Conv, norm=partial(BatchNorm, use_running_average=not train))
        x = Sequential([block] * 3, name="features")(images)
        x = nn.Dropout(self.dropout, deterministic=not train)(global_avg_pool(x))
        return Linear(self.num_classes, name="fc")(x)


def test_remat_computes_the_same() -> None:
    model = Blocks(dropout=0.5)
    state, plain = make(model)
    _, remat = make(model, remat=True)
    assert_close(remat(state, make_batch())[0], plain(state, make_batch())[0], rtol=1e-4, atol=1e-6)


def in_training(name: str, *, remat: bool, examples: int = 13):
    """A network's outputs as a function of its parameters, their shapes, and those of its images."""
    model, size = create_model(name, num_classes=2), small_size(name)
    images = jax.ShapeDtypeStruct((examples, *size, 3), jnp.float32)
    variables = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), images)
    apply = rematerialized(model.apply) if remat else model.apply

    def outputs(params, stats, images):
        rngs = {"dropout": jax.random.key(0)}
        return apply({"params": params, **stats}, images, train=True, mutable=["batch_stats"], rngs=rngs)[0]

    return outputs, variables.pop("params"), variables, images


def kept(outputs, params, stats, images) -> int:
    """Numbers of the images' that wait for the backward pass."""

    def backward(params, stats, images):
        return jax.vjp(lambda params: outputs(params, stats, images), params)[1]

    leaves = jax.tree.leaves(jax.eval_shape(backward, params, stats, images))
    return sum(leaf.size for leaf in leaves if leaf.shape[:1] == images.shape[:1])


def computed_again(outputs, *arguments) -> list[int]:
    """Numbers that each block computes again for its gradient."""
    equations = jax.make_jaxpr(outputs)(*arguments).eqns
    inside = [equation.params["jaxpr"].eqns for equation in equations if "prevent_cse" in equation.params]
    return [sum(result.aval.size for equation in block for result in equation.outvars) for block in inside]


@variants_but_slow_beyond({"resnet18", "shufflenet_v1_g1_x0_5"}, among=set(FAMILIES) - PLAIN_STACKS)
def test_remat_keeps_less_and_works_block_by_block(name: str) -> None:
    with conv_lowering("xla"):  # as on accelerators
        remat = in_training(name, remat=True)
        assert kept(*remat) < 0.6 * kept(*in_training(name, remat=False))
        again = computed_again(*remat)
    assert max(again) < 0.4 * sum(again)


@pytest.mark.slow
def test_remat_draws_the_same_branches_and_units_again() -> None:
    """Stochastic depth, dropout and squeeze-and-excitation."""
    model, random = create_model("efficientnet_b0", num_classes=2, image_size=32), np.random.default_rng(0)
    batch = {"image": random.normal(size=(4, 32, 32, 3)).astype(np.float32), "label": np.arange(4) % 2}
    shapes = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), batch["image"])
    variables = jax.tree.map(lambda x: random.normal(scale=0.1, size=x.shape).astype(np.float32), shapes)
    optimizer = optim.sgd(1.0)  # what the parameters lose is the gradient
    with conv_lowering("xla"):
        plain, remat = (
            jax.jit(make_train_step(model, optimizer, remat=remat))(create_state(model, optimizer, variables), batch)[0]
            for remat in (False, True)
        )
    # BatchNorm of four values magnifies rounding in single elements.
    error = jax.tree.map(lambda a, b: a - b, remat.params, plain.params)
    gradient = jax.tree.map(lambda a, b: a - b, variables["params"], plain.params)
    assert optax.tree.norm(error) < 1e-3 * optax.tree.norm(gradient)
    assert differ(plain.params, variables["params"])
