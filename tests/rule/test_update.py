"""The update inside a rule's result: exact on symbols and on tensors, where new - p rounds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import thalweg.optim as optim
from thalweg.optim.catalogue import classes
from thalweg.rule import Rule, Transform, clip, followed, lerp, update_of, where
from thalweg.rule.equations import equations_of
from thalweg.rule.symbols import Graph
from thalweg.transforms import decoupled_decay


def symbols():
    graph = Graph()
    loads = (graph.load(name) for name in ("p", "g", "m"))
    return (*loads, graph.input("h.lr", 0.1), graph.input("h.c", 0.5))


def text(update) -> str:
    return equations_of([("u", update)])[-1][1]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (lambda p, g, m, lr, c: p - lr * g, "-(lr * g)"),
        (lambda p, g, m, lr, c: p + lr * g, "lr * g"),
        (lambda p, g, m, lr, c: lr * g + p, "lr * g"),
        (lambda p, g, m, lr, c: p * (1 - c) - lr * g, "-c * p - lr * g"),
        (lambda p, g, m, lr, c: (1 - lr * c) * p, "-(lr * c) * p"),
        (lambda p, g, m, lr, c: p * (1 + c), "c * p"),
        (lambda p, g, m, lr, c: p * c, "(c - 1) * p"),
        (lambda p, g, m, lr, c: (p - lr * g) * (1 - c), "-(lr * g) * (1 - c) + -c * p"),
        (lambda p, g, m, lr, c: (p - lr * g) / (1 + c), "(-(lr * g) - c * p) / (1 + c)"),
        (lambda p, g, m, lr, c: p - lr * (g + c * p), "-(lr * (g + c * p))"),
        (lambda p, g, m, lr, c: p - lr * g - m, "-(lr * g) - m"),
        (lambda p, g, m, lr, c: where(g > 0, p - g, p), "where(0 < g, -g, 0)"),
        (lambda p, g, m, lr, c: where(g > 0, p - g, p + m), "where(0 < g, -g, m)"),
        (lambda p, g, m, lr, c: p * (1 - c * m), "-(c * m) * p"),
        # No sum of p and something: what is left is the difference.
        (lambda p, g, m, lr, c: clip(p - g, -1, 1), "minimum(maximum(p - g, -1), 1) - p"),
        (lambda p, g, m, lr, c: m, "m - p"),
        (lambda p, g, m, lr, c: g - p, "g - p - p"),
        (lambda p, g, m, lr, c: p * m, "p * m - p"),
        (lambda p, g, m, lr, c: where(g > 0, p - g, m), "where(0 < g, p - g, m) - p"),
        (lambda p, g, m, lr, c: g / p, "g / p - p"),
    ],
)
def test_the_expression(rule, expected: str) -> None:
    p, *others = symbols()
    assert text(update_of(rule(p, *others), p)) == expected


def test_nothing_added() -> None:
    p, *_ = symbols()
    assert update_of(p, p).value == 0.0
    tensor = torch.tensor([1.0, float("inf")])
    assert update_of(tensor, tensor).tolist() == [0.0, 0.0]


def test_p_may_be_an_expression_itself() -> None:
    """As a transform hands it on to the rule inside it."""
    p, g, _, lr, c = symbols()
    shrunk = p * (1 - c)
    assert text(update_of(shrunk - lr * g, shrunk)) == "-(lr * g)"


numbers = st.floats(-4, 4, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3)


@given(p=numbers, g=numbers, m=numbers, lr=st.floats(1e-12, 1e-7), c=st.floats(1e-12, 1e-7))
def test_on_float32_tensors_it_is_as_exact_as_in_float64(p, g, m, lr, c) -> None:
    def steps(p, g, m):
        yield p - lr * g
        yield (1 - lr * c) * p - lr * m
        yield (p - lr * g) / (1 + c)
        yield where(g > 0, p + lr * m, p)
        yield torch.where(g > 0, p * (1 - c), p - lr * g)
        yield lerp(p, m, lr)
        yield 1 * p

    narrow = [torch.tensor([x], dtype=torch.float32) for x in (p, g, m)]
    wide = [x.double() for x in narrow]
    q, exact = followed(narrow[0]), followed(wide[0])
    for new, expected in zip(steps(q, *narrow[1:]), steps(exact, *wide[1:]), strict=True):
        u, want = update_of(new, q), update_of(expected, exact)
        assert type(u) is torch.Tensor
        # Terms may cancel: their size decides how much is rounded.
        bound = 2e-6 * (lr * 8 + c * 8)
        assert abs(u.item() - want.item()) <= bound
        torch.testing.assert_close(want, torch.as_tensor(expected) - wide[0], rtol=0, atol=2e-15)


def test_what_is_followed_is_a_tensor_like_any_other() -> None:
    plain = torch.tensor([1.0, -2.0], requires_grad=True)
    p = followed(plain)
    assert torch.equal(torch.sqrt(p * p), plain.abs())
    assert type(p.sum()) is torch.Tensor
    assert type(p > 0) is torch.Tensor
    (p - 2 * plain.detach()).sum().backward()
    assert plain.grad is not None
    assert plain.grad.tolist() == [1.0, 1.0]


# ---------------------------------------------------------------- a transform that needs an update


def cautious(update):
    """Liang et al., "Cautious Optimizers", 2024: no step where update and gradient agree."""

    def rule(p, g, s, h):
        p = followed(p)
        u = update_of(update(p, g, s, h), p)
        return p + where(u * g < 0, u, 0.0)

    return rule


@pytest.mark.parametrize("fused", [True, False], ids=["kernel", "eager"])
def test_a_cautious_optimizer_sees_updates_that_rounding_would_hide(fused: bool) -> None:
    """lr is so small that new - p is 0 in float32, for which every mask would be the same."""
    p = torch.nn.Parameter(torch.tensor([1.0, 1.0, 1.0]))
    seen = Transform(recording, states={"seen": 0.0})
    optimizer = optim.SGD([p], lr=1e-12, momentum=0.5, transforms=[seen], fused=fused)
    for gradient in ([1.0, 1.0, -1.0], [1.0, -0.25, 2.0]):
        p.grad = torch.tensor(gradient)
        optimizer.step()
    assert p.tolist() == [1.0, 1.0, 1.0]
    torch.testing.assert_close(
        optimizer.state[p]["seen"], -1e-12 * torch.tensor([1.5, 0.25, 1.5]), rtol=1e-6, atol=0
    )


def recording(update):
    """Keep the update as a state."""

    def rule(p, g, s, h):
        p = followed(p)
        new = update(p, g, s, h)
        s.seen = update_of(new, p)
        return new

    return rule


@pytest.mark.parametrize("fused", [True, False], ids=["kernel", "eager"])
@pytest.mark.parametrize("name", ["SGD", "AdamW", "NAdam"])
def test_cautious_steps_are_those_of_the_rule_or_none(name: str, fused: bool) -> None:
    torch.manual_seed(0)
    start, options = torch.randn(50), {"SGD": {"momentum": 0.9}}.get(name, {})
    p, q = (torch.nn.Parameter(start.clone()) for _ in range(2))
    caution = Transform(cautious)
    careful = classes()[name]([p], lr=0.1, transforms=[caution], fused=fused, **options)
    plain = classes()[name]([q], lr=0.1, fused=fused, **options)
    still = 0
    for _ in range(5):
        with torch.no_grad():
            q.copy_(p)
        p.grad = torch.randn(50)
        q.grad = p.grad.clone()
        before = p.detach().clone()
        careful.step()
        plain.step()
        moved = (q - before) * p.grad < 0
        torch.testing.assert_close(p.detach(), torch.where(moved, q, before))
        still += int((~moved).sum())
        for key, value in plain.state[q].items():
            torch.testing.assert_close(careful.state[p][key], value)
    assert still > 0


def test_decay_outside_is_no_part_of_the_update() -> None:
    rule = Rule(lambda p, g, s, h: p - h.lr * g, {"seen": 0.0}, name="descent")
    p = torch.nn.Parameter(torch.tensor([2.0]))
    p.grad = torch.tensor([1.0])
    cls = type("Descent", (optim.Optimizer,), {"rule": Rule(rule.update, name="descent")})
    transforms = [Transform(recording, states={"seen": 0.0}), decoupled_decay(0.5)]
    optimizer = cls([p], {"lr": 0.1}, transforms)
    optimizer.step()
    torch.testing.assert_close(optimizer.state[p]["seen"], torch.tensor([-0.1]))
    torch.testing.assert_close(p.detach(), torch.tensor([1.8]))
