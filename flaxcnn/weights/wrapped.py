"""State dicts inside what trainers and wrappers put round them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flaxcnn.weights.errors import WeightsError

# Where trainers keep the weights in a checkpoint, the trained ones before their average.
_ENTRIES = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema")
# What wrappers put before every key: data parallelism, torch.compile, Lightning.
_PREFIXES = ("module.", "_orig_mod.", "model.")
_MAX_NESTING = 3
_SHOWN = 10


def unwrap(saved: Any, entry: str | None = None) -> tuple[dict[str, Any], list[str]]:
    """Find the state dict in a trainer's checkpoint, and take the wrappers' prefixes off its keys.

    Args:
        saved: a checkpoint of several entries, or a state dict, which comes back as it is.
        entry: to take; by default the trained weights themselves.

    Returns:
        Torch key -> what stands there, and notes on what was unwrapped.

    Raises:
        WeightsError: when there is no such entry, or no state dict.
    """
    found, notes = saved, list[str]()
    for _ in range(_MAX_NESTING):
        name = _nested(found, entry)
        if name is None:
            break
        found, entry = found[name], None
        notes.append(f"entry {name!r}")
    if not isinstance(found, Mapping):
        raise WeightsError("it holds no dictionary of tensors")
    tensors, more = _without_prefixes(found)
    for key, value in tensors.items():
        if isinstance(value, Mapping):
            raise WeightsError(
                f"its {key:.60} is a dictionary, not a tensor; if the weights are there, give that entry"
            )
    return tensors, notes + more


def _nested(found: Any, entry: str | None) -> str | None:
    """The entry to go on with, or None when `found` is the state dict."""
    if not isinstance(found, Mapping):
        return None
    dictionaries = [str(name) for name, value in found.items() if isinstance(value, Mapping)]
    if entry is None:
        return next((name for name in _ENTRIES if name in dictionaries), None)
    if entry not in dictionaries:
        raise WeightsError(f"it has no entry {entry!r}; its dictionaries: {', '.join(dictionaries[:_SHOWN]) or 'none'}")
    return entry


def _without_prefixes(found: Mapping[Any, Any]) -> tuple[dict[str, Any], list[str]]:
    notes = []
    tensors = {str(key): value for key, value in found.items()}
    if tensors.pop("n_averaged", None) is not None:  # of torch.optim.swa_utils.AveragedModel
        notes.append("left out n_averaged")
    while prefix := next((p for p in _PREFIXES if tensors and all(key.startswith(p) for key in tensors)), None):
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
        notes.append(f"removed the prefix {prefix!r}")
    return tensors, notes
