"""The base class of all optimizers: groups, state, checkpoints and the only ``step``.

An optimizer is a rule, the ranges of its hyperparameters and a constructor. It is a
``torch.optim.Optimizer`` by inheritance, because schedulers, scalers and trainers ask for one, but
the contract is carried out here.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import torch
from torch.optim.optimizer import (
    _global_optimizer_post_hooks,
    _global_optimizer_pre_hooks,
    required,
)

from thalweg.engine.engine import Engine
from thalweg.engine.state import OptimizerState
from thalweg.names import nearest
from thalweg.optim.ranges import Ranges, check_ranges
from thalweg.ranges import AT_LEAST_ONE, NON_NEGATIVE, UNIT_INTERVAL
from thalweg.rule import Rule
from thalweg.rule.compose import AVERAGE_OPTIONS, AVERAGE_STATES, carrying_average

if TYPE_CHECKING:  # what only checkpoints need is imported where it is used
    from thalweg.optim import state_dict as state_dicts
    from thalweg.optim.state_dict import LoadReport, Rename

Params = Iterable[torch.Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, torch.Tensor]]
Number = float | torch.Tensor
Closure = Callable[[], Any]

# The options every optimizer takes; see Optimizer.
MODES: dict[str, Any] = {
    "foreach": None,
    "maximize": False,
    "capturable": False,
    "differentiable": False,
    "fused": None,
}

# The options of a carried average, which are in every group once there is one.
AVERAGE_RANGES: Ranges = {
    "average_decay": UNIT_INTERVAL,
    "average_start": NON_NEGATIVE,
    "average_every": AT_LEAST_ONE,
}

GROUP_KEYS = (
    *("params", "param_names", "name", "lr_scale"),
    *("initial_lr", "max_lr", "min_lr", "swa_lr", "max_momentum", "base_momentum"),  # schedulers'
)
ALIKE = 0.75  # from here on, a key of the user's own is taken for a misspelt option


def _is_flag(value: Any) -> bool:
    """True or False, as such or as a number; None, which is the default of some."""
    kinds = (bool, int, np.bool_)
    return value is None or (isinstance(value, kinds) and value in (0, 1))


class Optimizer(torch.optim.Optimizer):
    """Base class of optimizers that are given by a rule.

    Args:
        params: tensors, dicts (parameter groups with options of their own), or pairs of name and
            tensor, in an order that is the same on every run.
        defaults: every option's value for groups that do not give it.

    Options every optimizer takes, as torch's do:

    - ``maximize``: ascend instead of descend.
    - ``fused``: None uses a kernel where there is one and runs eagerly elsewhere; True uses a
      kernel or raises ``RuntimeError`` saying why there is none; False runs eagerly.
    - ``differentiable``: let autograd see the step; runs eagerly. Numbers that are kept from step
      to step (ASGD's eta, Rprop's first step size) count as constants.
    - ``foreach``: accepted and without effect: every kernel updates all tensors at once.
    - ``capturable``: accepted; on the CPU there is nothing to capture.

    Attributes:
        rule: the update rule; set by the subclass.
        ranges: what each numeric option may be; set by the subclass, ``lr`` at least 0 by default.
        defaults, state, param_groups: as in torch. ``state[p]["step"]`` and other scalar states
            are 0-d float64 views into one tensor.

    Raises:
        TypeError: ``params`` is a tensor, holds something else than tensors, dicts or pairs, or is
            a set; an option is misspelt or not a number.
        ValueError: no parameters, a parameter that is not a leaf or in two groups, an option out
            of range.
        RuntimeError: ``fused`` together with ``foreach`` or ``differentiable``.
    """

    rule: ClassVar[Rule]
    ranges: ClassVar[Ranges] = {"lr": NON_NEGATIVE}

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        if isinstance(params, torch.Tensor):
            raise TypeError(
                f"{self._name}: params must be an iterable of tensors or dicts, got a "
                f"{type(params).__name__}; write [p] for a single parameter"
            )
        self._refuse_set(params)
        self._updates = 0
        entries: list[Any] = list(params)
        if not entries:
            raise ValueError(f"{self._name}: got an empty parameter list; pass the model's")
        super().__init__(entries, defaults)

    @property
    def _name(self) -> str:
        return type(self).__name__

    # ---- state and groups -------------------------------------------------------------------

    @property
    def state(self) -> OptimizerState:
        """Each parameter's states by name."""
        state: OptimizerState = self.__dict__["_state"]
        return state

    @state.setter
    def state(self, value: Mapping[Any, Any]) -> None:
        self.__dict__["_state"] = OptimizerState(dict(value))

    @property
    def _engine(self) -> Engine:
        engine = self.__dict__.get("_engine_")
        if engine is None:
            # Of two threads that ask first, both get the same.
            engine = self.__dict__.setdefault("_engine_", Engine(self.carried_rule, self))
        return cast(Engine, engine)

    @property
    def carries_average(self) -> bool:
        """Whether an average of the parameters is part of the step (see ``CarriedAverage``)."""
        return all(name in self.defaults for name in AVERAGE_OPTIONS)

    @property
    def carried_rule(self) -> Rule:
        """The rule of the step: the class's, with an average folded in where one is carried."""
        return carrying_average(self.rule) if self.carries_average else self.rule

    def carry_average(self, options: Mapping[str, Any]) -> None:
        """Fold an average into the step from now on; ``CarriedAverage`` calls this.

        Args:
            options: a value for each of ``AVERAGE_OPTIONS``, for all groups.

        Raises:
            TypeError: an option is not a number.
            ValueError: an option out of range, or the optimizer has options or states of these
                names already.
        """
        taken = [name for name in options if name in self.defaults]
        if taken:
            raise ValueError(
                f"{self._name}: has the options {', '.join(taken)} already, which a carried "
                "average needs for itself; rename the optimizer's"
            )
        carrying_average(self.rule)
        self._check_average_options(options)
        for group in (self.defaults, *self.param_groups):
            group.update(options)
        self.forget_engine()

    @property
    def step_count(self) -> int:
        """The number of updates made, to the parameter that had most."""
        if self.rule.counted:
            counts = [float(entry["step"]) for entry in self.state.values() if "step" in entry]
        else:
            counts = [self._updates]
        return int(max(counts, default=0))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, with options that override the defaults.

        Raises as the constructor does, before anything is changed.
        """
        if not isinstance(param_group, dict):
            raise TypeError(
                f"{self._name}: a parameter group must be a dict, got {type(param_group).__name__}"
            )
        group = dict(param_group)
        group["params"], names = self._tensors(group)
        if names is not None:
            group["param_names"] = names
        for name, default in self.defaults.items():
            if default is required and name not in group:
                raise ValueError(f"{self._name}: a parameter group lacks the option {name!r}")
            group.setdefault(name, default)
        self.flags_as_numbers(group)
        self.check_options(group)
        if len({id(p) for p in group["params"]}) != len(group["params"]):
            warnings.warn(
                f"{self._name}: optimizer contains a parameter group with duplicate parameters; "
                "each is updated once",
                UserWarning,
                stacklevel=3,
            )
        taken = {id(p) for other in self.param_groups for p in other["params"]}
        if not taken.isdisjoint(id(p) for p in group["params"]):
            raise ValueError(
                f"{self._name}: some parameters appear in more than one parameter group; leave "
                "each in one"
            )
        if any(("param_names" in other) != (names is not None) for other in self.param_groups):
            raise ValueError(
                f"{self._name}: all parameter groups must be with or without names; pass "
                "named_parameters() for every group, or for none"
            )
        self.param_groups.append(group)
        # The caller's dict is filled in too, as torch does.
        param_group.update(group)

    def name_parameters(self, named: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Give the parameters names, by which checkpoints go from then on.

        The same as to build the optimizer from ``named_parameters()``, for one that was not.

        Args:
            named: pairs of name and tensor, as of ``model.named_parameters()``; those that the
                optimizer does not hold are left aside.

        Raises:
            ValueError: a parameter gets no name, or the name of another one. Nothing is changed.

        >>> from thalweg import optim
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = optim.SGD(model.parameters())
        >>> optimizer.name_parameters(model.named_parameters())
        >>> optimizer.param_groups[0]["param_names"]
        ['weight', 'bias']
        """
        from thalweg.optim import state_dict as state_dicts

        names: dict[int, str] = {}
        for name, p in named:
            names.setdefault(id(p), str(name))
        nameless = [
            f"parameter {i} of group {k}, shape {tuple(p.shape)}"
            for k, group in enumerate(self.param_groups)
            for i, p in enumerate(group["params"])
            if id(p) not in names
        ]
        if nameless:
            raise ValueError(
                f"{self._name}: name_parameters gives no name to {'; '.join(nameless)}; pass the "
                "named_parameters() of everything that it trains"
            )
        held = {id(p): names[id(p)] for group in self.param_groups for p in group["params"]}
        if twice := state_dicts.repeated(held.values()):
            raise ValueError(
                f"{self._name}: name_parameters gives the same name to two parameters: "
                f"{', '.join(twice)}; put something in front that tells their models apart"
            )
        for group in self.param_groups:
            group["param_names"] = [names[id(p)] for p in group["params"]]

    def _refuse_set(self, params: Any) -> None:
        if isinstance(params, (set, frozenset)):
            raise TypeError(
                f"{self._name}: params must have an order that is the same on every run, got a "
                f"{type(params).__name__}; pass a list"
            )

    def _tensors(self, group: Mapping[str, Any]) -> tuple[list[torch.Tensor], list[str] | None]:
        if "params" not in group:
            raise ValueError(f"{self._name}: a parameter group must have the key 'params'")
        params = group["params"]
        self._refuse_set(params)
        entries: list[Any] = [params] if isinstance(params, torch.Tensor) else list(params)
        named = [isinstance(entry, tuple) for entry in entries]
        if any(named) and not all(named):
            raise ValueError(
                f"{self._name}: all params must be with or without names; some names are missing"
            )
        tensors: list[Any] = [entry[1] for entry in entries] if any(named) else entries
        for k, tensor in enumerate(tensors):
            if not isinstance(tensor, torch.Tensor):
                raise TypeError(
                    f"{self._name}: parameter {k} is a {type(tensor).__name__}; an optimizer can "
                    "only optimize Tensors"
                )
            differentiable = self.defaults.get("differentiable")
            if not (differentiable or tensor.is_leaf or tensor.retains_grad):
                raise ValueError(
                    f"{self._name}: can't optimize a non-leaf Tensor: parameter {k}, shape "
                    f"{tuple(tensor.shape)}, is the result of an operation; pass the tensor it was "
                    "made from"
                )
        return tensors, [str(entry[0]) for entry in entries] if any(named) else None

    def flags_as_numbers(self, group: dict[str, Any]) -> None:
        """Make 0 of a ``weight_decay=False``, as torch reckons with it."""
        for key in self.ranges:
            if isinstance(group.get(key), bool):
                group[key] = int(group[key])

    def check_options(self, group: Mapping[str, Any]) -> None:
        """Raise for options that are wrong by themselves or together."""
        known = [*self.defaults, *GROUP_KEYS]
        for key in group:
            if key not in known and (hint := nearest(str(key), self.defaults, ALIKE)):
                raise TypeError(f"{self._name}: a parameter group has the key {key!r}{hint}")
        check_ranges(self._name, group, self.ranges)
        for key in (
            *MODES,
            *(k for k, default in self.defaults.items() if isinstance(default, bool)),
        ):
            if key in group and not _is_flag(group[key]):
                raise TypeError(
                    f"{self._name}: {key} must be True or False, got {group[key]!r:.200}"
                )
        if self.carries_average:
            self._check_average_options(group)
        if group.get("fused") and group.get("foreach"):
            raise RuntimeError(
                f"{self._name}: `fused` and `foreach` cannot be `True` together; leave one out"
            )
        if group.get("fused") and group.get("differentiable"):
            raise RuntimeError(
                f"{self._name}: `fused` does not support `differentiable`; leave `fused` out"
            )
        self._check_tensor_options(group)

    def _check_average_options(self, group: Mapping[str, Any]) -> None:
        equal_weights = group.get("average_decay", ...) is None
        ranges = {k: r for k, r in AVERAGE_RANGES.items() if k != "average_decay"}
        check_ranges(self._name, group, ranges if equal_weights else AVERAGE_RANGES)
        dtype = group.get("average_dtype")
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise ValueError(
                f"{self._name}: average_dtype must be a real floating-point dtype, or None for the "
                f"parameter's, got {dtype!r}"
            )

    def _check_tensor_options(self, group: Mapping[str, Any]) -> None:
        betas = group.get("betas", ())
        are_tensors = [isinstance(beta, torch.Tensor) for beta in betas]
        if any(are_tensors) and not all(are_tensors):
            raise ValueError(
                f"{self._name}: betas must be either both floats or both Tensors, got {betas}"
            )
        if group.get("foreach") and not group.get("capturable"):
            numbers = {"lr": group.get("lr")} | {f"betas[{i}]": b for i, b in enumerate(betas)}
            for name, value in numbers.items():
                if isinstance(value, torch.Tensor):
                    raise ValueError(
                        f"{self._name}: {name} as a Tensor is not supported for capturable=False "
                        "and foreach=True; leave foreach out"
                    )

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop every gradient, or with ``set_to_none=False`` fill it with zeros."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if set_to_none:
                    p.grad = None
                    continue
                if p.grad.grad_fn is not None:
                    p.grad.detach_()
                else:
                    p.grad.requires_grad_(False)
                p.grad.zero_()

    # ---- the step ---------------------------------------------------------------------------

    def step(self, closure: Closure | None = None) -> Any:
        """Update every parameter that has a gradient.

        Args:
            closure: evaluates the model anew and returns the loss; called first, with gradients
                enabled.

        Returns:
            The closure's result, or None.
        """
        observed = (
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or _global_optimizer_pre_hooks
            or _global_optimizer_post_hooks
            or torch.autograd._profiler_enabled()  # type: ignore[attr-defined]
        )
        return self._observed_step(closure) if observed else self._step(closure)

    # torch wraps each class's step to run hooks and to name it in profiles, at a cost of tens of
    # microseconds; this one does both itself, where there is something to do.
    step.hooked = True  # type: ignore[attr-defined]

    def _observed_step(self, closure: Closure | None) -> Any:
        """The step with its hooks, under its name in the profiler."""
        args: tuple[Any, ...] = (self,) if closure is None else (self, closure)
        kwargs: dict[str, Any] = {}
        with torch.autograd.profiler.record_function(f"Optimizer.step#{self._name}.step"):
            for before in (
                *_global_optimizer_pre_hooks.values(),
                *self._optimizer_step_pre_hooks.values(),
            ):
                changed = before(self, args, kwargs)
                if changed is None:
                    continue
                if not (isinstance(changed, tuple) and len(changed) == 2):
                    raise RuntimeError(
                        f"{before} must return None or a tuple of (new_args, new_kwargs), got "
                        f"{changed!r}"
                    )
                args, kwargs = changed
            closure = args[1] if len(args) > 1 else kwargs.get("closure")
            result = self._step(closure)
            for after in (
                *self._optimizer_step_post_hooks.values(),
                *_global_optimizer_post_hooks.values(),
            ):
                after(self, args, kwargs)
        return result

    def _step(self, closure: Closure | None) -> Any:
        """The step without its hooks; overridden where the closure is called more than once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._engine.step(self._count)
        return loss

    def _count(self) -> None:
        self._updates += 1

    def sparse_gradient(self, options: Mapping[str, Any]) -> str:
        """How a sparse gradient is treated: "rows" updates the rows present, "dense" all rows.

        Raises:
            RuntimeError: if the rule has no meaning for absent rows.
        """
        raise RuntimeError(
            f"{self._name} does not support sparse gradients; use SparseAdam, Adagrad or SGD for "
            "these parameters, or dense gradients"
        )

    def dense_gradient(self, options: Mapping[str, Any]) -> None:
        """Raise ``RuntimeError`` where a dense gradient is not supported."""

    def before_plan(self) -> None:
        """The groups are what they are; nothing to bring up to date."""

    # ---- checkpoints and copies -------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """State and options in torch's format: parameters numbered over all groups.

        Tensors are the optimizer's own, not copies.
        """
        from thalweg.optim import state_dict as state_dicts

        for before in self._optimizer_state_dict_pre_hooks.values():
            before(self)
        result = state_dicts.pack(self.param_groups, self.state)
        for after in self._optimizer_state_dict_post_hooks.values():
            changed = after(self, result)
            if changed is not None:
                result = changed
        return result

    def load_state_dict(  # type: ignore[override]  # torch's returns nothing
        self,
        state_dict: Mapping[str, Any],
        strict: bool = True,
        rename: "Rename | None" = None,
    ) -> "LoadReport":
        """Take over a state dict of this class or of torch's class of the same name.

        Where the optimizer and the state dict both have names (``named_parameters()``), states go
        by name, in any order and any grouping; a group takes over the options of the groups that
        its parameters come from. Otherwise they go by order, as with torch, and everything must
        fit.

        Everything is checked first: either all of it is loaded, or an exception names all that
        does not fit and the optimizer stays as it was. Tensors are copied, to the parameter's
        device and layout, and widened to its dtype, never narrowed. Memory that only this
        optimizer refers to is written over; beyond that and the states themselves none is needed.

        Args:
            state_dict: with numbers or names for the parameters.
            strict: True: raise where a name is missing or unexpected, a shape is another, or the
                options of one group have several values. False: load what fits, by name. Missing
                parameters and those of another shape then start fresh, a group keeps its own
                options where there are several.
            rename: from names in the state dict to names here: a dict, or a function.

        Returns:
            What fitted and what did not.

        Raises:
            TypeError: not a state dict; ``rename`` gives no names.
            ValueError: it does not fit; by order: other groups or parameters; an option missing or
                out of range; a state missing, unknown or of another kind; ``rename`` without names.

        >>> from thalweg import optim
        >>> layers = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 1), "b": torch.nn.Linear(2, 1)})
        >>> saved = optim.SGD(layers.named_parameters(), lr=0.5).state_dict()
        >>> optimizer = optim.SGD(reversed(list(layers.named_parameters())), lr=0.1)
        >>> print(optimizer.load_state_dict(saved))
        loaded: b.bias, b.weight, a.bias, a.weight
        >>> optimizer.param_groups[0]["lr"]
        0.5
        """
        from thalweg.optim import state_dict as state_dicts

        pending = state_dicts.prepare(self, state_dict, strict=strict, rename=rename)
        pending.commit()
        assert pending.report is not None
        return pending.report

    def checked_states(
        self,
        saved: "state_dicts.Saved",
        matched: "state_dicts.Match",
        groups: "state_dicts.Groups",
        misfits: "state_dicts.Misfits",
    ) -> "dict[torch.Tensor, state_dicts.Entry]":
        """The states that a state dict brings for each parameter; changes nothing.

        Args:
            saved: the state dict.
            matched: which of its entries belongs to which parameter.
            groups: as they will be.
            misfits: takes note of what does not fit.
        """
        from thalweg.optim import state_dict as state_dicts

        return state_dicts.checked_states(self, saved, matched, groups, misfits)

    def forget_engine(self) -> None:
        """Drop what the engine keeps from step to step; the next step makes it anew."""
        self.__dict__.pop("_engine_", None)

    def state_names(
        self, options: Mapping[str, Any], present: Mapping[str, Any]
    ) -> tuple[Sequence[str], Sequence[str]]:
        """The states that an updated parameter must have with these options, and all it may.

        Args:
            options: its group's options.
            present: the states that it has; an average that begins later need not be among them.
        """
        rule, carried = self.rule, self.carried_rule
        count = ["step"] if rule.counted else []
        first = [1.0, *(rule.states[name].initial_value(options) for name in rule.scalar_states)]
        needed = [*count, *rule.scalar_states, *rule.program(options, first).states]
        if self.carries_average and not AVERAGE_STATES.keys().isdisjoint(present):
            begun = float(present.get("averaged_models", 0)) >= 1
            needed += [n for n, s in AVERAGE_STATES.items() if s.scalar or begun]
        return needed, [*count, *carried.scalar_states, *carried.tensor_states]

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the engine (made anew where the copy is used) and the hooks."""
        return {
            "state": self.state,
            **{
                key: value
                for key, value in self.__dict__.items()
                # "step" is a scheduler's wrapper around the method, bound to this very object.
                if key not in ("_state", "_engine_", "step") and not key.endswith("_hooks")
            },
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        rest = dict(state)
        self.forget_engine()
        if "state" in rest:
            self.state = rest.pop("state")
        super().__setstate__(rest)
