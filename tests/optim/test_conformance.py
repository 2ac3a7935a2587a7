"""The dense optimizers against float64, on every option combination of torch's own database.

Two float64 trajectories pin the rules independently: torch.optim run in float64, and the references
written from the papers. In float32 torch's single-tensor path sets the error that is allowed.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import thalweg.optim as optim
from tests.optim.cases import in_torch
from tests.optim.problems import (
    CASES,
    DATABASE,
    DENSE,
    ENTRIES,
    FULLEST,
    SHARED_CASES,
    SHARED_FULLEST,
    Case,
    Problem,
    assert_as_close,
    assert_relative,
    assert_same_layout,
    bits,
    exact_run,
    largest,
    paper_run,
    peer_run,
    pieces,
    problem,
    run,
    torch_run,
    ulp,
)
from thalweg.optim.catalogue import classes

every_case = pytest.mark.parametrize("case", CASES, ids=str)
fullest = pytest.mark.parametrize("case", FULLEST, ids=str)
every_shared_case = pytest.mark.parametrize("case", SHARED_CASES, ids=str)
fullest_shared = pytest.mark.parametrize("case", SHARED_FULLEST, ids=str)


def make(case: Case) -> Any:
    return getattr(optim, case.name)


# ---------------------------------------------------------------------------------- trajectories


@every_shared_case
def test_the_papers_and_torch_in_float64_agree(case: Case) -> None:
    given = problem(torch.float32)
    assert_relative(paper_run(case, given), exact_run(case, given), 1e-12)


@every_case
def test_float32_is_as_close_to_float64_as_torchs(case: Case) -> None:
    given = problem(torch.float32)
    ours, theirs = (
        run(make(case), case, given, torch.float32),
        peer_run(case, given, torch.float32),
    )
    assert_same_layout(ours, theirs)
    # Without torch's as a measure: in each step half a unit for storing, and half for one factor.
    units = 4.0 if in_torch(case.name) else float(given.steps)
    assert_as_close(ours, theirs, exact_run(case, given), torch.float32, units)


@every_case
def test_float64_agrees(case: Case) -> None:
    given = problem(torch.float32)
    assert_relative(run(make(case), case, given, torch.float64), exact_run(case, given), 1e-12)


@every_case
def test_eager_and_kernel_agree(case: Case) -> None:
    given = problem(torch.float32)
    eager = run(make(case), case, given, torch.float32, fused=False)
    kernel = run(make(case), case, given, torch.float32, fused=True)
    assert_same_layout(kernel, eager)
    assert_relative(kernel, eager, 1e-6)


def assert_low_precision(case: Case, dtype: torch.dtype) -> None:
    """Ours is as close to float64 as torch's.

    Every stored value is rounded to 8 or 11 bits, by both libraries, so which is closer at one
    element is chance: where a value lies near the middle of two, the one with the smaller error may
    round away. What can be asked: the root mean square over all elements and steps, in units of
    each tensor's last place, is not above torch's (2 % for chance: 30 000 values, of which some
    1 700 are independent); and no element is further off than torch's furthest by more than one
    unit, which is one rounding at such a middle that went the other way.
    """
    given = problem(dtype)
    ours, theirs = run(make(case), case, given, dtype), torch_run(case, given, dtype)
    exact = exact_run(case, given)
    unit = {name: ulp(largest(want), dtype) for name, want in exact.points.items()}
    mine, other = (
        torch.cat([(of.points[n] - want).reshape(-1) / unit[n] for n, want in exact.points.items()])
        for of in (ours, theirs)
    )
    assert mine.isfinite().all()
    if other.isfinite().all():  # in float16 torch's Adam divides by an eps of 1e-8 that became 0
        # Rprop's steps take few values, so its errors come in groups and chance weighs more.
        assert rms(mine) <= (1.05 if case.name == "Rprop" else 1.02) * rms(other)
        assert largest(mine) <= largest(other) + 1


def rms(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@fullest_shared
def test_low_precision_is_as_close_to_float64_as_torchs(case: Case, dtype: torch.dtype) -> None:
    assert_low_precision(case, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@every_shared_case
def test_low_precision_everywhere(case: Case, dtype: torch.dtype) -> None:
    assert_low_precision(case, dtype)


# torch computes SGD's complex update like any other; RAdam's and the rest's on pairs of reals.
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
@fullest_shared
def test_complex_parameters(case: Case, dtype: torch.dtype) -> None:
    given = problem(torch.complex64)
    ours, exact = run(make(case), case, given, dtype), exact_run(case, given)
    assert_same_layout(ours, exact)
    if dtype == torch.complex128:
        assert_relative(ours, exact, 1e-12)
    else:
        assert_as_close(ours, torch_run(case, given, dtype), exact, torch.float32)


@every_shared_case
def test_nan_and_infinity_spread_as_in_torch(case: Case) -> None:
    given = Problem(torch.float32, seed=1, steps=6)
    bad = {
        1: (math.nan, math.inf, -math.inf),
        3: (math.inf, math.nan, 0.0),
        5: (0.0, -math.inf, math.nan),  # Rprop keeps only the last gradient, and sign(NaN) is 0
    }
    for step, values in bad.items():
        for name in ("matrix", "image", "vector", "turned"):
            flat = given.gradients[step][name].view(-1)
            flat[:3] = torch.tensor(values, dtype=torch.float64)
            flat[-1] = math.inf
    ours = run(make(case), case, given, torch.float32)
    kernel_off = run(make(case), case, given, torch.float32, fused=False)
    theirs = torch_run(case, given, torch.float32)
    assert not all(value.isfinite().all() for _, value in pieces(theirs)), "nothing spread"
    for mine in (ours, kernel_off):
        for name, path in theirs.points.items():
            assert pattern(mine.points[name]) == pattern(path), name
            for key, value in theirs.state[name].items():
                assert pattern(mine.state[name][key]) == pattern(value), f"{name}.{key}"


def pattern(x: Tensor) -> list[str]:
    """For each element whether it is finite, NaN, or which infinity."""
    return ["finite" if math.isfinite(v) else str(v) for v in x.view(-1).tolist()]


# --------------------------------------------------------- kernels: threads, chunks, flags, layouts


def big_run(case: Case, cuts: list[int], *, fused: bool = True) -> bytes:
    """Three steps on 300 001 elements given as tensors that end at ``cuts``."""
    generator = torch.Generator().manual_seed(7)
    size = 300_001
    start = torch.randn(size, generator=generator)
    ends = [*cuts, size]
    sizes = [end - begin for begin, end in zip([0, *cuts], ends, strict=True)]
    parameters = [piece.clone().requires_grad_() for piece in start.split(sizes)]
    optimizer = make(case)(parameters, **case.options(), fused=fused)
    for _ in range(3):
        g = torch.randn(size, generator=generator)
        for p, piece in zip(parameters, g.split(sizes), strict=True):
            p.grad = piece
        optimizer.step()
    return bits(torch.cat([p.detach() for p in parameters]))[-1]


@fullest
def test_bit_identical_for_any_threads_and_chunks(case: Case) -> None:
    # A rule with norms of whole tensors sees others when a tensor is cut.
    cuts = [] if has_sums(case) else [[1, 8, 100_003, 100_004, 299_999], [3, 150_000, 150_017]]
    torch.set_num_threads(1)
    once = big_run(case, [])
    for ends in cuts:  # views into one buffer whose starts are aligned to the element only
        assert big_run(case, ends) == once
    torch.set_num_threads(2)
    for ends in [[], *cuts]:
        assert big_run(case, ends) == once


def has_sums(case: Case) -> bool:
    """Whether the rule sums over tensors, in stages of its own."""
    optimizer = make(case)([torch.zeros(2, requires_grad=True)], **case.options())
    (slot,) = optimizer._engine.look_at_slots()
    return len(optimizer._engine.preview(slot)[0].stages) > 1


@fullest
def test_repeated_runs_are_bit_identical(case: Case) -> None:
    given = Problem(torch.float32, seed=2, steps=3)
    first, second = (run(make(case), case, given, torch.float32) for _ in range(2))
    for name in ENTRIES:
        assert bits(first.points[name]) == bits(second.points[name])


@pytest.mark.parametrize("flag", ["foreach", "capturable", "differentiable"])
@fullest
def test_flags_that_change_nothing(case: Case, flag: str) -> None:
    """They choose among torch's code paths; the update is the same."""
    if flag not in defaults_of(case):
        with pytest.raises(TypeError):
            make(case)([torch.zeros(2, requires_grad=True)], **{flag: True})
        return
    given = Problem(torch.float32, seed=3, steps=3)
    fused = False if flag == "differentiable" else None
    plain = run(make(case), case, given, torch.float32, fused=fused)
    # Leaves that require a gradient may not be written in place while autograd records.
    trainable = flag != "differentiable"
    flagged = run(make(case), case, given, torch.float32, trainable=trainable, **{flag: True})
    for name in ENTRIES:
        if flag == "differentiable":  # out of place, where eager merges operations
            close = dict(rtol=1e-6, atol=1e-7)
            torch.testing.assert_close(flagged.points[name], plain.points[name], **close)
        else:
            assert bits(flagged.points[name]) == bits(plain.points[name])


