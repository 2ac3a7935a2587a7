"""Passes over rows: along, across and as tensor operations they give the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.rule.test_rows import FORMULAS, made, names_of
from thalweg.engine.passes.base import KEPT_KEYS
from thalweg.engine.passes.row_spelling import LANES
from thalweg.engine.passes.rows import RowPass
from thalweg.losses.evaluation.rows import evaluate_rows
from thalweg.rule.formula import EACH, FACTOR, SUM
from thalweg.rule.functions import exp, largest
from thalweg.rule.rows import ROW_WISE, Kind, RowFormula

OPTIONS = {"a": 2.5}
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
EACH_FORMULA = pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if k % 4 == 0 else pytest.mark.slow) for k, n in enumerate(FORMULAS)],
)


def operands_of(name: str, rows: int, count: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """As a loss gives them: ``[rows, count]``, ``[count]`` and ``[rows]``."""
    kinds = FORMULAS[name][1]
    given = made(name, rows, count)
    return {
        n: (t.squeeze(-1) if kinds.get(n) in ROW_WISE else t).to(
            dtype if t.is_floating_point() else t.dtype
        )
        for n, t in given.items()
    }


def run(
    name: str, operands: dict[str, Tensor], how: str, reduction: str
) -> tuple[Tensor, list[Tensor]]:
    """The value, and the gradients of all but weights, in the order of rows and elements."""
    function, kinds = FORMULAS[name]
    wanted = [
        n for n, t in operands.items() if t.is_floating_point() and kinds.get(n) != Kind.COLUMN
    ]
    leaves = {}
    for n, t in operands.items():
        kind = kinds.get(n, Kind.ELEMENT)
        if how == "across" and kind is Kind.ELEMENT:
            t = t.t()[None].contiguous()
        elif how == "across" and kind in ROW_WISE:
            t = t[None]
        leaves[n] = t.clone().requires_grad_(n in wanted)
    value = evaluate_rows("own", RowFormula(function, **kinds), leaves, OPTIONS, reduction, dim=1)
    upstream = torch.linspace(0.5, 1.5, value.numel(), dtype=value.dtype).reshape(value.shape)
    slopes = torch.autograd.grad(
        value,
        [leaves[n] for n in wanted],
        upstream,
        create_graph=how == "eager",
        materialize_grads=True,
    )
    found = [s.detach() for s in slopes]
    if how == "across":
        value = value[0] if reduction == "none" else value
        found = [s[0].t() if s.ndim == 3 else s[0] for s in found]
    return value.detach(), found


@EACH_FORMULA
@DTYPES
@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_each_way_gives_the_same_numbers(name: str, dtype: torch.dtype, reduction: str) -> None:
    sizes = [(3, 7), (LANES + 2, 5), (2, 1030), (4, 2)]
    for rows, count in sizes:
        operands = operands_of(name, rows, count, dtype)
        wide = {n: t.double() if t.is_floating_point() else t for n, t in operands.items()}
        value, slopes = run(name, wide, "eager", reduction)
        for how in ("along", "across", "eager"):
            found = run(name, operands, how, reduction)
            rtol = 1e-10 if dtype is torch.float64 else 2e-4
            size = max(1.0, value.abs().max().item())
            torch.testing.assert_close(found[0].double(), value, rtol=rtol, atol=rtol * size)
            for ours, right in zip(found[1], slopes, strict=True):
                size = max(1.0, right.abs().max().item())
                torch.testing.assert_close(ours.double(), right, rtol=rtol, atol=rtol * size)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, z, h: largest(x * z + x),
        lambda x, z, h: largest(exp(x) * z),
    ],
    ids=["products", "exponentials"],
)
@pytest.mark.parametrize("how", ["along", "across"])
def test_what_was_the_largest_is_found_again(function: Callable[..., Any], how: str) -> None:
    """The second pass computes the same bits as the first, in the loop's rest too."""
    for count in (*range(1, 20), 31, 32, 33, 127, 1000):
        x, z = torch.randn(2, 9, count)
        if how == "across":
            x, z = x.t()[None].contiguous(), z.t()[None].contiguous()
        x.requires_grad_()
        value = evaluate_rows("own", RowFormula(function), {"x": x, "z": z}, {}, "sum", dim=1)
        (slope,) = torch.autograd.grad(value, x)
        assert (slope != 0).sum() == 9, count


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("how", ["along", "across"])
def test_16_bits_are_for_storage(dtype: torch.dtype, how: str) -> None:
    for name in ("logsumexp", "pick of two"):
        operands = operands_of(name, 140, 9, dtype)
        wide = {n: t.double() if t.is_floating_point() else t for n, t in operands.items()}
        for reduction in ("none", "sum"):
            value, slopes = run(name, operands, how, reduction)
            right, right_slopes = run(name, wide, how, reduction)
            eps = torch.finfo(dtype).eps
            torch.testing.assert_close(value.double(), right, rtol=eps, atol=eps)
            for a, b in zip(slopes, right_slopes, strict=True):
                torch.testing.assert_close(a.double(), b, rtol=eps, atol=eps)


