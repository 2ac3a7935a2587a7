"""What is compiled against: functions that libtorch exports, and where objects keep what.

Offsets are found by looking at objects whose contents are known, not taken from a version's
headers. ``THALWEG_NATIVE=0`` makes all of it missing.
"""

import ctypes
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from thalweg.engine.torch_internals.parts import part

# ---- functions that libtorch exports ------------------------------------------------------------

# Its stable C interface, whose functions catch what they throw, and two of C++ by their mangled
# names: c10's `TensorImpl::grad() const`, which throws nothing, and one that throws for inference
# tensors alone.
_EXPORTED = {
    "grad": ("c10", "_ZNK3c1010TensorImpl4gradEv"),
    "data_ptr": ("torch_cpu", "aoti_torch_get_data_ptr"),
    "dtype": ("torch_cpu", "aoti_torch_get_dtype"),
    "dim": ("torch_cpu", "aoti_torch_get_dim"),
    "sizes": ("torch_cpu", "aoti_torch_get_sizes"),
    "strides": ("torch_cpu", "aoti_torch_get_strides"),
    "storage_offset": ("torch_cpu", "aoti_torch_get_storage_offset"),
    "storage_size": ("torch_cpu", "aoti_torch_get_storage_size"),
    "bump_version": ("torch_cpu", "_ZN5torch8autograd4impl12bump_versionERKN2at6TensorE"),
}

# Numbers of dtypes (c10::ScalarType), as the C function "dtype" tells them.
SCALAR_TYPES = {torch.float32: 6, torch.float64: 7, torch.float16: 5, torch.bfloat16: 15}


@cache
def exported_functions() -> dict[str, int] | None:
    """The addresses of torch's functions by name; None where one is missing."""
    if os.environ.get("THALWEG_NATIVE") == "0":
        return None
    found = {name: _address(*place) for name, place in _EXPORTED.items()}
    return found if all(found.values()) else None


def _address(library: str, symbol: str) -> int:
    folder = Path(torch.__file__).parent / "lib"
    for path in folder.glob(f"lib{library}.*"):
        try:
            function = getattr(ctypes.CDLL(str(path)), symbol)
        except (OSError, AttributeError):
            continue
        return ctypes.cast(function, ctypes.c_void_p).value or 0
    return 0


@cache
def undefined_impl() -> int | None:
    """The TensorImpl of the undefined tensor, which an absent gradient is."""
    functions = exported_functions()
    if functions is None:
        return None
    found = set()
    for tensor in (torch.empty(0, device="cpu"), torch.nn.Parameter(torch.empty(1, device="cpu"))):
        grad = ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(functions["grad"])
        found.add(_words(grad(tensor._cdata), 1)[0])
    return found.pop() if len(found) == 1 else None


# ---- where objects keep what --------------------------------------------------------------------


@cache
def impl_offset() -> int | None:
    """Where the Python objects of tensors hold the address of their TensorImpl."""
    if exported_functions() is None:
        return None
    size: int = torch._C.TensorBase.__basicsize__
    tensors = _examples()
    return _only([_places(id(tensor), size, tensor._cdata) for tensor in tensors])


@dataclass(frozen=True)
class ListLayout:
    """Where a Python list holds its length and the address of its items, in bytes."""

    length: int
    items: int


