"""Bit-for-bit equality with torchvision's v2 transforms of Pillow images, given the same drawn parameters."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from flaxcnn.data.augment import (
    AUTOAUGMENT_POLICIES,
    OPERATIONS,
    AugMix,
    AutoAugment,
    Op,
    RandAugment,
    TrivialAugmentWide,
    apply_op,
)
from flaxcnn.data.colour import ColorJitter, greyscale
from flaxcnn.data.geometry import random_erasing_box
from tests.data.pictures import assert_same
from tests.data.replayed import Replayed

MAGNITUDES = {"Posterize": (1, 3, 4, 8), "Solarize": (0.0, 0.3, 1.0)}
UNSIGNED = (0.0,)
SIGNED = (-0.9, -0.21, 0.13, 0.99)
PIXELS = (-31.7, -1.2, 5.9, 40.0)
DEGREES = (-135.0, -12.5, 29.0, 90.0)


def magnitudes(name: str) -> tuple[float, ...]:
    if name in ("Identity", "AutoContrast", "Equalize", "Invert"):
        return UNSIGNED
    if name.startswith("Translate"):
        return PIXELS
    return DEGREES if name == "Rotate" else MAGNITUDES.get(name, SIGNED)


MOVES = [name for name in OPERATIONS if name.startswith(("Shear", "Translate", "Rotate"))]


@pytest.mark.parametrize(
    ("name", "interpolation"),
    [
        *((name, "nearest") for name in OPERATIONS),
        *((name, interpolation) for name in MOVES for interpolation in ("bilinear", "bicubic")),
    ],
)
def test_operation(v2, images, name: str, interpolation: str) -> None:
    reference = v2.RandAugment(interpolation=v2.InterpolationMode(interpolation))
    values = magnitudes(name)
    for number, (kind, image) in enumerate(images):
        magnitude = values[number % len(values)]
        for view in (image, image.convert("L")):
            expected = reference._apply_image_or_video_transform(
                view, name, magnitude, reference.interpolation, reference._fill
            )
            assert_same(apply_op(view, Op(name, magnitude), interpolation), expected, (kind, magnitude))  # type: ignore[arg-type]


def test_colour_jitter(v2, images) -> None:
    jitter = ColorJitter(brightness=0.8, contrast=0.7, saturation=1.2, hue=0.5)
    orders = Counter()
    for number, (kind, image) in enumerate(images):
        drawn = jitter.draw(np.random.default_rng(number))
        factors = dict(drawn)
        orders[tuple(factors)] += 1
        reference = v2.ColorJitter(0.8, 0.7, 1.2, 0.5)
        names = ("brightness", "contrast", "saturation", "hue")
        params = {f"{name}_factor": factors[name] for name in names} | {"fn_idx": [names.index(n) for n, _ in drawn]}
        assert_same(jitter.apply(image, drawn), reference.transform(image, params), (kind, drawn))
        assert reference.saturation[0] == 0 <= factors["saturation"] <= 2.2 and abs(factors["hue"]) <= 0.5
    assert len(orders) == 24


def test_colour_jitter_draws_only_what_is_asked_for() -> None:
    assert {name for name, _ in ColorJitter(hue=0.1).draw(np.random.default_rng(0))} == {"hue"}


def test_greyscale(v2, images) -> None:
    for kind, image in images:
        assert_same(greyscale(image), v2.functional.rgb_to_grayscale(image, 3), kind)


def policies(v2) -> list[tuple]:
    enum = pytest.importorskip("torchvision.transforms.autoaugment").AutoAugmentPolicy
    return [
        (RandAugment(num_ops=3, magnitude=13), v2.RandAugment(3, 13)),
        (RandAugment(bins=11, magnitude=10), v2.RandAugment(magnitude=10, num_magnitude_bins=11)),
        (TrivialAugmentWide(), v2.TrivialAugmentWide()),
        (TrivialAugmentWide(bins=10, interpolation="bilinear"), v2.TrivialAugmentWide(10, interpolation="bilinear")),
        *((AutoAugment(policy=name), v2.AutoAugment(enum(name))) for name in AUTOAUGMENT_POLICIES),
    ]


def test_policies_draw_and_apply_as_torchvision(v2, images, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where both draw the same numbers, both make the same image: tables and distributions are torchvision's too."""
    for ours, theirs in policies(v2):
        used = Counter()
        for number, (kind, image) in enumerate(images):
            drawn = ours.draw(Replayed(number), *image.size)
            used.update(op.name for op in drawn)
            with monkeypatch.context() as patch:
                Replayed(number).patch_torch(patch)
                expected = theirs(image)
            assert_same(ours.apply(image, drawn), expected, (kind, ours, drawn))
        assert len(used) >= 8


