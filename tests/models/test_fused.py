"""BatchNorm folded into the convolutions before it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from flax.traverse_util import flatten_dict

from flaxcnn import create_model
from flaxcnn.layers import conv_lowering
from flaxcnn.models import fuse
from tests import golden
from tests.references import relative_error
from tests.variants import PROBES, small_size, variants_but_slow_beyond


@variants_but_slow_beyond({"mobilenet_v1_025", "resnet18"}, among=PROBES)
def test_logits_stay(name: str) -> None:
    model = create_model(name, num_classes=10)
    variables, images = golden.deterministic(model, small_size(name))
    fused, folded = fuse(model, variables)
    with conv_lowering("xla"):  # compiles sooner; folding changes numbers, not how they are convolved
        found, expected = (
            jax.jit(lambda v, x, m=m: m.apply(v, x, train=False))(v, images)
            for m, v in ((model, variables), (fused, folded))
        )
    assert relative_error(found, expected) < 1e-5
    norms = {path[:-1] for path in flatten_dict(variables.get("batch_stats", {}))}
    left = {path[:-1] for path in flatten_dict(folded.get("batch_stats", {}))}
    assert len(fused.folded) == len(norms - left)
    assert all(path[0].startswith("aux") for path in left)  # evaluation does not compute auxiliary heads


def test_a_fused_model_is_not_trained() -> None:
    model, images = create_model("lenet", num_classes=3), jnp.zeros((1, 32, 32, 3))
    variables = jax.jit(lambda x: model.init(jax.random.key(0), x, train=False))(images)
    fused, folded = fuse(model, variables)
    with pytest.raises(ValueError, match="no BatchNorm to train"):
        fused.apply(folded, images, train=True)
