"""Which parts of an image a network's answer comes from.

Every function takes a model, its variables, images (n, h, w, c) and for each of them the class (n,) whose logit is to
be explained, and is pure: `jax.jit(partial(saliency, model))`. Computed in evaluation, an image's result does not
depend on the others in its batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from flaxcnn.errors import UserError
from flaxcnn.inference.features import feature_maps, logits_through
from flaxcnn.models import Classifier


def default_layer(model: Classifier, images: tuple[int, ...]) -> str:
    """The usual place for Grad-CAM: the last block or stage whose output is a map of more than one pixel.

    Args:
        model: from `create_model`.
        images: their shape (n, h, w, c).

    Returns:
        Its name; that of the last convolution where a network has no blocks.
    """
    names = list(feature_maps(model, images))
    blocks = [name for name in names if any(inner.startswith(f"{name}.") for inner in names)]
    return (blocks or names)[-1]


def grad_cam(
    model: Classifier, variables: Mapping[str, Any], images: Array, classes: Array, *, layer: str | None = None
) -> Array:
    """Grad-CAM: a layer's channels, weighted by the means of the logit's gradients over each.

    Args:
        model: from `create_model`.
        variables: the model's.
        images: (n, h, w, c).
        classes: (n,).
        layer: whose output is taken, such as `"layer4.1"`; None for `default_layer`.

    Returns:
        (n, height, width) of the layer, 0 or more.

    Raises:
        ValueError: when the network has no such layer.
        UserError: when the layer's output is no map.

    Reference: Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization,
    arXiv 1610.02391.
    """
    activations, gradients = _at_layer(model, variables, images, classes, layer)
    return _weighted(activations, gradients.mean(axis=(1, 2), keepdims=True))


def grad_cam_plus_plus(
    model: Classifier, variables: Mapping[str, Any], images: Array, classes: Array, *, layer: str | None = None
) -> Array:
    """Grad-CAM++: as Grad-CAM, with weights by which several instances of a class count alike.

    The score is the exponential of the logit, by which its higher derivatives are powers of the first; its value,
    a factor common to an image, is left out.

    Args:
        model: from `create_model`.
        variables: the model's.
        images: (n, h, w, c).
        classes: (n,).
        layer: as for `grad_cam`.

    Returns:
        (n, height, width) of the layer, 0 or more.

    Raises:
        ValueError: when the network has no such layer.
        UserError: when the layer's output is no map.

    Reference: Chattopadhay et al., Grad-CAM++: Improved Visual Explanations for Deep Convolutional Networks,
    arXiv 1710.11063.
    """
    activations, gradients = _at_layer(model, variables, images, classes, layer)
    denominator = 2 * gradients**2 + activations.sum(axis=(1, 2), keepdims=True) * gradients**3
    shares = jnp.where(gradients == 0, 0, gradients**2 / jnp.where(denominator == 0, 1, denominator))
    return _weighted(activations, (shares * jax.nn.relu(gradients)).sum(axis=(1, 2), keepdims=True))


def saliency(model: Classifier, variables: Mapping[str, Any], images: Array, classes: Array) -> Array:
    """How much the logit changes with each pixel: the gradient's largest magnitude over channels.

    Args:
        model: from `create_model`.
        variables: the model's.
        images: (n, h, w, c).
        classes: (n,).

    Returns:
        (n, h, w), 0 or more.

    Reference: Simonyan et al., Deep Inside Convolutional Networks, arXiv 1312.6034.
    """
    return jnp.abs(_image_gradients(model, variables, images, classes)).max(axis=-1)


def integrated_gradients(
    model: Classifier,
    variables: Mapping[str, Any],
    images: Array,
    classes: Array,
    *,
    baseline: ArrayLike = 0.0,
    steps: int = 50,
) -> Array:
    """Gradients integrated on the straight way from a baseline to the image, times that way.

    Their sum over an image is the logit's difference between it and the baseline, but for the error of the integral.

    Args:
        model: from `create_model`.
        variables: the model's.
        images: (n, h, w, c).
        classes: (n,).
        baseline: broadcast to the images; 0 is a picture of the mean colour.
        steps: points of the Gauss-Legendre rule.

    Returns:
        (n, h, w, c), of either sign.

    Reference: Sundararajan et al., Axiomatic Attribution for Deep Networks, arXiv 1703.01365.
    """
    points, weights = np.polynomial.legendre.leggauss(steps)  # over -1 to 1
    start = jnp.broadcast_to(jnp.asarray(baseline, images.dtype), images.shape)
    way = images - start

    def add(total: Array, point_and_weight: tuple[Array, Array]) -> tuple[Array, None]:
        point, weight = point_and_weight
        return total + weight * _image_gradients(model, variables, start + point * way, classes), None

    rule = (jnp.asarray((points + 1) / 2, images.dtype), jnp.asarray(weights / 2, images.dtype))
    return jax.lax.scan(add, jnp.zeros_like(images), rule)[0] * way


def occlusion(
    model: Classifier,
    variables: Mapping[str, Any],
    images: Array,
    classes: Array,
    *,
    patch: int,
    stride: int,
    fill: float = 0.0,
) -> Array:
    """How much the logit falls when a patch is covered, for each pixel the mean over the patches that cover it.

    Args:
        model: from `create_model`.
        variables: the model's.
        images: (n, h, w, c).
        classes: (n,).
        patch: height and width in pixels.
        stride: between patches, in pixels; the last in a row may reach beyond the image.
        fill: what covers them; 0 is the mean colour.

    Returns:
        (n, h, w), of either sign.

    Reference: Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, arXiv 1311.2901.
    """
    n, height, width, _ = images.shape
    corners = [
        (top, left) for top in _starts(height, patch, stride) for left in _starts(width, patch, stride)
    ]  # of all patches
    logits = _class_logits(model, variables, images, classes)

    def cover(total: Array, corner: Array) -> tuple[Array, Array]:
        rows, columns = jnp.arange(height) - corner[0], jnp.arange(width) - corner[1]
        inside = ((rows >= 0) & (rows < patch))[:, None] & ((columns >= 0) & (columns < patch))  # (h, w)
        covered = jnp.where(inside[..., None], jnp.asarray(fill, images.dtype), images)
        fall = logits - _class_logits(model, variables, covered, classes)  # (n,)
        return total + fall[:, None, None] * inside, inside

    total, insides = jax.lax.scan(cover, jnp.zeros((n, height, width), logits.dtype), jnp.asarray(corners))
    return total / jnp.maximum(insides.sum(axis=0), 1)


def _starts(length: int, patch: int, stride: int) -> range:
    """Where patches begin, as many as it takes to reach the end."""
    return range(0, max(length - patch, 0) + stride, stride)


def _class_logits(model: Classifier, variables: Mapping[str, Any], images: Array, classes: Array) -> Array:
    logits: Any = model.apply(variables, images, train=False)
    return jnp.take_along_axis(logits, classes[:, None], axis=1)[:, 0]  # (n,)


def _image_gradients(model: Classifier, variables: Mapping[str, Any], images: Array, classes: Array) -> Array:
    return jax.grad(lambda images: _class_logits(model, variables, images, classes).sum())(images)


def _at_layer(
    model: Classifier, variables: Mapping[str, Any], images: Array, classes: Array, layer: str | None
) -> tuple[Array, Array]:
    """A layer's output (n, h, w, c) and the gradients of the classes' logits with respect to it."""
    name = default_layer(model, images.shape) if layer is None else layer
    output: list[Array] = []

    def keep(activations: Array) -> Array:
        if getattr(activations, "ndim", 0) != 4:
            raise UserError(f"the output of {name!r} is no map: name a convolution, or a block or a stage of them")
        output.append(activations)
        return activations

    # First the output, which has the shape of what is then added to it: the gradient there is the output's.
    logits_through(model, variables, images, name, keep)
    activations = output.pop()

    def score(added: Array) -> Array:
        logits = logits_through(model, variables, images, name, lambda activations: activations + added)
        return jnp.take_along_axis(logits, classes[:, None], axis=1).sum()

    return activations, jax.grad(score)(jnp.zeros_like(activations))


def _weighted(activations: Array, weights: Array) -> Array:
    return jax.nn.relu((activations * weights).sum(axis=-1))
