"""Mixup and CutMix with torchvision's arithmetic, and what is drawn for them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxcnn.data.mixing import blend, choice, cutmix, mixup, paste

CLASSES = 4
RANDOM = np.random.default_rng(0)
BATCH = {"image": RANDOM.normal(size=(5, 8, 6, 3)).astype(np.float32), "label": np.array([0, 3, 1, 1, 2], np.int32)}


def torch_batch():
    torch = pytest.importorskip("torch", reason="torchvision is the reference (pip install 'flaxcnn[test]')")
    images = torch.tensor(BATCH["image"]).permute(0, 3, 1, 2)
    return torch, images, torch.tensor(BATCH["label"]).long()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_mixup_is_torchvisions(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    v2 = pytest.importorskip("torchvision.transforms.v2", reason="torchvision is the reference")
    torch, images, labels = torch_batch()
    transform = v2.MixUp(num_classes=CLASSES)
    monkeypatch.setattr(transform._dist, "sample", lambda _: torch.tensor(share))
    expected, probabilities = transform(images, labels)
    mixed = blend(BATCH, jnp.float32(share), CLASSES)
    np.testing.assert_allclose(mixed["image"].transpose(0, 3, 1, 2), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mixed["label"], probabilities, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("centre", [(0, 0), (4, 3), (7, 5), (2, 5)])
def test_cutmix_is_torchvisions(share: float, centre: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    v2 = pytest.importorskip("torchvision.transforms.v2", reason="torchvision is the reference")
    torch, images, labels = torch_batch()
    transform = v2.CutMix(num_classes=CLASSES)
    monkeypatch.setattr(transform._dist, "sample", lambda _: torch.tensor(share))
    drawn = iter([centre[1], centre[0]])  # the column first
    monkeypatch.setattr(torch, "randint", lambda *args, **kwargs: torch.tensor(next(drawn)))
    expected, probabilities = transform(images, labels)
    pasted = paste(BATCH, jnp.float32(share), tuple(map(jnp.int32, centre)), CLASSES)
    np.testing.assert_array_equal(pasted["image"].transpose(0, 3, 1, 2), expected)
    np.testing.assert_allclose(pasted["label"], probabilities, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mixing", [mixup(CLASSES, alpha=0.4), cutmix(CLASSES)])
def test_mixtures_are_a_function_of_the_key(mixing) -> None:
    batches = jax.vmap(mixing, (0, None))(jax.random.split(jax.random.key(0), 200), BATCH)
    again = mixing(jax.random.split(jax.random.key(0), 200)[7], BATCH)
    np.testing.assert_allclose(batches["image"][7], again["image"], rtol=1e-6)
    np.testing.assert_allclose(batches["label"].sum(axis=-1), 1, rtol=1e-5)
    shares = batches["label"][:, 0, 0]  # of example 0, whose class no neighbour has
    assert len(np.unique(shares)) > 10
    # CutMix's boxes are cut at the edges, which leaves more of the example.
    assert 0.4 < shares.mean() < 0.85


def test_a_choice_takes_all_of_them() -> None:
    def constant(value: float):
        return lambda key, batch: {"image": jnp.full_like(batch["image"], value), "label": jnp.ones(5)}

    mixed = jax.vmap(choice(constant(1.0), constant(2.0)), (0, None))(jax.random.split(jax.random.key(1), 100), BATCH)
    ones = (mixed["image"][:, 0, 0, 0, 0] == 1).mean()
    assert 0.35 < ones < 0.65


def test_mixtures_can_be_mixed() -> None:
    first = blend(BATCH, jnp.float32(0.5), CLASSES)
    assert blend(first, jnp.float32(0.5), CLASSES)["label"].shape == (5, CLASSES)
