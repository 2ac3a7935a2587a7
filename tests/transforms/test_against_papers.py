"""Each transform around several rules, against the papers' formulas around torch's, in float64.

The reference takes torch's optimizer in float64 for the rule. Its update is the difference that a
step makes, which float64 leaves enough of.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import thalweg.optim as optim
from thalweg import transforms
from thalweg.rule import Transform

LR, STEPS = 0.05, 7
SHAPES = [(5, 8), (11,), (3, 2, 4)]
RULES: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9},
    "RMSprop": {"alpha": 0.9, "momentum": 0.8},
    "AdamW": {"betas": (0.8, 0.9), "weight_decay": 0.0},
}
Composition = Callable[["Reference"], None]


class Reference:
    """One step of torch's optimizer in float64, taken apart.

    Attributes:
        params: the parameters.
        memory: what a transform keeps from step to step, by name and the parameter's number.
    """

    def __init__(self, name: str, start: Sequence[Tensor], options: dict[str, Any]) -> None:
        self.params = [Parameter(x.clone().double()) for x in start]
        self.optimizer = getattr(torch.optim, name)(self.params, lr=LR, **options)
        self.memory: dict[Any, Any] = {}

    def step(self, gradients: Sequence[Tensor], composition: Composition) -> None:
        for p, g in zip(self.params, gradients, strict=True):
            p.grad = g.double()
        with torch.no_grad():
            composition(self)

    def updates(self) -> list[Tensor]:
        """What the rule adds to each parameter, which stays as it was."""
        before = [p.clone() for p in self.params]
        self.optimizer.step()
        found = [p - old for p, old in zip(self.params, before, strict=True)]
        for p, old in zip(self.params, before, strict=True):
            p.copy_(old)
        return found

    @property
    def gradients(self) -> list[Tensor]:
        return [p.grad for p in self.params if p.grad is not None]


def clipped_by_norm(r: Reference) -> None:
    torch.nn.utils.clip_grad_norm_(r.params, 0.7)
    r.optimizer.step()


def clipped_by_each_norm(r: Reference) -> None:
    for p in r.params:
        torch.nn.utils.clip_grad_norm_([p], 0.7)
    r.optimizer.step()


def clipped_by_value(r: Reference) -> None:
    torch.nn.utils.clip_grad_value_(r.params, 0.3)
    r.optimizer.step()


def clipped_by_group(r: Reference) -> None:
    torch.nn.utils.clip_grad_norm_(r.params[:2], 0.7)
    torch.nn.utils.clip_grad_norm_(r.params[2:], 0.7)
    r.optimizer.step()


def clipped_by_a_quantile(r: Reference) -> None:
    total = torch.cat([g.flatten() for g in r.gradients]).norm()
    limit = r.memory.get("q", total)
    torch.nn.utils.clip_grad_norm_(r.params, float(limit))
    r.memory["q"] = limit * math.exp(0.2 * (0.4 - (1 if total <= limit else 0)))
    r.optimizer.step()


def unit_norms(x: Tensor) -> Tensor:
    """The norm of each unit, of a vector the whole, with dimensions to broadcast."""
    return x.norm() if x.ndim < 2 else x.flatten(1).norm(dim=1).view(-1, *[1] * (x.ndim - 1))


def clipped_by_weights(r: Reference) -> None:
    for p in r.params:
        limit = unit_norms(p).clamp(min=1.2) * 0.3
        length = unit_norms(p.grad)
        p.grad = torch.where(length < limit, p.grad, p.grad * limit / length.clamp(min=1e-6))
    r.optimizer.step()


def without_means(r: Reference) -> None:
    for p in r.params:
        if p.ndim > 1:
            p.grad = p.grad - p.grad.mean(dim=tuple(range(1, p.ndim)), keepdim=True)
    r.optimizer.step()


def ahead_of_the_weights(r: Reference) -> None:
    for k, p in enumerate(r.params):
        weights, _ = r.memory.setdefault(k, (p.clone(), torch.zeros_like(p)))
        p.copy_(weights)
    r.optimizer.step()
    for k, p in enumerate(r.params):
        weights, mean = r.memory[k]
        mean = 0.8 * mean + 0.2 * (p - weights)
        r.memory[k] = (p.clone(), mean)
        p += 3.0 * 0.5 * mean


def growing_slowly(r: Reference) -> None:
    for k, (p, u) in enumerate(zip(r.params, r.updates(), strict=True)):
        last = r.memory.get(k, math.inf)
        length = min(u.norm(), 0.9 * last)
        p += u * length / u.norm()
        r.memory[k] = length


def cautiously(r: Reference) -> None:
    for p, g, u in zip(r.params, r.gradients, r.updates(), strict=True):
        mask = (u * g < 0).double()
        p += u * mask / mask.mean().clamp(min=1e-3)


def decaying_cautiously(r: Reference) -> None:
    for p, u in zip(r.params, r.updates(), strict=True):
        p += u - LR * 0.3 * p * (u * p <= 0)


def shrunk_before(factor: float) -> Composition:
    def composition(r: Reference) -> None:
        for p in r.params:
            p *= factor
        r.optimizer.step()

    return composition


def thresholded(r: Reference) -> None:
    r.optimizer.step()
    for p in r.params:
        p.copy_(p.sign() * (p.abs() - LR * 0.4).clamp(min=0))


def scaled_by_layer(r: Reference) -> None:
    for p, u in zip(r.params, r.updates(), strict=True):
        p += u * p.norm() / (u.norm() / LR)


def on_the_sphere(r: Reference) -> None:
    for k, (p, u) in enumerate(zip(r.params, r.updates(), strict=True)):
        radius = r.memory.setdefault(k, p.norm())
        moved = p + LR * radius * u / u.norm()
        p.copy_(radius * moved / moved.norm())


def lifted(r: Reference) -> None:
    for p, u in zip(r.params, r.updates(), strict=True):
        least, size = LR * 6.0 * p.norm(), u.norm()
        p += u * (least / size if size < least else 1.0)


def lifted_by_rows(r: Reference) -> None:
    for p, u in zip(r.params, r.updates(), strict=True):
        least, size = LR * 6.0 * unit_norms(p), unit_norms(u)
        p += u * torch.where(size < least, least / size, 1.0)


def looking_ahead(r: Reference) -> None:
    for k, p in enumerate(r.params):
        r.memory.setdefault(k, p.clone())
    r.optimizer.step()
    r.memory["steps"] = r.memory.get("steps", 0) + 1
    if r.memory["steps"] % 3 == 0:
        for k, p in enumerate(r.params):
            r.memory[k] += 0.6 * (p - r.memory[k])
            p.copy_(r.memory[k])


def amplified(r: Reference) -> None:
    for k, (p, g) in enumerate(zip(r.params, r.gradients, strict=True)):
        r.memory[k] = 0.9 * r.memory[k] + 0.1 * g if k in r.memory else g.clone()
        p.grad = g + 1.5 * r.memory[k]
    r.optimizer.step()


def with_outer_steps(r: Reference) -> None:
    for k, p in enumerate(r.params):
        r.memory.setdefault(k, [p.clone(), torch.zeros_like(p)])
    r.optimizer.step()
    r.memory["steps"] = r.memory.get("steps", 0) + 1
    if r.memory["steps"] % 3 == 0:
        for k, p in enumerate(r.params):
            outer, buffer = r.memory[k]
            moved = outer - p
            buffer.mul_(0.6).add_(moved)
            outer -= 0.8 * (moved + 0.6 * buffer)
            p.copy_(outer)


CASES: dict[str, tuple[Transform, Composition]] = {
    "clip_by_norm": (transforms.clip_by_norm(0.7), clipped_by_norm),
    "clip_by_norm, tensor": (transforms.clip_by_norm(0.7, over="tensor"), clipped_by_each_norm),
    "clip_by_norm, group": (transforms.clip_by_norm(0.7, over="group"), clipped_by_group),
    "clip_by_quantile": (transforms.clip_by_quantile(0.4, 0.2), clipped_by_a_quantile),
    "adaptive_clipping": (transforms.adaptive_clipping(0.3, 1.2), clipped_by_weights),
    "centralized": (transforms.centralized(), without_means),
    "ema_nesterov": (transforms.ema_nesterov(3.0, 0.8, 2 * LR), ahead_of_the_weights),
    "norm_growth_limited": (transforms.norm_growth_limited(0.9), growing_slowly),
    "clip_by_value": (transforms.clip_by_value(0.3), clipped_by_value),
    "cautious": (transforms.cautious(), cautiously),
    "cautious_decay": (transforms.cautious_decay(0.3), decaying_cautiously),
    "independent_decay": (transforms.independent_decay(0.02), shrunk_before(0.98)),
    "independent_decay, peak": (
        transforms.independent_decay(0.02, peak_lr=2 * LR),
        shrunk_before(0.99),
    ),
    "corrected_decay": (
        transforms.corrected_decay(0.5, peak_lr=4 * LR),
        shrunk_before(1 - LR * 0.25 * 0.5),
    ),
    "l1_decay": (transforms.l1_decay(0.4), thresholded),
    "trust_ratio": (transforms.trust_ratio(), scaled_by_layer),
    "hyperball": (transforms.hyperball(), on_the_sphere),
    "update_floor": (transforms.update_floor(6.0), lifted),
    "update_floor, row": (transforms.update_floor(6.0, "row"), lifted_by_rows),
    "lookahead": (transforms.lookahead(3, 0.6), looking_ahead),
    "grokfast": (transforms.grokfast(1.5, 0.9), amplified),
    "outer_nesterov": (transforms.outer_nesterov(3, 0.8, 0.6), with_outer_steps),
}
BACKENDS: dict[str, dict[str, Any]] = {
    "cpu": {},
    "foreach": {"fused": False, "foreach": True},
    "eager": {"fused": False},
}
# How far results may lie from float64's: a few roundings of a number of the parameter's dtype.
BOUNDS = {torch.float64: 1e-11, torch.float32: 2e-5, torch.bfloat16: 0.06}


def begun() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def gradients(step: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1 + step)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def reached(name: str, start: Sequence[Tensor], composition: Composition | None) -> list[Tensor]:
    reference = Reference(name, start, RULES[name])
    for k in range(STEPS):
        reference.step(gradients(k), composition or (lambda r: r.optimizer.step()))
    return [p.detach() for p in reference.params]


@pytest.mark.parametrize("dtype", list(BOUNDS), ids=str)
@pytest.mark.parametrize("backend", list(BACKENDS))
@pytest.mark.parametrize("name", list(RULES))
@pytest.mark.parametrize("case", list(CASES))
def test_a_transform_is_its_papers_formula(
    case: str, name: str, backend: str, dtype: torch.dtype
) -> None:
    transform, composition = CASES[case]
    start = [x.to(dtype) for x in begun()]
    params = [Parameter(x.clone()) for x in start]
    groups = [{"params": params[:2]}, {"params": params[2:]}]
    optimizer = getattr(optim, name)(
        groups, lr=LR, **RULES[name], **BACKENDS[backend], transforms=[transform]
    )
    for k in range(STEPS):
        given = [g.to(dtype) for g in gradients(k)]
        kept = [g.clone() for g in given]
        for p, g in zip(params, given, strict=True):
            p.grad = g
        optimizer.step()
        assert all(map(torch.equal, given, kept)), "gradients are read, never written"
    choices = optimizer._engine.choices
    assert {choice.backend for choice in choices.values()} == {backend}
    wanted, without = (reached(name, start, c) for c in (composition, None))
    for p, right, other, first in zip(params, wanted, without, start, strict=True):
        size = right.norm()
        assert (p - first).norm() > 0.01 * size
        if dtype is torch.bfloat16:
            continue  # below: what 16 bits lose is as large as what some transforms do
        assert (p - right).norm() <= BOUNDS[dtype] * size
        if case == "centralized" and p.ndim < 2:
            continue  # which it leaves as it is
        assert (p - other).norm() > 20 * BOUNDS[dtype] * size, "the transform has no effect"
    if dtype is torch.bfloat16:
        flat = torch.cat([p.detach().double().flatten() for p in params])
        right = torch.cat([x.flatten() for x in wanted])
        assert (flat - right).norm() <= BOUNDS[dtype] * right.norm()


def test_weight_decay_is_no_part_of_a_cautious_update() -> None:
    """AdamW's decay stands outside, so that it is not masked."""
    start = begun()
    params = [Parameter(x.double()) for x in start]
    optimizer = optim.AdamW(params, lr=LR, weight_decay=0.5, transforms=[transforms.cautious()])
    plain = [Parameter(x.double() * (1 - LR * 0.5)) for x in start]
    other = optim.AdamW(plain, lr=LR, weight_decay=0.0, transforms=[transforms.cautious()])
    for p, q, g in zip(params, plain, gradients(0), strict=True):
        p.grad, q.grad = g.double(), g.double()
    optimizer.step()
    other.step()
    for p, q in zip(params, plain, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-14, atol=0)


