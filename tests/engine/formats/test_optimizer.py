"""A state in any format: created, updated by kernels and eagerly, saved like others."""

from __future__ import annotations

import pytest
import torch
from torch.nn import Parameter

import thalweg
from tests.engine.formats.samples import SAMPLES
from tests.engine.running import class_of
from thalweg import optim
from thalweg.engine.formats import Format
from thalweg.optim.optimizer import MODES
from thalweg.rule import Rule, State

OPTIONS = {"lr": 0.1, "betas": (0.9, 0.99), "eps": 0.01, "weight_decay": 0.1, "amsgrad": False}
SHAPES = [(300, 7), (5,), (), (64, 2, 3), (0, 2)]


def adam(form: Format | None) -> Rule:
    states = {name: State(0.0, format=form) for name in ("exp_avg", "exp_avg_sq")}
    return Rule(optim.AdamW.rule.update, {**states, "max_exp_avg_sq": 0.0}, name="adamw")


def stepped(form: Format | None, steps: int = 5, **flags):
    generator = torch.Generator().manual_seed(3)
    params = [Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    params[0].data = params[0].data.t().contiguous().t()
    optimizer = class_of(adam(form))(params, {**MODES, **OPTIONS, **flags})
    for step in range(steps):
        for k, p in enumerate(params):
            g = torch.randn(p.shape, generator=generator)
            p.grad = None if (step, k) == (3, 1) else g
        optimizer.step()
    return params, optimizer


@pytest.mark.parametrize("form", SAMPLES, ids=lambda f: f.name)
def test_kernels_and_eager_update_the_same_states(form: Format) -> None:
    params, optimizer = stepped(form)
    others, eager = stepped(form, fused=False)
    plain, _ = stepped(None)
    assert {c.backend for c in optimizer._engine.choices.values()} == {"cpu"}
    assert {c.backend for c in eager._engine.choices.values()} == {"eager"}
    for p, q, exact in zip(params, others, plain, strict=True):
        names = [b.name(n) for n in ("exp_avg", "exp_avg_sq") for b in form.buffers]
        assert list(optimizer.state[p]) == ["step", *names] == list(eager.state[q])
        for buffer, name in zip(form.buffers * 2, names, strict=True):
            assert optimizer.state[p][name].dtype is buffer.dtype
        # The same numbers, but for what regrouping rounds otherwise and a format then enlarges.
        torch.testing.assert_close(p, q, rtol=0, atol=2e-2)
        if p.numel() > 1:  # a scalar is the largest of its block, which 8 bits hold exactly
            assert 0 < (p - exact).abs().mean() < 0.05, "near, and the format shows"


@pytest.mark.parametrize("form", SAMPLES, ids=lambda f: f.name)
def test_a_run_that_is_repeated_stores_the_same_bits(form: Format) -> None:
    torch.manual_seed(0)
    first, one = stepped(form)
    torch.manual_seed(1)
    second, other = stepped(form)
    for p, q in zip(first, second, strict=True):
        assert torch.equal(p, q)
        for name, value in one.state[p].items():
            assert torch.equal(value, other.state[q][name])


def test_explain_names_the_format_and_counts_its_bytes() -> None:
    _, optimizer = stepped(SAMPLES[0], steps=1)
    text = thalweg.explain(optimizer)
    assert "exp_avg q8x256" in text
    # p read and written, g read: 12; each moment read and written: 2 * (1 + 4 / 256).
    assert "16.0625 bytes per element" in text


def test_what_cannot_take_a_format_says_so() -> None:
    p = Parameter(torch.ones(4))
    p.grad = torch.ones(4)
    optimizer = class_of(adam(SAMPLES[0]))([p], {**MODES, **OPTIONS, "differentiable": True})
    with pytest.raises(RuntimeError, match="stored as q8x256; store it as a plain tensor"):
        optimizer.step()
    assert (p == 1).all()
    assert optimizer.state.get(p, {}) == {}
