"""What a network looks at is what PyTorch says of the same weights: its hooks and gradients, to 1e-9 of the largest,
and Captum, which keeps its points and weights of integration in float32, to 1e-5."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxcnn import create_model, from_torch
from flaxcnn.inference import (
    default_layer,
    grad_cam,
    grad_cam_plus_plus,
    integrated_gradients,
    occlusion,
    saliency,
)
from tests.references import make_images, randomise, relative_error, to_nchw, torch, torch_reference
from tests.variants import FAMILIES, training_size

CLASSES = [3, 8]


@pytest.fixture(scope="module", params=["lenet", pytest.param("resnet18", marks=pytest.mark.slow)])
def pair(request: pytest.FixtureRequest) -> tuple[Any, Any, Any, np.ndarray]:
    """A model, its variables, the PyTorch reference with the same weights, images."""
    return make_pair(request.param)


def make_pair(name: str) -> tuple[Any, Any, Any, np.ndarray]:
    torch.manual_seed(0)
    reference = torch_reference(name, num_classes=10).double()
    randomise(reference, to_nchw(make_images(training_size(name), batch=8)))
    model = create_model(name, num_classes=10)
    return model, from_torch(model, reference.state_dict()), reference, make_images(training_size(name))


def explained(function: Any, pair: Any, classes: Sequence[int] = CLASSES, **options: Any) -> np.ndarray:
    model, variables, _, images = pair
    return np.asarray(jax.jit(partial(function, model, **options))(variables, images, jnp.array(classes)))


def hooked(pair: Any, layer: str) -> tuple[Any, Any]:
    """A layer's output and its gradient (n, c, h, w), by a hook."""
    *_, reference, images = pair
    kept = []
    module = reference.get_submodule(layer)
    # Cloned, so that an activation in place does not change what is kept.
    hook = module.register_forward_hook(lambda module, inputs, output: kept.append(output) or output.clone())
    logits = reference(to_nchw(images))
    hook.remove()
    (output,) = kept
    (gradient,) = torch.autograd.grad(logits[range(len(images)), CLASSES].sum(), output)
    return output.detach(), gradient


def gradient_at(reference: Any, images: Any) -> Any:
    images = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(reference(images)[range(len(images)), CLASSES].sum(), images)
    return gradient


@pytest.mark.parametrize("place", ["default", "inner"])
def test_grad_cam(pair: Any, place: str) -> None:
    names = {"LeNet": ("conv2", "conv1"), "ResNet": ("layer4", "layer3.1.conv1")}[type(pair[0]).__name__]
    layer = names[place == "inner"]
    options = {} if place == "default" else {"layer": layer}
    output, gradient = hooked(pair, layer)
    cam = (output * gradient.mean(dim=(2, 3), keepdim=True)).sum(dim=1).relu()
    assert relative_error(explained(grad_cam, pair, **options), cam) <= 1e-9


def test_saliency(pair: Any) -> None:
    expected = gradient_at(pair[2], to_nchw(pair[3])).abs().amax(dim=1)
    assert relative_error(explained(saliency, pair), expected) <= 1e-9


@pytest.mark.parametrize("baseline", [0.0, 0.5])
def test_integrated_gradients(pair: Any, baseline: float) -> None:
    *_, reference, images = pair
    points, weights = np.polynomial.legendre.leggauss(8)
    ends = to_nchw(images)
    starts = torch.full_like(ends, baseline)
    total = sum(
        w / 2 * gradient_at(reference, starts + (1 + p) / 2 * (ends - starts))
        for p, w in zip(points, weights, strict=True)
    )
    found = explained(integrated_gradients, pair, baseline=baseline, steps=8)
    assert relative_error(found, ((ends - starts) * total).permute(0, 2, 3, 1)) <= 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("pair", ["lenet"], indirect=True)
def test_integrated_gradients_add_up(pair: Any) -> None:
    model, variables, _, images = pair
    logits = jax.jit(partial(model.apply, train=False))
    rise = np.asarray(logits(variables, images) - logits(variables, jnp.zeros_like(images)))[range(2), CLASSES]
    found = explained(integrated_gradients, pair, steps=100).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(found, rise, atol=0.02 * np.abs(rise).max())


def test_occlusion(pair: Any) -> None:
    *_, reference, images = pair
    patch, stride = images.shape[1] // 2, images.shape[1] // 3
    pictures = to_nchw(images)
    total, covered = torch.zeros_like(pictures[:, 0]), torch.zeros_like(pictures[0, 0])
    with torch.no_grad():
        logits = reference(pictures)[range(2), CLASSES]
        top = 0
        while top + patch < images.shape[1] + stride:
            left = 0
            while left + patch < images.shape[2] + stride:
                changed = pictures.clone()
                changed[:, :, top : top + patch, left : left + patch] = 0.25
                fall = logits - reference(changed)[range(2), CLASSES]
                total[:, top : top + patch, left : left + patch] += fall[:, None, None]
                covered[top : top + patch, left : left + patch] += 1
                left += stride
            top += stride
    assert relative_error(explained(occlusion, pair, patch=patch, stride=stride, fill=0.25), total / covered) <= 1e-9


def test_grad_cam_plus_plus(pair: Any) -> None:
    layer = {"LeNet": "conv2", "ResNet": "layer4"}[type(pair[0]).__name__]
    output, gradient = hooked(pair, layer)
    denominator = 2 * gradient**2 + gradient**3 * output.sum(dim=(2, 3), keepdim=True)
    alpha = (gradient**2 / denominator).nan_to_num()
    weights = (alpha * gradient.relu()).sum(dim=(2, 3), keepdim=True)
    cam = (output * weights).sum(dim=1).relu()
    assert relative_error(explained(grad_cam_plus_plus, pair), cam) <= 1e-9


@pytest.fixture(
    scope="module", params=[pytest.param(n, marks=[] if n == "lenet" else pytest.mark.slow) for n in FAMILIES]
)
def of_family(request: pytest.FixtureRequest) -> tuple[Any, Any, Any, np.ndarray]:
    """As `pair`, of every family."""
    return make_pair(request.param)


def test_captum_has_the_same_grad_cam(of_family: Any) -> None:
    attr = pytest.importorskip("captum.attr", reason="Captum is the reference (pip install 'flaxcnn[test]')")
    model, _, reference, images = of_family
    at = default_layer(model, images.shape)
    if at == "features" and hasattr(reference.features, "final_pool"):
        at = "features.stage3"  # the reference's `features` of ShuffleNet V1 end with its pool, ours before it
    explain = attr.LayerGradCam(reference, reference.get_submodule(at))
    # Of random weights some classes have no map: what speaks for them is negative all over.
    maps = [explain.attribute(to_nchw(images), target=c, relu_attributions=True)[:, 0].detach() for c in range(10)]
    chosen = max(range(10), key=lambda c: maps[c].amax(dim=(1, 2)).min().item())
    assert maps[chosen].amax(dim=(1, 2)).min() > 0
    assert relative_error(explained(grad_cam, of_family, [chosen] * 2), maps[chosen]) <= 1e-5


def test_captum_has_the_same_integrated_gradients(of_family: Any) -> None:
    attr = pytest.importorskip("captum.attr", reason="Captum is the reference (pip install 'flaxcnn[test]')")
    *_, reference, images = of_family
    pictures = to_nchw(images).requires_grad_()
    expected = attr.IntegratedGradients(reference).attribute(pictures, baselines=0.5, target=CLASSES, n_steps=6)
    found = explained(integrated_gradients, of_family, baseline=0.5, steps=6)
    assert relative_error(found, expected.detach().permute(0, 2, 3, 1)) <= 1e-5
