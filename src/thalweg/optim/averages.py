"""Averages of parameters on the engine: of a whole model, and carried by an optimizer's step.

The formula is ``averaged`` of :mod:`thalweg.rule.compose`, for both. The public names are in
:mod:`thalweg.optim.swa_utils`.
"""

import operator
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any, NoReturn

import torch
from torch.nn import Module

from thalweg.engine import eager
from thalweg.engine.engine import Engine
from thalweg.engine.state import OptimizerState
from thalweg.optim.optimizer import AVERAGE_RANGES, Optimizer
from thalweg.optim.ranges import check_ranges
from thalweg.rule import Rule
from thalweg.rule.compose import AVERAGE_OPTIONS, average_weight, averaged
from thalweg.rule.program import number

Tensors = Sequence[torch.Tensor]
Pair = tuple[torch.Tensor, torch.Tensor, bool]


def _average(p: Any, g: Any, s: Any, h: Any) -> Any:
    return averaged(p, g, h.averaged, h.decay)


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
        moved: torch.Tensor = (change.double() * average_weight(n, decay)).round().long()
        return (before + moved).to(average.dtype)
    if average.layout is not torch.strided:
        blended: torch.Tensor = averaged(average, value, n, decay)
        return blended
    options = {"averaged": n, "decay": decay}
    return eager.apply(AVERAGE, average, value, {}, options, {"step": 1.0})[0]


@dataclass(frozen=True)
class OneAverage:
    """An ``avg_fn``: the new average of one tensor; ``decay`` None means equal weights."""

    decay: float | None

    @torch.no_grad()
    def __call__(self, average: torch.Tensor, value: torch.Tensor, n: Any) -> torch.Tensor:
        return next_average(
            average, value, 1.0 if self.decay is not None else number(n), self.decay
        )


@dataclass(frozen=True)
class ManyAverages:
    """A ``multi_avg_fn``: the averages in a list brought up to date in place."""

    decay: float | None

    @torch.no_grad()
    def __call__(self, averages: Tensors, values: Tensors, n: Any) -> None:
        one = OneAverage(self.decay)
        for average, value in zip(averages, values, strict=True):
            average.copy_(one(average, value, n))


def checked_decay(owner: str, decay: Any) -> float:
    """A decay as a float, or an exception in the name of ``owner``."""
    check_ranges(owner, {"decay": decay}, {"decay": AVERAGE_RANGES["average_decay"]})
    return number(decay)


# ---- a model's average ----------------------------------------------------------------------

_DICTS = operator.itemgetter("_parameters", "_buffers", "_modules")
# The methods that list a module's tensors; where one is overridden, only calling it tells.
_LISTING = (
    "parameters",
    "named_parameters",
    "buffers",
    "named_buffers",
    "modules",
    "named_modules",
    "_named_members",
)


class ModuleTensors:
    """A module's parameters and buffers, listed once.

    ``module.parameters()`` takes two microseconds a tensor. To tell that the dicts it walks through
    are the same, and hold the same objects, takes a tenth of that.

    The module itself is not kept alive.
    """

    def __init__(self, module: Module) -> None:
        modules = list(module.modules())
        self.parameters = list(module.parameters())
        self.buffers = list(module.buffers())
        self._root = weakref.ref(module)
        self._walked = all(map(_is_walked_plainly, modules))
        if not self._walked:
            return
        self._inner = list(map(vars, modules[1:]))
        self._dicts = list(self._dicts_of(module))
        self._full = [entries for entries in self._dicts if entries]
        self._empty = [entries for entries in self._dicts if not entries]
        self._sizes = list(map(len, self._full))
        self._views = [entries.values() for entries in self._full]  # a view shows what is there now
        self._entries = list(chain.from_iterable(self._views))

    def hold(self, module: Module) -> bool:
        """Whether these are still the tensors of the module."""
        return (
            self._walked
            and self._root() is module
            and vars(module).keys().isdisjoint(_LISTING)
            and all(map(operator.is_, self._dicts_of(module), self._dicts))
            and not any(self._empty)
            and list(map(len, self._full)) == self._sizes
            and all(map(operator.is_, chain.from_iterable(self._views), self._entries))
        )

    def _dicts_of(self, module: Module) -> Iterator[Any]:
        return chain.from_iterable(map(_DICTS, chain((vars(module),), self._inner)))


