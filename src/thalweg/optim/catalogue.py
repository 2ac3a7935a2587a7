"""What each optimizer is: its update, states, memory, defaults and source, read off its class."""

import inspect
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from thalweg import optim
from thalweg.names import unknown
from thalweg.optim.extras import EXTRAS
from thalweg.optim.optimizer import Optimizer
from thalweg.optim.options import MODES
from thalweg.rule.equations import equations

DTYPE = torch.float32


@dataclass(frozen=True)
class Described:
    """An optimizer as its class tells of it, with the options that it has if none are given.

    Attributes:
        name: of its class in ``thalweg.optim``.
        summary: the first line of its docstring.
        update: name and formula of each value that a step computes, as :func:`thalweg.explain`
            prints them, from the traced rule. Of LBFGS, which has no rule, the lines of the
            docstring under an empty name.
        states: what it keeps for each parameter: names of tensors of the parameter's shape.
        numbers: what it keeps besides: a number for each parameter.
        other_states: tensors that it keeps with other options.
        bytes_per_parameter: memory of the states per float32 element of a parameter; of LBFGS when
            its history is full.
        gradients: "dense", "sparse" or "dense and sparse".
        defaults: options by name; those that have no effect on the update are left out.
        source: where the rule comes from.
    """

    name: str
    summary: str
    update: tuple[tuple[str, str], ...]
    states: tuple[str, ...]
    numbers: tuple[str, ...]
    other_states: tuple[str, ...]
    bytes_per_parameter: int
    gradients: str
    defaults: Mapping[str, Any]
    source: str

    def to_dict(self) -> dict[str, Any]:
        """The attributes as plain data for JSON."""
        return asdict(self)


def classes() -> dict[str, type[Optimizer]]:
    """The optimizers of ``thalweg.optim`` by name.

    >>> list(classes())[:4]
    ['ADOPT', 'ASGD', 'AdEMAMix', 'Adadelta']
    """
    found = {name: getattr(optim, name) for name in optim.__all__}
    return {
        name: value
        for name, value in sorted(found.items())
        if isinstance(value, type) and issubclass(value, Optimizer) and value is not Optimizer
    }


def find(name: str) -> type[Optimizer]:
    """The optimizer of that name, in any case.

    Raises:
        ValueError: there is none; the message suggests the nearest name.
    """
    by_name = {key.lower(): value for key, value in classes().items()}
    if name.lower() in by_name:
        return by_name[name.lower()]
    raise unknown("optim", "optimizer", name, classes())


def catalogue() -> tuple[Described, ...]:
    """All of them, by name."""
    return tuple(describe(cls) for cls in classes().values())


def describe(cls: type[Optimizer]) -> Described:
    """Tell what an optimizer is.

    Args:
        cls: a class of ``thalweg.optim``, or one like them whose options all have defaults.

    >>> sgd = describe(optim.SGD)
    >>> sgd.update, sgd.states, sgd.bytes_per_parameter
    ((("p'", 'p - lr * g'),), (), 0)
    >>> describe(optim.Adam).bytes_per_parameter
    8
    """
    optimizer = cls([torch.nn.Parameter(torch.zeros(4, dtype=DTYPE, device="cpu"))])  # type: ignore[call-arg]
    parts = _traced(optimizer) if hasattr(cls, "rule") else _from_docstring(optimizer)
    text = inspect.getdoc(cls) or ""
    return Described(
        name=cls.__name__,
        summary=text.partition("\n")[0],
        **parts,
        gradients=_gradients(optimizer),
        defaults=_defaults(cls),
        source=_source(cls),
    )


def _traced(optimizer: Optimizer) -> dict[str, Any]:
    engine = optimizer._engine
    (slot,) = engine.look_at_slots()
    program, formats, _ = engine.preview(slot)
    tensors = optimizer.composed_rule.tensor_states
    sizes = [formats[name] for name in program.states]
    return dict(
        update=tuple(equations(program)),
        states=tuple(program.states),
        numbers=tuple(engine.shown_scalars),
        other_states=tuple(n for n in tensors if n not in program.states),
        bytes_per_parameter=sum(form.bytes_per_element for form in sizes if form),
    )


def _from_docstring(optimizer: Optimizer) -> dict[str, Any]:
    """What LBFGS says of itself: its docstring's formula; s and y of each pair, d and g."""
    text = inspect.getdoc(type(optimizer)) or ""
    _, _, rest = text.partition("::\n\n")
    block = rest.partition("\n\n")[0]
    pairs = optimizer.defaults["history_size"]
    return dict(
        update=tuple(("", line.strip()) for line in block.splitlines()),
        states=("d", "prev_flat_grad", "old_dirs", "old_stps"),
        numbers=(),
        other_states=(),
        bytes_per_parameter=2 * (pairs + 1) * DTYPE.itemsize,
    )


def _gradients(optimizer: Optimizer) -> str:
    """Which kinds of gradient it takes, by asking it."""
    group = optimizer.param_groups[0]
    if not hasattr(optimizer, "rule"):
        return "dense"  # all parameters' are put into one vector
    kinds = []
    for kind, ask in (("dense", optimizer.dense_gradient), ("sparse", optimizer.sparse_gradient)):
        try:
            ask(group)
        except RuntimeError:
            continue
        kinds.append(kind)
    return " and ".join(kinds)


def _defaults(cls: type[Optimizer]) -> dict[str, Any]:
    parameters = inspect.signature(cls).parameters
    others = ("params", "extras", *EXTRAS, "maximize", *MODES)
    plain = (name for name in parameters if name not in others)
    return {name: parameters[name].default for name in plain}


def _source(cls: type[Optimizer]) -> str:
    """The part of the module's docstring that names the papers, in one line."""
    text = inspect.getdoc(sys.modules[cls.__module__]) or ""
    line = " ".join(text.partition("\n\n")[2].split())
    label, colon, rest = line.partition(": ")
    return rest if colon and label in ("Paper", "Source", "Sources") else line