def test_maximizing_turns_what_cautious_takes_for_a_descent() -> None:
    (x, *_), (g, *_) = begun(), gradients(0)
    ends = []
    for sign, maximize in ((1, False), (-1, True)):
        p = Parameter(x.clone())
        p.grad = sign * g
        optim.Adam([p], maximize=maximize, transforms=[transforms.cautious()]).step()
        ends.append(p)
    assert torch.equal(*ends)
    assert not torch.equal(ends[0], x)


@pytest.mark.parametrize(
    "off",
    [
        transforms.clip_by_norm(math.inf),
        transforms.clip_by_value(math.inf),
        transforms.clip_by_quantile(0),
        transforms.ema_nesterov(0),
        transforms.adaptive_clipping(0),
        transforms.centralized(False),
        transforms.norm_growth_limited(0),
        transforms.cautious(False),
        transforms.cautious_decay(0),
        transforms.independent_decay(0),
        transforms.corrected_decay(0, peak_lr=1),
        transforms.l1_decay(0),
        transforms.trust_ratio(False),
        transforms.hyperball(False),
        transforms.update_floor(0),
        transforms.update_floor(0, "row"),
        transforms.grokfast(0),
    ],
    ids=str,
)
@pytest.mark.whole
def test_off_is_the_rule_to_the_bit(off: Transform) -> None:
    ends = []
    for own in ([], [off]):
        params = [Parameter(x) for x in begun()]
        optimizer = optim.Adam(params, transforms=own)
        for k in range(3):
            for p, g in zip(params, gradients(k), strict=True):
                p.grad = g
            optimizer.step()
        programs = [unit.program for unit in optimizer._engine.units]
        ends.append((params, [len(stage.body) for s in programs for stage in s.stages]))
    assert ends[0][1] == ends[1][1]
    assert all(map(torch.equal, ends[0][0], ends[1][0]))