def defaults_of(case: Case) -> dict[str, Any]:
    return make(case)([torch.zeros(1, requires_grad=True)]).defaults


@fullest
def test_gradients_are_not_changed(case: Case) -> None:
    given = problem(torch.float32)
    parameters = given.parameters(torch.float32)
    optimizer = make(case)(list(parameters.values()), **case.options(), maximize=True)
    for step in range(2):
        given.feed(parameters, step)
        before = {name: p.grad for name, p in parameters.items()}
        copies = {name: bits(g) for name, g in before.items() if g is not None}
        optimizer.step()
        for name, p in parameters.items():
            assert p.grad is before[name]
            assert p.grad is None or bits(p.grad) == copies[name]


@fullest
def test_layouts_survive(case: Case) -> None:
    """A step changes neither the parameter's address nor strides; states have its layout."""
    given = problem(torch.float32)
    parameters = given.parameters(torch.float32)
    where = {name: (p.data_ptr(), p.stride()) for name, p in parameters.items()}
    optimizer = make(case)(list(parameters.values()), **case.options())
    for step in range(6):
        given.feed(parameters, step)
        optimizer.step()
    for name, p in parameters.items():
        assert (p.data_ptr(), p.stride()) == where[name]
        for key, value in optimizer.state[p].items():
            if value.shape == p.shape and key != "step":
                assert value.stride() == p.stride(), f"{name}.{key}"


