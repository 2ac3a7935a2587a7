"""Who takes part: an optimizer, its options and the middle of its learning rates."""

import ast
import inspect
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from thalweg.names import unknown
from thalweg.optim.catalogue import classes
from thalweg.race.objects import find_object

OWN, TORCH = "thalweg.optim.", "torch.optim."
FALLBACK = 1e-3  # the centre for a class whose lr has no default


@dataclass(frozen=True)
class Racer:
    """One row of the table.

    Attributes:
        name: as in tables and pictures.
        optimizer: its class, as a dotted path.
        centre: the middle of the learning rates that are tried: what small networks train well
            with. It decides only where the search looks.
        options: keyword arguments besides ``lr``.
        note: what a reader must know to judge its result.
    """

    name: str
    optimizer: str
    centre: float
    options: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    def make(self, parameters: Iterable[Tensor], lr: float) -> torch.optim.Optimizer:
        """The optimizer on these parameters."""
        made: torch.optim.Optimizer = find_object("race", self.optimizer)(
            parameters, lr=lr, **self.options
        )
        return made

    @property
    def torch_twin(self) -> "Racer | None":
        """torch's class of the same name; None if this is it, or torch has none."""
        if self.optimizer.startswith(TORCH) or not hasattr(torch.optim, self.class_name):
            return None
        return replace(self, optimizer=TORCH + self.class_name)

    @property
    def class_name(self) -> str:
        """The last part of the class's path."""
        return self.optimizer.rpartition(".")[2]


def _own(name: str, centre: float, note: str = "", **options: Any) -> Racer:
    return Racer(name, OWN + name.partition("+")[0], centre, options, note)


# Those whose default rate is not the middle of the rates that work, or that need a word.
_KNOWN = (
    _own("SGD", 0.3),
    _own("SGD+momentum", 0.1, momentum=0.9),
    _own("Adam", 0.01),
    _own("AdamW", 0.01),
    _own("Adamax", 0.03),
    _own("NAdam", 0.01),
    _own("RAdam", 0.03),
    _own("Adagrad", 0.03),
    _own("Adadelta", 3.0),
    _own("RMSprop", 3e-3),
    _own(
        "Rprop",
        0.01,
        "trusts the sign of the gradient over the whole data set; on minibatches that sign flips "
        "at random",
    ),
    _own("ASGD", 0.3),
    _own("NAdamW", 0.01),
    _own("Lion", 1e-3),
    _own("Signum", 1e-3),
    _own("AdEMAMix", 3e-3),
    _own("ADOPT", 0.01),
    _own("LaProp", 0.01),
    _own("Adan", 0.01),
    _own("LAMB", 0.01),
    _own("SparseAdam", 3e-3, "takes sparse gradients only"),
    _own(
        "LBFGS",
        1.0,
        "evaluates up to 6 gradients per step on the same batch, each of which counts; meant for "
        "full batches",
        line_search_fn="strong_wolfe",
        history_size=10,
        max_iter=4,
    ),
)


def _default_lr(cls: type) -> float:
    try:
        lr = inspect.signature(cls).parameters["lr"].default
    except (KeyError, ValueError):
        return FALLBACK
    usable = isinstance(lr, (int, float)) and 0 < lr < math.inf
    return float(lr) if usable else FALLBACK


def _others() -> Iterator[Racer]:
    """All other optimizers, around the rate that they have by default."""
    known = {racer.class_name for racer in _KNOWN}
    for name, cls in classes().items():
        if name not in known:
            yield _own(name, _default_lr(cls))


RACERS = (*_KNOWN, *_others())


def find(spec: str) -> Racer:
    """The racer that a specification stands for.

    Args:
        spec: a name of :data:`RACERS` in any case; ``torch.optim.Adam`` for torch's class; or any
            importable class, ``my_module:MyClass`` or dotted. Options may follow in parentheses,
            as Python writes them: ``sgd(momentum=0.9, nesterov=True)``. ``lr`` among them is the
            centre of the learning rates that are tried.

    Raises:
        ValueError: no such optimizer (the message suggests the nearest name), options that are not
            ``name=value``, or values that are no plain Python data.

    >>> find("adamw").optimizer, find("sgd(momentum=0.5, lr=1)").centre
    ('thalweg.optim.AdamW', 1.0)
    >>> find("torch.optim.Adam").name, find("sgd(momentum=0.5)").name
    ('Adam (torch)', 'SGD(momentum=0.5)')
    """
    racer, lr = _read(spec)
    return racer if lr is None else replace(racer, centre=lr)


def _read(spec: str) -> tuple[Racer, float | None]:
    """The racer, and the learning rate where the specification has one."""
    match = re.fullmatch(r"\s*([^()\s][^()]*?)\s*(\(.*\))?\s*", spec, re.DOTALL)
    if match is None:
        raise ValueError(
            f"race: {spec!r} is no optimizer; write a name, and options as in sgd(momentum=0.9)"
        )
    options = _options(spec, match[2] or "()")
    lr = options.pop("lr", None)
    racer = _with_options(_base(match[1]), options)
    if lr is None:
        return racer, None
    if isinstance(lr, bool) or not isinstance(lr, (int, float)) or not 0 < lr < math.inf:
        raise ValueError(f"race: lr must be a number > 0, got {lr!r} in {spec!r}")
    return racer, float(lr)


