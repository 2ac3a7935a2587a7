"""Nested data with tensors, as JSON and a flat dict of tensors.

The way back is :mod:`thalweg.checkpoint.decode`.

What JSON has is itself: None, flags, numbers, strings, lists, and dicts whose keys are strings.
Everything else is a dict with a tag that begins with "$":

=====================  ============================================================================
tag                    what it stands for
=====================  ============================================================================
``$tensor``            a tensor, by its name
``$complex_tensor``    a complex tensor; stored are real and imaginary part, in a last dimension
``$array``             a NumPy array, by the form of its tensor
``$tuple`` ``$size``   a tuple; a ``torch.Size``
``$dict``              pairs of key and value, where keys are no strings or begin with "$"
``$ordered``           an OrderedDict, as a dict; beside it ``$metadata`` of a module's state dict
``$counter`` ``$set``  a Counter, as pairs; a set
``$int``               an integer of more than 64 bits, in hexadecimal
``$float``             "nan", "inf" or "-inf"
``$complex``           the real and the imaginary part
``$bytes``             base64
``$dtype`` ``$device`` names as torch prints them
=====================  ============================================================================
"""

import base64
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

# The kinds of numbers that a file can hold, under safetensors' names.
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}

DEEPEST = 64  # levels of nesting; far from where Python's own recursion ends
_PLAIN = (type(None), bool, str)
_TENSORS = (Tensor, torch.nn.Parameter, torch.nn.Buffer)
_MAY = (
    "what can be saved is None, numbers, strings, bytes, lists, tuples, dicts, sets, dense "
    "tensors, NumPy arrays of numbers, and torch's dtypes, devices and sizes"
)


