"""Variables from PyTorch state dicts and back.

Every model names its modules as its PyTorch reference does, so that a leaf's path is its torch key
but for the last word, and one small table of leaves serves all families.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from flaxcnn.models import Classifier, abstract_variables
from flaxcnn.weights.errors import KeysError, WeightsError
from flaxcnn.weights.keys import to_reference_keys
from flaxcnn.weights.wrapped import unwrap

Variables = dict[str, Any]
Head = Literal["load", "new"]

# (collection, leaf) -> last word of the torch key
_LEAVES = {
    ("params", "kernel"): "weight",
    ("params", "scale"): "weight",
    ("params", "bias"): "bias",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}
AUXILIARY = ("aux1.", "aux2.")
"""Beginnings of the keys that a checkpoint may have and a model without auxiliary heads leaves out."""
# Missing keys for which a close one is looked for, which takes its time among many.
_COMPARED = 50


def from_torch(
    model: Classifier, state_dict: Mapping[str, Any], *, head: Head = "load", channels: int = 3
) -> Variables:
    """Turn a PyTorch state dict into the model's variables.

    Args:
        model: from `create_model`.
        state_dict: torch key -> array or tensor, in PyTorch's layouts, with the reference's keys or those of the
            other packages in `flaxcnn.weights.keys`; also inside a trainer's checkpoint (`{"model": ..., "epoch": 3}`)
            and behind a wrapper's prefix (`module.`). Values keep their dtype (float64 only under x64).
        head: "load", or "new" to initialise afresh all layers whose shapes depend on the number of classes, whatever
            the state dict has for them; with `num_classes=0` they are left out.
        channels: of the images the weights are for.

    Returns:
        `{"params": ..., "batch_stats": ...}`, copies that share no memory with `state_dict`.

    Raises:
        WeightsError: lists every missing, unexpected and mis-shaped key. Only `num_batches_tracked` is ignored, and
            auxiliary heads where the model was created without. For a path or a module it says what to do instead.
    """
    if head not in ("load", "new"):
        raise ValueError(f'head must be "load" or "new", not {head!r}')
    expected = {torch_key(path): (path, leaf) for path, leaf in _flat(abstract_variables(model, channels)).items()}
    arrays = to_reference_keys(model, _state_dict(state_dict), expected)
    unused = () if getattr(model, "aux_heads", True) else AUXILIARY
    arrays = {
        key: array
        for key, array in arrays.items()
        if key.rpartition(".")[2] != "num_batches_tracked" and not key.startswith(unused)
    }
    fresh = _new_head(model, expected, channels) if head == "new" else {}
    arrays = {key: array for key, array in arrays.items() if key not in fresh}
    loaded = {key: place for key, place in expected.items() if key not in fresh}
    _check({key: leaf.shape for key, (_, leaf) in loaded.items()}, arrays)
    flat = {path: jnp.array(_from_torch_layout(as_numpy(arrays[key]))) for key, (path, _) in loaded.items()}
    return unflatten_dict({path: flat[path] if key in loaded else fresh[key] for key, (path, _) in expected.items()})


def _new_head(model: Classifier, expected: Collection[str], channels: int) -> dict[str, Any]:
    """Initial values of the layers whose shapes depend on the number of classes, by torch key."""
    if model.num_classes == 0:
        return dict.fromkeys(torch_shapes(model.clone(num_classes=1), channels).keys() - expected)
    head = head_keys(model, channels)
    images = jnp.zeros((1, model.image_size, model.image_size, channels))

    @jax.jit  # which leaves out what these leaves do not depend on: the network
    def initialise(key: jax.Array) -> dict[str, Any]:
        flat = _flat(model.init(key, images, train=False))
        return {torch_key(path): leaf for path, leaf in flat.items() if torch_key(path) in head}

    return initialise(jax.random.key(0))


def head_keys(model: Classifier, channels: int = 3) -> set[str]:
    """Torch keys of the layers whose shapes depend on the number of classes; none of a model without classes."""
    if model.num_classes == 0:
        return set()
    one, two = (torch_shapes(model.clone(num_classes=classes), channels) for classes in (1, 2))
    return {key for key, shape in one.items() if shape != two[key]}


def torch_shapes(model: Classifier, channels: int = 3) -> dict[str, tuple[int, ...]]:
    """Torch key -> shape in PyTorch's layout, of all of the model's variables."""
    leaves = _flat(abstract_variables(model, channels))
    return {torch_key(path): _torch_shape(leaf.shape) for path, leaf in leaves.items()}


def to_torch(model: Classifier, variables: Mapping[str, Any], *, channels: int = 3) -> dict[str, np.ndarray]:
    """Turn variables into a PyTorch state dict.

    Args:
        model: whose variables they are.
        variables: `{"params": ..., "batch_stats": ...}`; other collections are left out.
        channels: of the images the weights are for.

    Returns:
        torch key -> array, in PyTorch's layouts, without `num_batches_tracked` (`load_state_dict` fills it in).

    Raises:
        WeightsError: when the variables are not the model's.
    """
    state_dict = torch_layout(variables)
    expected = _flat(abstract_variables(model, channels))
    _check({torch_key(path): leaf.shape for path, leaf in expected.items()}, state_dict)
    return state_dict


def torch_layout(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """`to_torch` without the check that they are a model's."""
    flat = _flat({name: variables[name] for name in ("params", "batch_stats") if name in variables})
    return {torch_key(path): _to_torch_layout(np.asarray(leaf)) for path, leaf in flat.items()}


