"""Taking a state dict over: everything is checked and made ready first, then it cannot fail."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch

from thalweg.engine.copying import copy_values, deep_copy
from thalweg.engine.interrupts import uninterrupted
from thalweg.engine.layout import is_dense
from thalweg.engine.readable import is_plain
from thalweg.engine.torch_internals.modes import storage_references
from thalweg.names import printable
from thalweg.optim.state_dict.form import PARAMS, Saved, State, pack, parameters, parse
from thalweg.optim.state_dict.matching import Match, Rename, match
from thalweg.optim.state_dict.owner import ChecksStates, Owner, checks_states
from thalweg.optim.state_dict.report import LoadReport
from thalweg.optim.state_dict.saved_options import checked_options
from thalweg.optim.state_dict.values import (
    Entry,
    Misfits,
    Wanted,
    check_torchs_states,
)

Copies = list[tuple[torch.Tensor, torch.Tensor]]  # into which tensor, and what


@dataclass
class Pending:
    """Data that was checked, and only waits to be taken over.

    Attributes:
        commit: takes it over; may give a report, where it is only known then.
        undo: puts everything back, also after half of it; None if ``commit`` cannot fail.
        report: what of it fits; None where nothing goes by name, or before it was tried.
    """

    commit: Callable[[], Any]
    undo: Callable[[], Any] | None = None
    report: LoadReport | None = None


def prepare(
    optimizer: torch.optim.Optimizer,
    state_dict: Any,
    *,
    strict: bool = True,
    rename: Rename | None = None,
    names: Sequence[str] | None = None,
    whole: bool = False,
) -> Pending:
    """Check a state dict and make ready what it brings; nothing of the optimizer changes yet.

    Beyond what the optimizer will hold, no memory is used: a state tensor that nobody else refers
    to is written over when it is taken over; where there is none, or somebody else has it, a new
    one is made now.

    Args:
        optimizer: thalweg's or torch's.
        state_dict: in torch's format, with numbers or names for the parameters.
        strict: raise where something does not fit; False: take what fits, by name only.
        rename: from names in the state dict to names here, a dict or a function.
        names: of an optimizer without names, all groups' parameters in a row.
        whole: take it over by the optimizer's ``load_state_dict``, which a class may have of its
            own.

    Raises:
        TypeError, ValueError: see :meth:`thalweg.optim.Optimizer.load_state_dict`.
    """
    ours = checks_states(optimizer) and not whole
    if ours:  # torch's class calls its hooks itself
        if isinstance(state_dict, Mapping):
            state_dict = dict(state_dict)  # a hook may write into it, as with torch
        for before in optimizer._optimizer_load_state_dict_pre_hooks.values():
            changed = before(optimizer, state_dict)
            if changed is not None:
                state_dict = changed
    saved = parse(type(optimizer).__name__, state_dict)
    matched = match(optimizer, saved, rename, names)
    if ours:
        return _prepare_ours(cast(Owner, optimizer), saved, matched, strict)
    if whole or not isinstance(optimizer, ChecksStates):
        return _prepare_torchs(optimizer, saved, matched, strict, optimizer.load_state_dict)
    # A class written by hand is loaded as torch loads it.
    of_torch = partial(torch.optim.Optimizer.load_state_dict, optimizer)
    return _prepare_torchs(optimizer, saved, matched, strict, of_torch)


def _prepare_ours(optimizer: Owner, saved: Saved, matched: Match, strict: bool) -> Pending:
    misfits = Misfits(shapes=list(matched.misshaped))
    groups = [
        checked_options(optimizer, k, own, options)
        for k, (own, options) in enumerate(
            zip(optimizer.param_groups, matched.options, strict=True)
        )
    ]
    entries = optimizer.checked_states(saved, matched, groups, misfits)
    report = _report(type(optimizer).__name__, saved, matched, misfits, strict)
    # The engine refers to the states, and the next step makes another one.
    optimizer.forget_engine()
    written: Copies = []
    made: Copies = []
    state: State = {p: _ready(optimizer, p, e, written, made) for p, e in entries.items()}
    copy_values(made)
    keys = set(saved.all_keys)
    # From a file they may be views of it.
    state.update((key, deep_copy(v)) for key, v in saved.state.items() if key not in keys)

    def commit() -> None:
        with uninterrupted():
            copy_values(written)
            optimizer.__setstate__({"state": state, "param_groups": groups})
        for after in optimizer._optimizer_load_state_dict_post_hooks.values():
            after(optimizer)

    return Pending(commit, report=report)


def _prepare_torchs(
    optimizer: torch.optim.Optimizer,
    saved: Saved,
    matched: Match,
    strict: bool,
    load: Callable[[dict[str, Any]], Any],
) -> Pending:
    """As torch's own class takes it: its numbers, its groups."""
    misfits = Misfits(shapes=list(matched.misshaped))
    check_torchs_states(optimizer, saved, matched, misfits)
    report = _report(type(optimizer).__name__, saved, matched, misfits, strict)
    own = pack(optimizer.param_groups, {})["param_groups"]
    numbers = dict(
        zip(map(id, parameters(optimizer)), (n for g in own for n in g[PARAMS]), strict=True)
    )
    fitting = set(report.loaded)
    state: State = {
        numbers[id(place.param)]: saved.state[place.key]
        for place in matched.places
        if place.label in fitting and place.key in saved.state
    }
    keys = set(saved.all_keys)  # all else belongs to no parameter
    state.update((key, value) for key, value in saved.state.items() if key not in keys)
    groups = [
        group if options is None else {**options, PARAMS: group[PARAMS]}
        for group, options in zip(own, matched.options, strict=True)
    ]

    def commit() -> None:
        with uninterrupted():
            load({"state": state, "param_groups": groups})

    return Pending(commit, report=report)


