"""What needs no other plan: absent gradients, moved numbers, switches that are set back."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch.nn import Parameter

import thalweg.optim as optim
from tests.engine.running import class_of, optimizer_of
from thalweg.engine import plan
from thalweg.engine.backends.cpu.addresses import AtOnce
from thalweg.optim.optimizer import MODES
from thalweg.rule import Rule

OPTIMIZERS = {
    "SGD": {"lr": 0.1, "momentum": 0.9},
    "AdamW": {"lr": 0.1},
    "NAdam": {"lr": 0.1},
    "ASGD": {"lr": 0.1, "t0": 2},
}


@pytest.fixture
def plans(monkeypatch) -> list[int]:
    """Grows by one with each plan that is made."""
    made: list[int] = []
    original = plan.Planner.plan

    def counted(self, *args):
        made.append(1)
        return original(self, *args)

    monkeypatch.setattr(plan.Planner, "plan", counted)
    return made


def pair(name: str, count: int = 7):
    """Parameters under ours and under torch's optimizer in float64."""
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(5, generator=generator, dtype=torch.float64) for _ in range(count)]
    ours = [Parameter(v.clone()) for v in values]
    theirs = [Parameter(v.clone()) for v in values]
    made = getattr(optim, name)(ours, **OPTIMIZERS[name])
    other = getattr(torch.optim, name)(theirs, **OPTIMIZERS[name], foreach=False)
    return ours, theirs, made, other


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_absent_gradients_are_left_out_without_another_plan(name: str, plans) -> None:
    ours, theirs, made, other = pair(name)
    generator = torch.Generator().manual_seed(1)
    for step in range(12):
        absent = set() if step == 0 else {step % 7, (3 * step) % 7}
        for k, (p, q) in enumerate(zip(ours, theirs, strict=True)):
            gradient = torch.randn(5, generator=generator, dtype=torch.float64)
            p.grad, q.grad = (None, None) if k in absent else (gradient, gradient.clone())
        before = [p.detach().clone() for p in ours]
        made.step()
        other.step()
        for k, (p, q, old) in enumerate(zip(ours, theirs, before, strict=True)):
            assert torch.equal(p, old) == (k in absent), "moved where there is a gradient"
            # torch keeps scalar states of NAdam and ASGD in float32.
            rounded = name in ("NAdam", "ASGD")
            torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-7 if rounded else 1e-14)
    assert len(plans) == 1
    assert {choice.backend for choice in made._engine.choices.values()} == {"cpu"}
    counts = [float(other.state[q]["step"]) for q in theirs if "step" in other.state[q]]
    assert [float(made.state[p]["step"]) for p in ours if "step" in made.state[p]] == counts


def test_a_step_without_any_gradient_changes_nothing(plans) -> None:
    ours, _, made, _ = pair("AdamW")
    for p in ours:
        p.grad = torch.ones(5, dtype=torch.float64)
    made.step()
    before = [p.detach().clone() for p in ours]
    for p in ours:
        p.grad = None
    made.step()
    assert all(map(torch.equal, ours, before))
    assert {float(made.state[p]["step"]) for p in ours} == {1.0}
    assert len(plans) == 1


def test_versions_of_absent_parameters_do_not_move() -> None:
    ours, _, made, _ = pair("AdamW", 3)
    for p in ours:
        p.grad = torch.ones(5, dtype=torch.float64)
    made.step()
    ours[1].grad = None
    before = [p._version for p in ours]
    made.step()
    assert [p._version - v for p, v in zip(ours, before, strict=True)] == [1, 0, 1]


def test_moved_numbers_need_no_other_plan(plans) -> None:
    ours, theirs, made, other = pair("AdamW")
    for _ in range(4):
        for p, q in zip(ours, theirs, strict=True):
            p.data, q.data = p.data.clone(), q.data.clone()
            p.grad = torch.ones(5, dtype=torch.float64)
            q.grad = torch.ones(5, dtype=torch.float64)
        made.step()
        other.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)
    assert len(plans) == 1


def test_units_are_kept_for_switches_that_are_set_back() -> None:
    ours, _, made, _ = pair("AdamW")
    for p in ours:
        p.grad = torch.ones(5, dtype=torch.float64)
    seen = []
    for maximize in (False, True, False, True):
        made.param_groups[0]["maximize"] = maximize
        made.step()
        seen.append(made._engine.units[0])
    assert seen[0] is seen[2]
    assert seen[1] is seen[3]
    assert seen[0] is not seen[1]


