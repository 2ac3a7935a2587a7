"""Averages of a model's tensors on the engine, in one pass.

The formula is ``with_next`` of :mod:`thalweg.transforms.average`, here and where an optimizer's
step carries an average (``carried_average.py``). The public names are in
:mod:`thalweg.optim.swa_utils`.
"""

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

import torch
from torch.nn import Module

from thalweg.engine.backends.eager import apply as eager
from thalweg.engine.engine import Engine
from thalweg.engine.interrupts import uninterrupted
from thalweg.engine.modes import with_gradients
from thalweg.engine.state import OptimizerState
from thalweg.optim.module_tensors import ModuleTensors
from thalweg.optim.options import check_ranges
from thalweg.ranges import UNIT_INTERVAL
from thalweg.rule import Program, Rule
from thalweg.rule.program import number
from thalweg.transforms.average import weight_of_next, with_next

Tensors = Sequence[torch.Tensor]
Pair = tuple[torch.Tensor, torch.Tensor, bool]


def _average(p: Any, g: Any, s: Any, h: Any) -> Any:
    return with_next(p, g, h.averaged, h.decay)


# p is the average and g the next value.
AVERAGE = Rule(_average, counted=False, name="average")


def next_average(
    average: torch.Tensor, value: torch.Tensor, n: float, decay: float | None
) -> torch.Tensor:
    """The average after one more value, as a new tensor of the average's dtype.

    Integers move by the nearest whole number of the exact difference; bools are the last value.
    """
    if n < 1 or average.dtype is torch.bool:
        return value.to(average.dtype, copy=True)
    if not (average.dtype.is_floating_point or average.dtype.is_complex):
        before = average.long()
        change = value.to(torch.promote_types(value.dtype, torch.long)) - before
        moved: torch.Tensor = (change.double() * weight_of_next(n, decay)).round().long()
        return (before + moved).to(average.dtype)
    if average.layout is not torch.strided:
        blended: torch.Tensor = with_next(average, value, n, decay)
        return blended
    options = {"averaged": n, "decay": decay}
    return eager.apply(AVERAGE, average, value, {}, options, {"step": 1.0})[0]


@dataclass(frozen=True)
class OneAverage:
    """An ``avg_fn``: the new average of one tensor; ``decay`` None means equal weights."""

    decay: float | None

    @with_gradients(False)
    def __call__(self, average: torch.Tensor, value: torch.Tensor, n: Any) -> torch.Tensor:
        return next_average(
            average, value, 1.0 if self.decay is not None else number(n), self.decay
        )


@dataclass(frozen=True)
class ManyAverages:
    """A ``multi_avg_fn``: the averages in a list brought up to date in place."""

    decay: float | None

    @with_gradients(False)
    def __call__(self, averages: Tensors, values: Tensors, n: Any) -> None:
        one = OneAverage(self.decay)
        for average, value in zip(averages, values, strict=True):
            average.copy_(one(average, value, n))


def checked_decay(owner: str, decay: Any) -> float:
    """A decay as a float, or an exception in the name of ``owner``."""
    check_ranges(owner, {"decay": decay}, {"decay": UNIT_INTERVAL})
    return number(decay)