def _report(
    owner: str,
    saved: Saved,
    matched: Match,
    misfits: Misfits,
    strict: bool,
) -> LoadReport:
    """The report, or a ValueError with all of it where something does not fit and must."""
    keys = set(saved.all_keys)
    misfits.wrong += [
        f"the state dict has a state for parameter {key!r}, which no group holds"
        for key in saved.state
        # Any other key is of something that belongs to no parameter, and is kept as it is.
        if key not in keys and isinstance(key, (int, *{type(key) for key in keys}))
    ]
    misfits.wrong += [
        f"the state dict has a state under the text {key!r}, its groups list the number {key}, as "
        "when it went through JSON: make numbers of the keys, {int(key): states, ...}"
        for key in saved.state
        if isinstance(key, str) and key not in keys and key.isdecimal() and int(key) in keys
    ]
    misshaped = {each.name for each in misfits.shapes}
    report = LoadReport(
        loaded=tuple(
            place.label
            for place in matched.places
            if place.key is not None and place.label not in misshaped
        ),
        missing=tuple(matched.missing),
        unexpected=tuple(matched.unexpected),
        misshaped=tuple(misfits.shapes),
        kept=tuple(matched.kept),
        other=tuple(misfits.dropped),
    )
    optional = matched.by_name and not strict
    if misfits.wrong or not (report.complete or optional):
        lines = [printable(line) for line in (*report.misfits, *misfits.wrong)]
        text = "".join(f"\n  {line}" for line in lines) if len(lines) > 1 else f" {lines[0]}"
        remedy = "" if misfits.wrong or not matched.by_name else hint(report)
        raise ValueError(f"{owner}: the state dict does not fit:{text}{remedy}")
    return report


def hint(report: LoadReport) -> str:
    """What to do about a report of misfits, for the end of an error's message."""
    return _common_prefix(report.missing, report.unexpected) or (
        "\nPass strict=False to load what fits and get this as a report, or rename={...}"
    )


def _common_prefix(missing: Sequence[str], unexpected: Sequence[str]) -> str:
    """A hint, where all names of one side are those of the other with something in front."""
    for here, there, change in (
        (missing, unexpected, "lambda name: name.removeprefix({!r})"),
        (unexpected, missing, "lambda name: {!r} + name"),
    ):
        if here and len(here) == len(there) and there[0].endswith(here[0]):
            prefix = there[0].removesuffix(here[0])
            if {prefix + name for name in here} == set(there):
                return f"\nThe names differ by {prefix!r}: pass rename={change.format(prefix)}"
    return ""


def _ready(
    optimizer: Owner,
    p: torch.Tensor,
    entry: Entry,
    written: Copies,
    made: Copies,
) -> dict[str, Any]:
    """A parameter's states: own tensors, that are to be written over, or new ones, without values.

    ``written`` and ``made`` take note of what goes into which.
    """
    own: Mapping[str, Any] = optimizer.state.get(p, {})
    states: dict[str, Any] = {}
    for name, wanted in entry.items():
        if not isinstance(wanted, Wanted):
            states[name] = wanted
        elif own.get(name) is wanted.values and _serves(own[name], p, wanted.dtype):
            states[name] = own[name]  # it is its own state dict
        elif (
            _only_ours(own, name)
            and _serves(own[name], p, wanted.dtype)
            and _copies_surely(wanted.values, own[name])
        ):
            states[name] = own[name]
            written.append((own[name], wanted.values))
        else:
            values = wanted.values.detach()
            if values.layout is not torch.strided:
                values = values.to_dense()  # torch's SGD keeps a sparse momentum_buffer
            states[name] = torch.empty_like(
                p.detach(), dtype=wanted.dtype, memory_format=torch.preserve_format
            )
            made.append((states[name], values))
    return states


def _serves(tensor: torch.Tensor, p: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether a state tensor is of the kind that a new one would be."""
    return (
        type(tensor) is torch.Tensor
        and tensor.dtype is dtype
        and tensor.device == p.device
        and tensor.layout is torch.strided
        and tensor.stride() == p.stride()
        and is_dense(p)
    )


def _copies_surely(values: torch.Tensor, into: torch.Tensor) -> bool:
    """Whether copying cannot fail: no code of others runs, and no memory is needed for it."""
    near = values.device == into.device or values.dtype == into.dtype
    return is_plain(values) and near


def _references(states: Mapping[str, Any], name: str) -> tuple[int, int, int | None]:
    """How many refer to a tensor, to its storage as Python sees it, and to the memory."""
    storage = states[name].untyped_storage()
    held = storage_references(storage)
    return sys.getrefcount(states[name]), sys.getrefcount(storage), held


_ALONE = _references({"state": torch.zeros(1, device="cpu")}, "state")


def _only_ours(states: Mapping[str, Any], name: str) -> bool:
    """Whether nobody else would notice that a state tensor is written over.

    ``state_dict()`` gives away the optimizer's own tensors. A dict that is kept must stay what it
    is when another one is loaded, as with torch, which puts new tensors in place of the old.
    """
    if type(states.get(name)) is not torch.Tensor or states[name].layout is not torch.strided:
        return False
    if _ALONE[2] is None:
        return False
    return _references(states, name) == _ALONE and not (
        states[name].requires_grad or states[name].is_shared() or states[name].is_inference()
    )
