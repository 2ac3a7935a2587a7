"""Nested data as JSON and tensors, and back: exact, and nothing else is taken for it."""

import json
import math
from collections import Counter, OrderedDict, defaultdict, namedtuple
from enum import IntEnum
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from tests.checkpoint.same import same
from thalweg.checkpoint.decode import decode
from thalweg.checkpoint.tree import DEEPEST, DTYPES, Flat, encode


def through(value: Any) -> Any:
    """Encoded, as text, and decoded again."""
    flat = Flat()
    text = json.dumps(encode("part", value, flat), allow_nan=False)
    stored = {
        name: torch.view_as_real(t.resolve_conj().clone()) if t.is_complex() else t.detach()
        for name, t in flat.tensors.items()
    }
    return decode(json.loads(text), stored.__getitem__)


PLAIN = [
    None, True, False, 0, -1, 2**63, -(2**64) + 1, 2**64, -(2**70000),
    0.0, -0.0, 0.1, 5e-324, 1.7976931348623157e308, math.inf, -math.inf, math.nan,
    1j, complex(-0.0, math.nan), "", "é\0\n", "\ud800", "$tensor", b"", bytes(range(256)),
    [], [1, [2.0]], (), (1, (2,), [3]), {}, {"a": 1, "": 2}, {"$tensor": "x"}, {"$a": {"$b": 1}},
    {1: "a", 1.5: "b", None: "c", (1, "x"): "e"}, {math.inf: 1, "1": 2, 2: 3},
    set(), {1, "a", (2.5, None)},
    OrderedDict(), OrderedDict(b=1, a=2), OrderedDict({1: OrderedDict()}),
    Counter(), Counter("abracadabra"), Counter({3: 2, 10: 1}),
    torch.float32, torch.bfloat16, torch.Size([]), torch.Size([2, 0]),
    torch.device("cpu"), torch.device("cuda:1"),
]  # fmt: skip


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: type(value).__name__)
def test_data_comes_back_as_it_was(value: Any) -> None:
    assert same(through(value), value)
    assert same(through({"x": [value, (value,)]}), {"x": [value, (value,)]})


NESTED = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text() | some.binary(),
    lambda inner: (
        some.lists(inner)
        | some.lists(inner).map(tuple)
        | some.dictionaries(some.text() | some.sampled_from(["$tensor", "$dict", "$"]), inner)
        | some.dictionaries(some.integers() | some.tuples(some.text()), inner)
    ),
)


@given(NESTED)
def test_any_nesting_comes_back_as_it_was(value: Any) -> None:
    assert same(through(value), value)


def numbers(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    count = math.prod(shape) * dtype.itemsize
    raw = torch.arange(1, count + 1).remainder(2 if dtype is torch.bool else 256).to(torch.uint8)
    return raw.view(dtype).reshape(shape) if count else torch.empty(shape, dtype=dtype)


TENSORS = [
    *(numbers(dtype, 3, 2) for dtype in DTYPES.values()),
    *(numbers(dtype, 3) for dtype in (torch.complex64, torch.complex128)),
    torch.tensor(2.5), torch.empty(0), torch.empty(2, 0, 3), torch.ones(1).expand(3, 4),
    torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1), torch.arange(9.0)[::2],
    torch.tensor([1 + 2j, 3 - 1j]).conj(), torch.tensor([1 + 2j]).conj().imag,
    torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last),
]  # fmt: skip


@pytest.mark.parametrize("value", TENSORS, ids=lambda t: f"{t.dtype} {tuple(t.shape)}")
def test_tensors_come_back_as_they_were(value: torch.Tensor) -> None:
    assert same(through({"a": value})["a"], value)


def test_parameters_come_back_as_tensors() -> None:
    value = torch.nn.Parameter(torch.ones(2))
    assert same(through(value), value.detach())


ARRAYS = [
    np.arange(6, dtype=np.uint16).reshape(2, 3).T, np.array(1.5), np.zeros((0, 2)),
    np.arange(5)[::-2], np.array([1 + 2j]), np.array([True, False]), np.float16([1, 2]),
]  # fmt: skip


@pytest.mark.parametrize("value", ARRAYS, ids=lambda a: f"{a.dtype}{a.shape}")
def test_arrays_come_back_as_they_were(value: np.ndarray) -> None:
    assert same(through([value])[0], value)
    frozen = value.copy()
    frozen.flags.writeable = False
    assert same(through([frozen])[0], value)


def test_arrays_of_the_other_byte_order_keep_their_numbers() -> None:
    found = through(np.array([1, 500], dtype=">i4"))
    assert found.tolist() == [1, 500]
    assert found.dtype == np.int32


