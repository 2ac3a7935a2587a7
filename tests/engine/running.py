"""Rules as optimizers, and pairs of optimizers kept in step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from thalweg.engine.layout import is_dense
from thalweg.optim.optimizer import MODES, Optimizer
from thalweg.rule import Rule


def class_of(rule: Rule) -> type[Optimizer]:
    return type("Anonymous", (Optimizer,), {"rule": rule, "ranges": {}})


def optimizer_of(
    rule: Rule, values: Sequence[Tensor], grads: Sequence[Tensor | None], **options: Any
) -> tuple[list[Parameter], Optimizer]:
    """Parameters of these values with these gradients, and an optimizer of the rule."""
    params = [Parameter(value.clone()) for value in values]
    for p, g in zip(params, grads, strict=True):
        give(p, None if g is None else g.clone())
    return params, class_of(rule)(params, {**MODES, **options})


def states_after(
    rule: Rule, p: Tensor, g: Tensor, steps: int = 1, **options: Any
) -> dict[str, Tensor]:
    """The states of a parameter after some steps, and ``"p"`` itself."""
    (param,), optimizer = optimizer_of(rule, [p], [g], **options)
    for _ in range(steps):
        optimizer.step()
    return {"p": param.detach(), **optimizer.state[param]}


def give(p: Tensor, g: Tensor | None) -> None:
    """Set a gradient, of another dtype than the parameter's too."""
    if g is not None and g.dtype is not p.dtype and not g.is_sparse:
        p.grad = None
        p.grad_dtype = g.dtype
    p.grad = g


class Twins:
    """The same parameters under a kernel and under the eager optimizer, given the same gradients.

    Attributes:
        optimizers: ``fused=None``, and ``fused=False`` as the reference.
        params: the parameters of each, which a test may change, in both alike.
    """

    def __init__(self, values: Sequence[Tensor], make: Callable[..., Any]) -> None:
        self.params = [[Parameter(v.clone()) for v in values] for _ in range(2)]
        self.optimizers = [
            make(params, fused=fused)
            for params, fused in zip(self.params, (None, False), strict=True)
        ]
        self.generator = torch.Generator().manual_seed(0)

    def each(self) -> list[tuple[list[Parameter], Any]]:
        return list(zip(self.params, self.optimizers, strict=True))

    def gradients(self, missing: Sequence[int] = (), keep: bool = False) -> None:
        """New gradients for all parameters, in place of the old ones or written into them."""
        for k, (a, b) in enumerate(zip(*self.params, strict=True)):
            noise = torch.randn(a.shape, generator=self.generator, dtype=torch.float64)
            for p in (a, b):
                if k in missing:
                    p.grad = None
                elif keep and p.grad is not None and is_dense(p.grad):
                    p.grad.copy_(noise)
                else:
                    g = torch.empty_like(p.detach()).copy_(noise)
                    p.grad = g

    def step(self) -> None:
        """Step both, check that they agree and that no gradient was changed."""
        before = [[None if p.grad is None else p.grad.clone() for p in ps] for ps in self.params]
        for optimizer in self.optimizers:
            optimizer.step()
        for params, grads in zip(self.params, before, strict=True):
            for p, g in zip(params, grads, strict=True):
                assert (p.grad is None) == (g is None)
                if g is not None:
                    assert p.grad.dtype is g.dtype
                    assert torch.equal(p.grad, g), "a step changed a gradient"
        self.compare()

    def compare(self) -> None:
        fast, reference = self.optimizers
        for a, b in zip(*self.params, strict=True):
            assert a.dtype is b.dtype
            assert a.stride() == b.stride()
            ours, theirs = fast.state.get(a, {}), reference.state.get(b, {})
            assert ours.keys() == theirs.keys()
            # A value is as exact as the least exact operand that it was made from.
            operands = [b, *(x for x in theirs.values() if x.dim() or x.numel())]
            rough = max(operands, key=lambda x: TOLERANCE[x.dtype]).dtype
            close(a.detach(), b.detach(), rough)
            for name, value in theirs.items():
                assert ours[name].dtype is value.dtype
                close(ours[name], value, rough)


TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 1e-2, torch.bfloat16: 1e-2}


def close(a: Tensor, b: Tensor, precision: torch.dtype | None = None) -> None:
    tolerance = TOLERANCE[precision or b.dtype]
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance / 10, equal_nan=True)
