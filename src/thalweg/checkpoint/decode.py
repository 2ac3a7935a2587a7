"""Nested data from its JSON form, of which nothing is taken for granted.

The form is that of :mod:`thalweg.checkpoint.tree`.
"""

import base64
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thalweg.checkpoint.tree import DEEPEST


def decode(node: Any, tensor: Callable[[str], Tensor]) -> Any:
    """The data that a JSON form stands for.

    Args:
        node: as :func:`thalweg.checkpoint.tree.encode` gives it, or anything else in JSON.
        tensor: gives a tensor by its name; may raise KeyError.

    Raises:
        ValueError: the form is none that ``encode`` gives; the message says what is wrong.

    >>> decode({"$tuple": [1, {"$float": "-inf"}]}, {}.__getitem__)
    (1, -inf)
    """
    return _Decoder(tensor).value(node)


class _Decoder:
    def __init__(self, tensor: Callable[[str], Tensor]) -> None:
        self.named = tensor
        self.depth = 0

    def value(self, node: Any) -> Any:
        if isinstance(node, (list, dict)):
            self.depth += 1
            # The writer counts levels of data; a tagged one takes up to two here.
            if self.depth > 2 * DEEPEST + 2:
                raise ValueError(f"nested more than {DEEPEST} levels deep")
            found = self.items(node) if isinstance(node, list) else self.mapping(node)
            self.depth -= 1
            return found
        return node

    def items(self, nodes: Any) -> list[Any]:
        return [self.value(node) for node in _need(nodes, list, "a list")]

    def mapping(self, node: dict[str, Any]) -> Any:
        tag = next((key for key in node if key.startswith("$")), None)
        if tag is None:
            return {key: self.value(item) for key, item in node.items()}
        if len(node) > 1 and set(node) != {"$ordered", "$metadata"}:
            raise ValueError(f"the tag {tag!r} stands beside other keys")
        form = _VALUES.get("$ordered" if len(node) > 1 else tag)
        if form is None:
            raise ValueError(f"the tag {tag!r} is not known")
        return form(self, node if form is _Decoder.ordered else node[tag])

    def tensor(self, name: Any) -> Tensor:
        try:
            return self.named(_need(name, str, "a tensor's name"))
        except KeyError:
            raise ValueError(f"a tensor {name!r:.200} is spoken of, but there is none") from None

    def complex_tensor(self, name: Any) -> Tensor:
        pairs = self.tensor(name)
        if not pairs.is_floating_point() or pairs.shape[-1:] != (2,):
            raise ValueError(f"the tensor {name!r:.200} does not hold complex numbers as pairs")
        try:
            # Where another program has written the file again, pairs may begin at odd places.
            return torch.view_as_complex(pairs.clone() if pairs.storage_offset() % 2 else pairs)
        except RuntimeError:
            raise ValueError(f"there are no complex numbers of {pairs.dtype}") from None

    def array(self, node: Any) -> "np.ndarray[Any, Any]":
        tensor = self.value(node)
        if not isinstance(tensor, Tensor):
            raise ValueError(f"an array must be a tensor's form, got {node!r:.80}")
        try:
            return tensor.numpy()
        except TypeError as error:
            raise ValueError(f"no NumPy array can be made of a tensor: {error}") from None

    def integer(self, text: Any) -> int:
        return int(_need(text, str, "an integer in hexadecimal"), 16)

    def floating(self, node: Any) -> float:
        if type(node) is float:
            return node
        if node not in ("nan", "inf", "-inf"):
            raise ValueError(f"must be 'nan', 'inf' or '-inf', got {node!r:.80}")
        return float(node)

    def complex(self, node: Any) -> complex:
        real, imaginary = (self.value(part) for part in _need(node, list, "two numbers", 2))
        if not type(real) is type(imaginary) is float:
            raise ValueError(f"a complex number must be two numbers, got {node!r:.80}")
        return complex(real, imaginary)

    def pairs(self, nodes: Any) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for pair in _need(nodes, list, "a list of pairs"):
            key, item = (self.value(part) for part in _need(pair, list, "a pair", 2))
            if self.hashable([key]) & found.keys():
                raise ValueError(f"the key {key!r:.80} comes twice")
            found[key] = item
        return found

    def hashable(self, values: list[Any]) -> set[Any]:
        try:
            return set(values)
        except TypeError as error:
            raise ValueError(f"a key or an element of a set is {error}") from None

    def counter(self, node: Any) -> "Counter[Any]":
        found = self.pairs(node)
        if not all(type(count) in (int, float) for count in found.values()):
            raise ValueError("a Counter must count in numbers")
        return Counter(found)

    def ordered(self, node: dict[str, Any]) -> "OrderedDict[Any, Any]":
        inner = self.value(node.get("$ordered"))
        found = OrderedDict(_need(inner, dict, "a dict"))
        if "$metadata" in node:
            metadata = self.value(node["$metadata"])
            found._metadata = _need(metadata, dict, "the metadata")  # type: ignore[attr-defined]
        return found

    def bytes(self, text: Any) -> "bytes":
        return base64.b64decode(_need(text, str, "bytes in base64"), validate=True)

    def size(self, node: Any) -> torch.Size:
        for each in _need(node, list, "a size"):
            if type(each) is not int or not 0 <= each < 2**63:
                raise ValueError(f"a size must hold integers from 0 to 2^63 - 1, got {each!r:.80}")
        return torch.Size(node)

    def dtype(self, text: Any) -> torch.dtype:
        # Not getattr: torch imports some of its modules when they are asked for.
        found = vars(torch).get(_need(text, str, "a dtype's name"))
        if not isinstance(found, torch.dtype):
            raise ValueError(f"there is no dtype {text!r:.80}")
        return found

    def device(self, text: Any) -> torch.device:
        try:
            return torch.device(_need(text, str, "a device's name"))
        except RuntimeError:
            raise ValueError(f"there is no device {text!r:.80}") from None


_VALUES: dict[str, Callable[[_Decoder, Any], Any]] = {
    "$tensor": _Decoder.tensor,
    "$complex_tensor": _Decoder.complex_tensor,
    "$array": _Decoder.array,
    "$tuple": lambda decoder, node: tuple(decoder.items(node)),
    "$size": _Decoder.size,
    "$dict": _Decoder.pairs,
    "$ordered": _Decoder.ordered,
    "$counter": _Decoder.counter,
    "$set": lambda decoder, node: decoder.hashable(decoder.items(node)),
    "$int": _Decoder.integer,
    "$float": _Decoder.floating,
    "$complex": _Decoder.complex,
    "$bytes": _Decoder.bytes,
    "$dtype": _Decoder.dtype,
    "$device": _Decoder.device,
}


def _need(node: Any, kind: type, what: str, length: int | None = None) -> Any:
    """The node itself; ValueError unless it is of its kind and length."""
    if not isinstance(node, kind) or length not in (None, len(node)):  # type: ignore[arg-type]
        raise ValueError(f"must be {what}, got {type(node).__name__} {node!r:.80}")
    return node
