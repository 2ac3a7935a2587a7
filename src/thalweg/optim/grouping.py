"""Parameter groups from a model: which parameters get which options, and a table of it."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from thalweg.names import nearest

EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)

Types = type[nn.Module] | tuple[type[nn.Module], ...]


@dataclass(frozen=True)
class Found:
    """A parameter of a model.

    Attributes:
        names: every name it has there; tied parameters have several.
        modules: the modules that hold it, in the same order.
        parameter: the tensor.
    """

    names: tuple[str, ...]
    modules: tuple[nn.Module, ...]
    parameter: nn.Parameter

    @property
    def name(self) -> str:
        """The name that ``model.named_parameters()`` gives it."""
        return self.names[0]

    def named(self, pattern: str) -> bool:
        """Whether one of its names fits a pattern."""
        return any(fnmatchcase(name, pattern) for name in self.names)

    @property
    def is_embedding(self) -> bool:
        """Whether a module that holds it is an embedding."""
        return any(isinstance(module, EMBEDDINGS) for module in self.modules)


# The factor of lr for each parameter of a model.
Multiplier = Callable[[Sequence[Found]], Sequence[float]]


@dataclass(frozen=True)
class Selection:
    """Some parameters of a model, and the options that they get; see :func:`having`.

    Attributes:
        options: for the group.
        names: patterns; None: whatever the name.
        modules: types; None: whatever the module.
        dims: numbers of dimensions; None: whatever the number.
        chosen: a further condition.
        needed: raise where nothing is selected.
    """

    options: Mapping[str, Any]
    names: tuple[str, ...] | None = None
    modules: tuple[type[nn.Module], ...] | None = None
    dims: tuple[int, ...] | None = None
    chosen: Callable[[Found], bool] | None = None
    needed: bool = True

    def __str__(self) -> str:
        modules = None if self.modules is None else [each.__name__ for each in self.modules]
        parts = {"names": self.names, "modules": modules, "dims": self.dims}
        given = (f"{key}={list(value)}" for key, value in parts.items() if value is not None)
        return f"having({', '.join(given)})"

    def matches(self, found: Found) -> bool:
        """Whether a parameter is among the selected."""
        return (
            (self.names is None or any(map(found.named, self.names)))
            and (self.modules is None or any(isinstance(m, self.modules) for m in found.modules))
            and (self.dims is None or found.parameter.ndim in self.dims)
            and (self.chosen is None or self.chosen(found))
        )


def having(
    *,
    names: str | Iterable[str] | None = None,
    modules: Types | None = None,
    dims: int | Iterable[int] | None = None,
    **options: Any,
) -> Selection:
    """The parameters that meet all conditions, with options of their own.

    Args:
        names: a pattern of names such as ``"head.*"`` or several; ``*`` stands for any characters.
        modules: the type of the module that holds the parameter, or a tuple of types.
        dims: how many dimensions it has, or several numbers: 1 for biases and norms.
        options: the group's options, such as ``lr`` or ``weight_decay``.

    Raises:
        TypeError: there is no condition.

    >>> print(having(names="head.*", weight_decay=0.0))
    having(names=['head.*'])
    """
    if names is None and modules is None and dims is None:
        raise TypeError("having: give names, modules or dims; options for all belong to groups()")
    return Selection(
        options,
        None if names is None else (names,) if isinstance(names, str) else tuple(names),
        None if modules is None else (modules,) if isinstance(modules, type) else modules,
        None if dims is None else (dims,) if isinstance(dims, int) else tuple(dims),
    )


def no_decay_for_vectors() -> Selection:
    """``weight_decay=0`` for vectors, scalars and embeddings: biases, norms, gains, word vectors.

    What is left are the matrices of layers, which alone are decayed in the training of language
    models since GPT-2.
    """
    return Selection(
        {"weight_decay": 0.0},
        chosen=lambda found: found.parameter.ndim < 2 or found.is_embedding,
        needed=False,
    )


class Groups(list[dict[str, Any]]):
    """Parameter groups as any optimizer takes them; as text, a table."""

    def __str__(self) -> str:
        rows = [("parameters", "elements", "options", "")]
        for group in self:
            tensors = [p[1] if isinstance(p, tuple) else p for p in group["params"]]
            names = group.get("param_names") or [p[0] for p in group["params"]]
            options = {k: v for k, v in group.items() if k not in ("params", "param_names")}
            rows.append(
                (
                    str(len(tensors)),
                    f"{sum(p.numel() for p in tensors):,}",
                    ", ".join(f"{key}={_short(value)}" for key, value in options.items()) or "-",
                    _some(names),
                )
            )
        widths = [max(len(row[k]) for row in rows) for k in range(3)]
        return "\n".join(
            f"{a:>{widths[0]}}  {b:>{widths[1]}}  {c:<{widths[2]}}  {d}".rstrip()
            for a, b, c, d in rows
        )


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)


def _some(names: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown}, ... {names[-1]}"


def groups(
    model: nn.Module,
    *selections: Selection,
    multipliers: Sequence[Multiplier] = (),
    lr: float | None = None,
    **options: Any,
) -> Groups:
    """Parameter groups for a model: each parameter in one, by the first selection that matches.

    Without selections, decay for the matrices of layers alone: :func:`no_decay_for_vectors`. What
    no selection matches gets ``options`` alone. Tied parameters stand in one group, once, and
    match by each of their names and modules. Frozen ones are in their groups, too.

    The groups are ordinary ones, for torch's optimizers as for these, and hold the names, by which
    checkpoints go.

    Args:
        model: the model.
        selections: made by :func:`having`, or :func:`no_decay_for_vectors`.
        multipliers: factors of lr: :func:`lr_multipliers`, :func:`layer_decay`, :func:`by_fan_in`,
            or a function from a list of :class:`Found` to a list of factors. A parameter's factors
            are multiplied. The group has ``lr`` times them as its ``lr``, which schedulers start
            from, and the factor by itself as ``lr_scale``, for loops that set ``lr`` themselves.
        lr: the rate that the factors multiply.
        options: for all groups, unless a selection has others.

    Raises:
        ValueError: the model has no parameters; a selection, a pattern or a type matches none, or
            only what others in front of it take; multipliers without ``lr``.

    >>> model = nn.Sequential(nn.Linear(8, 4), nn.LayerNorm(4), nn.Linear(4, 1))
    >>> print(groups(model, weight_decay=0.1))
    parameters  elements  options
             2        36  weight_decay=0.1  0.weight, 2.weight
             4        13  weight_decay=0    0.bias, 1.weight, 1.bias, ... 2.bias
    """
    everything = parameters_of(model)
    selections = selections or (no_decay_for_vectors(),)
    for each in selections:
        _check_matches(each, everything)
    factors = _factors(everything, multipliers)
    if factors is not None and lr is None:
        raise ValueError("groups: multipliers multiply lr; give it, groups(..., lr=...)")
    made: dict[Any, dict[str, Any]] = {}
    taken: set[int] = set()
    for k, found in enumerate(everything):
        chosen = next((i for i, each in enumerate(selections) if each.matches(found)), None)
        own = dict(options) if lr is None else {"lr": lr, **options}
        if chosen is not None:
            taken.add(chosen)
            own |= selections[chosen].options
        factor = None if factors is None else factors[k]
        if factor is not None:
            own["lr"] *= factor
            own["lr_scale"] = factor
        key = tuple((name, id(v) if v.__hash__ is None else v) for name, v in own.items())
        made.setdefault(key, {"params": [], **own})["params"].append((found.name, found.parameter))
    for i, each in enumerate(selections):
        if each.needed and i not in taken:
            raise ValueError(
                f"groups: {each} gets no parameter: all that it matches are taken by selections in "
                "front of it; put it before them"
            )
    return Groups(made.values())


def parameters_of(model: nn.Module) -> list[Found]:
    """Every parameter of a model once, in the order of ``named_parameters()``.

    Raises:
        TypeError: it is no module.
        ValueError: it has none.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"groups: model must be a torch.nn.Module, got {type(model).__name__}")
    places: dict[int, list[tuple[str, nn.Module]]] = {}
    tensors: dict[int, nn.Parameter] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for name, p in module.named_parameters(recurse=False, remove_duplicate=False):
            tensors[id(p)] = p
            places.setdefault(id(p), []).append((f"{prefix}.{name}" if prefix else name, module))
    if not places:
        raise ValueError(f"groups: {type(model).__name__} has no parameters")
    return [
        Found(tuple(n for n, _ in found), tuple(m for _, m in found), tensors[key])
        for key, found in places.items()
    ]


