"""Tensors whose numbers can be read, and those whose cannot."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from thalweg.engine.copying import copy_values, deep_copy
from thalweg.engine.readable import memory_of, overlaps, span, unreadable


def coo(indices: list[list[int]], values: Tensor, *, coalesced: bool | None = None) -> Tensor:
    return torch.sparse_coo_tensor(
        torch.tensor(indices), values, (3,), check_invariants=False, is_coalesced=coalesced
    )


def compressed(ends: list[int], columns: list[int], layout: torch.layout) -> Tensor:
    return torch.sparse_compressed_tensor(
        torch.tensor(ends), torch.tensor(columns), torch.ones(len(columns)), (2, 3),
        layout=layout, check_invariants=False,
    )  # fmt: skip


def freed() -> Tensor:
    found = torch.ones(3)
    found.untyped_storage().resize_(0)
    return found


def fake() -> Tensor:
    with FakeTensorMode():
        return torch.ones(3)


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.filterwarnings("ignore:.*torch.quantize")
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested")
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: coo([[3]], torch.ones(1)), "found index 3"),
        (lambda: coo([[-1]], torch.ones(1)), "negative index"),
        (lambda: coo([[1, 0]], torch.ones(2), coalesced=True), "coalesced"),
        (lambda: coo([[0, 1]], torch.ones(1).expand(2)), "expanded"),
        (lambda: compressed([0, 1, 9], [0, 1], torch.sparse_csr), "no sound tensor"),
        (lambda: compressed([0, 1, 2], [0, 9], torch.sparse_csr), "no sound tensor"),
        (freed, "needs 12 bytes of a storage of 0"),
        (fake, "FakeTensor"),
        (lambda: torch.ones(3, device="meta"), "meta device"),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "nested"),
        (lambda: torch.nn.parameter.UninitializedParameter(), "without numbers"),
    ],
)
def test_what_cannot_be_read_is_told(make: Callable[[], Tensor], reason: str) -> None:
    assert reason in (unreadable(make()) or "")


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.ones(3),
        lambda: torch.ones(()),
        lambda: torch.ones(0),
        lambda: torch.ones(2, 3).T[1:],
        lambda: torch.ones(1).expand(9),
        lambda: torch.ones(2, dtype=torch.complex64).conj(),
        lambda: torch.nn.Parameter(torch.ones(2)),
        lambda: torch._efficientzerotensor((3,)),  # type: ignore[attr-defined]
        lambda: coo([[2, 0, 2]], torch.ones(3)),
        lambda: torch.eye(3).to_sparse_csr(),
        lambda: torch.eye(3).to_sparse_csc(),
    ],
)
def test_what_can_be_read(make: Callable[[], Tensor]) -> None:
    assert unreadable(make()) is None


def test_a_tensor_within_a_transform_is_none_with_numbers() -> None:
    found = []
    torch.func.vmap(lambda x: found.append(unreadable(x)) or x)(torch.ones(2, 2))
    assert found == ["stands for other tensors, within a transform of torch.func"]


def test_memory_of_expanded_tensors() -> None:
    whole = torch.arange(6.0)
    rows = whole.as_strided((4, 3), (1, 1))
    assert [overlaps(t) for t in (whole, rows, whole[:1].expand(10**12))] == [False, True, True]
    assert span(rows) == 6
    assert torch.equal(memory_of(rows), whole)
    assert memory_of(whole) is whole


def test_copies_of_expanded_tensors_take_as_little_memory() -> None:
    wide = torch.arange(3.0)[:, None].expand(3, 10**12)
    copied = deep_copy(wide)
    assert copied.untyped_storage().nbytes() == 12
    assert copied.stride() == wide.stride()
    assert torch.equal(copied[:, :2], wide[:, :2])
    assert copied.data_ptr() != wide.data_ptr()


def test_large_zeros_without_memory_are_copied() -> None:
    target = torch.ones(1 << 20)
    copy_values([(target, torch._efficientzerotensor((1 << 20,)))])  # type: ignore[attr-defined]
    assert not target.any()
