"""The object in a pickle that holds tensors and nothing else, read without running anything.

A pickle is a program for a small stack machine; the standard one may call any function that a file names.  This
one knows the few instructions that ``torch.save`` writes for a dictionary of tensors, and answers every name with
a description, never with the thing: a storage's dtype, a tensor's place in its storage, a dictionary.  Whatever
else a file asks for is refused by name.
"""

import dataclasses
import pickletools
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from checkpoint_convert.rules import Shape
from mammoth_jax.core.errors import InputError

_DTYPES: dict[tuple[str, str], np.dtype] = {
    ("torch", f"{name}Storage"): np.dtype(dtype)
    for name, dtype in {
        "Double": np.float64,
        "Float": np.float32,
        "Half": np.float16,
        "BFloat16": ml_dtypes.bfloat16,
        "Long": np.int64,
        "Int": np.int32,
        "Short": np.int16,
        "Char": np.int8,
        "Byte": np.uint8,
        "Bool": np.bool_,
    }.items()
}
_DICTIONARY = ("collections", "OrderedDict")
_TENSORS = {("torch._utils", name) for name in ("_rebuild_tensor", "_rebuild_tensor_v2")}
_PARAMETER = ("torch._utils", "_rebuild_parameter")
_ALLOWED = {_DICTIONARY, _PARAMETER, *_TENSORS, *_DTYPES}

_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE"),
}
"""Instructions that push their argument; the textual ones of the first protocol are not among them."""
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_ADVICE = "only dictionaries of tensors are read; save the network's state_dict, or use a safetensors file"


@dataclasses.dataclass(frozen=True)
class Storage:
    """A run of ``numel`` elements of one dtype, or from element ``first`` on of one."""

    key: str
    dtype: np.dtype
    numel: int
    first: int = 0


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A view into a storage: offset and strides in elements."""

    storage: Storage
    offset: int
    shape: Shape
    strides: Shape


@dataclasses.dataclass(frozen=True)
class _Name:
    """A name that the pickle asks for, checked but never looked up."""

    path: tuple[str, str]


def read_pickle(stream: BinaryIO, where: str) -> Any:
    """The next object of the stream: numbers, strings, lists, tuples, dictionaries and :class:`StoredTensor`.

    Reads to the end of that object and no further.

    Raises:
      InputError: the pickle asks for anything else, or is cut short or corrupt; ``where`` names it in the message.
    """
    machine = _Machine(where)
    try:
        for instruction, argument, _ in pickletools.genops(stream):
            if instruction.name == "STOP":
                return machine.pop()
            machine.run(instruction.name, argument)
    except InputError:
        raise
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, MemoryError) as error:
        raise InputError(f"{where}: the pickle is cut short or corrupt ({error}); copy it again") from error
    raise InputError(f"{where}: the pickle is cut short; copy it again")


class _Machine:
    def __init__(self, where: str):
        self.where = where
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise ValueError("an instruction has nothing to work on")
        return self.stack.pop()

    def pop_marked(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def refuse(self, what: str) -> InputError:
        return InputError(f"{self.where} asks for {what}: {_ADVICE}")

    def run(self, name: str, argument: Any) -> None:
        """Carries out one instruction."""
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            items = [self.pop() for _ in range(_TUPLES[name])]
            self.stack.append(tuple(reversed(items)))
        elif name in ("PROTO", "FRAME"):
            pass
        elif (handler := getattr(self, f"_{name.lower()}", None)) is not None:
            handler(argument)
        else:
            raise self.refuse(f"the pickle instruction {name}")

    def _mark(self, _: Any) -> None:
        self.marks.append(len(self.stack))

    def _tuple(self, _: Any) -> None:
        self.stack.append(tuple(self.pop_marked()))

    def _list(self, _: Any) -> None:
        self.stack.append(self.pop_marked())

    def _dict(self, _: Any) -> None:
        items = self.pop_marked()
        self.stack.append({})
        self._store(items)

    def _append(self, _: Any) -> None:
        item = self.pop()
        self._top(list).append(item)

    def _appends(self, _: Any) -> None:
        items = self.pop_marked()
        self._top(list).extend(items)

    def _setitem(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        self._store([key, value])

    def _setitems(self, _: Any) -> None:
        self._store(self.pop_marked())

    def _top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise ValueError(f"a {kind.__name__} was expected, not a {type(self.stack[-1]).__name__}")
        return self.stack[-1]

    def _store(self, items: list[Any]) -> None:
        target = self._top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if key in target:
                raise InputError(f"{self.where} holds {key!r} twice; save it again")
            target[key] = value

    def _binput(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    _long_binput = _binput

    def _memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _binget(self, index: int) -> None:
        self.stack.append(self.memo[index])

    _long_binget = _binget

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._name(module, name)

    def _stack_global(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        self._name(module, name)

    def _name(self, module: str, name: str) -> None:
        if (module, name) not in _ALLOWED:
            raise self.refuse(f"{module}.{name}")
        self.stack.append(_Name((module, name)))

    def _build(self, _: Any) -> None:
        """Attributes; those of a dictionary (versions of its modules) say nothing about its tensors."""
        self.pop()
        if not isinstance(self.stack[-1], dict):
            raise self.refuse(f"attributes of a {type(self.stack[-1]).__name__}")

    def _binpersid(self, _: Any) -> None:
        match self.pop():
            case ("storage", _Name(path), key, _, numel, *view) if path in _DTYPES and len(view) <= 1:
                storage = Storage(str(key), _DTYPES[path], _count(numel))
                match view:
                    case [(_, first, length)]:
                        storage = Storage(str(key), storage.dtype, _count(length), _count(first))
                    case [] | [None]:
                        pass
                    case _:
                        raise ValueError(f"view {view[0]!r} of a storage")
                self.stack.append(storage)
            case asked:
                raise self.refuse(f"the stored object {asked!r:.100}")

    def _reduce(self, _: Any) -> None:
        arguments, called = self.pop(), self.pop()
        if not isinstance(called, _Name):
            raise self.refuse(f"a call of {called!r:.100}")
        match (called.path, arguments):
            case (path, (Storage() as storage, offset, shape, strides, *_)) if path in _TENSORS:
                shape, strides = tuple(map(_count, shape)), tuple(map(_count, strides))
                self.stack.append(StoredTensor(storage, _count(offset), shape, strides))
            case (path, (StoredTensor() as tensor, *_)) if path == _PARAMETER:
                self.stack.append(tensor)
            case (path, ()) if path == _DICTIONARY:
                self.stack.append({})
            case (path, (list(pairs),)) if path == _DICTIONARY:
                self.stack.append({})
                self._store([item for key, value in pairs for item in (key, value)])
            case _:
                raise self.refuse(f"a call of {'.'.join(called.path)} that makes no tensor")


def _count(x: Any) -> int:
    if not isinstance(x, int) or x < 0:
        raise ValueError(f"a size of {x!r:.50}")
    return x
