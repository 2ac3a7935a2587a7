"""Seeded problems for comparing optimizers, and the machinery of the comparison.

Gradients are fixed seeded sequences, not functions of the parameters: a rounding error then stays
an error and does not grow as two trajectories part. All values are rounded to the storage dtype
under test first, so that runs in every precision start from and are fed the same numbers.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.optim.cases import CASES as CASES
from tests.optim.cases import DATABASE as DATABASE
from tests.optim.cases import DENSE as DENSE
from tests.optim.cases import FULLEST as FULLEST
from tests.optim.cases import SHARED as SHARED
from tests.optim.cases import SHARED_CASES as SHARED_CASES
from tests.optim.cases import SHARED_FULLEST as SHARED_FULLEST
from tests.optim.cases import Case as Case
from tests.optim.cases import as_double, in_torch
from tests.optim.cases import defaults as defaults
from tests.optim.exact import bits as bits
from tests.optim.exact import snapshot as snapshot
from tests.references.optimizers import RULES
from thalweg.optim.catalogue import classes

STEPS = 20
# torch warns once per process when it makes a sparse tensor unchecked, as its own Adagrad does.
torchs_sparse_warning = pytest.mark.filterwarnings("ignore:Sparse invariant checks")


# --------------------------------------------------------------------------------------- problems


def _as_is(x: Tensor) -> Tensor:
    return x.contiguous()


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _transposed(x: Tensor) -> Tensor:
    return x.t().contiguous().t()


def _sliced(x: Tensor) -> Tensor:
    """Every other element of a buffer: not dense."""
    wide = torch.full((2 * x.numel(),), 7.0, dtype=x.dtype)
    wide[::2] = x
    return wide[::2]


def _expanded(x: Tensor) -> Tensor:
    """Stride 0, as the gradient of a plain sum is."""
    return x[:1].expand(x.shape)


@dataclass(frozen=True)
class Entry:
    """One parameter: shape, memory layouts, and the steps (from 0) at which it has a gradient."""

    shape: tuple[int, ...]
    parameter: Callable[[Tensor], Tensor] = _as_is
    gradient: Callable[[Tensor], Tensor] = _as_is
    present: Callable[[int], bool] = lambda step: True


GROUPS: list[dict[str, Entry]] = [
    {  # the options of the case
        "matrix": Entry((7, 5)),
        "empty": Entry((0, 3)),
        "late": Entry((3,), present=lambda step: step >= 4),
        "columns": Entry((5, 4), parameter=_transposed),
        "bulk": Entry((1501,)),  # enough elements for a comparison of errors not to be chance
    },
    {  # half its lr
        "image": Entry((2, 3, 5, 3), parameter=_channels_last),
        "scalar": Entry(()),
        "expanded": Entry((5,), gradient=_expanded),
        "rests": Entry((9,), present=lambda step: step % 3 != 1),
    },
    {  # and options of its own
        "vector": Entry((67,)),
        "turned": Entry((6, 4), gradient=_transposed),
        "sliced": Entry((11,), gradient=_sliced),
    },
]
ENTRIES: dict[str, Entry] = {name: entry for group in GROUPS for name, entry in group.items()}


class Problem:
    """Initial values and ``STEPS`` gradients for every entry, representable in ``dtype``."""

    def __init__(self, dtype: torch.dtype, seed: int = 0, *, steps: int = STEPS) -> None:
        self.dtype, self.seed, self.steps = dtype, seed, steps
        generator = torch.Generator().manual_seed(seed)

        def draw(shape: tuple[int, ...]) -> Tensor:
            wide = torch.complex128 if dtype.is_complex else torch.float64
            drawn = torch.randn(shape, dtype=wide, generator=generator)
            return drawn.to(dtype).to(wide)

        self.start = {name: draw(entry.shape) for name, entry in ENTRIES.items()}
        self.gradients: list[dict[str, Tensor]] = [
            {
                # Layouts that repeat a value define the values, so they are applied here too.
                name: entry.gradient(draw(entry.shape)).contiguous()
                for name, entry in ENTRIES.items()
                if entry.present(step)
            }
            for step in range(steps)
        ]

    def parameters(self, dtype: torch.dtype) -> dict[str, Tensor]:
        return {
            name: entry.parameter(self.start[name].to(dtype, copy=True)).requires_grad_()
            for name, entry in ENTRIES.items()
        }

    def feed(self, parameters: dict[str, Tensor], step: int) -> None:
        """Set every gradient of this step, in its layout; None where there is none."""
        for name, p in parameters.items():
            g = self.gradients[step].get(name)
            p.grad = None if g is None else ENTRIES[name].gradient(g.to(p.dtype))

    def looks_at_state(self, step: int) -> bool:
        """Whether the states are recorded after this step: every fifth, and the last."""
        return step % 5 == 4 or step == self.steps - 1

    def groups(self, case: Case, parameters: dict[str, Any], *, double: bool) -> list[Any]:
        """The three groups with their options, in the way an optimizer takes them."""
        lr = as_double(case.lr) if double else case.lr
        overrides = [{}, {"lr": lr * 0.5}, case.own]
        return [
            {"params": [parameters[name] for name in group], **override}
            for group, override in zip(GROUPS, overrides, strict=True)
        ]


@functools.cache
def problem(dtype: torch.dtype) -> Problem:
    return Problem(dtype)


# ------------------------------------------------------------------------------------------- runs


@dataclass
class Run:
    """A trajectory: ``points[name]`` (steps, elements), ``state[name][key]`` (looks, elements)."""

    points: dict[str, Tensor]
    state: dict[str, dict[str, Any]]
    optimizer: torch.optim.Optimizer | None = None
    parameters: dict[str, Tensor] = field(default_factory=dict)


def _flat(x: Tensor) -> Tensor:
    """Elements in row-major order, in float64 (complex as pairs), detached from the original."""
    x = x.detach()
    wide = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
    return wide.to(torch.float64, copy=True).reshape(-1)


def flat_state(optimizer: torch.optim.Optimizer, p: Tensor) -> dict[str, Tensor]:
    return {key: _flat(torch.as_tensor(value)) for key, value in optimizer.state[p].items()}


def change_lr(optimizer: torch.optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * 0.25


def start(
    make: Callable[..., torch.optim.Optimizer],
    case: Case,
    given: Problem,
    dtype: torch.dtype,
    *,
    double: bool = False,
    trainable: bool = True,
    **flags: Any,
) -> Run:
    """An optimizer on the problem's parameters, before its first step."""
    parameters = given.parameters(dtype)
    for p in parameters.values():
        p.requires_grad_(trainable)
    groups = given.groups(case, parameters, double=double)
    return Run({}, {}, make(groups, **(case.options(double=double) | flags)), parameters)


