"""LBFGS beside torch's: the same iterates, evaluations, stops and checkpoints."""

from __future__ import annotations

import copy
import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer
from torch import Tensor
from torch.optim.lbfgs import _strong_wolfe as torchs_strong_wolfe

from thalweg.optim.lbfgs import LBFGS
from thalweg.optim.lbfgs.history import BLOCK, History, products
from thalweg.optim.lbfgs.line_search import Point, cubic_minimizer, strong_wolfe

TORCH = torch.optim.LBFGS
BOTH = pytest.mark.parametrize("search", [None, "strong_wolfe"])
Problem = tuple[list[Tensor], Callable[[], Tensor]]

# ---- problems and runs ----------------------------------------------------------------------


def rosenbrock(dtype: torch.dtype) -> Problem:
    x = torch.tensor([-1.2, 1.0], dtype=dtype, requires_grad=True)
    return [x], lambda: (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2


def logistic(dtype: torch.dtype) -> Problem:
    table, labels = load_breast_cancer(return_X_y=True)
    features = torch.tensor((table - table.mean(0)) / table.std(0), dtype=dtype)
    target = torch.tensor(labels, dtype=dtype)
    w = torch.zeros(30, dtype=dtype, requires_grad=True)
    b = torch.zeros((), dtype=dtype, requires_grad=True)

    def loss() -> Tensor:
        logits = features @ w + b
        fit = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
        return fit + 1e-3 * w.square().sum()

    return [w, b], loss


def wave(dtype: torch.dtype, n: int = 6) -> Problem:
    """Neither convex nor concave: pairs of negative curvature come up and are left out."""
    x = torch.linspace(0.3, 2.8, n, dtype=dtype).requires_grad_()
    return [x], lambda: (x.cos() + 0.01 * x**4).sum() + x.prod() * 0.01


def quadratic(dtype: torch.dtype, n: int = 30) -> Problem:
    curvature = torch.logspace(0, 2, n, dtype=dtype)
    x = torch.linspace(-1, 1, n, dtype=dtype).requires_grad_()
    return [x], lambda: 0.5 * (curvature * x * x).sum() + 0.1 * x.pow(4).sum()


def closure_of(
    optimizer: Any, loss: Callable[[], Tensor], calls: list[int]
) -> Callable[[], Tensor]:
    def closure() -> Tensor:
        calls[0] += 1
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    return closure


class Run:
    """An optimizer on its own copy of a problem."""

    def __init__(
        self, cls: Any, problem: Callable[..., Problem], dtype: torch.dtype, **options: Any
    ):
        self.params, loss = problem(dtype)
        self.optimizer = cls(self.params, **options)
        self.calls = [0]
        self.closure = closure_of(self.optimizer, loss, self.calls)

    def step(self) -> float:
        return float(self.optimizer.step(self.closure).detach())

    def x(self) -> Tensor:
        return torch.cat([p.detach().reshape(-1).clone() for p in self.params])

    def counts(self) -> tuple[int, int, int]:
        state = self.optimizer.state[self.params[0]]
        return self.calls[0], state["func_evals"], state["n_iter"]

    def take(self, params: list[Tensor]) -> None:
        with torch.no_grad():
            for own, other in zip(self.params, params, strict=True):
                own.copy_(other)


def assert_same_run(
    problem: Callable[..., Problem], dtype: torch.dtype, steps: int, bound: float, **options: Any
) -> Run:
    ours, theirs = (Run(cls, problem, dtype, **options) for cls in (LBFGS, TORCH))
    for _ in range(steps):
        loss, expected = ours.step(), theirs.step()
        if options.get("line_search_fn") and theirs.x().isnan().any():
            # torch's search has taken NaN for lower, ours never does.
            assert not ours.x().isnan().any()
            break
        assert loss == pytest.approx(expected, rel=bound, abs=bound, nan_ok=True)
        torch.testing.assert_close(ours.x(), theirs.x(), rtol=bound, atol=bound, equal_nan=True)
        assert ours.counts() == theirs.counts()
    return ours


# ---- the same iterates ----------------------------------------------------------------------


@pytest.mark.parametrize("problem", [rosenbrock, logistic, wave, quadratic])
@pytest.mark.parametrize(
    "options",
    [
        {"line_search_fn": "strong_wolfe"},
        {"line_search_fn": "strong_wolfe", "max_iter": 4, "history_size": 5},
        {"line_search_fn": "strong_wolfe", "max_iter": 1},
        {"line_search_fn": "strong_wolfe", "lr": 0.1, "max_iter": 3},
        {},
        {"lr": 1e-3},
        {"lr": 0.05, "max_iter": 3, "history_size": 1},
    ],
    ids=str,
)
def test_iterates_are_torchs_for_20_steps(
    problem: Callable[..., Problem], options: dict[str, Any]
) -> None:
    assert_same_run(problem, torch.float64, 20, 1e-6, **options)


@pytest.mark.parametrize("problem", [rosenbrock, logistic])
@pytest.mark.parametrize(
    "options", [{"line_search_fn": "strong_wolfe", "max_iter": 1}, {"lr": 1e-3}], ids=str
)
def test_float32_iterates_are_torchs_where_rounding_does_not_grow(
    problem: Callable[..., Problem], options: dict[str, Any]
) -> None:
    assert_same_run(problem, torch.float32, 20, 2e-6, **options)


@BOTH
@pytest.mark.parametrize("problem", [rosenbrock, logistic])
def test_float32_comes_to_the_minimum_as_near_as_torch(
    problem: Callable[..., Problem], search: str | None
) -> None:
    ours, theirs = (
        Run(cls, problem, torch.float32, line_search_fn=search) for cls in (LBFGS, TORCH)
    )
    best = Run(TORCH, problem, torch.float64, line_search_fn="strong_wolfe", tolerance_change=0)
    losses = [[run.step() for _ in range(20)][-1] for run in (ours, theirs, best)]
    assert losses[0] - losses[2] <= max(losses[1] - losses[2], 1e-6 * max(losses[2], 1e-2))


# ---- stopping -------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    "options",
    [
        {"max_iter": 0},
        {"max_iter": 1},
        {"max_iter": 7},
        {"max_iter": 30, "max_eval": 1},
        {"max_iter": 30, "max_eval": 2},
        {"max_iter": 30, "max_eval": 9},
        {"tolerance_grad": 1e3},
        {"max_iter": 60, "tolerance_grad": 1e-2, "tolerance_change": 0.0},
        {"max_iter": 60, "tolerance_change": 1e-3},
        {"max_iter": 60, "tolerance_change": 10.0},
    ],
    ids=str,
)
def test_stops_where_torch_stops(options: dict[str, Any], search: str | None) -> None:
    ours = assert_same_run(quadratic, torch.float64, 4, 1e-6, line_search_fn=search, **options)
    assert ours.optimizer.step_count == ours.counts()[2]