@cache
def list_layout() -> ListLayout | None:
    """The layout of Python's lists."""
    if exported_functions() is None:
        return None
    lists: list[list[Any]] = [[object() for _ in range(n)] for n in (3, 17, 1031)]
    size = list.__basicsize__
    length = _only([_places(id(one), size, len(one)) for one in lists])
    if length is None:
        return None
    # The header holds the address of a type, too, which can be read as well as that of the items.
    items = [
        {
            8 * k
            for k, word in enumerate(_words(id(one), size // 8))
            if _is_pointer(word) and _words(word, 3) == [id(item) for item in one[:3]]
        }
        for one in lists
    ]
    place = _only(items)
    return None if place is None else ListLayout(length, place)


@dataclass(frozen=True)
class ImplLayout:
    """Where a TensorImpl leads to, in bytes: hints of what to fetch ahead, never relied on.

    Attributes:
        storage: the address of its StorageImpl.
        autograd: the address of its autograd metadata, 0 if it has none.
        version: the address of its version counter.
        grad: the TensorImpl of the gradient, in the autograd metadata.
    """

    storage: int
    autograd: int
    version: int
    grad: int


@cache
def impl_layout() -> ImplLayout | None:
    """The layout of TensorImpls."""
    if exported_functions() is None:
        return None
    size = 8 * 16  # all four lie in the first words, before sizes and strides
    plain, other = (torch.empty(7, device="cpu") for _ in range(2))
    alias = plain.detach()
    parameter = torch.nn.Parameter(torch.empty(7, device="cpu"))
    parameter.grad = torch.empty(7, device="cpu")
    storages = [_places(t._cdata, size, t.untyped_storage()._cdata) for t in (plain, parameter)]
    storage = _only(storages)
    words = {
        name: _words(tensor._cdata, size // 8)
        for name, tensor in dict(p=parameter, plain=plain, other=other, alias=alias).items()
    }
    autograd = _only(
        [{8 * k for k, word in enumerate(words["p"]) if word and not words["plain"][k]}]
    )
    version = _only(
        [
            {
                8 * k
                for k, word in enumerate(words["plain"])
                if word == words["alias"][k] != words["other"][k] and 8 * k != storage
            }
        ]
    )
    if storage is None or autograd is None or version is None:
        return None
    metadata = words["p"][autograd // 8]
    if not _is_pointer(metadata):
        return None
    grad = _only([_places(metadata, 8 * 16, parameter.grad._cdata)])
    return None if grad is None else ImplLayout(storage, autograd, version, grad)


@dataclass(frozen=True)
class PlainKeys:
    """What tells a plain dense tensor in CPU memory, at one look, from all others.

    Attributes:
        offset: where a TensorImpl holds its set of dispatch keys, in bytes.
        keys: that of plain tensors. One that is sparse, lazily negated, on another device, wrapped
            or of a subclass that handles its own operations has another set.
    """

    offset: int
    keys: int


@cache
def plain_keys() -> PlainKeys | None:
    """The dispatch keys of plain tensors."""
    if exported_functions() is None:
        return None
    tensors = _examples()
    keys_of, negative = part("_C._dispatch_keys"), part("_neg_view")
    if keys_of is None or negative is None:
        return None
    sets = {keys_of(tensor).raw_repr() for tensor in tensors}
    negated = negative(torch.empty(2, device="cpu"))
    other: int = keys_of(negated).raw_repr()
    if len(sets) != 1 or other in sets:
        return None
    (keys,) = sets
    places = [_places(tensor._cdata, 8 * 24, keys) for tensor in tensors]
    offset = _only([*places, _places(negated._cdata, 8 * 24, other)])
    return None if offset is None else PlainKeys(offset, keys)


def _examples() -> list[torch.Tensor]:
    sizes = (0, 1, 2)
    plain = [torch.empty(n, device="cpu") for n in sizes]
    return [*plain, torch.nn.Parameter(torch.empty(2, device="cpu"))]


def _words(address: int, count: int) -> list[int]:
    return list((ctypes.c_int64 * count).from_address(address))


def _places(address: int, size: int, value: int) -> set[int]:
    return {8 * k for k, word in enumerate(_words(address, size // 8)) if word == value}


def _is_pointer(word: int) -> bool:
    """Whether it can be the address of something on the heap."""
    return word % 8 == 0 and 2**20 < word < 2**47


def _only(places: list[set[int]]) -> int | None:
    """The place that all have in common, if it is one."""
    common = set.intersection(*places)
    return common.pop() if len(common) == 1 else None
