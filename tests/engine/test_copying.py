"""copy_values beside Tensor.copy_: the same values, whatever the tensors are like."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from thalweg.engine import copying
from thalweg.engine.copying import copy_values

N = copying._PIECE // 4 + 1


def numbers(dtype: torch.dtype, n: int = N) -> Tensor:
    raw = torch.arange(n * dtype.itemsize).remainder(251).to(torch.uint8)
    return (raw & 1 if dtype is torch.bool else raw).view(dtype)


PAIRS: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
    **{
        str(dtype): lambda dtype=dtype: (torch.zeros(N, dtype=dtype), numbers(dtype))
        for dtype in (torch.float32, torch.bfloat16, torch.complex64, torch.int64, torch.bool)
    },
    "small": lambda: (torch.zeros(3), torch.arange(3.0)),
    "no dimension": lambda: (torch.tensor(0.0), torch.tensor(2.0)),
    "empty": lambda: (torch.zeros(0, 3), torch.zeros(0, 3)),
    "other dtype": lambda: (torch.zeros(N), torch.arange(N)),
    "other layout": lambda: (torch.zeros(1200, 1000), torch.arange(1.2e6).reshape(1000, 1200).T),
    "transposed": lambda: (torch.zeros(1000, 1200).T, torch.arange(1.2e6).reshape(1200, 1000)),
    "spread": lambda: (torch.zeros(N), torch.tensor(3.0).expand(N)),
    "one to many": lambda: (torch.zeros(N), torch.tensor([3.0])),
    "conjugate": lambda: (torch.zeros(N) + 0j, torch.arange(N).mul(1j).conj()),
    "into a conjugate": lambda: ((torch.zeros(N) + 0j).conj(), torch.arange(N) * 1j),
    "parts of memory": lambda: (torch.zeros(2 * N)[5 : N + 5], torch.arange(N + 3.0)[3:]),
    "parameter": lambda: (nn.Parameter(torch.zeros(N)), nn.Parameter(torch.arange(float(N)))),
}


@pytest.mark.parametrize("case", PAIRS)
def test_values_are_those_of_copy(case: str) -> None:
    (target, source), (expected, _) = PAIRS[case](), PAIRS[case]()
    with torch.no_grad():
        expected.copy_(source)
    before = target._version
    copy_values([(target, source)])
    assert torch.equal(target, expected)
    assert target._version == expected._version > before or not target.numel()
    assert target.grad_fn is None


def test_a_saved_tensor_that_was_written_over_is_noticed() -> None:
    weight, x = torch.ones(N), torch.ones(N, requires_grad=True)
    loss = (weight * x).sum()
    copy_values([(weight, torch.zeros(N))])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_other_shapes_are_refused_as_by_torch() -> None:
    with pytest.raises(RuntimeError, match="must match the size"):
        copy_values([(torch.zeros(N), torch.zeros(N + 1))])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_many_tensors_by_several_threads(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(threads)
    monkeypatch.setattr(copying, "_PIECE", 1000)
    monkeypatch.setattr(copying, "_WORTH_A_THREAD", 1000)
    sources = [torch.arange(float(n)) for n in (3, 250, 251, 4000, 10_001)]
    targets = [torch.zeros_like(source) for source in sources]
    copy_values(zip(targets, sources, strict=True))
    assert all(map(torch.equal, targets, sources))


def test_a_system_without_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(3)
    monkeypatch.setattr(copying, "_WORTH_A_THREAD", 1000)

    def refused(self: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(copying.Thread, "start", refused)
    target = torch.zeros(N)
    copy_values([(target, torch.ones(N))])
    assert torch.equal(target, torch.ones(N))