def test_an_outer_step_of_all_that_was_done_changes_nothing() -> None:
    ends = []
    for own in ([], [transforms.outer_nesterov(2, lr=1.0, momentum=0.0)]):
        params = [Parameter(x.double()) for x in begun()]
        optimizer = optim.Adam(params, lr=LR, transforms=own)
        for k in range(5):
            for p, g in zip(params, gradients(k), strict=True):
                p.grad = g.double()
            optimizer.step()
        ends.append(params)
    for p, q in zip(*ends, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-13, atol=1e-13)


def test_a_large_limit_changes_nothing() -> None:
    for transform in (transforms.clip_by_norm(1e6), transforms.clip_by_norm(1e6, "tensor")):
        ends = []
        for own in ([], [transform]):
            p = Parameter(begun()[0])
            p.grad = gradients(0)[0]
            optim.SGD([p], lr=LR, transforms=own).step()
            ends.append(p)
        assert torch.equal(*ends)


@pytest.mark.parametrize("backend", list(BACKENDS))
def test_the_norm_is_that_of_all_groups(backend: str) -> None:
    """Groups with limits of their own share the norm; one without a limit takes no part."""
    start, given = begun(), gradients(0)
    params = [Parameter(x.clone()) for x in start]
    for p, g in zip(params, given, strict=True):
        p.grad = g
    limits = (0.5, 0.25, math.inf)
    groups = [{"params": [p], "max_norm": m} for p, m in zip(params, limits, strict=True)]
    options = BACKENDS[backend]
    optim.SGD(groups, lr=1.0, transforms=[transforms.clip_by_norm()], **options).step()
    total = math.hypot(*(float(g.double().norm()) for g in given[:2]))
    for p, x, g, limit in zip(params, start, given, limits, strict=True):
        factor = min(1.0, limit / (total + 1e-6))
        torch.testing.assert_close(p.detach(), x - factor * g, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("backend", list(BACKENDS))
def test_rows_are_clipped_by_their_own_norms(backend: str) -> None:
    """A row of a matrix, a filter of a convolution; groups of vectors say otherwise."""
    start = [torch.randn(6, 5), torch.randn(4, 3, 2, 2), torch.randn(7)]
    params = [Parameter(x.clone()) for x in start]
    for p in params:
        p.grad = torch.randn_like(p)
    groups = [{"params": params[:2]}, {"params": params[2:], "max_norm_over": "tensor"}]
    options: dict[str, Any] = {**BACKENDS[backend], "measure": ("clipped_share",)}
    clip = transforms.clip_by_norm(1.5, "row")
    optimizer = optim.SGD(groups, lr=1.0, transforms=[clip], **options)
    optimizer.step()
    assert {c.backend for c in optimizer._engine.choices.values()} == {backend}
    for p, x in zip(params, start, strict=True):
        length = unit_norms(p.grad.double())
        wanted = x - (p.grad * (1.5 / (length + 1e-6)).clamp(max=1.0)).float()
        torch.testing.assert_close(p.detach(), wanted, rtol=1e-5, atol=1e-6)
        clipped = (length > 1.5).double().expand(p.shape).mean()
        assert optimizer.measured.of(p)["clipped_share"] == pytest.approx(float(clipped))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_spreads_as_in_torch(bad: float) -> None:
    ends = []
    for ours in (True, False):
        params = [Parameter(x) for x in begun()]
        for p, g in zip(params, gradients(0), strict=True):
            p.grad = g
        params[0].grad[0, 3] = bad
        if ours:
            optim.SGD(params, lr=1.0, transforms=[transforms.clip_by_norm(1.0)]).step()
        else:
            torch.nn.utils.clip_grad_norm_(params, 1.0)
            torch.optim.SGD(params, lr=1.0).step()
        ends.append(params)
    for p, q in zip(*ends, strict=True):
        torch.testing.assert_close(p, q, equal_nan=True)


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda: transforms.clip_by_norm(-1.0), ValueError, "max_norm must be >= 0"),
        (lambda: transforms.clip_by_norm(math.nan), ValueError, "max_norm must be >= 0"),
        (lambda: transforms.clip_by_norm(1.0, "column"), ValueError, "over must be one of"),
        (lambda: transforms.clip_by_norm(1.0, "row"), ValueError, r"parameter 0 .* shape \(2,\)"),
        (lambda: transforms.ema_nesterov(-1.0), ValueError, "ahead must be >= 0"),
        (lambda: transforms.ema_nesterov(1.0, 1.0), ValueError, "ahead_decay must be"),
        (lambda: transforms.averaged(name="a b"), ValueError, "name must be an identifier"),
        (lambda: transforms.averaged(warmup=2), TypeError, "warmup must be True or False"),
        (lambda: transforms.adaptive_clipping(-1.0), ValueError, "clip_ratio must be >= 0"),
        (lambda: transforms.adaptive_clipping(1.0, 0.0), ValueError, "clip_eps must be > 0"),
        (lambda: transforms.update_floor(1.0, "column"), ValueError, "over must be one of"),
        (lambda: transforms.centralized(2), TypeError, "centralized must be True or False"),
        (lambda: transforms.clip_by_quantile(1.0), ValueError, "clip_quantile must be"),
        (lambda: transforms.clip_by_quantile(0.5, 0.0), ValueError, "clip_rate must be > 0"),
        (lambda: transforms.norm_growth_limited(-1.0), ValueError, "norm_growth must be >= 0"),
        (lambda: transforms.clip_by_value(-0.1), ValueError, "max_value must be >= 0"),
        (lambda: transforms.corrected_decay(peak_lr=0.0), ValueError, "peak_lr must be > 0"),
        (lambda: transforms.grokfast(-1.0), ValueError, "slow_gain must be >= 0"),
        (lambda: transforms.grokfast(1.0, 1.0), ValueError, "slow_decay must be"),
        (lambda: transforms.outer_nesterov(2.5), TypeError, "every must be an integer"),
        (lambda: transforms.outer_nesterov(2, 0.7, 1.0), ValueError, "outer_momentum must be"),
        (lambda: transforms.lookahead(0), ValueError, "lookahead_every must be >= 1"),
        (lambda: transforms.lookahead(2.5), TypeError, "every must be an integer"),
        (lambda: transforms.lookahead(2, 1.5), ValueError, "lookahead_share must be"),
        (lambda: transforms.cautious("yes"), TypeError, "cautious must be True or False"),
    ],
)
@pytest.mark.whole
def test_what_makes_no_sense_is_refused(make: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        optim.SGD([Parameter(torch.ones(2))], transforms=[make()])


def test_a_sparse_gradient_is_refused_where_every_row_changes() -> None:
    p = Parameter(torch.ones(4, 2))
    p.grad = torch.sparse_coo_tensor([[1]], torch.ones(1, 2), (4, 2), check_invariants=True)
    with pytest.raises(RuntimeError, match="cautious_decay option"):
        optim.SGD([p], transforms=[transforms.cautious_decay()]).step()
    assert torch.equal(p, torch.ones(4, 2))


def test_rows_need_parameters_that_have_a_shape() -> None:
    lazy = torch.nn.LazyLinear(3, bias=False)
    clip = transforms.clip_by_norm(1.0, "row")
    with pytest.raises(ValueError, match="parameter 0 of the group has none yet; run the model"):
        optim.SGD(lazy.parameters(), lr=1.0, transforms=[clip])
    lazy(torch.ones(2, 5)).sum().backward()
    before = lazy.weight.detach().clone()
    optim.SGD(lazy.parameters(), lr=1.0, transforms=[clip]).step()
    torch.testing.assert_close((lazy.weight - before).norm(dim=1), torch.ones(3))