def test_augmix_mixes_as_torchvision(v2, images, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's operations on tensors, which are not Pillow's, are replaced by its own on Pillow images."""
    import torch

    for options in ({}, {"severity": 8, "chains": 2, "depth": 2}, {"all_ops": False, "interpolation": "nearest"}):
        ours = AugMix(**options)
        theirs = v2.AugMix(
            ours.severity, ours.chains, ours.depth or -1, all_ops=ours.all_ops, interpolation=ours.interpolation
        )
        apply = theirs._apply_image_or_video_transform

        def on_pillow(batch, *args, apply=apply, **kwargs):
            image = apply(v2.functional.to_pil_image(batch[0]), *args, **kwargs)
            return v2.functional.pil_to_tensor(image)[None]

        for number, (kind, image) in enumerate(images):
            drawn = ours.draw(Replayed(number), *image.size)  # type: ignore[arg-type]
            with monkeypatch.context() as patch:
                replayed = Replayed(number)
                replayed.patch_torch(patch)
                dirichlet = lambda params, r=replayed: torch.tensor(r.dirichlet(params[0].tolist()))[None]  # noqa: E731
                patch.setattr(theirs, "_sample_dirichlet", dirichlet)
                patch.setattr(theirs, "_apply_image_or_video_transform", on_pillow)
                expected = theirs(image)
            assert_same(ours.apply(image, drawn), expected, (kind, drawn))


def test_posterising_to_no_bits_is_black() -> None:
    assert not np.asarray(apply_op(Image.new("RGB", (3, 2), (255, 7, 99)), Op("Posterize", 0))).any()


def test_augmix_weights_are_shares() -> None:
    drawn = AugMix().draw(np.random.default_rng(0), 32, 32)
    assert drawn.weight + sum(drawn.weights) == pytest.approx(1) and len(drawn.chains) == 3


@pytest.mark.parametrize("width, height", [(1, 1), (9, 1), (32, 32), (37, 53)])
def test_random_erasing_box(v2, monkeypatch: pytest.MonkeyPatch, width: int, height: int) -> None:
    import torch

    for seed in range(50):
        box = random_erasing_box(Replayed(seed), width, height)  # type: ignore[arg-type]
        with monkeypatch.context() as patch:
            Replayed(seed).patch_torch(patch)
            params = v2.RandomErasing(1.0).make_params([torch.zeros(3, height, width)])
        expected = tuple(params[key] for key in "ijhw") if params["v"] is not None else None
        assert box == expected


@pytest.mark.parametrize(
    ("cls", "options", "field"),
    [
        (RandAugment, {"num_ops": -1}, "num_ops"),
        (RandAugment, {"magnitude": 31}, "magnitude"),
        (TrivialAugmentWide, {"bins": 1}, "bins"),
        (AutoAugment, {"policy": "coco"}, "policy"),
        (AutoAugment, {"interpolation": "cubic"}, "interpolation"),
        (AugMix, {"severity": 11}, "severity"),
        (AugMix, {"chains": 0}, "chains"),
        (AugMix, {"alpha": 0}, "alpha"),
        (ColorJitter, {"hue": 0.6}, "hue"),
        (ColorJitter, {"brightness": -1}, "brightness"),
    ],
)
def test_bad_field_is_named(cls, options: dict, field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}: expected .*, got"):
        cls(**options)