def test_max_eval_defaults_to_a_quarter_more_than_max_iter() -> None:
    group = LBFGS([torch.zeros(1)], max_iter=7).param_groups[0]
    assert group["max_eval"] == TORCH([torch.zeros(1)], max_iter=7).param_groups[0]["max_eval"] == 8


# ---- the direction --------------------------------------------------------------------------


def two_loop(gradient: Tensor, steps: list[Tensor], changes: list[Tensor], kind: Any) -> Any:
    """Nocedal and Wright, Algorithm 7.4, line by line."""
    q, s_all, y_all = (
        gradient.numpy().astype(kind),
        [s.numpy().astype(kind) for s in steps],
        [y.numpy().astype(kind) for y in changes],
    )
    pairs = list(zip(s_all, y_all, strict=True))
    alphas = []
    for s, y in reversed(pairs):
        alphas.append((s @ q) / (y @ s))
        q = q - alphas[-1] * y
    s, y = pairs[-1]
    r = (s @ y) / (y @ y) * q
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        r = r + s * (alpha - (y @ r) / (y @ s))
    return -r


def direction_errors(n: int, dtype: torch.dtype, moves: int, size: int) -> tuple[float, float]:
    """The largest relative errors of ours and of a two-loop in the same precision."""
    generator = torch.Generator().manual_seed(n)
    curvature = torch.logspace(0, 3, n, dtype=dtype)
    x = torch.randn(n, generator=generator, dtype=dtype)
    history = History(size, x, [], [])
    previous, d, worst = curvature * x, -curvature * x, (0.0, 0.0)
    for _ in range(moves):
        t = float(-(previous @ d) / (d @ (curvature * d))) * 0.9
        x = x + t * d
        gradient = curvature * x
        d = history.direction(gradient, previous, d, t)
        exact = two_loop(gradient, history.steps, history.changes, np.longdouble)
        plain = two_loop(gradient, history.steps, history.changes, gradient.numpy().dtype.type)
        scale = np.linalg.norm(exact)
        errors = [float(np.linalg.norm(v - exact) / scale) for v in (d.numpy(), plain)]
        worst = max(worst[0], errors[0]), max(worst[1], errors[1])
        previous = gradient
    assert len(history.order) == min(moves, size)
    return worst


