"""GoogLeNet's and Inception v1's auxiliary heads, and torchvision's transform of the input."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxcnn import create_model, from_torch
from flaxcnn.layers import conv_lowering
from flaxcnn.models.googlenet import GoogLeNetOutputs
from tests import golden

both = pytest.mark.parametrize("name", ["googlenet", "inception_v1"])
IMAGES = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)


def abstract(name: str, *, train: bool, **options: Any) -> tuple[Any, Any]:
    """Output and variables after initialisation, without computing them."""
    model = create_model(name, num_classes=7, **options)
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    return jax.eval_shape(lambda x: model.init_with_output(keys, x, train=train), IMAGES)


def count(variables: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


@both
def test_all_heads_answer_in_training_only(name: str) -> None:
    trained, in_training = abstract(name, train=True)
    evaluated, in_evaluation = abstract(name, train=False)
    assert isinstance(trained, GoogLeNetOutputs)
    assert trained._fields == ("logits", "aux_logits2", "aux_logits1")
    assert [logits.shape for logits in trained] == [(2, 7)] * 3
    assert evaluated.shape == (2, 7)
    assert {"aux1", "aux2"} < set(in_evaluation["params"])
    assert jax.tree.structure(in_training) == jax.tree.structure(in_evaluation)


@both
def test_without_heads(name: str) -> None:
    trained, variables = abstract(name, train=True, aux_heads=False)
    assert trained.shape == (2, 7)
    assert not {"aux1", "aux2"} & set(variables["params"])
    published = {"googlenet": 6_624_904, "inception_v1": 6_998_552}[name]
    assert count(variables) + (1000 - 7) * 1025 == published


def test_inception_without_heads_takes_smaller_images() -> None:
    model = create_model("inception_v1", aux_heads=False, min_image_size=31)
    images = jax.ShapeDtypeStruct((1, 31, 31, 3), jnp.float32)
    logits, _ = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, train=True), images)
    assert logits.shape == (1, 1000)


def test_heads_are_where_the_paper_has_them() -> None:
    """aux1 sees 4a's 512 channels, aux2 sees 4d's 528: a change of 4b moves the second only."""
    model = create_model("googlenet", num_classes=5, dropout=0.0)
    variables, images = golden.deterministic(model, (32, 32))

    @jax.jit
    def apply(variables: Any) -> Any:
        with conv_lowering("xla"):  # compiles in a quarter of the time
            return model.apply(variables, images, train=True, mutable=["batch_stats"])[0]

    before = apply(variables)
    norm = variables["params"]["inception4b"]["branch1"]["bn"]
    norm["bias"] = norm["bias"] + 1.0  # not in place: `before` may still be reading it
    after = apply(variables)
    np.testing.assert_array_equal(after.aux_logits1, before.aux_logits1)
    assert np.any(after.aux_logits2 != before.aux_logits2)
    assert np.any(after.logits != before.logits)


def test_transform_input() -> None:
    references = pytest.importorskip("tests.references", reason="PyTorch is the reference")
    torch = references.torch
    images = references.make_images((33, 47)).astype(np.float32)
    torch.manual_seed(0)
    reference = references.randomise(references.torch_reference("googlenet", 10), references.to_nchw(images))
    reference.transform_input = True
    with torch.no_grad():
        expected = reference(references.to_nchw(images))
    model = create_model("googlenet", num_classes=10, transform_input=True)
    variables = from_torch(model, reference.state_dict())
    logits = jax.jit(partial(model.apply, train=False))(variables, images)
    assert references.relative_error(logits, expected) <= 1e-4
    plain = create_model("googlenet", num_classes=10)
    assert references.relative_error(jax.jit(partial(plain.apply, train=False))(variables, images), expected) > 1e-2