@pytest.mark.parametrize(
    "value",
    [np.float32(0.1), np.float64(-0.0), np.int8(-3), np.bool_(True), np.str_("a"), np.bytes_(b"a"),
     np.complex64(1 + 2j), np.uint64(2**64 - 1)],
    ids=repr,
)  # fmt: skip
def test_numpys_scalars_become_pythons(value: Any) -> None:
    assert same(through([value]), [value.item()])


def test_the_versions_of_a_modules_layers_are_kept() -> None:
    state = torch.nn.Sequential(torch.nn.BatchNorm1d(2)).state_dict()
    found = through(state)
    assert same(found, state)
    assert found._metadata == state._metadata
    assert found._metadata["0"] == {"version": 2}


def test_the_same_memory_is_kept_once() -> None:
    weight = torch.ones(2, 3)
    flat = Flat()
    node = encode("m", {"a": weight, "b": weight.detach(), "t": weight.T, "c": weight[0]}, flat)
    assert node["a"] == node["b"] == {"$tensor": "m/a"}
    assert list(flat.tensors) == ["m/a", "m/t", "m/c"]
    assert flat.tensors["m/a"] is weight


def test_names_are_the_ways_to_the_tensors() -> None:
    tensors = [torch.tensor(float(i)) for i in range(6)]
    value = {"a/b": tensors[0], "a": {"b": tensors[1], 3: [tensors[2]]}, "\udc80": tensors[3]}
    flat = Flat()
    node = encode("model", [value, tensors[4]], flat)
    assert list(flat.tensors) == [
        "model/0/a/b", "model/0/a/b~2", "model/0/a/3/0", "model/0/\\udc80", "model/1",
    ]  # fmt: skip
    assert same(decode(node, flat.tensors.__getitem__), [value, tensors[4]])
    encode("whole", tensors[5], flat)
    assert "whole" in flat.tensors


class Color(IntEnum):
    RED = 1


class Tagged(torch.Tensor):
    pass


