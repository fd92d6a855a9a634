"""Several views of an image, answered as one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from flaxcnn.models import Classifier


def logits_of(model: Classifier, variables: Any, images: jax.Array, *, exclusive: bool = True) -> jax.Array:
    """The network's logits in evaluation, over several views of each image where there are several.

    Args:
        model: from `create_model`.
        variables: the model's.
        images: (n, h, w, c), or (n, views, h, w, c) as `flaxcnn.data.TestTimeViews` makes them.
        exclusive: whether an image has one class, so that probabilities are a softmax's and not a sigmoid's.

    Returns:
        Logits (n, classes); of several views, those of their mean probabilities.
    """
    if images.ndim == 4:
        return model.apply(variables, images, train=False)  # pyright: ignore[reportReturnType]
    n, views = images.shape[:2]
    logits: Any = model.apply(variables, images.reshape(n * views, *images.shape[2:]), train=False)
    logits = logits.reshape(n, views, -1)

    def log_mean(log_probabilities: jax.Array) -> jax.Array:  # (n, views, classes) to (n, classes)
        return jax.nn.logsumexp(log_probabilities, axis=1) - jnp.log(views)

    if exclusive:
        return log_mean(jax.nn.log_softmax(logits))
    return log_mean(jax.nn.log_sigmoid(logits)) - log_mean(jax.nn.log_sigmoid(-logits))
