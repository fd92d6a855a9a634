"""A network's inner activations, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flax.traverse_util import flatten_dict
from jax import Array

from flaxcnn.errors import did_you_mean
from flaxcnn.models import Classifier


def features(
    model: Classifier, variables: Mapping[str, Any], images: Array, names: Sequence[str] | None = None
) -> dict[str, Array]:
    """The outputs of modules inside a network, in evaluation.

    Args:
        model: from `create_model`.
        variables: the model's.
        images: (n, h, w, c).
        names: of modules, as PyTorch names them: `"layer3"`, `"layer1.0.conv2"`, and `""` for the network itself;
            None for all.

    Returns:
        name -> output, in the order of `names`; by itself the dictionary is a jittable function's result.

    Raises:
        ValueError: when the network has no such module; close matches are listed.
    """
    _, captured = model.apply(variables, images, train=False, capture_intermediates=True, mutable=["intermediates"])
    outputs: dict[tuple[str, ...], Any] = flatten_dict(captured["intermediates"])
    # The last part of a path is the method; a module's outputs are a tuple, one a call.
    found = {".".join(path[:-1]): calls[0] for path, calls in outputs.items()}
    for name in names or ():
        if name not in found:
            raise ValueError(f"{type(model).__name__} has no module {name!r}{did_you_mean(name, found)}")
    return found if names is None else {name: found[name] for name in names}
