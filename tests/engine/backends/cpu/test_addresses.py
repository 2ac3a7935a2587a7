"""Looking at tensors through torch's C functions: the same answers as from Python."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn import Parameter

from thalweg.engine.backends.cpu import addresses
from thalweg.engine.torch_internals import SCALAR_TYPES

LIBRARY = addresses.library()
needs_library = pytest.mark.skipif(LIBRARY is None, reason="this torch exports no such functions")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the symbols may be hidden")
def test_torch_exports_what_is_needed() -> None:
    assert LIBRARY is not None, "a torch that renamed a symbol falls back to Python, slowly"


def reader_of(params, states=(), dtype=torch.float32, library=LIBRARY):
    """A reader of parameters and a column of states, and its table of addresses."""
    columns = [list(states)] if states else []
    table = np.zeros((2 + len(columns), len(params)), dtype=np.int64)
    reader = addresses.Reader(library, params, columns, [dtype] * len(table), table)
    reader.prepare(exposed=True)
    return reader, table


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
        self.reader, self.table = reader_of(self.params, self.states, dtype)


def swap(tensor: torch.Tensor) -> None:
    """Let the object stand for another tensor."""
    torch.utils.swap_tensors(tensor, type(tensor)(torch.ones(3, 2)))


def pointers(tensors) -> list[int]:
    return [t.data_ptr() for t in tensors]


@needs_library
@pytest.mark.parametrize("dtype", SCALAR_TYPES, ids=str)
def test_addresses_are_read(dtype: torch.dtype) -> None:
    unit = Unit(dtype)
    for _ in range(2):
        assert unit.reader.read()
        grads = [p.grad for p in unit.params]
        assert unit.table.tolist() == [pointers(x) for x in (unit.params, grads, unit.states)]
        for p in unit.params:
            p.grad = torch.ones_like(p)
            p.data = torch.ones_like(p)
        unit.states[0].set_(torch.ones(2, 3, dtype=dtype))


@needs_library
def test_states_are_read_when_asked_for() -> None:
    unit = Unit()
    unit.reader.prepare(exposed=False)
    assert unit.reader.read()
    assert unit.table[2].tolist() == [0, 0]
    unit.reader.prepare(exposed=True)
    assert unit.reader.read()
    assert unit.table[2].tolist() == pointers(unit.states)


@needs_library
def test_an_absent_gradient_is_told() -> None:
    unit = Unit()
    for k in (0, 1):
        gradient, unit.params[k].grad = unit.params[k].grad, None
        assert unit.reader.read()
        assert unit.reader.any_absent
        assert unit.reader.absent.tolist() == [int(k == 0), int(k == 1)]
        unit.params[k].grad = gradient
        assert unit.reader.read()
        assert not unit.reader.any_absent
        assert unit.reader.absent.tolist() == [0, 0]


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
    "sparse gradient": set_grad(lambda p: torch.ones(2, 3).to_sparse()),
    "transposed gradient": set_grad(lambda p: torch.ones(3, 2).t()),
    "expanded gradient": set_grad(lambda p: torch.ones(()).expand(2, 3)),
    "negated gradient": set_grad(lambda p: torch._neg_view(torch.ones(2, 3))),
    "gradient without memory": set_grad(lambda p: torch._efficientzerotensor((2, 3))),
    "gradient of another dtype": grad_data(lambda p: torch.ones(2, 3, dtype=torch.float64)),
    "gradient of another shape": grad_data(lambda p: torch.ones(3, 2)),
    "gradient of other dimensions": grad_data(lambda p: torch.ones(6)),
    "parameter of another dtype": lambda u: setattr(u.params[0], "data", torch.ones(2, 3).double()),
    "parameter of another layout": seen_as((2, 3), (1, 2)),
    "parameter of another shape": seen_as((3, 2), (2, 1)),
    "parameter swapped": lambda u: torch.utils.swap_tensors(
        u.params[0], Parameter(torch.ones(3, 2))
    ),
    "state of another dtype": lambda u: setattr(u.states[1], "data", torch.ones(()).double()),
    "state of another shape": lambda u: u.states[0].set_(torch.ones(3, 2)),
    "state swapped": lambda u: swap(u.states[0]),
}


@needs_library
@pytest.mark.parametrize("change", NOTICED.values(), ids=NOTICED)
def test_what_is_not_as_planned_is_noticed(change) -> None:
    unit = Unit()
    assert unit.reader.read()
    if change is NOTICED["parameter swapped"]:
        unit.params[0].grad = None
    change(unit)
    assert not unit.reader.read()


@needs_library
def test_one_tensor_of_thousands_is_noticed_by_any_thread() -> None:
    count = 2 * addresses.WORTH_A_THREAD + 3
    params = [Parameter(torch.ones(1)) for _ in range(count)]
    for p in params:
        p.grad = torch.ones(1)
    reader, table = reader_of(params)
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        table[...] = 0
        assert reader.read()
        assert table.tolist() == [pointers(params), pointers(p.grad for p in params)]
        for k in (0, addresses.SPAN, count - 1):
            gradient, params[k].grad = params[k].grad, None
            assert reader.read()
            assert np.flatnonzero(reader.absent).tolist() == [k]
            params[k].grad = torch.ones(1).to_sparse()
            assert not reader.read()
            params[k].grad = gradient
            other = Parameter(torch.ones(2))
            params[k].grad = None
            torch.utils.swap_tensors(params[k], other)
            assert not reader.read()
            torch.utils.swap_tensors(params[k], other)
            params[k].grad = gradient
        assert reader.read()


@needs_library
def test_nothing_is_fetched_ahead_of_a_torch_that_is_laid_out_otherwise(monkeypatch) -> None:
    from dataclasses import replace

    params = [Parameter(torch.ones(1)) for _ in range(40)]
    for p in params[::2]:
        p.grad = torch.ones(1)
    reader, table = reader_of(params, library=replace(LIBRARY, impls=None))
    assert reader.read()
    assert table[0].tolist() == pointers(params)
    assert reader.absent.tolist() == [0, 1] * 20
    params[3].grad = torch._neg_view(torch.ones(1))
    assert not reader.read()


def identities(kind: str, lists, monkeypatch) -> addresses.Identities:
    if kind == "python":
        monkeypatch.setattr(addresses, "library", lambda: None)
    return addresses.Identities(lists)


@needs_library
@pytest.mark.parametrize("kind", ["compiled", "python"])
@pytest.mark.parametrize("count", [3, 40])
def test_identities(count: int, kind: str, monkeypatch) -> None:
    tensors = [Parameter(torch.ones(2)) for _ in range(count)]
    lists = [tensors[:2], tuple(tensors[2:])]
    seen = identities(kind, lists, monkeypatch)
    assert seen.hold(lists)
    assert seen.hold([tensors[:2], tuple(tensors[2:])]), "equal lists"
    assert not seen.hold([tensors[:2], tensors[3:]])
    assert not seen.hold([tensors[:2]])
    assert not seen.hold([*lists, []])
    first = lists[0]
    for k in range(2):
        before, first[k] = first[k], Parameter(torch.ones(2))
        assert not seen.hold(lists), "another tensor of the same numbers"
        first[k] = before
    first.append(tensors[0])
    assert not seen.hold(lists)
    first.pop()
    assert seen.hold(lists)
    first.reverse()
    assert not seen.hold(lists)
    assert identities(kind, [[], ()], monkeypatch).hold([[], ()])


@needs_library
def test_values_are_read_in_place_of_gradients() -> None:
    unit = Unit()
    values = [torch.ones(2, 3), torch.ones(())]
    reader, table = reader_of(unit.params, unit.states)
    reader.prepare(True, values)
    assert reader.read()
    assert table[1].tolist() == pointers(values)
    torch.utils.swap_tensors(values[0], torch.ones(2, 3))
    assert reader.read()
    assert table[1].tolist() == pointers(values)
    values[0].data = torch.ones(3, 2).t()
    assert not reader.read()
    reader.prepare(True, [values[0], None])
    assert not reader.read()
    reader.prepare(True, [None, values[1]])
    assert reader.read()
    assert reader.absent.tolist() == [1, 0]


@needs_library
def test_strides_that_no_element_shows_do_not_matter() -> None:
    p = Parameter(torch.ones(4, 1))
    p.grad = torch.ones(4).as_strided((4, 1), (1, 77))
    reader, table = reader_of([p])
    assert reader.read()
    assert table[1, 0] == p.grad.data_ptr()


@needs_library
def test_versions_are_counted_once_for_each_call() -> None:
    columns = [[torch.ones(3), torch.ones(())], [Parameter(torch.ones(2, 2)), torch.ones(1)]]
    tensors = [t for column in columns for t in column]
    for library in (LIBRARY, None):
        versions = addresses.Versions(library, columns)
        before = [t._version for t in tensors]
        versions.bump()
        assert [t._version for t in tensors] == [v + 1 for v in before]
        versions.bump(np.array([1, 0]))
        assert [t._version for t in tensors] == [v + 1 + k % 2 for k, v in enumerate(before)], (
            "the first parameter had no gradient"
        )


@needs_library
def test_reading_leaves_no_reference_behind() -> None:
    unit = Unit()
    tensors = [*unit.params, *unit.states, *(p.grad for p in unit.params)]
    uses = [t._use_count() for t in tensors]
    counts = [sys.getrefcount(t) for t in tensors]
    for _ in range(100):
        assert unit.reader.read()
    assert [sys.getrefcount(t) for t in tensors] == counts
    assert [t._use_count() for t in tensors] == uses


@needs_library
def test_versions_are_those_of_the_tensors_that_the_objects_stand_for_now() -> None:
    p, other = Parameter(torch.ones(3)), Parameter(torch.ones(3))
    versions = addresses.Versions(LIBRARY, [[p]])
    torch.utils.swap_tensors(p, other)
    before = p._version, other._version
    versions.bump()
    assert (p._version - before[0], other._version - before[1]) == (1, 0)


SWAPPED = """\
import gc
import torch
from torch.nn import Parameter
from thalweg.optim import Adam

params = [Parameter(torch.ones(3)) for _ in range(64)]
optimizer = Adam(params, lr=0.1)

def step():
    for p in params:
        p.grad = torch.ones(3)
    optimizer.step()

step()
for p in params:
    p.grad = None
    torch.utils.swap_tensors(p, Parameter(torch.full((3,), 5.0)))
gc.collect()
# What was allocated of the size of a TensorImpl lies in the memory of those that are gone.
over = [bytearray(b"\\x41" * size) for size in range(150, 400, 4) for _ in range(200)]
step()
assert all(abs(x - 4.9) < 1e-5 for p in params for x in p.tolist()), params
assert [p._version for p in params] == [1] * 64
"""


@needs_library
def test_what_was_swapped_away_and_freed_is_not_read() -> None:
    done = subprocess.run([sys.executable, "-c", SWAPPED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