def _base(name: str) -> Racer:
    by_name = {racer.name.lower(): racer for racer in RACERS}
    if name.lower() in by_name:
        return by_name[name.lower()]
    if "." not in name and ":" not in name:
        raise unknown("race", "optimizer", name, [racer.name for racer in RACERS])
    cls = find_object("race", name)
    path = name.replace(":", ".")
    if not isinstance(cls, type) or not hasattr(cls, "step"):
        raise ValueError(f"race: {name} is no optimizer class but {cls!r}; name a class")
    for racer in RACERS:
        if path == racer.optimizer and not racer.options:
            return racer
    twin = by_name.get(cls.__name__.lower())
    if path.startswith(TORCH) and twin is not None:
        return replace(twin, name=f"{cls.__name__} (torch)", optimizer=path)
    return Racer(cls.__name__, path, _default_lr(cls))


def _with_options(base: Racer, options: Mapping[str, Any]) -> Racer:
    """The racer with more options: one of :data:`RACERS` if it is the same, else named for them."""
    merged = {**base.options, **options}
    for racer in RACERS:
        if (base.optimizer, merged) == (racer.optimizer, racer.options):
            return racer
    if not options:
        return base
    same = (r for r in RACERS if (r.class_name, r.options) == (base.class_name, merged))
    centre = next(same, base).centre
    shown = ", ".join(f"{key}={value!r}" for key, value in merged.items())
    name, torchs, _ = base.name.partition(" (torch)")
    name = f"{name.partition('+')[0]}({shown}){torchs}"
    return replace(base, name=name, options=merged, centre=centre)


def _options(spec: str, text: str) -> dict[str, Any]:
    """The keyword arguments of a call that is written ``(name=value, ...)``."""
    try:
        call = ast.parse(f"f{text}", mode="eval").body
        if not isinstance(call, ast.Call):
            raise SyntaxError
        if call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError(f"race: options must be name=value in {spec!r}; write lr=0.1, not 0.1")
        options = {str(keyword.arg): _literal(spec, keyword) for keyword in call.keywords}
        if len(options) < len(call.keywords):
            raise ValueError(f"race: {spec!r} has an option twice; leave one out")
    except SyntaxError:
        raise ValueError(
            f"race: the options of {spec!r} are no Python; write them as in sgd(momentum=0.9)"
        ) from None
    return options


def _literal(spec: str, keyword: ast.keyword) -> Any:
    try:
        value = ast.literal_eval(keyword.value)
    except ValueError:
        value = ...
    if not _plain(value):
        raise ValueError(
            f"race: option {keyword.arg} in {spec!r} must be a number, a string, True, False, None "
            f"or a tuple of these, got {ast.unparse(keyword.value)}"
        )
    return value


def _plain(value: Any) -> bool:
    """The value is something that a file can hold."""
    if isinstance(value, tuple):
        return all(map(_plain, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, (bool, int, str))


def find_all(specs: Sequence[str]) -> tuple[Racer, ...]:
    """The racers of these specifications, with names that tell them apart.

    Raises:
        ValueError: as :func:`find`; none is given, or two are the same.

    >>> [racer.name for racer in find_all(["adam", "adam(lr=1)"])]
    ['Adam', 'Adam (lr 1)']
    """
    if not specs:
        raise ValueError("race: optimizers is empty; name at least one")
    found: list[Racer] = []
    for spec in specs:
        racer = find(spec)
        if racer in found:
            raise ValueError(f"race: optimizers name {racer.name} twice ({spec!r}); leave one out")
        found.append(racer)
    # Of two that differ in the learning rate alone, the usual one keeps the plain name.
    order = sorted(range(len(specs)), key=lambda i: _read(specs[i])[1] is not None)
    names: dict[int, str] = {}
    for i in order:
        names[i] = next(name for name in _names(found[i]) if name not in names.values())
    return tuple(replace(racer, name=names[i]) for i, racer in enumerate(found))


def _names(racer: Racer) -> Iterator[str]:
    """Its name, then longer ones until one is free."""
    yield racer.name
    if not racer.optimizer.startswith((OWN, TORCH)):
        yield f"{racer.name} ({racer.optimizer.rpartition('.')[0]})"
    yield f"{racer.name} (lr {racer.centre:g})"
    number = 2
    while True:
        yield f"{racer.name} ({number})"
        number += 1


def split_specs(text: str) -> list[str]:
    """Specifications that are separated by commas, of which those in parentheses are no part.

    Raises:
        ValueError: a parenthesis is not closed, or one is closed that was not opened.

    >>> split_specs("sgd(momentum=0.9, nesterov=True), adam")
    ['sgd(momentum=0.9, nesterov=True)', 'adam']
    """
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if depth < 0:
            break
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    if depth:
        raise ValueError(f"race: the parentheses in {text!r} do not match; close each of them")
    return [part.strip() for part in parts if part.strip()]


def grid(centre: float, count: int) -> list[float]:
    """So many learning rates around a centre, each √10 times the one before.

    >>> [f"{lr:.2g}" for lr in grid(0.1, 3)]
    ['0.032', '0.1', '0.32']
    """
    if count < 1:
        raise ValueError(f"grid: count must be at least 1, got {count}")
    return [centre * 10 ** ((i - (count - 1) / 2) / 2) for i in range(count)]
