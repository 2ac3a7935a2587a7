"""The base class of all optimizers: the only ``step``, and what surrounds it.

An optimizer is a rule, the transforms around it, the ranges of its options and a constructor. It is
a ``torch.optim.Optimizer`` by inheritance, because schedulers, scalers and trainers ask for one,
but the contract is carried out here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch.optim.optimizer import required

from thalweg.engine.engine import Engine
from thalweg.engine.interrupts import uninterrupted
from thalweg.engine.modes import with_gradients
from thalweg.engine.state import OptimizerState
from thalweg.engine.torch_internals import not_traced
from thalweg.optim.extras import EXTRAS, Transforms
from thalweg.optim.group_checks import check_new_group, check_parameter, listed, names_for, opened
from thalweg.optim.hooks import is_observed, observed_step
from thalweg.optim.options import MODES as MODES
from thalweg.optim.options import (
    as_tuple,
    check_arguments,
    check_flags,
    check_known,
    check_modes,
    check_ranges,
    check_transform,
    flags_in,
    with_transforms,
)
from thalweg.optim.recording import check_recording
from thalweg.optim.step_extras import StepExtras
from thalweg.ranges import NON_NEGATIVE, Ranges
from thalweg.rule import Program, Rule, Transform, transformed
from thalweg.rule.transforms import checked_transforms

if TYPE_CHECKING:  # what only checkpoints need is imported where it is used
    from thalweg.optim import state_dict as state_dicts
    from thalweg.optim.state_dict import LoadReport, Rename

Params = Iterable[torch.Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, torch.Tensor]]
Number = float | torch.Tensor
Closure = Callable[[], Any]


# Attributes that no copy has; "step" is a scheduler's wrapper of the method, bound to the object.
KEPT_BY_ONE = ("_state", "_engine_", "_in_backward", "step")


class Optimizer(StepExtras, torch.optim.Optimizer):
    """Base class of optimizers that are given by a rule.

    Args:
        params: tensors, dicts (parameter groups with options of their own), or pairs of name and
            tensor, in an order that is the same on every run.
        defaults: every option's value for groups that do not give it.
        transforms: what to put around the rule, of :mod:`thalweg.transforms` or your own; each
            wraps what stands before it. Their options join the groups.
        fused: the option below, of a class that keeps it out of its groups.

    Options every optimizer takes, as torch's do:

    - ``maximize``: ascend instead of descend.
    - ``fused``: None uses a kernel where there is one, elsewhere torch's operations on lists of
      tensors or, where that cannot be, tensor by tensor; True does the same, and warns where
      there is no kernel; False uses none.
      With True, the attributes ``grad_scale`` and ``found_inf``, which ``torch.amp.GradScaler``
      sets, have the effect that they have with torch's fused kernels: the step sees the gradients
      divided by the scale, and is left out where one is not finite. ``p.grad`` stays as it is.
    - ``differentiable``: let autograd see the step; runs eagerly.
    - ``foreach``: without effect where there is a kernel, which updates all tensors at once.
      Elsewhere False asks for one tensor after the other; True together with ``fused=False``
      for lists of tensors on the CPU, too.
    - ``capturable``: accepted; on the CPU there is nothing to capture.

    Arguments beyond torch's, by name (:class:`thalweg.optim.extras.Extras`); they are attributes,
    and may be set between steps:

    - ``transforms``: see above.
    - ``nonfinite``: what becomes of a step with a gradient that is not finite, in any parameter.
      "propagate": what the formula makes of it, as in torch. "skip": the step is left out:
      parameters, states and step counts stay, and ``skipped_steps`` counts it. "zero": such
      elements count as 0. "raise": the step is left out, and a RuntimeError names the parameters.
      Gradients are read once more to find out, unless a norm has them read already.
    - ``measure``: names of what each step measures, read as ``optimizer.measured[name]``:
      "gradient_norm" (before clipping), "weight_norm" (before the update), "update_norm" (before
      it is rounded), "update_ratio" of the latter two, "clipped_share" of the elements that were
      clipped, "lost_share" of those whose update was too small for the parameter's dtype. The
      sums are part of the step's own pass.
    - ``zero_grad_after``: let every gradient be 0 after the step, as ``zero_grad`` does with
      ``set_to_none=False``, but written by the step's own pass. Also after a step that is left
      out, as a gradient that is not finite would stay so. Not together with ``differentiable``.

    Attributes:
        rule: the update rule; set by the subclass.
        transforms: what stands around the rule in every optimizer of the class; set by the
            subclass, whose constructor takes their options or leaves them at their defaults.
        ranges: what each numeric option may be, but for those of transforms; set by the subclass,
            ``lr`` at least 0 by default.
        added_transforms: those of this optimizer, around those of its class.
        fused: the option, of classes whose groups do not have it, since torch's have not.
        defaults, state, param_groups: as in torch. ``state[p]["step"]`` and other scalar states
            are 0-d float64 views into one tensor.

    Raises:
        TypeError: ``params`` is a tensor, holds something else than tensors, dicts or pairs, or is
            a set; an option is misspelt or not a number; something is no transform.
        ValueError: no parameters, a parameter that is not a leaf or in two groups, an option out
            of range; an option or state of a transform that is there already.
        RuntimeError: ``fused`` together with ``foreach`` or ``differentiable``.
    """

    # A class here has torch's of the same name as its last base, for isinstance alone: what is
    # defined in this class is found first, and calls torch.optim.Optimizer's by name.
    rule: ClassVar[Rule]
    transforms: ClassVar[Sequence[Transform]] = ()
    ranges: ClassVar[Ranges] = {"lr": NON_NEGATIVE}

    added_transforms: tuple[Transform, ...] = ()
    fused: bool | None = None

    def __init__(
        self,
        params: Params,
        defaults: dict[str, Any],
        transforms: Transforms = (),
        *,
        fused: bool | None = None,
        nonfinite: str = "propagate",
        measure: Iterable[str] = (),
        zero_grad_after: bool = False,
        **unknown: Any,
    ) -> None:
        check_arguments(self._name, unknown, (*defaults, *EXTRAS))
        defaults = dict(defaults)
        for each in self.transforms:
            for option, default in each.options.items():
                defaults.setdefault(option, default)
        self.added_transforms = self._checked_transforms(transforms)
        self._updates = 0
        self.nonfinite, self.measure = nonfinite, measure
        self.zero_grad_after = zero_grad_after
        self.fused = fused
        self.defaults = with_transforms(self._name, defaults, self.added_transforms)
        self._check_defaults()
        torch.optim.Optimizer.__init__(self, listed(self._name, params), self.defaults)
        if self.defaults.get("fused"):
            self._step_supports_amp_scaling = True  # GradScaler then leaves unscaling to the step

    def _check_defaults(self) -> None:
        """Raise for a wrong option before the parameters are looked at, as torch does."""
        options = dict(self.defaults)
        if any(value is required for value in options.values()) or self.ranges.keys() - options:
            return  # the groups give them
        options.pop("fused", None)  # torch looks at modes that exclude each other last
        self.normalize_options(options)
        self.check_options(options)

    @property
    def _name(self) -> str:
        return type(self).__name__

    # ---- rule and engine --------------------------------------------------------------------

    @property
    def composed_rule(self) -> Rule:
        """The class's rule with all transforms around it."""
        return transformed(self.rule, self.all_transforms)

    @property
    def step_rule(self) -> Rule:
        """The rule of the step: also with what it does beside the update."""
        return transformed(self.rule, (*self.all_transforms, *self._around()))

    @property
    def all_transforms(self) -> tuple[Transform, ...]:
        """The class's transforms, then the optimizer's own."""
        return (*type(self).transforms, *self.added_transforms)

    def add_transform(self, transform: Transform) -> None:
        """Put a transform around the rule, from the next step on.

        Its options join every group with the transform's defaults. Its states begin with the next
        update of each parameter.

        Args:
            transform: of :mod:`thalweg.transforms`, or your own.

        Raises:
            TypeError: it is no transform, or an option of it is not a number.
            ValueError: an option of it is out of range; the optimizer has an option or a state of
                such a name already. Nothing is changed then.
        """
        (added,) = self._checked_transforms([transform])
        groups = (self.defaults, *self.param_groups)
        for group in groups:  # a user may have put keys of their own into one
            with_transforms(self._name, group, [added])
        check_transform(self._name, added.options, added)
        with uninterrupted():
            self.added_transforms = (*self.added_transforms, added)
            for group in groups:
                group.update(added.options)
            self.forget_engine()

    def _checked_transforms(self, transforms: Transforms) -> tuple[Transform, ...]:
        found = checked_transforms(self._name, transforms)
        if found and not hasattr(self, "rule"):
            raise TypeError(
                f"{self._name}: there is no rule that the transforms {list(found)} can be put "
                f"around; {self._name} moves all parameters at once, several times in a step"
            )
        if found:
            transformed(self.rule, (*self.all_transforms, *found))  # raises where states clash
        return found

    @property
    @not_traced
    def _engine(self) -> Engine:
        engine = self.__dict__.get("_engine_")
        if engine is None:
            # Of two threads that ask first, both get the same.
            engine = self.__dict__.setdefault("_engine_", Engine(self.step_rule, self))
        return cast(Engine, engine)

    def forget_engine(self) -> None:
        """Drop what the engine keeps from step to step; the next step makes another."""
        self.__dict__.pop("_engine_", None)
        if self._in_backward is not None:
            self._in_backward.forget_engines()

    # ---- state and groups -------------------------------------------------------------------

    @property
    def state(self) -> OptimizerState:
        """Each parameter's states by name."""
        state: OptimizerState = self.__dict__["_state"]
        return state

    @state.setter
    def state(self, value: Mapping[Any, Any]) -> None:
        own = isinstance(value, OptimizerState)  # shared by a copy.copy, or put back
        self.__dict__["_state"] = value if own else OptimizerState(dict(value))

    @property
    def step_count(self) -> int:
        """The number of updates made, to the parameter that had most."""
        if not hasattr(self, "rule") or self.rule.counted:
            counts = [float(entry["step"]) for entry in self.state.values() if "step" in entry]
        else:
            counts = [self._updates]
        return int(max(counts, default=0))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, with options that override the defaults.

        Raises as the constructor does, before anything is changed.
        """
        group = opened(self._name, param_group)
        for k, p in enumerate(group["params"]):
            self.check_parameter(k, p)
        for name, default in self.defaults.items():
            if default is required and name not in group:
                raise ValueError(f"{self._name}: a parameter group lacks the option {name!r}")
            group.setdefault(name, default)
        self.normalize_options(group)
        self.check_options(group)
        check_new_group(self._name, group, self.param_groups)
        self.param_groups.append(group)
        # The caller's dict is filled in too, as torch does.
        param_group.update(group)

    def check_parameter(self, k: int, p: Any) -> None:
        """Raise for what cannot be optimized; ``k`` is its number in its group."""
        check_parameter(self._name, k, p, results=bool(self.defaults.get("differentiable")))

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
        names = names_for(self._name, self.param_groups, named)
        for group, own in zip(self.param_groups, names, strict=True):
            group["param_names"] = own

    def normalize_options(self, group: dict[str, Any]) -> None:
        """Make 0 of a ``weight_decay=False``, as torch computes with it, and tuples of sequences.

        A ``fused`` of None is left out where the class keeps it out of its groups.
        """
        for ranges in (self.ranges, *(each.ranges for each in self.all_transforms)):
            for key, allowed in ranges.items():
                if isinstance(group.get(key), bool):
                    group[key] = int(group[key])
                if isinstance(allowed, tuple) and key in group:
                    group[key] = as_tuple(group[key])
        if "fused" not in self.defaults and group.get("fused", True) is None:
            del group["fused"]

    def check_options(self, group: Mapping[str, Any]) -> None:
        """Raise for options that are wrong by themselves or together."""
        check_known(self._name, group, list(self.defaults))
        check_ranges(self._name, group, self.ranges)
        modes = {"fused": self.fused, **group}
        check_flags(self._name, modes, MODES)
        check_flags(self._name, group, flags_in(self.defaults))
        for each in self.all_transforms:
            check_transform(self._name, group, each)
        check_modes(self._name, modes)

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
            closure: evaluates the model again and returns the loss; called first, with gradients
                enabled.

        Returns:
            The closure's result, or None.
        """
        # A subclass's own step is wrapped by torch, which has run the hooks before it came here.
        if is_observed(self) and type(self).step is Optimizer.step:
            return observed_step(self, self._step, closure)
        return self._step(closure)

    # torch wraps each class's step to run hooks and to name it in profiles, at a cost of tens of
    # microseconds; this one does both itself, where there is something to do.
    step.hooked = True  # type: ignore[attr-defined]

    def _step(self, closure: Closure | None) -> Any:
        """The step without its hooks; overridden where the closure is called more than once."""
        loss = None
        if closure is not None:
            loss = with_gradients(True)(closure)()
        check_recording(self._name, self.param_groups)
        self._step_once(self._count)
        return loss

    def _count(self) -> None:
        self._updates += 1

    def sparse_gradient(self, options: Mapping[str, Any]) -> str:
        """How a sparse gradient is treated: "rows" updates the rows present, "dense" all rows.

        A rule that can be applied to the rows alone returns :meth:`rows_present`.

        Raises:
            RuntimeError: the rule has no meaning for absent rows.
        """
        raise RuntimeError(
            f"{self._name} does not support sparse gradients; use SparseAdam, Adagrad or SGD for "
            "these parameters, or dense gradients"
        )

    def rows_present(self, options: Mapping[str, Any]) -> str:
        """``"rows"``; raises ``RuntimeError`` where a transform changes the absent rows, too."""
        for each in self.all_transforms:
            if each.changes_every_row(options):
                option = each.every_row if isinstance(each.every_row, str) else ""
                what = f"the {option} option" if option else f"the transform {each.name}"
                remedy = f"set {option}=0 for these parameters" if option else "leave it out"
                raise RuntimeError(
                    f"{self._name}: {what} is not compatible with sparse gradients, as it changes "
                    f"the rows that they leave out, too; {remedy}, or use dense gradients"
                )
        return "rows"

    def dense_gradient(self, options: Mapping[str, Any]) -> None:
        """Raise ``RuntimeError`` where a dense gradient is not supported."""

    def before_plan(self) -> None:
        """The groups are what they are; nothing to bring up to date."""

    def check_program(self, rule: Rule, program: Program) -> None:
        """Whatever the rule does can be done."""

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
            TypeError: not a state dict; an option is no number; ``rename`` gives no names.
            ValueError: it does not fit; by order: other groups or parameters; an option missing; a
                state missing, misspelt, of another kind or without numbers that can be read;
                numbers of parameters that became text; ``rename`` without names.

        Warns:
            UserWarning: an option is what a step takes and a constructor does not, as a rate below
                zero; a state that other optimizers have and this one does not use.

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

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the engine (a copy makes its own) and the hooks."""
        return {
            "state": self.state,
            **{
                key: value
                for key, value in self.__dict__.items()
                if key not in KEPT_BY_ONE and not key.endswith("_hooks")
            },
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        rest = dict(state)
        self.forget_engine()
        if "state" in rest:
            self.state = rest.pop("state")
        torch.optim.Optimizer.__setstate__(self, rest)
