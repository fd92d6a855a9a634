"""Trained weights as the start of another training: other classes, another head, other channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from flaxcnn.models import Classifier, WithHead
from flaxcnn.weights.keys import to_reference_keys
from flaxcnn.weights.torch import AUXILIARY, Variables, as_numpy, from_torch, head_keys, torch_key, torch_shapes
from flaxcnn.weights.wrapped import unwrap


class Start(NamedTuple):
    """Variables to begin a training with."""

    variables: Variables
    notes: tuple[str, ...]
    """What of them is not simply the trained weights."""


def start_from(
    model: Classifier, initial: Mapping[str, Any], state_dict: Mapping[str, Any], *, channels: int = 3
) -> Start:
    """Take trained weights for all of a model but a head for other classes.

    A last layer for another number of classes begins at zero, where the loss is that of a guess: at most families' own
    initial values, its first gradients would undo much of what the rest has learned.

    Args:
        model: from `create_model` or `with_head`.
        initial: its variables, freshly initialised: the head of `with_head` keeps them where the weights are for its
            backbone.
        state_dict: torch key -> array, as `from_torch` takes it.
        channels: of the model's images. Weights for others have their first kernel summed or repeated.

    Returns:
        The variables, and notes on what was not taken as it was.

    Reference: for the zeros, Kolesnikov et al., Big Transfer (BiT), arXiv 1912.11370.

    Raises:
        WeightsError: lists the keys that do not fit, the head's left aside.
    """
    state_dict, _ = unwrap(state_dict)
    is_whole = any(key.startswith("backbone.") for key in state_dict)
    own = model.backbone if isinstance(model, WithHead) and not is_whole else model
    expected = torch_shapes(own, channels)
    arrays, notes = with_channels(own, to_reference_keys(own, state_dict, expected), channels)
    head = head_keys(own, channels)
    keeps_head = bool(head) and all(key in arrays and tuple(arrays[key].shape) == expected.get(key) for key in head)
    loaded = from_torch(own, arrays, head="load" if keeps_head else "new", channels=channels)
    if own is not model:
        loaded = {name: {"backbone": tree} for name, tree in loaded.items()}
    new, taken = flatten_dict(dict(initial)), flatten_dict(loaded)
    zero = {path: np.zeros_like(new[path]) for path in new if not keeps_head and torch_key(path) in head}
    fresh = {path: leaf for path, leaf in new.items() if path not in taken} | zero
    if fresh:
        modules = dict.fromkeys(".".join(path[1:-1]) for path in sorted(fresh))
        notes = (*notes, f"newly initialised for {model.num_classes} classes: {', '.join(modules)}")
    return Start(unflatten_dict({**taken, **fresh}), notes)


def with_channels(
    model: Classifier, state_dict: Mapping[str, Any], channels: int
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Fit the first kernel to images of other channels.

    It is summed over its channels for one, so that it answers to a grey image as before; else its channels are repeated
    in turn, and scaled by their numbers' ratio, so that its answers keep their size.

    Args:
        model: whose weights they are.
        state_dict: with the reference's keys.
        channels: of the images the weights are to be for.

    Returns:
        The state dict, and a note on each kernel that was changed.
    """
    expected, other = torch_shapes(model, channels), torch_shapes(model, 1 if channels == 3 else 3)
    fitted, notes = dict(state_dict), []
    for key in (key for key, shape in expected.items() if shape != other[key] and key in fitted):
        kernel = as_numpy(fitted[key])  # (out, in, h, w)
        given = kernel.shape[1]
        if kernel.ndim != 4 or given == channels:
            continue
        if channels == 1:
            fitted[key] = kernel.sum(axis=1, keepdims=True)
            notes.append(f"first kernel ({key}) summed over its {given} channels")
        else:
            fitted[key] = (kernel[:, np.arange(channels) % given] * (given / channels)).astype(kernel.dtype)
            notes.append(f"first kernel ({key}) repeated from {given} to {channels} channels")
    return fitted, tuple(notes)


def fitted(model: Classifier, state_dict: Mapping[str, Any]) -> tuple[Classifier, int]:
    """The model that weights are for, as their shapes tell.

    Args:
        model: whose weights they are but for its number of classes, and for auxiliary heads that they may lack.
        state_dict: torch key -> array, as `from_torch` takes it.

    Returns:
        The model with their number of classes, and without auxiliary heads where they have none; and the channels of
        the images they are for. What they do not tell is as the model has it, and 3 channels.
    """
    expected, grey = torch_shapes(model), torch_shapes(model, 1)
    arrays = to_reference_keys(model, unwrap(state_dict)[0], expected)
    shapes = {key: np.shape(array) for key, array in arrays.items()}
    if getattr(model, "aux_heads", False) and not any(key.startswith(AUXILIARY) for key in shapes):
        model = model.clone(aux_heads=False)
    first = {key for key, shape in expected.items() if shape != grey[key]}
    channels = {shapes[key][1] for key in first if len(shapes.get(key, ())) == 4}
    classes = {shapes[key][0] for key in head_keys(model) if shapes.get(key)}
    if len(classes) == 1:
        model = model.clone(num_classes=classes.pop())
    return model, channels.pop() if len(channels) == 1 else 3
