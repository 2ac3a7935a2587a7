"""Derivatives, first and second, against differences of the values."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from tests.losses.examples import CASES, Case, Tensor


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("shape", [(3, 2)], ids=str)
def test_first_and_second_derivatives(case: Case, shape: tuple[int, ...]) -> None:
    names = list(case.operands)
    given = [t.double().requires_grad_() for t in case.make(shape).values()]
    if case.options.get("eps") == 0.5:  # a clamped variance has the derivative of one that is not
        given[-1] = given[-1].detach().clamp_min(0.6).requires_grad_()
    for reduction in case.reductions:

        def loss(*values: Tensor, reduction: str = reduction) -> Tensor:
            return case.ours(dict(zip(names, values, strict=True)), reduction=reduction)

        if case.name == "hinge_embedding_loss":  # a step in its target
            given[1].requires_grad_(False)
        assert gradcheck(loss, given)
        assert gradgradcheck(loss, given)


@pytest.mark.parametrize("case", [c for c in CASES if c.broadcasts], ids=str)
def test_derivatives_by_what_broadcasts(case: Case) -> None:
    operands = case.make((3, 2))
    target = (
        case.operands["target"]((1, 2)).double().requires_grad_(case.name != "hinge_embedding_loss")
    )
    rest = {n: t.double().requires_grad_() for n, t in operands.items() if n != "target"}
    if case.options.get("eps") == 0.5:
        rest["var"] = torch.full((3, 2), 0.75).double().requires_grad_()
    names = ["target", *rest]

    def loss(*values: Tensor) -> Tensor:
        return case.ours(dict(zip(names, values, strict=True)), reduction="mean")

    assert gradcheck(loss, [target, *rest.values()])
    assert gradgradcheck(loss, [target, *rest.values()])