def _is_walked_plainly(module: Module) -> bool:
    """Whether the module lists its tensors by walking through its dicts, as modules do."""
    kind, own = type(module), vars(module)
    return all(getattr(kind, n) is getattr(Module, n) and n not in own for n in _LISTING) and all(
        isinstance(own.get(n), dict) for n in ("_parameters", "_buffers", "_modules")
    )


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
                found._forget()

        self._model = weakref.ref(model, forget)
        self._forget()

    def _forget(self) -> None:
        self.param_groups: list[dict[str, Any]] = []
        self.state = OptimizerState()
        self._options: dict[str, Any] = {}
        self._listed: tuple[ModuleTensors, ModuleTensors] | None = None
        self._apart: list[Pair] = []
        self._copied = False  # some values are copies, of tensors on another device
        self._engine = Engine(AVERAGE, weakref.proxy(self))

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
        with torch.no_grad():
            for average, value, kept in self._apart:
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

    def before_plan(self) -> None:
        """List the tensors of both modules for the engine, or raise where they do not match."""
        self._listed = None
        self.state = OptimizerState()  # it keeps the tensors alive that it has entries for
        listed, pairs = self._list(self._use_buffers)
        self._apart = [pair for pair in pairs if not all(map(_has_kernel, pair[:2]))]
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
        raise AssertionError("sparse tensors are averaged apart")

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


# ---- an optimizer's average -----------------------------------------------------------------