@pytest.mark.parametrize(("moves", "size"), [(1, 5), (5, 5), (30, 5), (7, 8), (40, 100), (9, 1)])
def test_float64_direction_is_the_two_loop_recursions(moves: int, size: int) -> None:
    assert direction_errors(50, torch.float64, moves, size)[0] < 1e-12


def test_float32_direction_is_rounded_once_up_to_a_block() -> None:
    assert direction_errors(BLOCK, torch.float32, 20, 8)[0] < 6e-8  # half a unit in the last place


def test_float32_direction_of_many_columns_is_near_the_two_loops() -> None:
    ours, plain = direction_errors(10 * BLOCK + 3, torch.float32, 20, 8)
    assert ours < 4 * plain
    assert ours < 1e-6


@pytest.mark.parametrize("n", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
@pytest.mark.parametrize(
    ("dtype", "bound"),
    [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 1e-6), (torch.float16, 1e-6)],
)
def test_products(n: int, dtype: torch.dtype, bound: float) -> None:
    rows, vectors = torch.rand(7, n).to(dtype), torch.rand(2, n).to(dtype)
    found = products(rows, vectors)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, rows.double() @ vectors.double().T, rtol=bound, atol=0)


def test_a_pair_without_curvature_leaves_the_others_untouched() -> None:
    """Even one of NaN or Inf, and wherever the ring's spare row then is."""
    x = torch.randn(4, dtype=torch.float64)
    history = History(2, x, [], [])
    for _ in range(3):  # the ring is full and has turned
        y = torch.rand(4, dtype=torch.float64)
        history.direction(x + y, x, y, 0.5)
    before = copy.deepcopy((history.steps, history.changes))
    expected = two_loop(x, *before, np.float64)
    for bad in (math.nan, math.inf, -math.inf):
        d = history.direction(x, torch.full_like(x, bad), x, 1.0)
        np.testing.assert_allclose(d.numpy(), expected, rtol=1e-12)
        for kept, old in zip((history.steps, history.changes), before, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(kept, old, strict=True))


# ---- the line search ------------------------------------------------------------------------


@pytest.mark.parametrize(("a", "b"), [(0.0, 3.0), (3.0, 0.0), (-1.0, 2.5), (0.5, 0.9)])
def test_cubic_minimizer_is_exact_on_a_cubic(a: float, b: float) -> None:
    """t^3 - 2 t^2 + 1 has its minimum at 4/3; beyond the bounds, the nearer bound."""

    def point(t: float) -> Point:
        slope = torch.tensor(3 * t**2 - 4 * t, dtype=torch.float64)
        return Point(t, t**3 - 2 * t**2 + 1, slope, slope)

    expected = min(max(4 / 3, min(a, b)), max(a, b))
    assert cubic_minimizer(point(a), point(b)) == pytest.approx(expected, abs=1e-12)
    assert cubic_minimizer(point(a), point(b), (1.4, 2.0)) == pytest.approx(1.4)