def _check_matches(selection: Selection, everything: Sequence[Found]) -> None:
    """Raise ValueError for a pattern or type that meets none, or conditions that none meets."""
    check_patterns(selection.names or (), everything)
    for kind in selection.modules or ():
        if not any(isinstance(m, kind) for found in everything for m in found.modules):
            held = sorted({type(m).__name__ for found in everything for m in found.modules})
            raise ValueError(
                f"groups: no {kind.__name__} holds a parameter; those that do are {', '.join(held)}"
            )
    if selection.needed and not any(map(selection.matches, everything)):
        raise ValueError(f"groups: no parameter meets all conditions of {selection}")


def check_patterns(patterns: Iterable[str], everything: Sequence[Found]) -> None:
    """Raise ValueError for a pattern that no name fits."""
    for pattern in patterns:
        if not any(found.named(pattern) for found in everything):
            known = [name for found in everything for name in found.names]
            raise ValueError(f"groups: no parameter is called {pattern!r}{nearest(pattern, known)}")


def _factors(everything: Sequence[Found], multipliers: Sequence[Multiplier]) -> list[float] | None:
    """The product of each parameter's factors; None without any multiplier."""
    if not multipliers:
        return None
    columns = [each(everything) for each in multipliers]
    return [math.prod(factors) for factors in zip(*columns, strict=True)]