def advance(of: Run, given: Problem, begin: int = 0, end: int | None = None) -> Run:
    """Take the steps ``begin`` to ``end``; lr falls to a quarter half way through the problem."""
    optimizer, parameters = of.optimizer, of.parameters
    assert optimizer is not None
    points: dict[str, list[Tensor]] = {name: [] for name in parameters}
    states: dict[str, list[dict[str, Tensor]]] = {name: [] for name in parameters}
    for step in range(begin, given.steps if end is None else end):
        if step == given.steps // 2:
            change_lr(optimizer)
        given.feed(parameters, step)
        optimizer.step()
        for name, p in parameters.items():
            points[name].append(_flat(p))
            if given.looks_at_state(step):
                states[name].append(flat_state(optimizer, p))
    of.points = {name: torch.stack(path) for name, path in points.items()}
    of.state = {name: _stacked(looks) for name, looks in states.items()}
    return of


def _stacked(looks: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {key: torch.stack([look[key] for look in looks]) for key in (looks or [{}])[0]}


def run(
    make: Callable[..., torch.optim.Optimizer],
    case: Case,
    given: Problem,
    dtype: torch.dtype,
    **flags: Any,
) -> Run:
    """Follow the whole problem."""
    return advance(start(make, case, given, dtype, **flags), given)


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


_references: dict[tuple[str, torch.dtype, int, int], Run] = {}


def torch_run(case: Case, given: Problem, dtype: torch.dtype, **flags: Any) -> Run:
    """torch.optim's single-tensor path, which its documentation calls the original one."""
    return run(getattr(torch.optim, case.name), case, given, dtype, foreach=False, **flags)


def peer_run(case: Case, given: Problem, dtype: torch.dtype, **flags: Any) -> Run:
    """torch.optim in this precision, or the paper where torch has no such optimizer."""
    if in_torch(case.name):
        return torch_run(case, given, dtype, **flags)
    return paper_run(case, given, NUMPY[dtype])


def exact_run(case: Case, given: Problem) -> Run:
    """torch.optim in float64, or the paper where torch has no such optimizer.

    The default dtype is float64 meanwhile: torch keeps scalar states (NAdam's ``mu_product``,
    ASGD's ``eta``) in the default dtype, and with float32 its float64 run is good to 1e-7 only.
    """
    key = (str(case), given.dtype, given.seed, given.steps)
    if key not in _references:
        wide = torch.complex128 if given.dtype.is_complex else torch.float64
        with default_dtype(torch.float64):
            _references[key] = peer_run(case, given, wide, double=True)
    return _references[key]


NUMPY = {torch.float64: np.float64, torch.float32: np.float32}


def paper_run(case: Case, given: Problem, dtype: Any = np.float64) -> Run:
    """The numpy references of ``tests/references`` on the same problem."""
    counted = classes()[case.name].rule.counted
    points: dict[str, Tensor] = {}
    state: dict[str, dict[str, Tensor]] = {}
    for override in given.groups(case, {name: name for name in ENTRIES}, double=True):
        options = defaults(case.name) | case.options(double=True) | override
        h = SimpleNamespace(**{key: _numbers(value) for key, value in options.items()})
        lr = h.lr
        for name in override["params"]:
            h.lr, t = lr, 0
            p, s, path = given.start[name].numpy().astype(dtype), {}, []
            looks: list[dict[str, Tensor]] = []
            for step in range(given.steps):
                if step == given.steps // 2:
                    h.lr = lr * 0.25
                if name in given.gradients[step]:
                    t += 1
                    g = given.gradients[step][name].numpy().astype(dtype)
                    p = RULES[case.name](p, -g if h.maximize else g, s, t, h)
                path.append(_flat(torch.as_tensor(np.array(p))))
                if given.looks_at_state(step):
                    now = {"step": float(t)} | s if counted else s
                    looks.append({k: _flat(torch.as_tensor(np.array(v))) for k, v in now.items()})
            points[name] = torch.stack(path)
            state[name] = _stacked(looks)
    return Run(points, state)


def _numbers(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_numbers, value))
    return value.item() if isinstance(value, Tensor) else value


