"""Tracing: a rule is called once with symbols, and what it did becomes a program."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from thalweg.names import nearest
from thalweg.rule.program import Program, build, number, switch
from thalweg.rule.symbols import Graph, Level, Symbol

if TYPE_CHECKING:
    from thalweg.rule.rule import Rule


def trace(rule: "Rule", hyperparameters: Mapping[str, Any], row: Sequence[float]) -> Program:
    """Call the rule with symbols for these values and return the program it recorded.

    Args:
        rule: the rule.
        hyperparameters: a parameter group's options. Numbers become inputs; anything else (a bool,
            a string, None) is handed over as it is, and the program holds only for that value.
        row: the values of the rule's scalar states, ``step`` (that of this update) first.
    """
    graph = Graph()
    h = TracedHyperparameters(rule.name, graph, hyperparameters, row[0])
    s = TracedStates(rule, graph, row)
    result = rule.update(graph.load("p"), graph.load("g"), s, h)
    if not isinstance(result, Symbol):
        raise TypeError(
            f"{rule.name}: the rule must return the parameter's new value, got {result!r}"
        )
    outputs = [("p", result), *s._assigned_tensors.items()]
    if graph.cleared:
        outputs.append(("g", graph.literal(0.0)))
    return build(
        name=rule.name,
        outputs=outputs,
        scalar_outputs={k: x for k, x in s._assigned_scalars.items() if x.level is Level.SCALAR},
        fed={k: x for k, x in s._assigned_scalars.items() if x.level is Level.REDUCED},
        guards=graph.guards,
        switches=h._switches,
        inputs=h._inputs | s._inputs,
        states=rule.tensor_states,
        vetoes=graph.vetoes,
        measured=graph.measured,
    )


class TracedHyperparameters:
    """``h``: attributes are symbols for numbers, and plain values for switches.

    A pair such as ``betas`` is read as ``h.betas`` (a tuple) or as ``h.beta1``, ``h.beta2``.
    """

    def __init__(self, rule: str, graph: Graph, values: Mapping[str, Any], step: float) -> None:
        self._rule = rule
        self._graph = graph
        self._values = values
        self._step = step
        self._switches: dict[str, Any] = {}
        self._inputs: dict[str, str] = {}

    def __getattr__(self, name: str) -> Any:
        if name == "step":
            return self._number("h.step", "row[0]", self._step)
        key, index = resolve(self._rule, name, self._values)
        value = self._values[key] if index is None else self._values[key][index]
        if isinstance(value, (tuple, list)):
            self._switches[f"len(h[{key!r}])"] = len(value)
            return tuple(getattr(self, item_name(key, i)) for i in range(len(value)))
        if isinstance(value, (bool, str)) or value is None:
            self._switches[f"switch(h[{key!r}])"] = switch(value)
            return value
        source = f"number(h[{key!r}])" if index is None else f"number(h[{key!r}][{index}])"
        return self._number(f"h.{name}", source, number(value))

    def _number(self, name: str, source: str, value: float) -> Symbol:
        self._inputs[name] = source
        return self._graph.input(name, value)


class TracedStates:
    """``s``: reading an unassigned state loads it; assigning it makes the program store it."""

    _rule: "Rule"
    _graph: Graph
    _row: Sequence[float]
    _assigned_tensors: dict[str, Symbol]
    _assigned_scalars: dict[str, Symbol]
    _inputs: dict[str, str]

    def __init__(self, rule: "Rule", graph: Graph, row: Sequence[float]) -> None:
        set_ = super().__setattr__
        set_("_rule", rule)
        set_("_graph", graph)
        set_("_row", row)
        set_("_assigned_tensors", {})
        set_("_assigned_scalars", {})
        set_("_inputs", {})

    def __getattr__(self, name: str) -> Symbol:
        rule, graph = self._rule, self._graph
        for assigned in (self._assigned_tensors, self._assigned_scalars):
            if name in assigned:
                return assigned[name]
        rule.check_state(name)
        if not rule.states[name].scalar:
            return graph.load(name)
        index = rule.scalar_states.index(name) + 1  # row[0] is the step
        self._inputs[f"s.{name}"] = f"row[{index}]"
        return graph.input(f"s.{name}", self._row[index])

    def __setattr__(self, name: str, value: Any) -> None:
        rule, graph = self._rule, self._graph
        rule.check_state(name)
        if not isinstance(value, Symbol):
            value = graph.literal(float(value))
        if not rule.states[name].scalar:
            self._assigned_tensors[name] = value
        elif value.level is not Level.ELEMENT and not value.is_of_units:
            self._assigned_scalars[name] = value
        else:
            raise TypeError(
                f"{rule.name}: state {name!r} holds one number per parameter and was assigned "
                f"{value!r}; declare it without scalar=True, or compute it from h and sums"
            )


def item_name(key: str, index: int) -> str:
    """``betas``, 0 → ``beta1``: how a rule names one number of a tuple."""
    return f"{key.removesuffix('s')}{index + 1}"


def resolve(rule: str, name: str, values: Mapping[str, Any]) -> tuple[str, int | None]:
    """The option, and the place in it, that a rule means by ``h.name``."""
    if name in values:
        return name, None
    names = {
        item_name(key, i): (key, i)
        for key, value in values.items()
        if isinstance(value, (tuple, list)) and key != "params"
        for i in range(len(value))
    }
    if name in names:
        return names[name]
    known = [*(k for k in values if k != "params"), *names, "step"]
    raise AttributeError(
        f"{rule}: the rule reads h.{name}, but the optimizer's options are "
        f"{', '.join(sorted(known))}{nearest(name, known)}"
    )