@fullest
def test_writes_are_seen_by_autograd(case: Case) -> None:
    """A backward through values that the step has overwritten must fail, as it does in torch."""
    p = torch.ones(4, requires_grad=True)
    loss = (p * p).sum()
    p.grad = torch.ones(4)
    make(case)([p], **case.options()).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("name", DENSE)
def test_trains_a_small_network(name: str) -> None:
    """Gradients from a model: after 60 steps the loss is where torch's optimizer takes it."""

    def train(cls: Any) -> tuple[float, float]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 2))
        x = torch.randn(64, 6)
        y = torch.stack([x[:, 0] * x[:, 1], x.sum(1).sin()], 1)
        lr = {"SGD": 0.1, "ASGD": 0.1, "Adagrad": 0.05, "Adadelta": 1.0}.get(name, 0.01)
        optimizer = cls(model.parameters(), lr=lr)
        losses = []
        for _ in range(60):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses[0], losses[-1]

    first, ours = train(getattr(optim, name))
    assert ours < 0.9 * first
    if in_torch(name):
        assert ours == pytest.approx(train(getattr(torch.optim, name))[1], rel=1e-2)


def test_the_database_is_complete() -> None:
    """A dense optimizer that torch adds to its database is not overlooked here."""
    assert set(DATABASE) - set(classes()) == {"Adafactor", "Muon"}