def test_cubic_minimizer_without_a_minimizer_is_the_middle() -> None:
    def point(t: float, loss: float, slope: float) -> Point:
        return Point(t, loss, torch.zeros(1), torch.tensor(slope, dtype=torch.float64))

    assert cubic_minimizer(point(0.0, 0.0, -1.0), point(2.0, -2.0, -1.5)) == 1.0
    assert cubic_minimizer(point(0.0, math.nan, -1.0), point(2.0, 0.0, 1.0)) == 1.0
    assert cubic_minimizer(point(1.0, 0.0, -1.0), point(1.0, 0.0, -1.0), (1.0, 5.0)) == 3.0


LINES: dict[str, Callable[[Tensor], Tensor]] = {
    "parabola": lambda t: (t - 1) ** 2,
    "far": lambda t: (t - 40) ** 2,
    "near": lambda t: (t - 1e-3) ** 2,
    "quartic": lambda t: (t - 2) ** 4 - t,
    "wavy": lambda t: torch.cos(3 * t + 0.5) + 0.05 * (t - 2) ** 2,
    "more-thuente": lambda t: -t / (t**2 + 2),
    "steep": lambda t: torch.exp(2 * t) - 20 * t,
    "downwards": lambda t: -t,
    "wall": lambda t: -torch.log(1 - t) - 3 * t,  # NaN from t = 1 on
    "overflow": lambda t: torch.exp(50 * t) - 300 * t,
}


def along(line: Callable[[Tensor], Tensor], t: float) -> tuple[float, Tensor]:
    at = torch.tensor(t, dtype=torch.float64, requires_grad=True)
    value = line(at)
    (slope,) = torch.autograd.grad(value, at)
    return value.item(), slope.reshape(1)


@pytest.mark.parametrize("line", LINES.values(), ids=list(LINES))
@pytest.mark.parametrize("first", [1e-3, 0.3, 0.9, 1.0, 5.0, 100.0])
@pytest.mark.parametrize("max_ls", [0, 1, 3, 25])
def test_line_search_decides_as_torchs(
    line: Callable[[Tensor], Tensor], first: float, max_ls: int
) -> None:
    visited: list[list[float]] = [[], []]
    d = torch.ones(1, dtype=torch.float64)

    def evaluate(t: float) -> Point:
        visited[0].append(t)
        loss, gradient = along(line, t)
        return Point(t, loss, gradient, gradient.dot(d))

    def objective(x: Any, t: Any, d: Tensor) -> tuple[float, Tensor]:
        visited[1].append(float(t))
        return along(line, float(t))

    loss, gradient = along(line, 0.0)
    start = Point(0.0, loss, gradient, gradient.dot(d))
    point, used = strong_wolfe(evaluate, start, first, 1.0, max_ls=max_ls)
    expected = torchs_strong_wolfe(
        objective, None, first, d, loss, gradient, gradient.dot(d), max_ls=max_ls
    )
    assert used == expected[3] == len(visited[0]) <= max_ls + 1
    np.testing.assert_allclose(visited[0], visited[1], rtol=1e-9)
    assert point.t == pytest.approx(float(expected[2]), rel=1e-9, nan_ok=True)
    assert point.loss == pytest.approx(expected[0], rel=1e-9, abs=1e-12, nan_ok=True)
    if max_ls == 25 and math.isfinite(point.loss) and line is not LINES["downwards"]:
        assert point.loss <= loss + 1e-4 * point.t * start.slope
        assert abs(point.slope) <= -0.9 * start.slope


# ---- where the function is not defined ------------------------------------------------------


def saddle_of_logarithm(dtype: torch.dtype) -> Problem:
    """Defined for x > 0; the minimum, -148.8755, lies at (0.3585, 7.9252)."""
    v = torch.tensor([1.0, 0.0], dtype=dtype, requires_grad=True)

    def loss() -> Tensor:
        x, y = v
        square = 143.42357 * x**2 + 23.90574 * x * y + y**2
        return square - 0.13784 * x.log() - 291.90029 * x - 24.41997 * y

    return [v], loss


