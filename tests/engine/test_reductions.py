"""Reductions: rules in stages, against references written from the papers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import thalweg.optim as optim
from tests.engine.running import class_of, close, optimizer_of
from thalweg.optim.adam import STATES, adam
from thalweg.optim.optimizer import MODES
from thalweg.rule import Rule, lerp, mean, minimum, norm, sqrt, where
from thalweg.rule import sum as sum_of
from thalweg.transforms.decoupled import decoupled_decaying

SHAPES = [(3,), (0,), (40, 50), (), (5000,), (70000,)]


def tensors(scale: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [scale * torch.randn(shape, generator=generator) for shape in SHAPES]


def gradients(steps: int) -> list[list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(4)
    return [[torch.randn(shape, generator=generator) for shape in SHAPES] for _ in range(steps)]


def lamb(p, g, s, h):
    """You et al., "Large Batch Optimization for Deep Learning", 2020, Algorithm 2, phi(z) = z."""
    s.m = lerp(s.m, g, 1 - h.beta1)
    s.v = lerp(s.v, g * g, 1 - h.beta2)
    m, v = s.m / (1 - h.beta1**h.step), s.v / (1 - h.beta2**h.step)
    update = m / (sqrt(v) + h.eps) + h.weight_decay * p
    size, length = norm(p), norm(update)
    ratio = where((size > 0) & (length > 0), size / length, 1.0)
    return p - h.lr * ratio * update


LAMB = Rule(lamb, {"m": 0.0, "v": 0.0})
OPTIONS = {"lr": 0.01, "betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.1}


def lamb_in_float64(x: np.ndarray, grads: list[np.ndarray]) -> np.ndarray:
    """Algorithm 2 once more, line by line, on NumPy arrays."""
    x, m, v = x.astype(np.float64), 0.0, 0.0
    for t, g in enumerate(grads, start=1):
        g = g.astype(np.float64)
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        r = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-6)
        step = r + 0.1 * x
        norms = np.sqrt((x**2).sum()), np.sqrt((step**2).sum())
        x = x - 0.01 * (norms[0] / norms[1] if min(norms) > 0 else 1.0) * step
    return x


def run(rule: Rule, steps: int = 3, *, start=None, dtype=torch.float32, **options):
    values = [x.to(dtype) for x in (start or tensors())]
    params, optimizer = optimizer_of(rule, values, [None] * len(values), **options)
    for grads in gradients(steps):
        for p, g in zip(params, grads, strict=True):
            p.grad = g.to(dtype)
        optimizer.step()
    return [p.detach() for p in params]


@pytest.mark.parametrize("fused", [True, False], ids=["kernel", "eager"])
def test_lamb_is_the_papers(fused: bool) -> None:
    start = tensors()
    start[0].zero_()  # a parameter of norm zero has trust ratio 1
    found = run(LAMB, 5, start=start, fused=fused, **OPTIONS)
    for k, (x, p) in enumerate(zip(start, found, strict=True)):
        wanted = lamb_in_float64(x.numpy(), [g[k].numpy() for g in gradients(5)])
        torch.testing.assert_close(
            p.double(), torch.from_numpy(np.asarray(wanted)), rtol=2e-5, atol=2e-6
        )


def test_lamb_in_float64_is_the_papers_to_the_last_digits() -> None:
    found = run(LAMB, 5, dtype=torch.float64, fused=True, **OPTIONS)
    for k, (x, p) in enumerate(zip(tensors(), found, strict=True)):
        wanted = lamb_in_float64(x.numpy(), [g[k].numpy() for g in gradients(5)])
        torch.testing.assert_close(p, torch.from_numpy(np.asarray(wanted)), rtol=1e-11, atol=1e-12)


def clipped(update):
    """Scale the gradients of all tensors down together to norm ``h.max_norm``."""

    def rule(p, g, s, h):
        if h.max_norm:
            g = g * minimum(1.0, h.max_norm / (norm(g, "all") + 1e-6))
        return update(p, g, s, h)

    return rule


CLIPPED = Rule(clipped(decoupled_decaying(adam)), STATES, name="clipped_adamw")
ADAMW = {
    "lr": 0.01, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01, "amsgrad": False,
}  # fmt: skip


def torchs_clipped_adamw(max_norm: float, steps: int) -> list[torch.Tensor]:
    params = [torch.nn.Parameter(x.clone()) for x in tensors()]
    optimizer = torch.optim.AdamW(params, **ADAMW, foreach=False)
    for grads in gradients(steps):
        for p, g in zip(params, grads, strict=True):
            p.grad = g.clone()
        torch.nn.utils.clip_grad_norm_(params, max_norm)
        optimizer.step()
    return [p.detach() for p in params]


@pytest.mark.parametrize("fused", [True, False], ids=["kernel", "eager"])
@pytest.mark.parametrize("max_norm", [1.0, 1e6])
def test_clipping_by_the_global_norm_in_front_of_adamw(max_norm: float, fused: bool) -> None:
    found = run(CLIPPED, 4, fused=fused, max_norm=max_norm, **ADAMW)
    for p, wanted in zip(found, torchs_clipped_adamw(max_norm, 4), strict=True):
        torch.testing.assert_close(p, wanted, rtol=1e-5, atol=1e-6)


def test_clipping_does_not_touch_the_gradients() -> None:
    (p,), optimizer = optimizer_of(CLIPPED, [torch.ones(5)], [torch.ones(5)], max_norm=0.1, **ADAMW)
    optimizer.step()
    assert p.grad.tolist() == [1.0] * 5


def descent(p, g, s, h):
    return p - g


class TestSumsOverEverything:
    """A sum over "all" is over the tensors whose rule asks for it, whatever runs them."""

    rule = Rule(clipped(descent), name="clipped_descent")

    def step(self, groups: list[dict], **options) -> list[float]:
        """One step from 0 with gradient 3 in the first group, 4 in the second: the updates."""
        for group, g in zip(groups, (3.0, 4.0), strict=True):
            p = torch.nn.Parameter(torch.zeros(2)[group.pop("each", 2) - 1 :: 1][:1])
            p.grad = torch.full((1,), g)
            group["params"] = [p]
        optimizer = class_of(self.rule)(groups, {**MODES, "max_norm": 1.0, **options})
        optimizer.step()
        return [-group["params"][0].item() for group in groups]

    @pytest.mark.parametrize("fused", [None, True, False])
    def test_of_one_back_end(self, fused) -> None:
        assert self.step([{}, {}], fused=fused) == pytest.approx([0.6, 0.8], abs=1e-5)

    @pytest.mark.parametrize("eager", [0, 1])
    def test_of_two_back_ends(self, eager: int) -> None:
        groups = [{}, {}]
        groups[eager]["fused"] = False
        assert self.step(groups) == pytest.approx([0.6, 0.8], abs=1e-5)

    @pytest.mark.parametrize("fused", [None, False])
    @pytest.mark.parametrize("off", [0, 1])
    def test_where_one_group_does_not_ask(self, fused, off: int) -> None:
        groups = [{}, {}]
        groups[off]["max_norm"] = 0.0
        wanted = [1.0, 1.0]
        wanted[off] = [3.0, 4.0][off]
        assert self.step(groups, fused=fused) == pytest.approx(wanted, abs=1e-5)

    @pytest.mark.parametrize("fused", [None, False])
    def test_where_nothing_has_a_gradient(self, fused) -> None:
        (p,), optimizer = optimizer_of(
            self.rule, [torch.ones(2)], [None], max_norm=1.0, fused=fused
        )
        optimizer.step()
        assert p.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("over", ["tensor", "group", "all"])  # there is one group
@pytest.mark.parametrize("fused", [True, False], ids=["kernel", "eager"])
def test_sums_and_means(over: str, fused: bool) -> None:
    def centered(p, g, s, h):
        s.total = 0 * p + sum_of(g, over)
        return g - mean(g, over)

    rule = Rule(centered, {"total": 0.0}, name=f"centered_{over}")
    grads = gradients(1)[0]
    params, optimizer = optimizer_of(rule, tensors(), grads, fused=fused)
    optimizer.step()
    everything = torch.cat([g.flatten() for g in grads]).double()
    for p, g in zip(params, grads, strict=True):
        x = g.double() if over == "tensor" else everything
        torch.testing.assert_close(p.double(), g.double() - x.mean(), rtol=1e-6, atol=1e-6)
        wanted = x.sum().expand(p.shape)
        torch.testing.assert_close(
            optimizer.state[p]["total"].double(), wanted, rtol=1e-5, atol=1e-5
        )


def test_reductions_after_reductions() -> None:
    def update(p, g, s, h):
        g = g / norm(g, "all")
        rest = g - mean(g)
        return p - rest / norm(rest) * norm(p - g, "all")

    rule = Rule(update, name="thrice")
    kernel, eager = (run(rule, 2, fused=fused) for fused in (True, False))
    for a, b in zip(kernel[2:], eager[2:], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, equal_nan=True)


def test_nan_and_functions_between_stages() -> None:
    from thalweg.rule import abs, clip, exp, log, maximum, sign

    def update(p, g, s, h):
        n = norm(g)
        s.sign = 0 * p + sign(n) + sign(-sum_of(p))
        s.shaped = 0 * p + clip(exp(-n), 0.1, 2.0) + log(maximum(n, 1.0)) + abs(-n) ** 0.5
        s.chosen = where((n > 1) & ~(n > 100.0) | (n != n), p, g)
        return p - n * g

    rule = Rule(update, dict.fromkeys(["sign", "shaped", "chosen"], 0.0), name="between")
    grads = [torch.tensor(x) for x in ([3.0, 4.0], [0.1, 0.1], [float("nan"), 1.0], [0.0], [2e2])]
    found = []
    for fused in (True, False):
        params, optimizer = optimizer_of(
            rule, [torch.ones_like(g) for g in grads], grads, fused=fused
        )
        optimizer.step()
        found.append(
            [x for p in params for x in (p.detach(), *(optimizer.state[p][n] for n in rule.states))]
        )
    for a, b in zip(*found, strict=True):
        close(a, b)


def test_sums_do_not_depend_on_threads() -> None:
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(run(LAMB, 2, fused=True, **OPTIONS))
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


def test_complex_parameters_are_their_real_and_imaginary_parts() -> None:
    z, w = torch.randn(600, dtype=torch.complex64), torch.randn(600, dtype=torch.complex64)
    found = []
    for fused in (True, False):
        (p,), optimizer = optimizer_of(LAMB, [z], [w], fused=fused, **OPTIONS)
        optimizer.step()
        found.append(p.detach())
    (q,), optimizer = optimizer_of(
        LAMB, [torch.view_as_real(z)], [torch.view_as_real(w)], **OPTIONS
    )
    optimizer.step()
    assert torch.equal(torch.view_as_real(found[0]), q.detach())
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


def test_a_reduction_over_a_sparse_gradient_is_not_guessed() -> None:
    p = torch.nn.Parameter(torch.ones(4, 2))
    p.grad = torch.sparse_coo_tensor([[1]], [[1.0, 1.0]], (4, 2), check_invariants=True)
    with pytest.raises(RuntimeError, match="does not support sparse gradients"):
        class_of(LAMB)([p], {**MODES, **OPTIONS}).step()


def test_adam_is_the_rule_composed_with_nothing() -> None:
    """Clipping far above every norm changes nothing: composition keeps the rule."""
    values, grads = tensors(), gradients(1)[0]
    params, optimizer = optimizer_of(CLIPPED, values, grads, max_norm=0.0, **ADAMW)
    optimizer.step()
    others = [torch.nn.Parameter(x.clone()) for x in values]
    for p, g in zip(others, grads, strict=True):
        p.grad = g.clone()
    optim.AdamW(others, **ADAMW).step()
    assert all(map(torch.equal, params, others))