@pytest.mark.parametrize("inner", [1, LANES - 1, LANES, LANES + 1, 2 * LANES + 3])
def test_blocks_of_lanes(inner: int) -> None:
    """Rows that do not fill the last block; nothing is written beyond it."""
    name = "logsumexp"
    x = torch.randn(2, 3, inner)
    value = evaluate_rows("own", RowFormula(FORMULAS[name][0]), {"x": x}, {}, "none", dim=1)
    torch.testing.assert_close(value, x.logsumexp(1))


def test_the_results_of_a_pass_lie_within_their_tensors() -> None:
    function, kinds = FORMULAS["pick of two"]
    program = RowFormula(function, **kinds).program(
        SUM, {**OPTIONS, FACTOR: 1.0}, ["x", "z", "y"], ["x"]
    )
    made_pass = RowPass(program, torch.float32)
    constants = program.scalars({**OPTIONS, FACTOR: 1.0})
    assert constants is not None
    for sizes in ((3, 5, 1), (2, 5, 7), (1, 5, LANES + 1), (0, 5, 1), (2, 5, 0)):
        outer, count, inner = sizes
        elements, rows = outer * count * inner, outer * inner
        x, z = torch.randn(2, elements)
        y = torch.randint(0, count, (rows,))
        room = torch.full((elements + 2,), 7.0)
        tensors = {"x": x, "z": z, "y": y, "_d_x": room[1:]}
        addresses = [tensors[n].data_ptr() for n in program.operands]
        total, bad = made_pass(addresses, constants, sizes)
        assert bad == -1
        assert room[0] == room[-1] == 7.0
        assert room[1:-1].count_nonzero() == rows
        shaped = (t.reshape(outer, count, inner) for t in (x, z))
        picked = [t.gather(1, y.reshape(outer, 1, inner)).sum() for t in shaped]
        assert total == pytest.approx((picked[0] - picked[1]).item(), rel=1e-4, abs=1e-4)


def test_an_index_out_of_range_is_told_and_nothing_read() -> None:
    function, kinds = FORMULAS["pick"]
    program = RowFormula(function, **kinds).program(EACH, OPTIONS, ["x", "y"])
    made_pass = RowPass(program, torch.float32)
    constants = program.scalars(OPTIONS)
    assert constants is not None
    for sizes in ((5, 3, 1), (1, 3, 5)):
        x, value = torch.ones(15), torch.full((5,), 7.0)
        for wrong in (3, -1, 2**62, -(2**62)):
            y = torch.tensor([0, 1, wrong, -5, 2])
            tensors = {"x": x, "y": y, "_value": value}
            addresses = [tensors[n].data_ptr() for n in program.operands]
            _, bad = made_pass(addresses, constants, sizes, -5)
            assert bad == 2
            assert value.tolist() == [3.0, 3.0, 0.0, 0.0, 3.0]


def test_blocks_of_arguments_are_kept_for_so_many_sizes() -> None:
    program = RowFormula(FORMULAS["logsumexp"][0]).program(EACH, OPTIONS, ["x"])
    made_pass = RowPass(program, torch.float32)
    x, value = torch.randn(4096), torch.empty(4096)
    constants = program.scalars(OPTIONS)
    assert constants is not None
    for rows in range(1, 3 * KEPT_KEYS):
        made_pass([x.data_ptr(), value.data_ptr()], constants, (rows, 3, 1))
        right = x[: 3 * rows].reshape(rows, 3).logsumexp(1)
        torch.testing.assert_close(value[:rows], right)
        assert len(made_pass._free) <= KEPT_KEYS


def test_upstream_derivatives_have_any_strides() -> None:
    function, kinds = FORMULAS["correlation"]
    assert names_of(function) == ["x", "z"]
    x, z = torch.randn(6, 4, requires_grad=True), torch.randn(6, 4)
    value = evaluate_rows("own", RowFormula(function, **kinds), {"x": x, "z": z}, {}, "none", 1)
    wide = torch.randn(6, 2)
    for upstream in (wide[:, 0], torch.ones(()).expand(6), wide[:, 1].flip(0)):
        (ours,) = torch.autograd.grad(value, x, upstream, retain_graph=True)
        (plain,) = torch.autograd.grad(value, x, upstream.contiguous(), retain_graph=True)
        assert torch.equal(ours, plain)
