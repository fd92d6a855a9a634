"""docs/in-your-own-module.md: what its NNX module does, with a smaller backbone."""

from __future__ import annotations

from typing import Any

import flax
import jax
import numpy as np
import pytest

import flaxcnn
from tests.docs.pages import DOCS, Page


@pytest.fixture(scope="module")
def nnx_part() -> dict[str, Any]:
    """What the page's section on NNX leaves behind."""
    page = Page(DOCS / "in-your-own-module.md")
    code = "\n".join(text for language, text in page.blocks if language == "python" and "nnx" in text)
    assert code.count('"resnet18"') == 2 and code.count("512") == 1
    code = code.replace("resnet18", "shufflenet_v2_x0_5").replace("512", "1024")
    images = np.random.default_rng(0).normal(size=(4, 64, 64, 3)).astype("float32")
    names: dict[str, Any] = {"flaxcnn": flaxcnn, "jax": jax, "images": images}
    exec(code, names)
    return names


def test_training_moves_the_statistics(nnx_part: dict[str, Any]) -> None:
    before, after = (flax.traverse_util.flatten_dict(nnx_part[name]) for name in ("before", "after"))
    assert before.keys() == after.keys() and len(before) > 50
    unmoved = ["/".join(map(str, path)) for path in before if np.array_equal(before[path], after[path])]
    assert not unmoved
    assert nnx_part["logits"].shape == (4, 10)


def test_updated_weights_compute_what_linen_computes(nnx_part: dict[str, Any]) -> None:
    network, images, pretrained = (nnx_part[name] for name in ("network", "images", "pretrained"))
    model = flaxcnn.create_model("shufflenet_v2_x0_5", num_classes=0)
    expected = model.apply(pretrained, images, train=False)
    np.testing.assert_array_equal(network.backbone(images, train=False), expected)
    logits = network(images, train=False)
    np.testing.assert_allclose(logits, network.head(expected), rtol=1e-6, atol=1e-6)
