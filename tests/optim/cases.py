"""Which optimizers are tested, and with which options.

The optimizers are those of the catalogue. What is said of some by name adds to what every one gets;
one that is new, and that torch does not have, needs nothing here.
"""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.testing._internal.common_optimizers import optim_db

import thalweg.optim as optim
from thalweg.optim.catalogue import classes, describe

# Of torch's own tests: the options to try on each optimizer, and what each must refuse.
DATABASE = {info.optim_cls.__name__: info for info in optim_db}


def in_torch(name: str) -> bool:
    """Whether torch has an optimizer of that name to compare with."""
    return name in DATABASE


def _dense(name: str) -> bool:
    found = describe(classes()[name])
    return found.gradients != "sparse" and hasattr(classes()[name], "rule")


DENSE = tuple(name for name in classes() if _dense(name))
SHARED = tuple(name for name in DENSE if in_torch(name))


@dataclass(frozen=True, eq=False)
class Case:
    """One optimizer with one set of constructor options."""

    name: str
    label: str
    _options: dict[str, Any] = field(repr=False)

    def __str__(self) -> str:
        return f"{self.name}-{self.label}"

    def options(self, *, double: bool = False) -> dict[str, Any]:
        """Fresh constructor options; ``double``: Tensor options as float64 of the same value.

        torch computes with a Tensor lr in that tensor's own dtype, so its float64 trajectory needs
        a float64 lr.
        """
        options = copy.deepcopy(self._options)
        return {key: as_double(value) if double else value for key, value in options.items()}

    @property
    def lr(self) -> float | Tensor:
        return self.options().get("lr", defaults(self.name)["lr"])

    @property
    def own(self) -> dict[str, Any]:
        """What the third group overrides, of the options that the rule makes use of."""
        own = dict(OWN.get(self.name) or moved(self.name))
        given = self._options
        if self.name == "SGD" and (not given.get("momentum") or given.get("nesterov")):
            own.pop("dampening")
        if isinstance(self._options.get("betas", (0.0,))[0], Tensor):
            own.pop("betas")
        return own


def as_double(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(as_double, value))
    return value.double() if isinstance(value, Tensor) else value


def defaults(name: str) -> dict[str, Any]:
    """The constructor's default options."""
    parameters = inspect.signature(getattr(optim, name)).parameters.values()
    known = {p.name: p.default for p in parameters if p.name not in ("params", "extras")}
    return known | ({"decoupled_weight_decay": True} if name == "AdamW" else {})


def moved(name: str) -> dict[str, Any]:
    """Every number among the options but lr a tenth smaller; those that are 0 stay off."""

    def smaller(value: Any) -> Any:
        return tuple(map(smaller, value)) if isinstance(value, tuple) else 0.9 * value

    return {
        key: smaller(value)
        for key, value in describe(classes()[name]).defaults.items()
        if key not in ("lr", "weight_decay") and isinstance(value, (float, tuple))
    }


def everything_on(name: str) -> dict[str, Any]:
    """Every switch on, and weight decay."""
    known = describe(classes()[name]).defaults
    flags: dict[str, Any] = {key: True for key, value in known.items() if value is False}
    return flags | ({"weight_decay": 0.1} if "weight_decay" in known else {})


# What the third group of a problem overrides, where it is not all of `moved`.
OWN: dict[str, dict[str, Any]] = {
    "SGD": {"dampening": 0.25},
    "Adam": {"betas": (0.8, 0.99), "eps": 1e-5},
    "AdamW": {"betas": (0.8, 0.99), "eps": 1e-5},
    "Adamax": {"betas": (0.8, 0.99), "eps": 1e-5},
    "NAdam": {"betas": (0.8, 0.99), "momentum_decay": 0.02},
    "RAdam": {"betas": (0.8, 0.99), "eps": 1e-5},
    "Adagrad": {"lr_decay": 0.01, "eps": 1e-6},
    "Adadelta": {"rho": 0.8, "eps": 1e-4},
    "RMSprop": {"alpha": 0.9, "eps": 1e-5},
    "Rprop": {"etas": (0.4, 1.3), "step_sizes": (1e-3, 0.1)},
    "ASGD": {"alpha": 0.6, "lambd": 1e-2},
}

# What torch's database leaves out and the rules or the base class treat differently.
EXTRA: list[tuple[str, str, dict[str, Any]]] = [
    ("SGD", "maximize-momentum", {"momentum": 0.9, "maximize": True}),
    ("SGD", "nesterov-alone", {"momentum": 0.5, "nesterov": True}),
    ("SGD", "tensor-lr-momentum", {"lr": torch.tensor(0.01), "momentum": 0.9}),
    ("Adam", "tensor-betas", {"betas": (torch.tensor(0.8), torch.tensor(0.95))}),
    ("Adam", "tensor-lr", {"lr": torch.tensor(0.01)}),
    ("Adam", "decoupled", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("Adam", "amsgrad-maximize", {"amsgrad": True, "maximize": True}),
    ("AdamW", "no-decay", {"weight_decay": 0.0}),
    ("NAdam", "decoupled-maximize", {
        "weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True}),
    ("RAdam", "short-memory", {"betas": (0.9, 0.5)}),
    ("RMSprop", "momentum-alone", {"momentum": 0.9}),
    ("RMSprop", "centered-alone", {"centered": True}),
    ("Adadelta", "tensor-lr", {"lr": torch.tensor(0.5)}),
    ("Rprop", "narrow", {"lr": 0.05, "step_sizes": (0.02, 0.06)}),
    ("ASGD", "averaging", {"t0": 3, "lambd": 0.01}),
    ("ASGD", "averaging-maximize-decay", {"t0": 5.0, "maximize": True, "weight_decay": 0.1}),
]  # fmt: skip
# The options with the longest rule, where they are not `everything_on`.
FULL: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    "Adam": {"amsgrad": True, "weight_decay": 0.1},
    "Adagrad": {"lr": 0.1, "lr_decay": 0.5, "weight_decay": 0.1},
    "RMSprop": {"weight_decay": 0.1, "centered": True, "momentum": 0.1},
    "ASGD": {"weight_decay": 0.1, "t0": 3},
}


def _cases(name: str) -> list[Case]:
    if in_torch(name):
        return [
            Case(name, given.desc.replace(",", "").replace(" ", "-"), given.kwargs)
            for given in DATABASE[name].optim_inputs_func(device="cpu")
        ]
    full, lr = everything_on(name), torch.tensor(defaults(name)["lr"])
    found = [Case(name, "default", {}), Case(name, "Tensor-lr", {"lr": lr})]
    found += [Case(name, key, {key: value}) for key, value in full.items()]
    return [*found, Case(name, "maximize", full | {"maximize": True})]


def fullest(name: str) -> Case:
    """The options with the longest rule, for what must not be tried on all of them."""
    return Case(name, "full", FULL.get(name, everything_on(name)))


CASES = [case for name in DENSE for case in _cases(name)] + [Case(*extra) for extra in EXTRA]
FULLEST = [fullest(name) for name in DENSE]
SHARED_CASES = [case for case in CASES if in_torch(case.name)]
SHARED_FULLEST = [case for case in FULLEST if in_torch(case.name)]