def test_a_parameter_that_was_never_updated_has_its_first_step_when_its_gradient_comes(
    plans,
) -> None:
    ours, _, made, _ = pair("AdamW", 3)
    for step in range(4):
        for k, p in enumerate(ours):
            p.grad = torch.ones(5, dtype=torch.float64) if k <= step else None
        made.step()
    assert [float(made.state[p]["step"]) for p in ours] == [4.0, 3.0, 2.0]
    assert len(plans) == 3, "one for each that came late"


def test_a_state_that_a_switch_asks_for_is_created_at_the_parameters_next_update() -> None:
    """Momentum set while a gradient is absent: the first buffer is still the first gradient."""
    values = [torch.zeros(2), torch.zeros(2)]
    ours = [Parameter(v.clone()) for v in values]
    theirs = [Parameter(v.clone()) for v in values]
    made, other = optim.SGD(ours, lr=0.1), torch.optim.SGD(theirs, lr=0.1)
    for step in range(5):
        momentum = 0.0 if step == 0 else 0.9
        for optimizer, params in ((made, ours), (other, theirs)):
            optimizer.param_groups[0].update(momentum=momentum, dampening=0.5)
            params[0].grad = torch.full((2,), float(step + 1))
            params[1].grad = None if step in (1, 2) else torch.full((2,), float(step + 1))
            optimizer.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q)


@pytest.mark.parametrize("steps", [0, 1])
def test_a_dropped_optimizer_lets_its_states_go_at_once(steps: int) -> None:
    p = Parameter(torch.zeros(10))
    p.grad = torch.ones(10)
    optimizer = optim.Adam([p])
    for _ in range(steps + 1):
        optimizer.step()
    state = weakref.ref(optimizer.state[p]["exp_avg"])
    gc.disable()
    try:
        del optimizer
        assert state() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("threads_of_torch", [1, 2])
def test_a_large_gradient_lives_until_the_kernel_has_read_it(
    threads_of_torch: int, monkeypatch
) -> None:
    """Other threads run during a large step, and one of them may drop the gradient."""
    torch.set_num_threads(threads_of_torch)
    p = Parameter(torch.zeros(2**21))
    optimizer = optim.SGD([p], lr=1.0)
    original = AtOnce.run
    dropped = []

    def drop_and_run(*args) -> bool:
        gradient = weakref.ref(p.grad)
        p.grad = None
        dropped.append(gradient() is None)
        return original(*args)

    monkeypatch.setattr(AtOnce, "run", drop_and_run)
    for _ in range(3):
        p.grad = torch.ones(2**21)
        optimizer.step()
    assert dropped == [False] * 3, "the engine holds it"
    assert (p == -3).all()


def test_other_threads_run_during_a_large_step_on_one_thread() -> None:
    import threading
    import time

    torch.set_num_threads(1)
    p = Parameter(torch.zeros(2**25))
    p.grad = torch.ones(2**25)
    optimizer = optim.Adam([p])
    optimizer.step()
    ticks: list[float] = []
    stop = threading.Event()

    def tick() -> None:
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    begin = time.perf_counter()
    optimizer.step()
    end = time.perf_counter()
    stop.set()
    thread.join()
    inside = [t for t in ticks if begin + 0.2 * (end - begin) < t < end - 0.2 * (end - begin)]
    assert inside, "another thread stood still for the whole step"


