"""An optimizer of one's own: five lines, trained beside a hand-written one."""

from __future__ import annotations

import copy
import inspect
import io
import pickle

import pytest
import torch
from torch import nn

import thalweg
from thalweg.optim.optimizer import Optimizer
from thalweg.ranges import FRACTION, NON_NEGATIVE
from thalweg.rule import State, lerp, sign


@thalweg.optimizer(
    lr=1e-3,
    betas=(0.9, 0.99),
    weight_decay=0.0,
    states={"exp_avg": 0.0},
    ranges={"lr": NON_NEGATIVE, "betas": (FRACTION, FRACTION)},
)
def Lion(p, g, s, h):
    """Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023, Algorithm 2."""
    update = sign(lerp(s.exp_avg, g, 1 - h.beta1))
    s.exp_avg = lerp(s.exp_avg, g, 1 - h.beta2)
    return p - h.lr * (update + h.weight_decay * p)


class HandWrittenLion:
    """Algorithm 2 once more, in torch's operations."""

    def __init__(self, params, lr: float, beta1: float, beta2: float, decay: float) -> None:
        self.params = list(params)
        self.lr, self.beta1, self.beta2, self.decay = lr, beta1, beta2, decay
        self.m = [torch.zeros_like(p) for p in self.params]

    @torch.no_grad()
    def step(self) -> None:
        for p, m in zip(self.params, self.m, strict=True):
            c = self.beta1 * m + (1 - self.beta1) * p.grad
            p -= self.lr * (torch.sign(c) + self.decay * p)
            m.mul_(self.beta2).add_(p.grad, alpha=1 - self.beta2)


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3)).double()


def train(model: nn.Module, optimizer, steps: int, start: int = 0) -> list[float]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(64, 8, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 3, (64,), generator=generator)
    losses = []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(x), y)
        model.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("fused", [True, False], ids=["kernel", "eager"])
def test_it_trains_as_the_hand_written_one(fused: bool) -> None:
    ours, theirs = network(), network()
    a = train(
        ours, Lion(ours.parameters(), lr=0.01, betas=(0.9, 0.99), weight_decay=0.1, fused=fused), 60
    )
    b = train(theirs, HandWrittenLion(theirs.parameters(), 0.01, 0.9, 0.99, 0.1), 60)
    torch.testing.assert_close(torch.tensor(a), torch.tensor(b), rtol=1e-9, atol=1e-12)
    assert a[-1] < 0.6 * a[0]


def test_it_is_an_optimizer_like_any_other() -> None:
    model = network()
    optimizer = Lion(model.parameters())
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert isinstance(optimizer, Optimizer)
    assert Lion.__name__ == "Lion"
    assert Lion.__module__ == __name__
    assert "Algorithm 2" in Lion.__doc__
    assert list(inspect.signature(Lion).parameters)[:4] == ["params", "lr", "betas", "weight_decay"]
    assert optimizer.defaults["betas"] == (0.9, 0.99)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    for _ in range(4):
        train(model, optimizer, 1)
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.25e-3
    assert len(Lion.rule._programs) <= 2  # a schedule never traces anew
    assert "Lion: 4 parameters" in thalweg.explain(optimizer)


def test_groups_have_options_of_their_own() -> None:
    a, b = (nn.Parameter(torch.ones(2)) for _ in range(2))
    a.grad = b.grad = torch.ones(2)
    Lion([{"params": [a], "lr": 0.5}, {"params": [b]}], 0.25).step()
    assert (a.tolist(), b.tolist()) == ([0.5] * 2, [0.75] * 2)


def test_maximizing_comes_with_it() -> None:
    p = nn.Parameter(torch.ones(2))
    p.grad = torch.ones(2)
    Lion([p], lr=0.5, maximize=True).step()
    assert p.tolist() == [1.5, 1.5]