class CarriedAverage:
    """An average of the parameters that the optimizer's own step keeps up to date.

    ::

        n == 0:                average <- p
        decay given:           average <- average + (1 - decay) * (p - average)
        equal weights:         average <- average + (p - average) / (n + 1)

    with p the value after the update and n the values averaged so far. It is folded into the
    step's kernel, where p is at hand: the average is read and written, and nothing else.

    Each parameter counts its own updates; one that was never updated has no average, and stands
    for itself. The average is part of ``optimizer.state`` and the options are part of every group,
    so checkpoints and copies of the optimizer carry both. To load such a checkpoint, make a
    ``CarriedAverage`` of the same options for the fresh optimizer first; to use a copy's, make one
    for the copy.

    Args:
        optimizer: an optimizer that has a rule: any of ``thalweg.optim`` but LBFGS, or your own.
        decay: of an exponential moving average, in [0, 1]; None for equal weights.
        start: updates to let pass before the first value is averaged, >= 0.
        every: average each ``every``-th update after that, >= 1.
        dtype: what to store the averages as, a real floating-point dtype; None: the parameter's.
            With 16-bit parameters use ``torch.float32``: a decay near 1 moves the average by less
            than 16 bits can tell.

    States:
        average: the average, shape of the parameter.
        averaged_steps, averaged_models: updates counted, and values averaged, 0-d.

    Raises:
        TypeError: the optimizer has no rule, or start or every is no integer.
        ValueError: an option out of range, or the optimizer carries an average of other options.

    Source: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992;
    Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", 2018.

    >>> import torch, thalweg.optim as optim
    >>> p = torch.nn.Parameter(torch.zeros(1))
    >>> optimizer = optim.SGD([p], lr=1.0)
    >>> average = CarriedAverage(optimizer, decay=None)
    >>> for _ in range(3):
    ...     p.grad = torch.tensor([-1.0])
    ...     optimizer.step()
    >>> with average.swapped():
    ...     print(p.item())
    2.0
    >>> p.item()
    3.0
    """

    def __init__(
        self,
        optimizer: Optimizer,
        decay: float | None = 0.999,
        start: int = 0,
        every: int = 1,
        dtype: torch.dtype | None = None,
    ) -> None:
        name = type(optimizer).__name__
        if not isinstance(getattr(optimizer, "rule", None), Rule):
            raise TypeError(
                f"CarriedAverage: {name} has no rule that an average can be folded into (LBFGS "
                "moves all parameters at once, several times in a step); use AveragedModel"
            )
        options = {
            "average_decay": None if decay is None else checked_decay("CarriedAverage", decay),
            "average_start": _whole("start", start),
            "average_every": _whole("every", every),
            "average_dtype": dtype,
        }
        if not optimizer.carries_average:
            optimizer.carry_average(options)
        for group in optimizer.param_groups:
            found = {key: group.get(key) for key in options}
            if found != options:
                raise ValueError(
                    f"CarriedAverage: {name} carries an average of other options already, {found}; "
                    f"asked for {options}. Ask for the same, or make a new optimizer"
                )
        self.optimizer = optimizer

    def __repr__(self) -> str:
        options = ", ".join(
            f"{key.removeprefix('average_')}={self.optimizer.param_groups[0][key]}"
            for key in AVERAGE_OPTIONS
        )
        return f"CarriedAverage({type(self.optimizer).__name__}, {options})"

    def of(self, parameter: torch.Tensor) -> torch.Tensor:
        """The average of one parameter, or the parameter itself where it has none yet."""
        entry = self.optimizer.state.get(parameter, {})
        average: torch.Tensor = entry.get("average", parameter)
        return average if float(entry.get("averaged_models", 0)) >= 1 else parameter

    @torch.no_grad()
    def copy_to(self, module: Module, model: Module | None = None) -> None:
        """Write the averages into a module's parameters, in place.

        Args:
            module: what to write to.
            model: the trained model, whose parameters the optimizer holds, where ``module`` is
                another one (a copy of it). Matched by name; its buffers are copied as they are.

        Raises:
            ValueError: the optimizer holds none of the model's parameters, or the module has other
                names or shapes than the model. Nothing is written then.
        """
        source = module if model is None else model
        held = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        if not any(id(p) in held for p in source.parameters()):
            remedy = "; pass the trained model as `model`" if model is None else ""
            raise ValueError(
                f"CarriedAverage: the optimizer holds no parameter of this "
                f"{type(source).__name__}{remedy}"
            )
        targets, sources = _tensors_by_name(module), _tensors_by_name(source)
        for name in [*sources, *targets]:
            shapes = [tuple(t[name].shape) if name in t else None for t in (sources, targets)]
            if shapes[0] != shapes[1]:
                raise ValueError(
                    f"CarriedAverage: {name!r} has shape {shapes[0]} in the model and {shapes[1]} "
                    "in the module to write to (None: it is missing); pass a copy of the model"
                )
        for name, tensor in sources.items():
            value = self.of(tensor)
            if value is not targets[name]:
                targets[name].copy_(value)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Let the parameters hold their averages inside a ``with`` block, and put them back after.

        ``step()`` inside the block is a ``RuntimeError``: what it does would be lost.
        """
        params = [p for group in self.optimizer.param_groups for p in group["params"]]
        changed = [p for p in dict.fromkeys(params) if self.of(p) is not p]
        originals = [p.detach().clone() for p in changed]
        refusal = self.optimizer.register_step_pre_hook(_refuse_step)
        try:
            _write(changed, [self.of(p) for p in changed])
            yield
        finally:
            refusal.remove()
            _write(changed, originals)


def _refuse_step(optimizer: Any, args: Any, kwargs: Any) -> NoReturn:
    raise RuntimeError(
        f"{type(optimizer).__name__}: step() inside CarriedAverage.swapped(), where the parameters "
        "hold their averages and are put back afterwards; step outside of it"
    )


@torch.no_grad()
def _write(targets: Tensors, values: Tensors) -> None:
    for target, value in zip(targets, values, strict=True):
        target.copy_(value)


def _tensors_by_name(module: Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers, shared ones under each of their names."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def _whole(name: str, value: Any) -> int:
    try:
        return int(operator.index(value))
    except TypeError:
        raise TypeError(f"CarriedAverage: {name} must be an integer, got {value!r}") from None