def test_groups_of_other_programs_share_a_sum_over_all_tensors() -> None:
    """A sum belongs to the call that asks for it, whatever stands around it in each group."""
    from thalweg.rule import minimum, norm

    def update(p, g, s, h):
        if h.maximize:
            g = -g
        if h.weight_decay:
            g = g + h.weight_decay * p
        if h.scale_by_tensor:
            g = g / norm(p)
        g = g * minimum(1.0, h.max_norm / norm(g, over="all"))
        return p - h.lr * g

    rule = Rule(update, name="clipped", counted=False)
    options = {"lr": 0.5, "max_norm": 0.1, "weight_decay": 0.0}
    options |= {"scale_by_tensor": False, "maximize": False}
    own = [
        {"scale_by_tensor": True},
        {},
        {"maximize": True},
        {"weight_decay": 0.3},
        {"weight_decay": 0.3, "scale_by_tensor": True},
    ]
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(4, generator=generator, dtype=torch.float64) for _ in own]
    grads = [torch.randn(4, generator=generator, dtype=torch.float64) for _ in own]

    terms = []
    for x, g, o in zip(values, grads, own, strict=True):
        g = -g if o.get("maximize") else g
        g = g + o.get("weight_decay", 0.0) * x
        terms.append(g / x.norm() if o.get("scale_by_tensor") else g)
    total = torch.cat(terms).norm()
    expected = [
        x - 0.5 * g * min(1.0, 0.1 / total.item()) for x, g in zip(values, terms, strict=True)
    ]
    for flags in ({}, {"fused": False}):
        params = [Parameter(v.clone()) for v in values]
        for p, g in zip(params, grads, strict=True):
            p.grad = g.clone()
        groups = [{"params": [p], **o} for p, o in zip(params, own, strict=True)]
        optimizer = class_of(rule)(groups, {**MODES, **options, **flags})
        optimizer.step()
        backends = {choice.backend for choice in optimizer._engine.choices.values()}
        assert backends == ({"eager"} if flags else {"cpu"})
        for p, e in zip(params, expected, strict=True):
            torch.testing.assert_close(p.detach(), e, rtol=1e-12, atol=0)


def test_a_sum_over_all_tensors_includes_those_of_another_back_end() -> None:
    from thalweg.rule import norm

    def update(p, g, s, h):
        return p - g / norm(g, over="all")

    rule = Rule(update, name="normalized", counted=False)
    dense = Parameter(torch.zeros(3))
    dense.grad = torch.full((3,), 2.0)
    apart = Parameter(torch.zeros(6)[::2])
    apart.grad = torch.full((6,), 2.0)[::2]
    optimizer = class_of(rule)([dense, apart], {**MODES})
    optimizer.step()
    assert {c.backend for c in optimizer._engine.choices.values()} == {"cpu", "eager"}
    expected = torch.full((3,), -2.0 / 24**0.5)
    torch.testing.assert_close(dense.detach(), expected)
    torch.testing.assert_close(apart.detach(), expected)


def test_sums_that_wait_for_each_other_are_refused() -> None:
    from thalweg.rule import norm

    def crossed(p, g, s, h):
        a = b = 1.0
        for turn in (0, 1) if h.first else (1, 0):
            if turn == 0:
                a = norm(g / b, over="all")
            else:
                b = norm(g / a, over="all")
        return p - a * b * g

    rule = Rule(crossed, name="crossed", counted=False)
    params = [Parameter(torch.ones(2)) for _ in range(2)]
    for p in params:
        p.grad = torch.ones(2)
    first = (True, False)
    groups = [{"params": [p], "first": f} for p, f in zip(params, first, strict=True)]
    optimizer = class_of(rule)(groups, {**MODES})
    with pytest.raises(RuntimeError, match=r"crossed: .* in opposite orders"):
        optimizer.step()
    assert all((p == 1).all() for p in params)


def test_an_equal_sum_at_another_place_is_another_sum() -> None:
    from thalweg.rule import sum as sum_of

    def update(p, g, s, h):
        first = sum_of(g, over="all")
        second = sum_of(g, over="all") if h.twice else first
        return p - first - second

    rule = Rule(update, name="twice", counted=False)
    params = [Parameter(torch.zeros(1)) for _ in range(2)]
    for p in params:
        p.grad = torch.ones(1)
    groups = [{"params": [p], "twice": k == 0} for k, p in enumerate(params)]
    optimizer = class_of(rule)(groups, {**MODES})
    optimizer.step()
    assert [p.item() for p in params] == [-3.0, -4.0]


def test_the_mean_over_all_tensors_counts_those_that_take_part() -> None:
    from thalweg.rule import mean

    def update(p, g, s, h):
        return p - mean(g, over="all")

    rule = Rule(update, name="meaned", counted=False)
    params, optimizer = optimizer_of(
        rule, [torch.zeros(2), torch.zeros(6)], [torch.full((2,), 4.0), torch.zeros(6)]
    )
    optimizer.step()
    assert [p[0].item() for p in params] == [-1.0, -1.0]
    params[1].grad = None
    optimizer.step()
    assert [p[0].item() for p in params] == [-5.0, -1.0]
