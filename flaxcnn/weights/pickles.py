"""A reader of pickles that imports nothing and calls nothing.

A pickle is a program for a stack machine, and Python's own machine imports and calls whatever the program names. This
one knows the instructions that tensors and dictionaries need and the few names below, for which it makes plain values
itself. Whatever else a pickle asks for is refused. What it makes is bounded by the number of instructions.
"""

from __future__ import annotations

import io
import pickletools
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from flaxcnn.weights.errors import WeightsError

# EfficientNet-B7 with its optimiser's state and an average takes under 1 MiB and 200,000 instructions.
MAX_BYTES = 8 * 2**20
MAX_INSTRUCTIONS = 500_000

_STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
STORAGE_NAMES = {np.dtype(dtype): name for name, dtype in _STORAGES.items()}
_TENSORS = ("torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2")
_PARAMETERS = ("torch.nn.parameter Parameter", "torch._utils _rebuild_parameter")
_NAMES = {
    "collections OrderedDict",
    # What trainers keep beside the weights, schedules and options: made empty.
    *("argparse Namespace", "collections Counter", "torch Size", "torch device"),
    *_TENSORS,
    *_PARAMETERS,
    *(f"{module} {storage}" for module in ("torch", "torch.cuda") for storage in _STORAGES),
}


class Storage(NamedTuple):
    """Numbers that stand elsewhere in the file."""

    key: str
    dtype: np.dtype
    numel: int


class Tensor(NamedTuple):
    """A strided view of a storage, in elements; nothing of it is checked yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Name(str):
    """One of `_NAMES`."""


class _Object:
    """Made empty: a parameter, as PyTorch 0.1 wrote it, filled in later, or what is of no use here."""

    tensor: Tensor | None = None


def load(stream: io.BytesIO) -> tuple[Any, dict[str, Storage]]:
    """Read one pickle.

    Args:
        stream: at the pickle's beginning; afterwards just behind its end.

    Returns:
        Dictionaries, lists, tuples, strings, numbers, booleans, None and `Tensor`s; and the storages by their keys.

    Raises:
        WeightsError: when it asks for anything else.
        ValueError, LookupError, TypeError: when it is damaged.
    """
    machine = _Machine()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if count > MAX_INSTRUCTIONS:
            raise WeightsError(f"its pickle has over {MAX_INSTRUCTIONS:,} instructions")
        machine.step(opcode.name, argument)
    return _finished(machine.stack.pop()), machine.storages


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        """What lies under each mark, the innermost last."""
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def step(self, instruction: str, argument: Any) -> None:
        """Carry out one instruction."""
        stack = self.stack
        match instruction:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(argument)
            case "BINSTRING" | "SHORT_BINSTRING":  # Python 2's
                stack.append(argument)
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(instruction == "NEWTRUE")
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "MARK":
                self.below.append(stack)
                self.stack = []
            case "TUPLE":
                items = self._pop_to_mark()
                self.stack.append(tuple(items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [stack.pop() for _ in range(int(instruction[-1]))]
                stack.append(tuple(reversed(items)))
            case "APPEND":
                item = stack.pop()
                self._top(list).append(item)
            case "APPENDS":
                items = self._pop_to_mark()
                self._top(list).extend(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                self._set_items([key, value])
            case "SETITEMS":
                self._set_items(self._pop_to_mark())
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "GLOBAL":
                stack.append(_name(argument))
            case "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                stack.append(_name(f"{module} {attribute}"))
            case "REDUCE" | "NEWOBJ":
                arguments = stack.pop()
                stack.append(_make(stack.pop(), arguments))
            case "BUILD":
                state = stack.pop()
                if isinstance(stack[-1], _Object) and isinstance(state, tuple) and isinstance(state[0], Tensor):
                    stack[-1].tensor = state[0]
            case "BINPERSID":
                storage = _storage(stack.pop())
                stack.append(self.storages.setdefault(storage.key, storage))
            case _:
                raise WeightsError(f"its pickle uses the instruction {instruction}, which weights do not need")

    def _pop_to_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def _top(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise TypeError(f"a {kind.__name__} is expected, not a {type(self.stack[-1]).__name__}")
        return self.stack[-1]

    def _set_items(self, items: list[Any]) -> None:
        self._top(dict).update(_pairs(zip(items[::2], items[1::2], strict=True)))


def _pairs(items: Any) -> dict[Any, Any]:
    pairs = {}
    for key, value in items:
        # Other keys could be nested so deep that hashing them overflows the C stack.
        if not isinstance(key, (str, int)):
            raise TypeError(f"a key is a {type(key).__name__}")
        pairs[key] = _finished(value)
    return pairs


def _name(name: str) -> _Name:
    if name not in _NAMES:
        raise WeightsError(
            f"its pickle asks for {name.replace(' ', '.', 1)!r:.100}; only tensors and dictionaries are read, and "
            "nothing is executed"
        )
    return _Name(name)


def _make(name: Any, arguments: Any) -> Any:
    if type(name) is not _Name or type(arguments) is not tuple:
        raise TypeError("something that is not a name is called")
    if name == "collections OrderedDict":
        return _pairs(*arguments) if arguments else {}
    if name in _TENSORS:
        return Tensor(*arguments[:4])
    if name in _PARAMETERS and arguments:
        return _finished(arguments[0])
    return _Object()


def _storage(identity: Any) -> Storage:
    """From what torch calls a persistent id, which ends in None or in the view that PyTorch 0.1 had of a storage."""
    kind, name, key, _, numel, *view = identity
    storage = name.rpartition(" ")[2] if type(name) is _Name else None
    if kind != "storage" or storage not in _STORAGES or type(key) is not str or type(numel) is not int:
        raise TypeError("a storage is not described as PyTorch does")
    if view not in ([], [None]):
        raise WeightsError("a storage is a view of another one, which PyTorch 0.1 wrote; save it anew by torch.save")
    return Storage(key, np.dtype(_STORAGES[storage]), numel)


def _finished(value: Any) -> Any:
    return value.tensor if isinstance(value, _Object) else value