class ModelAverage:
    """Brings the averages of a model's tensors up to date, in one pass of the engine.

    When the model is no longer used elsewhere, nothing here keeps its tensors.

    Args:
        name: who reports errors.
        average: the module that holds the averages.
        model: the model.

    Attributes:
        param_groups: the tensors averaged, and those that only follow the model's; as an
            optimizer's groups, for the engine.
    """

    def __init__(self, name: str, average: Module, model: Module) -> None:
        self._name = name
        self._average = average
        this = weakref.ref(self)

        def forget(_: Any) -> None:
            if (found := this()) is not None:
                with uninterrupted():  # Python drops what is raised in here
                    found._forget()

        self._model = weakref.ref(model, forget)
        self._forget()

    def _forget(self) -> None:
        self.param_groups: list[dict[str, Any]] = []
        self.state = OptimizerState()
        self.fused: bool | None = None
        self._options: dict[str, Any] = {}
        self._listed: tuple[ModuleTensors, ModuleTensors] | None = None
        self._one_by_one: list[Pair] = []
        self._copied = False  # some values are copies, of tensors on another device
        self._engine = Engine(AVERAGE, self)

    def serves(self, average: Module, model: Module) -> bool:
        """Whether these are its modules."""
        return self._average is average and self._model() is model

    def update(self, n: int, decay: float | None, use_buffers: bool) -> None:
        """Let the model's tensors be the next value.

        Args:
            n: how many values the averages hold.
            decay: of an exponential moving average; None for equal weights.
            use_buffers: average the buffers too, which are copied otherwise.

        Raises:
            ValueError: the model has other tensors than the average; nothing is changed then.
        """
        self._options = {"averaged": n, "decay": decay}
        if not self._holds(use_buffers):
            self._use_buffers = use_buffers
            self._engine.plan_anew()
        else:
            self.param_groups[0].update(self._options)
        self._engine.step()
        if self._one_by_one:
            self._update_one_by_one(n, decay)

    @with_gradients(False)
    def _update_one_by_one(self, n: int, decay: float | None) -> None:
        for average, value, kept in self._one_by_one:
            value = value.to(average.device)
            average.copy_(next_average(average, value, n if kept else 0, decay))

    def _holds(self, use_buffers: bool) -> bool:
        """Whether the tensors are still those that were listed, in the same roles."""
        model = self._model()
        if self._listed is None or model is None or self._copied:
            return False
        own, theirs = self._listed
        return use_buffers is self._use_buffers and own.hold(self._average) and theirs.hold(model)

    def pairs(self, use_buffers: bool) -> list[Pair]:
        """Each average, the model's tensor, and whether it is averaged or only copied.

        Raises:
            ValueError: the model has other tensors than the average.
        """
        return self._list(use_buffers)[1]

    def _list(self, use_buffers: bool) -> tuple[tuple[ModuleTensors, ModuleTensors], list[Pair]]:
        model = self._model()
        assert model is not None, "whoever calls holds it"
        own, theirs = listed = ModuleTensors(self._average), ModuleTensors(model)
        self._require_same(own, theirs, model)
        roles = [True] * len(own.parameters) + [use_buffers] * len(own.buffers)
        averages = chain(own.parameters, own.buffers)
        values = chain(theirs.parameters, theirs.buffers)
        return listed, list(zip(averages, values, roles, strict=True))

    def check_program(self, rule: Rule, program: Program) -> None:
        """It has no sums, and runs as it is."""

    def before_plan(self) -> None:
        """List the tensors of both modules for the engine, or raise where they do not match."""
        self._listed = None
        self.state = OptimizerState()  # it keeps the tensors alive that it has entries for
        listed, pairs = self._list(self._use_buffers)
        self._one_by_one = [pair for pair in pairs if not all(map(_has_kernel, pair[:2]))]
        params: list[list[torch.Tensor]] = [[], []]
        values: list[list[torch.Tensor]] = [[], []]
        self._copied = False
        for average, value, kept in pairs:
            if not all(map(_has_kernel, (average, value))):
                continue
            if value.device != average.device:
                self._copied = True
                value = value.detach().to(average.device)
            params[not kept].append(average)
            values[not kept].append(value)
        self.param_groups = [
            {"params": tuple(params[0]), **self._options},
            {"params": tuple(params[1]), "averaged": 0, "decay": None},
        ]
        self._engine.values = list(map(tuple, values))
        self._listed = listed

    def _require_same(self, own: ModuleTensors, theirs: ModuleTensors, model: Module) -> None:
        for kind in ("parameters", "buffers"):
            pairs = zip_longest(getattr(own, kind), getattr(theirs, kind))
            for k, (average, value) in enumerate(pairs):
                if (
                    average is None
                    or value is None
                    or average.shape != value.shape
                    or average.is_complex() is not value.is_complex()
                ):
                    raise ValueError(
                        f"{self._name}: the model's {_described(model, kind, k, value)}, the "
                        f"average's {_described(self._average, kind, k, average)}; average a model "
                        "of the same tensors, or make a new average of this one"
                    )

    # The rest of what an engine asks of its owner.

    def sparse_gradient(self, options: Mapping[str, Any]) -> str:
        raise AssertionError("sparse tensors are averaged one by one")

    def dense_gradient(self, options: Mapping[str, Any]) -> None:
        """Dense tensors are what it is for."""

    def check_options(self, options: Mapping[str, Any]) -> None:
        """The options are its own."""


def _has_kernel(tensor: torch.Tensor) -> bool:
    kind = tensor.dtype.is_floating_point or tensor.dtype.is_complex
    return kind and tensor.layout is torch.strided


def _described(module: Module, kind: str, k: int, tensor: torch.Tensor | None) -> str:
    """``parameter 3 ('head.weight') is of shape (2, 3)``."""
    named = [name for name, _ in getattr(module, f"named_{kind}")()]
    name = f" ({named[k]!r})" if k < len(named) else ""
    noun = f"{kind.removesuffix('s')} {k}{name}"
    if tensor is None:
        return f"{noun} is missing"
    return f"{noun} is of shape {tuple(tensor.shape)}, {tensor.dtype}"