# ------------------------------------------------------------------------------------ comparisons


def largest(x: Tensor) -> float:
    return x.abs().max().item() if x.numel() else 0.0


def ulp(magnitude: float, dtype: torch.dtype) -> float:
    """The spacing of ``dtype``'s numbers at ``magnitude``."""
    info = torch.finfo(dtype)
    return float(info.eps * 2.0 ** np.floor(np.log2(max(magnitude, info.tiny))))


def pieces(of: Run) -> Iterator[tuple[str, Tensor]]:
    """Every recorded tensor of a run by name: trajectories, then states."""
    yield from of.points.items()
    for name, state in of.state.items():
        for key, value in state.items():
            yield f"{name}.{key}", value


def assert_same_layout(ours: Run, theirs: Run) -> None:
    """The same states in the same order for every parameter."""
    mine, other = ({name: list(state) for name, state in of.state.items()} for of in (ours, theirs))
    assert mine == other


def assert_relative(ours: Run, exact: Run, tolerance: float) -> None:
    """Every tensor within ``tolerance`` of its largest magnitude."""
    expected = dict(pieces(exact))
    for name, value in pieces(ours):
        want = expected[name]
        error, bound = largest(value - want), tolerance * largest(want)
        assert error <= bound, f"{name}: error {error:.3g}, allowed {bound:.3g}"


def largest_errors(of: Run, exact: Run, dtype: torch.dtype) -> dict[str, float]:
    """For the parameters and for each state the largest error, in units in the last place.

    The unit is that of the tensor's largest magnitude. The maximum is taken over all tensors: that
    of a single small one is decided by the luck of a few roundings.
    """
    errors: dict[str, float] = {}
    expected = dict(pieces(exact))
    for name, value in pieces(of):
        kind = name.partition(".")[2] or "parameters"
        want = expected[name]
        error = largest(value - want) / ulp(largest(want), dtype)
        errors[kind] = max(errors.get(kind, 0.0), error)
    return errors


def assert_as_close(
    ours: Run, theirs: Run, exact: Run, dtype: torch.dtype, units: float = 4.0
) -> None:
    """The largest error at most 1.5 times theirs, or so many units in the last place."""
    others = largest_errors(theirs, exact, dtype)
    for kind, error in largest_errors(ours, exact, dtype).items():
        bound = max(1.5 * others[kind], units)
        assert error <= bound, f"{kind}: {error:.3g} ulp, theirs {others[kind]:.3g}"


def assert_refused(optimizer: Any, state_dict: Any, words: tuple[str, ...] = ()) -> None:
    """Loading raises, names what does not fit, and changes neither side."""
    before = snapshot(optimizer)
    given = bits(state_dict) if isinstance(state_dict, dict) else None
    with pytest.raises((ValueError, KeyError, TypeError)) as caught:
        optimizer.load_state_dict(state_dict)
    assert snapshot(optimizer) == before, "a refused load changed the optimizer"
    assert given is None or bits(state_dict) == given, "a refused load changed its argument"
    for word in words:
        assert word in str(caught.value)
