"""Looking at tensors through torch's C functions: the same answers as from Python."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import Parameter

from thalweg.engine.backends.cpu import addresses as native

LIBRARY = native.library()
needs_library = pytest.mark.skipif(LIBRARY is None, reason="this torch exports no such functions")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the symbols may be hidden")
def test_torch_exports_what_is_needed() -> None:
    assert LIBRARY is not None, "a torch that renamed a symbol falls back to Python, slowly"


def test_it_can_be_switched_off(monkeypatch) -> None:
    monkeypatch.setenv("THALWEG_NATIVE", "0")
    assert native.library.__wrapped__() is None


def test_a_missing_symbol_means_python(monkeypatch) -> None:
    monkeypatch.setattr(native, "_BUMP_VERSION", ("torch_cpu", "no_such_symbol"))
    assert native.library.__wrapped__() is None


def test_dtype_numbers_are_torchs() -> None:
    assert set(native._DTYPES) == {torch.float32, torch.float64, torch.float16, torch.bfloat16}


class Unit:
    """Two parameters with a state each, as a unit keeps them."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.params = [
            Parameter(torch.ones(2, 3, dtype=dtype)),
            Parameter(torch.ones((), dtype=dtype)),
        ]
        self.states = [torch.zeros_like(p.detach()) for p in self.params]
        for p in self.params:
            p.grad = torch.ones_like(p)
        rows = [self.params, [p.grad for p in self.params], self.states]
        self.addresses = np.array([[t.data_ptr() for t in row] for row in rows])
        self.addresses[1] = 0
        self.reader = native.Reader(LIBRARY, self.params, self.states, self.addresses, dtype)


@needs_library
@pytest.mark.parametrize("dtype", native._DTYPES, ids=str)
def test_gradients_addresses_are_read(dtype: torch.dtype) -> None:
    unit = Unit(dtype)
    for _ in range(2):
        assert unit.reader.read()
        assert unit.addresses[1].tolist() == [p.grad.data_ptr() for p in unit.params]
        for p in unit.params:
            p.grad = torch.ones_like(p)


def set_grad(gradient):
    def change(unit: Unit) -> None:
        unit.params[0].grad = gradient(unit.params[0])

    return change


def grad_data(gradient):
    """A gradient that torch would not let one assign, put in place of its numbers."""

    def change(unit: Unit) -> None:
        unit.params[0].grad.data = gradient(unit.params[0])

    return change


def seen_as(shape: tuple[int, ...], strides: tuple[int, ...]):
    """The same memory, read otherwise: no address moves."""

    def change(unit: Unit) -> None:
        unit.params[0].data = unit.params[0].data.as_strided(shape, strides)

    return change


NOTICED = {
    "no gradient": set_grad(lambda p: None),
    "sparse gradient": set_grad(lambda p: torch.ones(2, 3).to_sparse()),
    "transposed gradient": set_grad(lambda p: torch.ones(3, 2).t()),
    "expanded gradient": set_grad(lambda p: torch.ones(()).expand(2, 3)),
    "negated gradient": set_grad(lambda p: torch._neg_view(torch.ones(2, 3))),
    "gradient of another dtype": grad_data(lambda p: torch.ones(2, 3, dtype=torch.float64)),
    "gradient of another shape": grad_data(lambda p: torch.ones(3, 2)),
    "gradient of other dimensions": grad_data(lambda p: torch.ones(6)),
    "parameter moved": lambda u: setattr(u.params[1], "data", torch.ones(())),
    "parameter of another layout": seen_as((2, 3), (1, 2)),
    "parameter of another shape": seen_as((3, 2), (2, 1)),
    "state moved": lambda u: setattr(u.states[1], "data", torch.ones(())),
    "state's storage replaced": lambda u: u.states[0].set_(torch.ones(2, 3)),
}


@needs_library
@pytest.mark.parametrize("change", NOTICED.values(), ids=NOTICED)
def test_what_is_not_as_planned_is_noticed(change) -> None:
    unit = Unit()
    assert unit.reader.read()
    change(unit)
    assert not unit.reader.read()


@needs_library
def test_one_tensor_of_thousands_is_noticed_by_any_thread() -> None:
    count = 2 * native.WORTH_A_THREAD + 3
    params = [Parameter(torch.ones(1)) for _ in range(count)]
    for p in params:
        p.grad = torch.ones(1)
    addresses = np.array([[p.data_ptr() for p in params], [0] * count])
    reader = native.Reader(LIBRARY, params, [], addresses, torch.float32)
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        addresses[1] = 0
        assert reader.read()
        assert addresses[1].tolist() == [p.grad.data_ptr() for p in params]
        for k in (0, native.SPAN, count - 1):
            gradient, params[k].grad = params[k].grad, None
            assert not reader.read()
            params[k].grad = gradient
        assert reader.read()