def walls(dtype: torch.dtype) -> Problem:
    """Defined for 0 < v < 1 only."""
    v = torch.tensor([0.9, 0.01], dtype=dtype, requires_grad=True)
    return [v], lambda: 3 * v.sum() - (1 - v).log().sum() - v.log().sum()


def wall(dtype: torch.dtype) -> Problem:
    """Defined for x < 1 only; the minimum lies at 1 - 1/30."""
    x = torch.tensor([0.9, 0.2], dtype=dtype, requires_grad=True)
    return [x], lambda: -torch.log(1 - x).sum() - 30 * x.sum()


def square_root(dtype: torch.dtype) -> Problem:
    """The loss below 0 is defined, its slope is not; the minimum, -1/4, lies at 1/4."""
    v = torch.tensor([4.0], dtype=dtype, requires_grad=True)
    return [v], lambda: (v - (v * (v > 0)).sqrt()).sum()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("lr", [0.1, 1, 10, 1e3])
@pytest.mark.parametrize(
    ("problem", "minimum"),
    [(saddle_of_logarithm, -148.8755), (walls, 4.842), (wall, -51.1976), (square_root, -0.25)],
)
def test_a_search_turns_back_from_where_the_loss_is_nan(
    problem: Callable[..., Problem], minimum: float, lr: float, dtype: torch.dtype
) -> None:
    run = Run(LBFGS, problem, dtype, lr=lr, line_search_fn="strong_wolfe")
    losses = [run.step() for _ in range(8)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == pytest.approx(minimum, abs=1e-2)
    assert run.x().isfinite().all()


def test_without_a_search_a_step_to_where_the_loss_is_nan_is_made_as_by_torch() -> None:
    assert_same_run(wall, torch.float64, 5, 1e-6, max_iter=6)


# ---- checkpoints and copies -----------------------------------------------------------------


def through_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@BOTH
@pytest.mark.parametrize("before", [0, 1, 2, 6])
@pytest.mark.parametrize(("first", "second"), [(LBFGS, TORCH), (TORCH, LBFGS), (LBFGS, LBFGS)])
def test_a_checkpoint_goes_on_as_the_run_it_was_taken_from(
    first: Any, second: Any, before: int, search: str | None
) -> None:
    options: dict[str, Any] = {
        "line_search_fn": search, "max_iter": 4, "history_size": 6, "lr": 0.3,
    }  # fmt: skip
    saver, whole = (Run(cls, quadratic, torch.float64, **options) for cls in (first, TORCH))
    for _ in range(before):
        saver.step()
        whole.step()
    loader = Run(second, quadratic, torch.float64)  # the options come with the checkpoint
    loader.take(saver.params)
    loader.optimizer.load_state_dict(through_file(saver.optimizer.state_dict()))
    for _ in range(4):
        loss = loader.step()
        assert loss == pytest.approx(whole.step(), rel=1e-9)
        torch.testing.assert_close(loader.x(), whole.x(), rtol=1e-6, atol=1e-9)
    if before:
        assert loader.counts()[1:] == whole.counts()[1:]


def test_state_is_torchs() -> None:
    ours, theirs = (Run(c, quadratic, torch.float64, history_size=5) for c in (LBFGS, TORCH))
    ours.step(), theirs.step()
    own, other = (run.optimizer.state_dict() for run in (ours, theirs))
    assert own["param_groups"] == other["param_groups"]
    own, other = own["state"][0], other["state"][0]
    assert own.keys() == other.keys()
    for key, value in other.items():
        assert isinstance(own[key], list) == isinstance(value, list)
        if isinstance(value, list):
            assert len(own[key]) == len(value) == 5
    for key in ("d", "prev_flat_grad", "old_dirs", "old_stps", "ro", "al"):
        torch.testing.assert_close(own[key], other[key], rtol=1e-6, atol=1e-9)
    for key in ("func_evals", "n_iter", "t", "prev_loss", "H_diag"):
        assert float(own[key]) == pytest.approx(float(other[key]), rel=1e-9)


def test_state_dict_is_a_copy_of_what_is_used_only() -> None:
    run = Run(LBFGS, quadratic, torch.float64, history_size=3, max_iter=4, lr=0.3)
    for _ in range(3):
        run.step()
    saved = run.optimizer.state_dict()
    kept = copy.deepcopy(saved)
    for _ in range(3):  # turns the ring, whose rows are written to again
        run.step()
    torch.testing.assert_close(saved["state"], kept["state"], rtol=0, atol=0)
    rows = saved["state"][0]["old_dirs"] + saved["state"][0]["old_stps"]
    assert all(row.untyped_storage().nbytes() == row.nbytes for row in rows)


@BOTH
@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))],
    ids=["deepcopy", "pickle"],
)
def test_copies_go_on_alone(duplicate: Any, search: str | None) -> None:
    run = Run(
        LBFGS, quadratic, torch.float64, line_search_fn=search, max_iter=3, history_size=4, lr=0.3
    )
    for _ in range(3):
        run.step()
    twin = Run(LBFGS, quadratic, torch.float64)
    twin.optimizer = duplicate(run.optimizer)
    twin.params[:] = twin.optimizer.param_groups[0]["params"]
    (x,) = twin.params
    curvature = torch.logspace(0, 2, 30, dtype=torch.float64)
    twin.closure = closure_of(
        twin.optimizer, lambda: 0.5 * (curvature * x * x).sum() + 0.1 * x.pow(4).sum(), twin.calls
    )
    before = run.x()
    moved = [(twin.step(), twin.x()) for _ in range(3)]
    assert torch.equal(run.x(), before)
    for loss, at in moved:
        assert run.step() == pytest.approx(loss, rel=1e-9)
        torch.testing.assert_close(run.x(), at, rtol=1e-9, atol=1e-12)