REFUSED = {
    "function": (lambda: 0, "function cannot be saved; what can be saved is None, numbers"),
    "object": (object(), "object cannot be saved"),
    "defaultdict": (defaultdict(int), "defaultdict cannot be saved"),
    "namedtuple": (namedtuple("Pair", "a b")(1, 2), "Pair cannot be saved"),
    "enum": (Color.RED, "Color cannot be saved"),
    "frozenset": (frozenset(), "frozenset cannot be saved"),
    "datetime64": (np.datetime64("2020"), "datetime64 cannot be saved"),
    "longdouble": (np.longdouble(1), "longdouble cannot be saved"),
    "array of objects": (np.array([None]), "an array of object cannot be saved"),
    "array of text": (np.array(["a"]), "an array of <U1 cannot be saved"),
    "sparse": (torch.eye(2).to_sparse(), r"a tensor torch.sparse_coo, torch.float32 cannot"),
    "meta": (torch.ones(2, device="meta"), "a tensor without data cannot"),
    "kind": (torch.empty(2, dtype=torch.float8_e8m0fnu), "torch.float8_e8m0fnu cannot"),
    "subclass": (torch.ones(2).as_subclass(Tagged), "Tagged cannot be saved"),
    "lazy": (torch.nn.LazyLinear(2).weight, "run the model once, which initializes it"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_saved_is_named_with_its_place(case: str) -> None:
    value, message = REFUSED[case]
    with pytest.raises(TypeError, match=rf"^scheduler\.lr_lambdas\[0\]\['a b'\]: .*{message}"):
        encode("scheduler", {"lr_lambdas": [{"a b": value}]}, Flat())


def test_places_of_odd_keys() -> None:
    with pytest.raises(
        TypeError, match=r"^part\[int key\]\[tuple key\]\[1\]\[0.5\]\[NoneType key\]: obj"
    ):
        encode("part", {2**70000: {(1, 2): [0, {0.5: {None: object()}}]}}, Flat())


def test_keys_that_cannot_be_saved_are_named_too() -> None:
    with pytest.raises(TypeError, match=r"^part\[object key\]: object cannot be saved"):
        encode("part", {object(): 1}, Flat())


def test_depth_has_an_end() -> None:
    value: Any = 0
    for i in range(DEEPEST):
        value = [[value], (value,), {1: value}, OrderedDict(a=value), OrderedDict({1: value})][
            i % 5
        ]
    assert same(through(value), value)
    with pytest.raises(ValueError, match=r"^part\[0\].*nested more than 64 levels deep, or it ho"):
        encode("part", [value], Flat())
    own: list[Any] = []
    own.append(own)
    with pytest.raises(ValueError, match="or it holds itself; save it flat"):
        encode("part", own, Flat())


PAIRS = {"f": torch.ones(3, 2), "bf": torch.ones(3, 2, dtype=torch.bfloat16), "i": torch.ones(2)}

BROKEN = {
    "unknown tag": ({"$new": 1}, r"the tag '\$new' is not known"),
    "two tags": ({"$tuple": [], "$size": []}, "stands beside other keys"),
    "tag among keys": ({"a": 1, "$tuple": []}, "stands beside other keys"),
    "metadata alone": ({"$metadata": {}}, r"the tag '\$metadata' is not known"),
    "no such tensor": ({"$tensor": "../../etc/passwd"}, "a tensor '../../etc/passwd' is spoken of"),
    "tensor's name": ({"$tensor": ["f"]}, "must be a tensor's name, got list"),
    "complex of one": ({"$complex_tensor": "nope"}, "there is none"),
    "complex of three": ({"$complex_tensor": "i2"}, "does not hold complex numbers as pairs"),
    "complex bfloat16": ({"$complex_tensor": "bf"}, "no complex numbers of torch.bfloat16"),
    "array": ({"$array": 3}, "an array must be a tensor's form, got 3"),
    "bfloat16 array": ({"$array": {"$tensor": "bf"}}, "no NumPy array can be made"),
    "tuple": ({"$tuple": {}}, "must be a list, got dict"),
    "set of lists": ({"$set": [[1]]}, "a key or an element of a set is unhashable type"),
    "dict": ({"$dict": {"a": 1}}, "must be a list of pairs, got dict"),
    "pair": ({"$dict": [[1]]}, "must be a pair, got list"),
    "pair of no list": ({"$dict": [3]}, "must be a pair, got int"),
    "unhashable key": ({"$dict": [[[], 1]]}, "a key or an element of a set is unhashable type"),
    "key twice": ({"$dict": [[1, 1], [1, 2]]}, "the key 1 comes twice"),
    "counter": ({"$counter": [["a", "b"]]}, "a Counter must count in numbers"),
    "ordered": ({"$ordered": [1]}, "must be a dict, got list"),
    "metadata": ({"$ordered": {}, "$metadata": 3}, "must be the metadata, got int"),
    "integer": ({"$int": 3}, "must be an integer in hexadecimal, got int"),
    "no hexadecimal": ({"$int": "0xg"}, "invalid literal for int"),
    "float": ({"$float": "1.5"}, "must be 'nan', 'inf' or '-inf', got '1.5'"),
    "float of a list": ({"$float": []}, "must be 'nan', 'inf' or '-inf'"),
    "complex": ({"$complex": [1.0]}, "must be two numbers, got list"),
    "complex of integers": ({"$complex": [1, 2]}, "a complex number must be two numbers"),
    "bytes": ({"$bytes": "a"}, "Incorrect padding|base64"),
    "bytes of a list": ({"$bytes": []}, "must be bytes in base64, got list"),
    "size": ({"$size": 3}, "must be a size, got int"),
    "negative size": ({"$size": [-1]}, "must hold integers from 0"),
    "huge size": ({"$size": [2**63]}, "must hold integers from 0"),
    "size of flags": ({"$size": [True]}, "must hold integers from 0"),
    "dtype": ({"$dtype": "load"}, "there is no dtype 'load'"),
    "dtype of a number": ({"$dtype": 3}, "must be a dtype's name, got int"),
    "device": ({"$device": "moon"}, "there is no device 'moon'"),
    "device of a number": ({"$device": 0}, "must be a device's name, got int"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_forms_that_nobody_wrote(case: str) -> None:
    node, message = BROKEN[case]
    tensors = {**PAIRS, "i2": torch.ones(3)}
    for each in (node, [node], {"a": node}, {"$tuple": [node]}):
        with pytest.raises(ValueError, match=message):
            decode(each, tensors.__getitem__)


def test_deep_forms() -> None:
    node: Any = 0
    for _ in range(400):
        node = [node]
    with pytest.raises(ValueError, match="nested more than 64 levels deep"):
        decode(node, {}.__getitem__)


def test_pairs_at_odd_places_are_read() -> None:
    memory = torch.arange(5.0)[1:].reshape(2, 2)
    found = decode({"$complex_tensor": "x"}, {"x": memory}.__getitem__)
    assert found.tolist() == [1 + 2j, 3 + 4j]