def torch_key(path: tuple[str, ...]) -> str:
    """`("params", "layer1", "0", "conv1", "kernel")` to `"layer1.0.conv1.weight"`."""
    collection, *modules, leaf = path
    return ".".join([*modules, _LEAVES[collection, leaf]])


def _flat(variables: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    return flatten_dict(dict(variables))


def as_numpy(value: Any) -> np.ndarray:
    """An array of an array-like or a PyTorch tensor."""
    if not hasattr(value, "detach"):
        return np.asarray(value)
    tensor = value.detach().cpu()
    # NumPy has no bfloat16 of its own, so PyTorch cannot hand one over.
    return tensor.float().numpy().astype(jnp.bfloat16) if "bfloat16" in str(tensor.dtype) else tensor.numpy()


def _from_torch_layout(array: np.ndarray) -> np.ndarray:
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def _to_torch_layout(array: np.ndarray) -> np.ndarray:
    return np.array(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T)


def _state_dict(given: Any) -> dict[str, Any]:
    """The state dict in what was given for one."""
    if isinstance(given, (str, os.PathLike)):
        raise WeightsError(f"this is a path, not a state dict: load_weights(model, {os.fspath(given)!r}) reads it")
    if not isinstance(given, Mapping):
        hint = ": pass its .state_dict()" if hasattr(given, "state_dict") else ", which maps keys to arrays"
        raise WeightsError(f"this is a {type(given).__name__}, not a state dict{hint}")
    found, _ = unwrap(given)
    for key, value in found.items():
        if hasattr(value, "state_dict"):
            raise WeightsError(f"its {key!r} is a {type(value).__name__}, not a tensor: pass its .state_dict()")
    return found


def _check(expected: Mapping[str, tuple[int, ...]], given: Mapping[str, Any]) -> None:
    """`expected` has flax shapes, `given` torch arrays."""
    missing, unexpected = sorted(expected.keys() - given.keys()), sorted(given.keys() - expected.keys())
    close = {key: difflib.get_close_matches(key, unexpected, n=1) for key in missing[:_COMPARED]}
    shapes = {key: (np.shape(given[key]), _torch_shape(expected[key])) for key in expected.keys() & given.keys()}
    problems = {
        "missing": [f"missing {key}" + (f" (is it {close[key][0]}?)" if close.get(key) else "") for key in missing],
        "unexpected": [f"unexpected {key}" for key in unexpected],
        "mis-shaped": [
            f"{key} has shape {tuple(found)}, the model's is {wanted}"
            for key, (found, wanted) in sorted(shapes.items())
            if tuple(found) != wanted
        ],
    }
    if any(problems.values()):
        raise KeysError(problems)


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape[::-1]