def test_a_smaller_history_keeps_the_newest_pairs() -> None:
    run = Run(LBFGS, quadratic, torch.float64, max_iter=8, history_size=6, lr=0.3)
    run.step()
    newest = [s.clone() for s in run.optimizer.state[run.params[0]]["old_stps"]][-2:]
    run.optimizer.param_groups[0].update(history_size=3, max_iter=1)
    run.step()
    kept = run.optimizer.state[run.params[0]]["old_stps"]
    assert len(kept) == 3
    torch.testing.assert_close(kept[:2], newest, rtol=0, atol=0)


def test_a_checkpoint_from_before_the_first_step() -> None:
    run, fresh = (Run(LBFGS, quadratic, torch.float64) for _ in range(2))
    assert run.optimizer.step_count == 0
    assert run.optimizer.state_dict()["state"] == {}
    run.step()
    run.optimizer.load_state_dict({**fresh.optimizer.state_dict(), "state": {0: {}}})
    run.take(fresh.params)
    assert run.step() == fresh.step()


def test_clearing_the_state_starts_anew() -> None:
    run, fresh = (Run(LBFGS, quadratic, torch.float64) for _ in range(2))
    run.step()
    run.optimizer.state.clear()
    run.take(fresh.params)
    assert run.step() == fresh.step()
    assert torch.equal(run.x(), fresh.x())


def _spoilt() -> dict[str, Callable[[dict[str, Any]], Any]]:
    return {
        "not a dict": lambda s: 3,
        "no groups": lambda s: {"state": s["state"]},
        "unknown state": lambda s: s["state"][0].update(exp_avg=torch.zeros(30)),
        "no d": lambda s: s["state"][0].pop("d"),
        "no count": lambda s: s["state"][0].pop("n_iter"),
        "d too short": lambda s: s["state"][0].update(d=torch.zeros(29)),
        "a row too long": lambda s: s["state"][0]["old_dirs"].__setitem__(0, torch.zeros(31)),
        "a row is no tensor": lambda s: s["state"][0]["old_stps"].__setitem__(0, 1.0),
        "a row is missing": lambda s: s["state"][0]["old_stps"].pop(),
        "another parameter's": lambda s: s["state"].update({1: s["state"].pop(0)}),
        "option missing": lambda s: s["param_groups"][0].pop("history_size"),
        "option out of range": lambda s: s["param_groups"][0].update(lr=-1.0),
        "unknown search": lambda s: s["param_groups"][0].update(line_search_fn="armijo"),
    }