def test_a_checkpoint_continues_the_run() -> None:
    whole = network()
    optimizer = Lion(whole.parameters(), lr=0.01)
    losses = train(whole, optimizer, 10)

    model = network()
    first = Lion(model.parameters(), lr=0.01)
    train(model, first, 4)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": first.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = network()
    resumed.load_state_dict(saved["model"])
    second = Lion(resumed.parameters(), lr=7.0)
    second.load_state_dict(saved["optimizer"])
    assert train(resumed, second, 6) == losses[4:]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_copies_and_pickles_go_on_alone(duplicate) -> None:
    p = nn.Parameter(torch.ones(3))
    p.grad = torch.tensor([1.0, -2.0, 0.0])
    optimizer = Lion([p], lr=0.5)
    optimizer.step()
    other = duplicate(optimizer)
    assert type(other) is Lion
    (q,) = other.param_groups[0]["params"]
    q.grad = p.grad.clone()
    other.step()
    assert p.tolist() == [0.5, 1.5, 1.0]
    assert q.tolist() == [0.0, 2.0, 1.0]
    optimizer.step()
    assert torch.equal(p, q)
    assert torch.equal(optimizer.state[p]["exp_avg"], other.state[q]["exp_avg"])


def test_a_state_may_begin_at_an_option_or_be_a_number() -> None:
    @thalweg.optimizer(
        lr=0.1,
        start=4.0,
        states={"acc": lambda options: options["start"], "k": State(1.0, scalar=True)},
    )
    def Own(p, g, s, h):
        s.k = s.k * 2
        s.acc = s.acc + g * g
        return p - h.lr * s.k * s.acc

    p = nn.Parameter(torch.zeros(2))
    p.grad = torch.ones(2)
    optimizer = Own([p], lr=1.0)
    optimizer.step()
    assert p.tolist() == [-10.0] * 2
    assert optimizer.state[p]["acc"].tolist() == [5.0] * 2
    assert optimizer.state[p]["k"].item() == 2.0


# ------------------------------------------------------------------------------------------- misuse


def parameter() -> nn.Parameter:
    p = nn.Parameter(torch.ones(2))
    p.grad = torch.ones(2)
    return p


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Lion([parameter()], lr=-1.0), ValueError, "Lion: lr must be >= 0, got -1"),
        (
            lambda: Lion([parameter()], betas=(0.9, 1.0)),
            ValueError,
            r"betas\[1\] must be >= 0 and < 1",
        ),
        (lambda: Lion([parameter()], lr="fast"), TypeError, "lr must be a number"),
        (lambda: Lion([parameter()], beta=(0.9, 0.9)), TypeError, "did you mean betas"),
        (lambda: Lion([parameter()], 0.1, (0.9, 0.9), 0.0, 5), TypeError, "too many positional"),
        (lambda: Lion([parameter()], 0.1, lr=0.2), TypeError, "multiple values for argument 'lr'"),
        (lambda: Lion([]), ValueError, "empty parameter list"),
        (lambda: Lion(parameter()), TypeError, "params must be an iterable"),
        (lambda: thalweg.optimizer(lr=0.1, fused=True), TypeError, "every optimizer has fused"),
        (lambda: thalweg.optimizer(lr=0.1, step=1), TypeError, "every optimizer has step"),
    ],
)
def test_misuse_is_told(call, error, message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("fused", [None, False], ids=["kernel", "eager"])
@pytest.mark.parametrize(
    ("update", "error", "message"),
    [
        (
            lambda p, g, s, h: p - h.rate * g,
            AttributeError,
            r"h\.rate, but the optimizer's options",
        ),
        (lambda p, g, s, h: p - s.buffer, AttributeError, "'buffer' is not declared"),
        (lambda p, g, s, h: None, TypeError, "must return the parameter's new value, got None"),
        (lambda p, g, s, h: p if g > 0 else g, TypeError, r"test_custom_rule\.py:\d+: an `if`"),
    ],
)
def test_a_wrong_rule_is_told_at_the_first_step(fused, update, error, message: str) -> None:
    update.__name__ = "Wrong"
    p = parameter()
    optimizer = thalweg.optimizer(lr=0.1)(update)([p], fused=fused)
    with pytest.raises(error, match=message):
        optimizer.step()
    assert p.tolist() == [1.0, 1.0]
