"""Portions and pieces: everything once, nothing too large, and memory that stays small."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import Parameter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.engine.backends.contract import Stepper
from thalweg import optim
from thalweg.engine.backends.foreach.backend import ForeachBackend
from thalweg.engine.backends.foreach.pieces import cut, portions


@given(st.lists(st.integers(0, 50), min_size=1), st.integers(1, 60))
def test_portions_hold_each_place_once_in_order(numbers: list[int], most: int) -> None:
    found = list(portions(range(len(numbers)), numbers, most))
    assert [place for portion in found for place in portion] == list(range(len(numbers)))
    for portion in found:
        assert len(portion) == 1 or sum(numbers[place] for place in portion) <= most


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "every-other": lambda x: torch.stack([x, x], -1)[..., 0],
    "expanded": lambda x: x[:1].expand(x.shape),
}


@pytest.mark.parametrize("other", LAYOUTS)
@pytest.mark.parametrize("own", [name for name in LAYOUTS if name != "expanded"])
@pytest.mark.parametrize("shape", [(40, 3), (7, 9, 4), (1, 130), (3, 3)])
def test_pieces_are_views_that_cover_everything(
    shape: tuple[int, ...], own: str, other: str
) -> None:
    values = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
    target, source = LAYOUTS[own](values.clone()), LAYOUTS[other](values.clone())
    expected = target + source
    sizes = []
    for mine, theirs in cut([target, source], 10):
        mine += theirs
        sizes.append(mine.numel())
    assert torch.equal(target, expected)
    assert max(sizes) <= 10
    assert sum(sizes) == target.numel()


class Peak(TorchDispatchMode):
    """The most bytes at once of tensors that operations within made."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        given = {_memory(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        result = function(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, Tensor) and _memory(x) not in given:
                size = x.numel() * x.itemsize
                self.now += size
                weakref.finalize(x, self._gone, size)
        self.most = max(self.most, self.now)
        return result

    def _gone(self, size: int) -> None:
        self.now -= size


def _memory(x: Tensor) -> int:
    """The same for all views of a tensor."""
    return x.untyped_storage().data_ptr()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["Adam", "Adadelta", "Rprop", "NAdam"])
def test_temporaries_stay_within_their_memory(name: str, dtype: torch.dtype) -> None:
    limit = 2**14
    shapes = [(30, 40), (3,), (5000,), (70, 80), *[(100,)] * 30]
    params = [Parameter(torch.randn(shape).to(dtype)) for shape in shapes]
    for p in params:
        p.grad = torch.randn_like(p)
    given = (
        getattr(optim, name)(params, weight_decay=0.1) if name != "Rprop" else optim.Rprop(params)
    )
    groups = [{**given.param_groups[0], "foreach": True}]
    stepper = Stepper(ForeachBackend(limit), given.rule, groups)
    stepper.step()
    before = [p.detach().clone() for p in params]
    with Peak() as peak:
        stepper.step()
    assert 0 < peak.most <= limit
    assert not any(torch.equal(p, b) for p, b in zip(params, before, strict=True))