@pytest.mark.parametrize("fault", _spoilt())
def test_a_state_dict_that_does_not_fit_changes_nothing(fault: str) -> None:
    run, twin = (Run(LBFGS, quadratic, torch.float64, max_iter=3) for _ in range(2))
    run.step(), twin.step()
    state = run.optimizer.state_dict()
    changed = _spoilt()[fault](state)
    state = changed if fault in ("not a dict", "no groups") else state
    with pytest.raises((TypeError, ValueError, RuntimeError), match="LBFGS"):
        run.optimizer.load_state_dict(state)
    for _ in range(2):
        assert run.step() == twin.step()
        assert torch.equal(run.x(), twin.x())


def test_load_hooks_see_and_may_replace_the_state_dict() -> None:
    saver, loader = (Run(LBFGS, quadratic, torch.float64, max_iter=3) for _ in range(2))
    saver.step()
    saved, seen = saver.optimizer.state_dict(), []
    loader.optimizer.register_load_state_dict_pre_hook(lambda optimizer, given: saved)
    loader.optimizer.register_load_state_dict_post_hook(lambda o: seen.append(o.step_count))
    loader.optimizer.load_state_dict({})
    assert seen == [saver.optimizer.step_count] != [0]


# ---- kinds of parameters, gradients and losses ----------------------------------------------


def _mixed(dtype: torch.dtype) -> Problem:
    """One parameter has no gradient, one is a scalar."""
    a = torch.linspace(-1, 1, 6, dtype=dtype).reshape(2, 3).requires_grad_()
    unused = torch.ones(4, dtype=dtype, requires_grad=True)
    c = torch.linspace(1, 2, 6, dtype=dtype).reshape(2, 3).requires_grad_()
    b = torch.tensor(0.5, dtype=dtype, requires_grad=True)
    return [
        a,
        unused,
        c,
        b,
    ], lambda: (a * c - b).square().sum() + (b - 1) ** 2 + (a + c).pow(4).sum()


def _complex(dtype: torch.dtype) -> Problem:
    kind = {torch.float32: torch.complex64, torch.float64: torch.complex128}[dtype]
    z = torch.linspace(-1, 1, 5, dtype=dtype).to(kind).mul(1 + 2j).requires_grad_()
    x = torch.ones(3, dtype=dtype, requires_grad=True)
    target = torch.linspace(0, 1, 5, dtype=dtype).to(kind).mul(3 - 1j)
    return (
        [z, x],
        lambda: (
            ((z - target).abs().square() * (1 + z.abs().square())).sum()
            + (x - z.real.sum()).pow(2).sum()
        ),
    )


def _sparse(dtype: torch.dtype) -> Problem:
    table = torch.linspace(-1, 1, 12, dtype=dtype).reshape(6, 2).requires_grad_()
    rows = torch.tensor([0, 2, 2, 5])

    def loss() -> Tensor:
        taken = torch.nn.functional.embedding(rows, table, sparse=True)
        return (taken - 0.7).square().sum() + taken.pow(4).sum()

    return [table], loss


@BOTH
@pytest.mark.parametrize("problem", [_mixed, _complex, _sparse])
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_kinds_of_parameters_as_torch(problem: Callable[..., Problem], search: str | None) -> None:
    assert_same_run(problem, torch.float64, 5, 1e-6, line_search_fn=search, max_iter=6)