@needs_library
def test_an_exchanged_tensor_is_another_one() -> None:
    p, q = Parameter(torch.ones(2)), Parameter(torch.zeros(2))
    before = native.tensor_impls([p, q])
    assert (native.tensor_impls([p, q]) == before).all()
    torch.utils.swap_tensors(p, q)
    assert native.tensor_impls([p, q]).tolist() == before[::-1].tolist()


@needs_library
def test_where_objects_hold_their_tensor_is_found() -> None:
    assert LIBRARY.impl_offset is not None, "comparing a thousand tensors then takes 70 µs more"


def identities(kind: str, tensors: list[torch.Tensor], monkeypatch) -> native.Identities:
    """Of these tensors, found out in one of the three ways."""
    if kind == "python":
        monkeypatch.setattr(native, "library", lambda: None)
    elif kind == "no offset" and LIBRARY is not None:
        monkeypatch.setattr(native, "library", lambda: replace(LIBRARY, impl_offset=None))
    return native.Identities([tensors[:1], tuple(tensors[1:])])


@needs_library
@pytest.mark.parametrize("kind", ["compiled", "no offset", "python"])
def test_identities(kind: str, monkeypatch) -> None:
    tensors = [torch.ones(2), Parameter(torch.ones(2)), torch.ones(()), Parameter(torch.ones(3, 1))]
    seen = identities(kind, tensors, monkeypatch)
    assert seen.hold([tensors[:1], tensors[1:]])
    assert not seen.hold([tensors[:1], tensors[2:]])
    assert not seen.hold([tensors[:1]])
    for k, tensor in enumerate(tensors):
        equal = [*tensors[:k], tensor.detach().clone(), *tensors[k + 1 :]]
        assert not seen.hold([equal[:1], tuple(equal[1:])]), "another tensor of the same numbers"
    other = torch.zeros(())
    torch.utils.swap_tensors(tensors[2], other)
    assert not seen.hold([tensors[:1], tensors[1:]])
    torch.utils.swap_tensors(tensors[2], other)
    assert seen.hold([tensors[:1], tensors[1:]])
    tensors[1].data = torch.zeros(2)
    assert seen.hold([tensors[:1], tensors[1:]]), "where the numbers are is the reader's business"
    assert identities(kind, [], monkeypatch).hold([[], ()])


@needs_library
@pytest.mark.parametrize("kind", ["compiled", "no offset", "python"])
def test_a_tensor_swapped_inside_a_tuple_is_noticed(kind: str, monkeypatch) -> None:
    given = (torch.ones(2), torch.ones(2))
    if kind != "compiled":
        identities(kind, [], monkeypatch)
    seen = native.Identities([given])
    assert seen.hold([given])
    other = torch.zeros(2)
    torch.utils.swap_tensors(given[1], other)
    assert not seen.hold([given])


@needs_library
def test_a_swap_among_thousands_is_noticed_by_any_thread() -> None:
    tensors = [torch.ones(1) for _ in range(2 * native.WORTH_A_THREAD + 3)]
    seen = native.Identities([tensors])
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        for k in (0, native.SPAN, len(tensors) - 1):
            other = torch.ones(1)
            torch.utils.swap_tensors(tensors[k], other)
            assert not seen.hold([tensors])
            torch.utils.swap_tensors(tensors[k], other)
            assert seen.hold([tensors])


@needs_library
def test_values_are_read_in_place_of_gradients() -> None:
    unit = Unit()
    values = [torch.ones(2, 3), torch.ones(())]
    reader = native.Reader(LIBRARY, unit.params, unit.states, unit.addresses, torch.float32, values)
    assert reader.read()
    assert unit.addresses[1].tolist() == [value.data_ptr() for value in values]
    values[0].data = torch.ones(3, 2).t()
    assert not reader.read()


@needs_library
def test_strides_that_no_element_shows_do_not_matter() -> None:
    p = Parameter(torch.ones(4, 1))
    p.grad = torch.ones(4).as_strided((4, 1), (1, 77))
    addresses = np.array([[p.data_ptr()], [0]])
    reader = native.Reader(LIBRARY, [p], [], addresses, torch.float32)
    assert reader.read()
    assert addresses[1, 0] == p.grad.data_ptr()


@needs_library
def test_versions_are_counted_once_for_each_call() -> None:
    tensors = [torch.ones(3), torch.ones(()), Parameter(torch.ones(2, 2))]
    for library in (LIBRARY, None):
        before = [t._version for t in tensors]
        native.Versions(library, tensors).bump()
        assert [t._version for t in tensors] == [v + 1 for v in before]


@needs_library
def test_reading_leaves_no_reference_behind() -> None:
    unit = Unit()
    counts = [sys.getrefcount(p) for p in unit.params]
    grads = [p.grad._use_count() if hasattr(p.grad, "_use_count") else 0 for p in unit.params]
    for _ in range(100):
        assert unit.reader.read()
    assert [sys.getrefcount(p) for p in unit.params] == counts
    again = [p.grad._use_count() if hasattr(p.grad, "_use_count") else 0 for p in unit.params]
    assert again == grads
