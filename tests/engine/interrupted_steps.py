"""Optimizers of every kind for steps that are interrupted, compared bit for bit.

Run as a program, with the number of cases of each, it steps them while another process sends SIGINT
at some moment after each line ``now``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter, ParameterList

from tests.engine.running import class_of
from thalweg import optim
from thalweg.engine.interrupts import uninterrupted
from thalweg.optim.optimizer import MODES
from thalweg.optim.swa_utils import AveragedModel, CarriedAverage
from thalweg.rule import Rule, lerp, minimum, norm
from thalweg.transforms import clip_by_norm

STEPS = 16  # gradients there are
SIZES = [(5, 8), (0,), (), (3000,), *((n,) for n in range(1, 9))]
REAL = [torch.float32] * len(SIZES)
MANY = [torch.float32, torch.bfloat16, torch.float64, torch.float16, torch.complex64] * 3


def _clipped_and_normalized(p: Any, g: Any, s: Any, h: Any) -> Any:
    g = g * minimum(1.0, h.max_norm / (norm(g, "all") + 1e-6))
    s.average = lerp(s.average, g, 0.1)
    return p - h.lr * s.average / (norm(s.average) + 1e-6)


REDUCING = Rule(_clipped_and_normalized, {"average": 0.0}, name="reducing")


def _reducing(params: list[Parameter]) -> optim.Optimizer:
    return class_of(REDUCING)(params, {**MODES, "lr": 0.1, "max_norm": 1.0})


def _mixed(params: list[Parameter]) -> optim.Optimizer:
    """Kernels and eager units in one step, and a rule whose first update is told by its states."""
    groups = [{"params": params[::2]}, {"params": params[1::2], "fused": False}]
    return optim.SGD(groups, lr=0.1, momentum=0.9, dampening=0.5)


def _carrying(params: list[Parameter]) -> optim.Optimizer:
    optimizer = optim.Adam(params, lr=0.1)
    CarriedAverage(optimizer, decay=0.9, start=1)
    return optimizer


def _clipping(params: list[Parameter]) -> optim.Optimizer:
    return optim.AdamW(
        params,
        lr=0.1,
        transforms=[clip_by_norm(1.0)],
        nonfinite="skip",
        measure=("gradient_norm", "update_ratio"),
    )


class _Averaging:
    """An average of a model, as if it were an optimizer of the averages."""

    step_count = 0

    def __init__(self, params: list[Parameter]) -> None:
        self.model = ParameterList(params)
        self.average = AveragedModel(self.model)
        self.state: dict[Any, Any] = {}

    def step(self) -> None:
        with torch.no_grad():
            for p in self.model:
                p.copy_(torch.ones(()) if p.grad is None else p.grad)
        self.average.update_parameters(self.model)


SUBJECTS: dict[str, tuple[Callable[[list[Parameter]], Any], list[torch.dtype]]] = {
    "one kernel": (lambda params: optim.AdamW(params, lr=0.1, amsgrad=True), REAL),
    "dtypes": (lambda params: optim.Adam(params, lr=0.1), MANY[: len(SIZES)]),
    "reductions": (_reducing, REAL),
    "vetoes and measures": (_clipping, REAL),
    "eager": (lambda params: optim.NAdam(params, lr=0.1, fused=False), REAL),
    "kernel and eager": (_mixed, REAL),
    "no state": (lambda params: optim.SGD(params, lr=0.1), REAL),
    "scalar states": (lambda params: optim.NAdam(params, lr=0.1), REAL),
    "sparse": (lambda params: optim.SparseAdam(params, lr=0.1), REAL),
    "carried average": (_carrying, REAL),
    "averaged model": (_Averaging, REAL),
    "LBFGS": (lambda params: optim.LBFGS(params, max_iter=3, history_size=4), REAL),
}


class Subject:
    """Parameters, an optimizer and a gradient for each step.

    In the first steps some parameters have none, so that steps are planned and states are created.

    Attributes:
        k: steps made.
    """

    def __init__(self, name: str) -> None:
        make, dtypes = SUBJECTS[name]
        self.name, self.k = name, 0
        draw = torch.Generator().manual_seed(7)
        sizes = [(n, 4) for n in range(1, len(SIZES) + 1)] if name == "sparse" else SIZES
        kinds = list(zip(sizes, dtypes, strict=True))
        self.params = [
            Parameter(torch.randn(size, generator=draw, dtype=dtype)) for size, dtype in kinds
        ]
        self.gradients = [
            [torch.randn(p.shape, generator=draw, dtype=p.dtype) for p in self.params]
            for _ in range(STEPS)
        ]
        self.optimizer = make(self.params)

    def step(self) -> None:
        gradients = self.gradients[self.k]
        for i, (p, g) in enumerate(zip(self.params, gradients, strict=True)):
            absent = self.k < 6 and (self.k + i) % 4 == 3
            p.grad = None if absent else g.to_sparse(1) if self.name == "sparse" else g.clone()
        if self.name == "LBFGS":
            self.optimizer.step(self._closure)
        else:
            self.optimizer.step()
        self.k += 1

    def _closure(self) -> Tensor:
        with torch.no_grad():
            for p, g in zip(self.params, self.gradients[self.k], strict=True):
                p.grad = p.detach() - g
            return sum((0.5 * p.grad.square().sum() for p in self.params), torch.zeros(()))

    def content(self) -> bytes:
        """All that a step changes: values, versions, states, counts."""
        optimizer = self.optimizer
        params = self.params
        found: list[Any] = []
        if isinstance(optimizer, _Averaging):
            params = list(optimizer.average.module)
            found.append(optimizer.average.n_averaged)
        if self.name != "LBFGS":  # which counts its way back, too
            found.append([p._version for p in params])
        found += [optimizer.step_count, params]
        for p in self.params:
            found += [sorted(optimizer.state.get(p, {}).items())]
        return _bytes(found)


def _bytes(value: Any) -> bytes:
    if isinstance(value, Tensor):
        return value.detach().reshape(-1).view(torch.uint8).numpy().tobytes() + b"|"
    if isinstance(value, (list, tuple)):
        return b"[" + b"".join(map(_bytes, value)) + b"]"
    return repr(value).encode()


def main(cases: int) -> None:
    torch.set_num_threads(2)
    for name in SUBJECTS:
        whole = Subject(name)
        contents = [whole.content()]
        while whole.k < STEPS:
            whole.step()
            contents.append(whole.content())
        assert len(set(contents)) == len(contents)

        subject = Subject(name)
        for _ in range(cases):
            try:
                print("now", flush=True)
                while True:
                    if subject.k == STEPS:
                        with (
                            uninterrupted()
                        ):  # Python loses a Ctrl-C in what is called by a weakref
                            subject = Subject(name)
                    subject.step()
            except KeyboardInterrupt:
                found = subject.content()
                assert found in contents, f"{name}: a step was cut in two after {subject.k}"
                k = contents.index(found)
                assert k - subject.k in (0, 1), f"{name}: {k} steps after {subject.k}"
                subject.k = k
        print(f"{name}: {cases} cases", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
