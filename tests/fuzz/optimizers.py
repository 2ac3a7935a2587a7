"""Random programs of what users do to an optimizer between steps, run on thalweg and on torch.

A program is plain data: the optimizer's name and options, the parameters, and a list of commands,
each a name and numbers. So it can be sent to another process, printed, and kept as a test.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

from tests.fuzz.commands import COMMANDS
from tests.fuzz.meant import INTENDED, REFUSED, overflows, why_lists_differ, why_numbers_differ
from tests.fuzz.world import SHAPES, Program, World, parameter

NAMES = (
    *("SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "Adagrad", "Adadelta", "RMSprop"),
    *("Rprop", "ASGD", "SparseAdam"),
)
# Those that torch lacks: there, back ends are compared with each other.
MODERN = ("ADOPT", "AdEMAMix", "Adan", "LAMB", "LaProp", "Lion", "NAdamW", "Signum")
FUSED = {"SGD", "Adam", "AdamW", "Adagrad"}  # torch's classes that take it
# Smooth rules. The others decide by a sign or a maximum, which rounding can turn over.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "SGD": [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"weight_decay": 0.1}],
    "Adam": [{}, {"amsgrad": True}, {"weight_decay": 0.1}],
    "AdamW": [{}, {"amsgrad": True}],
    "RMSprop": [{}, {"momentum": 0.5}, {"weight_decay": 0.1}],
    "Adagrad": [{}, {"lr_decay": 0.01}],
    "NAdam": [{}, {"weight_decay": 0.1, "decoupled_weight_decay": True}],
    "ADOPT": [{}, {"weight_decay": 0.1, "decoupled_weight_decay": True}],
    "AdEMAMix": [{}, {"alpha_warmup": 3, "beta3_warmup": 3}],
    "Adan": [{}, {"weight_decay": 0.1}],
    "LAMB": [{}, {"amsgrad": True}, {"trust_ratio": False}],
}
FLAGS: list[dict[str, Any]] = [
    *({}, {}, {}, {"foreach": False}, {"foreach": True}, {"maximize": True}),
    *({"capturable": True}, {"differentiable": True}),
]


class Ending(NamedTuple):
    """What became of a program.

    Attributes:
        raised: the names of the exception's classes, empty if there was none.
        at: the number of the command that raised, or of all commands.
        message: the exception's.
        values: the numbers of every parameter, and of its states by name.
        updated: which parameters each interrupted step updated.
    """

    raised: tuple[str, ...]
    at: int
    message: str
    values: list[dict[str, list[float]]]
    updated: list[list[int]]


def run(module_name: str, program: Program, told: list[list[int]] | None = None) -> Ending:
    """Run a program on the classes of a module.

    Args:
        module_name: of the classes.
        program: the program.
        told: which parameters each interrupted step updates; by default an interrupt decides.
    """
    warnings.simplefilter("ignore")
    module = importlib.import_module(module_name)
    at = -1
    updated: list[list[int]] = []
    torch.set_num_threads(2)
    try:
        params = [
            parameter(SHAPES[s % len(SHAPES)], program, k) for k, s in enumerate(program.shapes)
        ]
        optimizer = getattr(module, program.name)(params, lr=0.05, **program.options)
        again = None if told is None else [*told]
        w = World(module, program, params, optimizer, updated=updated, told=again)
        if program.options.get("differentiable"):
            for p in params:
                p.requires_grad_(True)
        for number, (name, *numbers) in enumerate(program.commands):
            at = number
            if program.options.get("differentiable"):
                with torch.no_grad():
                    COMMANDS[name](w, *numbers)
            else:
                COMMANDS[name](w, *numbers)
    except Exception as error:
        kinds = tuple(kind.__name__ for kind in type(error).__mro__)
        return Ending(kinds, at, str(error), [], updated)
    values = [_numbers(w, p) for p in w.params]
    return Ending((), len(program.commands), "", values, updated)


def _numbers(w: World, p: Parameter) -> dict[str, list[float]]:
    entry = w.optimizer.state.get(p, {})
    tensors = {"p": p, **{k: v for k, v in entry.items() if isinstance(v, Tensor)}}
    return {
        name: t.detach().double().reshape(-1).tolist()[:200]
        for name, t in tensors.items()
        if not t.is_sparse and not t.is_meta  # torch makes states on the default device
    }


def run_all(some: list[Program]) -> list[list[Ending]]:
    """Run each on what is to be compared. One process runs many: imports take most of the time."""
    return [endings(program) for program in some]


def endings(program: Program) -> list[Ending]:
    """Run a program on thalweg, and on torch or, where it has no such class, by other back ends.

    Those are lists of tensors, and one tensor after the other. A program that uses torch's fused
    kernels is run on torch without them as well, at last.
    """
    first = run("thalweg.optim", program)
    if program.name not in MODERN:
        found = [first, run("torch.optim", program, first.updated)]
        unfused = _unfused(program)
        if unfused != program:
            found.append(run("torch.optim", unfused, first.updated))
        return found
    options = [program.options | {"fused": False, "foreach": f} for f in (True, False)]
    others = [program._replace(options=o) for o in options]
    return [first, *(run("thalweg.optim", o, first.updated) for o in others)]


def _unfused(program: Program) -> Program:
    options = {k: v for k, v in program.options.items() if k != "fused"}
    commands = tuple(c for c in program.commands if c[0] != "set_fused")
    return program._replace(options=options, commands=commands)


def differences(program: Program, found: list[Ending]) -> str | None:
    """How what :func:`endings` has found differs; None if it does not, or is meant to."""
    ours, first, *others = found
    if program.name in MODERN:
        in_lists = None if why_lists_differ(program) else difference(program, ours, first)
        return in_lists or difference(program, ours, others[0])
    how = difference(program, ours, first)
    if how and others and not first.raised and not ours.raised:
        # Torch's fused kernels take it for granted that all tensors of a parameter lie alike.
        return difference(program, ours, others[0])
    return how


def difference(program: Program, ours: Ending, theirs: Ending) -> str | None:
    """How thalweg's ending differs from torch's; None if it does not, or is meant to."""
    if ours.raised and (not theirs.raised or ours.at < theirs.at):
        if any(words in ours.message for words in REFUSED):
            return None
        return f"raises {ours.raised[0]} at {ours.at}, and torch does not: {ours.message}"
    if theirs.raised:
        if (ours.raised and ours.at == theirs.at and _alike(ours, theirs)) or intended(theirs):
            return None
        return f"torch raises {theirs.raised[:1]} at {theirs.at}: {theirs.message}; ours: {ours}"
    if why_numbers_differ(program):
        return None
    bound = _bound(program)
    for k, (own, other) in enumerate(zip(ours.values, theirs.values, strict=True)):
        for name, expected in other.items():
            if name not in own:
                return f"{name} of parameter {k} is missing"
            found = own[name]
            if len(found) == len(expected) and overflows(program, found, expected):
                continue
            if len(found) != len(expected) or not all(map(_close(bound), found, expected)):
                return f"{name} of parameter {k}: {found[:8]}, torch {expected[:8]}"
    return None


def _bound(program: Program) -> float:
    """How far numbers may be apart that were stored in the program's narrowest dtype."""
    narrowest = 1 if program.dtype == "float32" else 0
    for name, *numbers in program.commands:
        if name == "tensor_rate":  # of float32, in which torch then computes with it
            narrowest = max(narrowest, 1)
        if name in ("cast", "cast_one", "cast_states"):
            narrowest = max(narrowest, numbers[-1] % 4)
    return (1e-7, 2e-3, 0.2, 0.05)[narrowest]


def _close(bound: float) -> Callable[[float, float], bool]:
    def close(a: float, b: float) -> bool:
        if math.isnan(a) or math.isnan(b):
            return math.isnan(a) == math.isnan(b)
        return a == b or abs(a - b) <= bound * (1 + abs(b))

    return close


def _alike(ours: Ending, theirs: Ending) -> bool:
    return theirs.raised[0] in ours.raised or ours.raised[0] in theirs.raised


def intended(theirs: Ending) -> bool:
    """Whether thalweg is meant to take what torch refuses."""
    return any(words in theirs.message for words in INTENDED)