class Flat:
    """The tensors of a checkpoint under their names, each piece of memory once.

    Attributes:
        tensors: name: tensor, not copied.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[Any, str] = {}

    def add(self, name: str, tensor: Tensor) -> str:
        """The name that the tensor has here: that of the same memory if there is one."""
        memory = (
            tensor.data_ptr() or id(tensor), tensor.device, tensor.dtype, tensor.shape,
            tensor.stride(), tensor.is_conj(), tensor.is_neg(),
        )  # fmt: skip
        if memory not in self._names:
            # Half of a surrogate pair cannot be written in a header.
            name = unique = name.encode("utf-8", "backslashreplace").decode()
            number = 1
            while unique in self.tensors:
                number += 1
                unique = f"{name}~{number}"
            self.tensors[unique] = tensor
            self._names[memory] = unique
        return self._names[memory]


def encode(name: str, value: Any, flat: Flat) -> Any:
    """The JSON form of nested data; its tensors go into ``flat``, not copied.

    Args:
        name: of the whole; the first part of its tensors' names, and of the place that an error
            tells.
        value: nested data.
        flat: takes the tensors.

    Raises:
        TypeError: for what cannot be saved; the message says where it is.
        ValueError: more than 64 levels deep, or it holds itself.

    >>> flat = Flat()
    >>> encode("optimizer", {"lr": 0.1, "betas": (0.9, math.inf), "m": torch.zeros(2)}, flat)
    {'lr': 0.1, 'betas': {'$tuple': [0.9, {'$float': 'inf'}]}, 'm': {'$tensor': 'optimizer/m'}}
    >>> list(flat.tensors)
    ['optimizer/m']
    """
    return _Encoder(name, flat).node(value, ())


class _Encoder:
    def __init__(self, name: str, flat: Flat) -> None:
        self.name, self.flat = name, flat

    def node(self, value: Any, path: tuple[Any, ...]) -> Any:
        if isinstance(value, (np.bool_, np.number, np.str_, np.bytes_)):
            value = value.item()
        kind = type(value)
        if len(path) > DEEPEST:
            raise ValueError(
                f"{self.place(path[:4])}...: nested more than {DEEPEST} levels deep, or it holds "
                "itself; save it flat"
            )
        if kind in _PLAIN:
            return value
        form = _FORMS.get(kind)
        if form is None:
            remedy = "run the model once, which initializes it" if is_lazy(value) else _MAY
            raise TypeError(f"{self.place(path)}: {kind.__name__} cannot be saved; {remedy}")
        return form(self, value, path)

    def place(self, path: tuple[Any, ...]) -> str:
        """Where an entry is, as one would write it."""
        parts = (
            f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{_shown(key)}]"
            for key in path
        )
        return self.name + "".join(parts)

    def integer(self, value: int, path: Any) -> Any:
        return value if value.bit_length() <= 64 else {"$int": hex(value)}

    def floating(self, value: float, path: Any) -> Any:
        return value if math.isfinite(value) else {"$float": repr(value)}

    def complex(self, value: complex, path: Any) -> Any:
        return {"$complex": [self.floating(part, path) for part in (value.real, value.imag)]}

    def items(self, values: Any, path: tuple[Any, ...]) -> list[Any]:
        return [self.node(value, (*path, i)) for i, value in enumerate(values)]

    def pairs(self, value: Mapping[Any, Any], path: tuple[Any, ...]) -> list[Any]:
        return [
            [self.node(key, (*path, key)), self.node(item, (*path, key))]
            for key, item in value.items()
        ]

    def mapping(self, value: dict[Any, Any], path: tuple[Any, ...]) -> Any:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: self.node(item, (*path, key)) for key, item in value.items()}
        return {"$dict": self.pairs(value, path)}

    def ordered(self, value: "OrderedDict[Any, Any]", path: tuple[Any, ...]) -> Any:
        node = {"$ordered": self.mapping(value, path)}
        if hasattr(value, "_metadata"):  # a module's state dict: the versions of its layers
            node["$metadata"] = self.node(value._metadata, (*path, "_metadata"))
        return node

    def tensor(self, value: Tensor, path: tuple[Any, ...]) -> Any:
        dtype = value.dtype.to_real() if value.is_complex() else value.dtype
        if value.layout is not torch.strided or value.is_meta or dtype not in DTYPE_NAMES:
            what = "without data" if value.is_meta else f"{value.layout}, {value.dtype}"
            raise TypeError(f"{self.place(path)}: a tensor {what} cannot be saved; {_MAY}")
        name = self.flat.add("/".join(map(_named, (self.name, *path))), value)
        return {"$complex_tensor" if value.is_complex() else "$tensor": name}

    def array(self, value: "np.ndarray[Any, Any]", path: tuple[Any, ...]) -> Any:
        plain = value.astype(value.dtype.newbyteorder("="), copy=not value.flags.writeable)
        try:
            tensor = torch.from_numpy(np.ascontiguousarray(plain).reshape(value.shape))
        except TypeError:
            raise TypeError(
                f"{self.place(path)}: an array of {value.dtype} cannot be saved; {_MAY}"
            ) from None
        return {"$array": self.tensor(tensor, path)}


_FORMS: dict[type, Callable[[_Encoder, Any, tuple[Any, ...]], Any]] = {
    int: _Encoder.integer,
    float: _Encoder.floating,
    complex: _Encoder.complex,
    bytes: lambda encoder, value, path: {"$bytes": base64.b64encode(value).decode()},
    list: _Encoder.items,
    tuple: lambda encoder, value, path: {"$tuple": encoder.items(value, path)},
    set: lambda encoder, value, path: {"$set": encoder.items(value, path)},
    dict: _Encoder.mapping,
    OrderedDict: _Encoder.ordered,
    Counter: lambda encoder, value, path: {"$counter": encoder.pairs(value, path)},
    torch.Size: lambda encoder, value, path: {"$size": list(value)},
    torch.dtype: lambda encoder, value, path: {"$dtype": str(value).removeprefix("torch.")},
    torch.device: lambda encoder, value, path: {"$device": str(value)},
    np.ndarray: _Encoder.array,
    **dict.fromkeys(_TENSORS, _Encoder.tensor),
}


def _named(key: Any) -> str:
    return key if isinstance(key, str) else _shown(key)


def _shown(key: Any) -> str:
    """A key as one would write it, unless it is of an odd kind or very long."""
    plain = isinstance(key, (str, float)) or (isinstance(key, int) and key.bit_length() <= 64)
    return repr(key) if plain else f"{type(key).__name__} key"