@BOTH
def test_parameters_that_are_not_contiguous(search: str | None) -> None:
    """torch's cannot flatten their gradients."""

    def turned(dtype: torch.dtype) -> Problem:
        (a, unused, c, b), _ = _mixed(dtype)
        c = c.detach().T.contiguous().T.requires_grad_()
        assert not c.is_contiguous()
        return [
            a,
            unused,
            c,
            b,
        ], lambda: (a * c - b).square().sum() + (b - 1) ** 2 + (a + c).pow(4).sum()

    runs = [Run(LBFGS, p, torch.float64, line_search_fn=search) for p in (turned, _mixed)]
    for _ in range(3):
        assert runs[0].step() == pytest.approx(runs[1].step(), rel=1e-9)
    torch.testing.assert_close(runs[0].x(), runs[1].x(), rtol=1e-9, atol=1e-9)


@BOTH
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_a_number(bad: float, search: str | None) -> None:
    def broken(dtype: torch.dtype) -> Problem:
        x = torch.ones(3, dtype=dtype, requires_grad=True)
        return [x], lambda: (x * x).sum() * bad

    assert_same_run(broken, torch.float64, 3, 1e-6, line_search_fn=search)


@BOTH
def test_tensor_lr_and_closure_of_a_float(search: str | None) -> None:
    runs = []
    for cls in (LBFGS, TORCH):
        lr = torch.tensor([0.1], dtype=torch.float64)
        run = Run(cls, rosenbrock, torch.float64, lr=lr, line_search_fn=search, max_iter=4)
        inner = run.closure
        run.closure = lambda inner=inner: inner().item()  # type: ignore[misc]
        for _ in range(3):
            assert isinstance(run.optimizer.step(run.closure), float)
        runs.append(run.x())
    torch.testing.assert_close(*runs, rtol=1e-9, atol=1e-9)


def test_the_closure_may_need_gradients_and_the_step_is_seen_by_autograd() -> None:
    run = Run(LBFGS, quadratic, torch.float64)
    (x,) = run.params
    version = x._version
    with torch.no_grad():
        run.step()
    assert x._version > version
    assert x.requires_grad
    assert x.is_leaf


def test_hooks_fire_once_a_step() -> None:
    run, seen = Run(LBFGS, quadratic, torch.float64), []
    run.optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    run.optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    run.step()
    assert seen == ["before", "after"]


# ---- errors ---------------------------------------------------------------------------------


def test_step_needs_a_closure() -> None:
    optimizer = LBFGS([torch.zeros(2, requires_grad=True)])
    for call in (optimizer.step, lambda: optimizer.step(None), lambda: optimizer.step(3)):
        with pytest.raises(TypeError, match=r"pass a function that .* returns the loss"):
            call()


def test_one_group_only() -> None:
    a, b = torch.zeros(1), torch.zeros(1)
    for cls in (LBFGS, TORCH):
        with pytest.raises(ValueError, match=r"parameter group"):
            cls([{"params": [a]}, {"params": [b]}])
    optimizer = LBFGS([a])
    with pytest.raises(ValueError, match="one LBFGS per group"):
        optimizer.add_param_group({"params": [b]})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"lr": -0.1}, ValueError, "lr must be >= 0, got -0.1"),
        ({"lr": math.nan}, ValueError, "lr must be >= 0, got nan"),
        ({"lr": torch.ones(2)}, ValueError, "lr must be 1-element"),
        ({"history_size": 0}, ValueError, "history_size must be >= 1, got 0"),
        ({"line_search_fn": "armijo"}, RuntimeError, "'strong_wolfe', got 'armijo'"),
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LBFGS([torch.zeros(1)], **options)


def test_a_line_search_set_later_is_checked_too() -> None:
    run = Run(LBFGS, quadratic, torch.float64)
    run.optimizer.param_groups[0]["line_search_fn"] = "wolfe"
    before = run.x()
    with pytest.raises(RuntimeError, match="got 'wolfe'"):
        run.step()
    assert torch.equal(run.x(), before)


def test_a_state_dict_can_be_loaded_again() -> None:
    """torch adds an option to the defaults, not to the groups, when it loads one."""
    optimizer = LBFGS([torch.zeros(2, requires_grad=True)])
    for _ in range(3):
        optimizer.load_state_dict(optimizer.state_dict())
