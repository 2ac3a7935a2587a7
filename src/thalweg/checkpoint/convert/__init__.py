"""Optimizer states of other libraries, in torch's layout.

One file per library: a table of what it calls what, and when its rule is another than ours.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from thalweg import optim
from thalweg.checkpoint.convert import bitsandbytes, heavyball, optimi, timm, torch_optim
from thalweg.checkpoint.convert.library import (
    ABSENT,
    Group,
    Layout,
    Library,
    Named,
    Saved,
    count,
    one_number,
    parameter,
    state_value,
)
from thalweg.names import printable, unknown
from thalweg.optim.catalogue import classes
from thalweg.optim.optimizer import Optimizer
from thalweg.optim.options import GROUP_KEYS
from thalweg.optim.state_dict import state_names

__all__ = ["convert"]

OTHERS = {
    library.name: library
    for library in (timm.LIBRARY, heavyball.LIBRARY, optimi.LIBRARY, bitsandbytes.LIBRARY)
}
SOURCES = ("torch", *OTHERS)


def convert(
    state_dict: Mapping[str, Any], to: torch.optim.Optimizer, *, source: str | None = None
) -> dict[str, Any]:
    """An optimizer's state dict from another library, as ``to.load_state_dict`` takes it.

    What is a state there is taken over where it is the same quantity, multiplied where it differs
    by a known factor (debiased means), and refused otherwise, as is an option that makes the rule
    another. Options become ours; how a step is carried out (``foreach``, ``capturable``,
    ``differentiable``, ``fused``) stays as in ``to``. Keys that schedulers keep in the groups
    (``initial_lr``, ...) are kept. ``docs/convert.md`` lists every library's layout.

    A state dict of ``thalweg.optim`` comes out as ``torch.optim`` writes it, for either.

    Args:
        state_dict: what the library's ``optimizer.state_dict()`` gave. It is not changed; tensors
            that need no change are shared, not copied (nor does torch's ``load_state_dict`` copy
            them: if the optimizer that they are of is to go on as well, pass a deep copy). Nothing
            in it is unpickled.
        to: the optimizer that is to go on, of ``thalweg.optim`` or ``torch.optim``, with the
            parameters in the same groups. It is not changed.
        source: "torch" (also for ``thalweg.optim``), "timm", "heavyball", "optimi" or
            "bitsandbytes"; None recognizes it.

    Returns:
        ``{"state": ..., "param_groups": ...}``, parameters under the numbers or names they had.

    Raises:
        TypeError: ``state_dict`` is no dict, or ``to`` no optimizer.
        ValueError: not an optimizer's state dict; no such source, or more than one may be meant;
            an optimizer, option or state that cannot be converted, with the reason.

    >>> import torch, thalweg
    >>> p = torch.nn.Parameter(torch.ones(2))
    >>> p.grad = torch.ones(2)
    >>> before = thalweg.optim.AdamW([p])
    >>> before.step()
    >>> after = torch.optim.AdamW([p])
    >>> after.load_state_dict(convert(before.state_dict(), after))
    >>> after.state[p]["step"], after.state[p]["exp_avg"]
    (tensor(1.), tensor([0.1000, 0.1000]))
    """
    target = _target(to)
    own = to if isinstance(to, Optimizer) else _like(target)
    saved = Saved.checked(state_dict)
    library = _library(saved, target, own, source)
    layout = library.layouts.get(target)
    if layout is None:
        reason = library.refused.get(target, f"no optimizer there has the rule of {target}")
        raise ValueError(
            f"convert: {library.name}'s state cannot become {target}'s: {reason}; shared with "
            f"thalweg are {', '.join(library.layouts)}"
        )
    groups, state = [], {}
    same_groups = len(saved.groups) == len(to.param_groups)
    for k, given in enumerate(saved.groups):
        group = _group(library, saved, k, given)
        for refusal in layout.refusals:
            if why := refusal(group):
                raise ValueError(
                    f"convert: {library.name}'s state cannot become {target}'s: {group.place}: "
                    f"{why}"
                )
        base = to.param_groups[k] if same_groups else {"params": [], **to.defaults}
        options = _options(library, layout, target, group, base)
        own.check_options(options)
        groups.append({**options, "params": list(group.params)})
        needed = _needed(own, options)
        for i, key in enumerate(group.params):
            if entry := group.entries.get(key):
                states = _entry(library, layout, own, target, group, needed, key, entry)
                state.update({key: states} if states else {})  # SGD without momentum has none
            elif target == "Adagrad" and i < len(base["params"]):
                state[key] = _begun(base["params"][i], options)
    return {"state": state, "param_groups": groups}


def _target(to: Any) -> str:
    """The name of the shared optimizer that ``to`` is, if it is one."""
    if not isinstance(to, torch.optim.Optimizer):
        raise TypeError(
            f"convert: to must be an optimizer of thalweg.optim or torch.optim, got "
            f"{type(to).__name__}; build it with the groups that it shall have"
        )
    for cls in type(to).__mro__:
        if cls.__name__ in classes() and cls in (
            getattr(optim, cls.__name__),
            getattr(torch.optim, cls.__name__, None),
        ):
            return cls.__name__
    raise ValueError(
        f"convert: to must be an optimizer of thalweg.optim, or torch's of the same name, got "
        f"{type(to).__name__}; there are {', '.join(classes())}"
    )


def _like(target: str) -> Optimizer:
    """Ours of that name, for its checks."""
    cls: Any = getattr(optim, target)
    own: Optimizer = cls([torch.nn.Parameter(torch.zeros(1, device="cpu"))])
    return own


def _library(saved: Saved, target: str, own: Optimizer, source: str | None) -> Library:
    ours = torch_optim.library(own)
    if source is not None:
        if source not in SOURCES:
            raise unknown("convert", "source", str(source), SOURCES)
        # timm hands on torch's own classes.
        plain = source == "timm" and not timm.LIBRARY.marked(saved, target)
        return ours if plain or source == "torch" else OTHERS[source]
    found = [library for library in (ours, *OTHERS.values()) if library.marked(saved, target)]
    if len(found) > 1:
        names = [library.name for library in found]
        raise ValueError(
            f"convert: the state dict can be that of {' or '.join(names)}, where it means "
            f"different things; say which: source={names[0]!r}"
        )
    return found[0] if found else ours


def _group(library: Library, saved: Saved, k: int, given: Mapping[str, Any]) -> Group:
    entries = {
        key: {
            name: value
            for name, value in library.flat(saved.state[key], parameter(key)).items()
            if value is not None
        }
        for key in given["params"]
        if saved.state.get(key)
    }
    place = f"group {k}"
    options = {name: value for name, value in given.items() if name != "params"}
    return Group(place, Named(options, f"convert: {place}"), tuple(given["params"]), entries)


def _options(
    library: Library, layout: Layout, target: str, group: Group, base: Mapping[str, Any]
) -> dict[str, Any]:
    """The options of ``base``, with those of the saved group."""
    converted = {name: read(group.options) for name, read in layout.options.items()}
    if target == "AdamW":
        if converted["decoupled_weight_decay"] is False and group.decays():
            raise ValueError(
                f"convert: {library.name}'s state cannot become AdamW's: {group.place}: its weight "
                "decay acts on the gradient, AdamW's on the parameter; convert to Adam"
            )
        converted["decoupled_weight_decay"] = True
    kept = {
        name: value
        for name, value in group.options.items()
        if name in GROUP_KEYS and value is not None
    }
    for name in group.options:
        if name not in layout.options and name not in layout.idle and name not in GROUP_KEYS:
            raise ValueError(
                f"convert: {library.name}'s state cannot become {target}'s: {group.place} has the "
                f"option {name!r}, which {target} has not there; is it another optimizer's? If it "
                "is your own, take it out of the state dict's group"
            )
    own = {name: value for name, value in base.items() if name not in ("params", "param_names")}
    return {**own, **kept, **{n: v for n, v in converted.items() if v is not ABSENT}}


def _needed(
    own: Optimizer, options: Mapping[str, Any]
) -> Callable[[Mapping[str, Any]], Sequence[str]]:
    """The states that a parameter must have, asked once for all that have the same ones.

    The answer is read off the rule, which takes milliseconds.
    """
    answers: dict[Any, Sequence[str]] = {}

    def needed(present: Mapping[str, Any]) -> Sequence[str]:
        alike = (*present, float(present.get("averaged_models", 0)) >= 1)
        if alike not in answers:
            answers[alike], _ = state_names(own, options, present)
        return answers[alike]

    return needed


def _entry(
    library: Library,
    layout: Layout,
    own: Optimizer,
    target: str,
    group: Group,
    needed: Callable[[Mapping[str, Any]], Sequence[str]],
    key: Any,
    entry: Mapping[str, Any],
) -> dict[str, Any]:
    """A parameter's states under our names."""
    place = f"{parameter(key)} ({group.place})"
    found: dict[str, Any] = {}
    for name, value in entry.items():
        if name in layout.states:
            if not layout.unused(group, name):
                found[layout.states[name]] = value
        elif name != "step" and not layout.unused(group, name):
            raise ValueError(
                f"convert: {library.name}'s state cannot become {target}'s: {place} has the state "
                f"{name!r}, which {target} has not there; is it another optimizer's?"
            )
    if not hasattr(own, "rule"):
        return found  # LBFGS keeps no tensors of the parameters' shapes
    if not found and not own.rule.counted:
        return {}
    steps = count(place, library.step(group, entry)) if own.rule.counted else 0.0
    present = {"step": steps, **found} if own.rule.counted else found
    if missing := [name for name in needed(present) if name not in present]:
        raise ValueError(
            f"convert: {library.name}'s state cannot become {target}'s: {place} lacks "
            f"{', '.join(missing)}; it has {printable(', '.join(map(str, entry)))}. Is it another "
            "optimizer's?"
        )
    result: dict[str, Any] = {}
    if own.rule.counted:
        # torch's dtypes; its SparseAdam counts with an int.
        result["step"] = int(steps) if target == "SparseAdam" else torch.tensor(steps, device="cpu")
    for name, value in found.items():
        if name in own.composed_rule.scalar_states:
            result[name] = torch.tensor(
                one_number(place, name, value), dtype=torch.float64, device="cpu"
            )
            continue
        tensor = state_value(place, name, value)
        if name in layout.debiased:
            tensor = tensor * (1 - float(layout.debiased[name](group.options)) ** steps)
        result[name] = tensor
    return result


def _begun(p: torch.Tensor, options: Mapping[str, Any]) -> dict[str, Any]:
    """Adagrad's state before the first step, which torch's makes in the constructor alone."""
    value = options["initial_accumulator_value"]
    return {"step": torch.tensor(0.0, device="cpu"), "sum": torch.full_like(p.detach(), value)}
