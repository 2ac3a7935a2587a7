"""A traced rule: straight-line stages of element operations, and the scalars they take.

A program is data. ``engine`` prints its stages as kernels; this module prints only what runs in
Python: the *prologue*, which computes every scalar in float64 once per step, and the *between*
functions, which turn finished reductions into the scalars of the next stage.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from thalweg.rule import scalars
from thalweg.rule.operations import OPERATIONS
from thalweg.rule.symbols import SEVERAL, Level, Symbol

Row = Sequence[float]


def number(x: Any) -> float:
    """An option as a float; a tensor that requires a gradient too, without torch's warning."""
    return float(x.detach() if isinstance(x, torch.Tensor) else x)


def switch(x: Any) -> tuple[type, Any]:
    """An option that is no number, as a guard: True and 1.0 are equal, and not the same switch."""
    return type(x), x


_PROLOGUE_NAMES: dict[str, Any] = {
    **{name: getattr(scalars, name) for name in ("divide", "power", "sqrt", "exp", "log")},
    **{name: getattr(scalars, name) for name in ("log1p", "expm1", "tanh", "sigmoid", "atan")},
    **{name: getattr(scalars, name) for name in ("sign", "maximum", "minimum", "where")},
    "number": number,
    "switch": switch,
    "invert": lambda x: not x,
    "held": lambda x: x,
    "stored": lambda x: x,
    "nan": scalars.nan,
    "inf": scalars.inf,
}


@dataclass(frozen=True)
class Stage:
    """One pass over the elements.

    Attributes:
        loads: operands read, in the order ``p, g, states``.
        body: element nodes in an order in which each can be computed.
        stores: operand and the node whose value it takes; only the last stage stores.
        reductions: the ``reduce`` nodes summed by this stage.
        constants: the SCALAR and REDUCED nodes the body takes, scalars first.
        watched: those reductions from which nothing is computed: float32's precision is enough.
    """

    loads: tuple[str, ...]
    body: tuple[Symbol, ...]
    stores: tuple[tuple[str, Symbol], ...]
    reductions: tuple[Symbol, ...]
    constants: tuple[Symbol, ...]
    watched: frozenset[Symbol] = frozenset()

    @property
    def operands(self) -> tuple[str, ...]:
        """Every operand touched: those loaded, then those only stored."""
        written = tuple(name for name, _ in self.stores if name not in self.loads)
        return self.loads + written


@dataclass(frozen=True, eq=False)
class Program:
    """What a rule does for one setting of its switches.

    Attributes:
        name: the rule's name.
        states: the state tensors it touches, in declared order.
        stages: one, or more where reductions are used.
        scalar_outputs: the scalar states it assigns, and the nodes (``step`` is not among them).
        constants: every SCALAR node the stages or the reduced expressions take, in the order in
            which the prologue returns them.
        guards: the values the trace relied on, in the order in which the prologue returns them.
        vetoes: sums over all tensors, known before the last stage: where one is not 0, that stage
            is left out, and with it the step.
        measured: names and sums over the tensor that are wanted for themselves.
        fed: the scalar states assigned what depends on sums, and the nodes; known after the last
            stage.
    """

    name: str
    states: tuple[str, ...]
    stages: tuple[Stage, ...]
    scalar_outputs: tuple[tuple[str, Symbol], ...]
    constants: tuple[Symbol, ...]
    guards: tuple[Any, ...]
    prologue_source: str
    prologue: Callable[[Mapping[str, Any], Row], tuple[Row, Row, tuple[Any, ...]]] = field(
        repr=False
    )
    vetoes: tuple[Symbol, ...] = ()
    measured: tuple[tuple[str, Symbol], ...] = ()
    fed: tuple[tuple[str, Symbol], ...] = ()

    def scalars(self, options: Mapping[str, Any], row: Row) -> tuple[Row, Row] | None:
        """The constants and the scalar states' new values, in float64.

        None if the program does not hold for these options: a switch is set otherwise, or one of
        them is missing or of another kind.

        Args:
            options: a parameter group's options.
            row: the scalar states, ``step`` (that of this update) first.
        """
        try:
            constants, scalar_states, guards = self.prologue(options, row)
        except (KeyError, IndexError, TypeError):
            return None
        return (constants, scalar_states) if guards == self.guards else None

    @property
    def operands(self) -> tuple[str, ...]:
        """``p``, ``g`` and the states: the columns of the engine's address table."""
        return ("p", "g", *self.states)

    @property
    def clears(self) -> bool:
        """Whether gradients are 0 after the update."""
        return "g" in self.writes

    @property
    def sliced(self) -> bool:
        """Whether there are sums over the units of a tensor."""
        return any(r.detail == "unit" for stage in self.stages for r in stage.reductions)

    @property
    def reads(self) -> tuple[str, ...]:
        """Every load of a step, an operand once for each stage that reads it."""
        return tuple(name for stage in self.stages for name in stage.loads)

    @property
    def writes(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.stages[-1].stores)

    def between_source(self, stage: int) -> str:
        """Python for the REDUCED constants of a stage, to run on float64 arrays over tensors.

        The stage after the last has the scalar states that are ``fed``.

        ``between(c, r, n, N)`` takes the prologue's constants, the reductions of all earlier
        stages, the element counts by scope and the values of :meth:`counts_over_several`; its
        names (``sqrt``, ``where``, ...) are the array library's.
        """
        wanted = self._reduced_constants(stage)
        reductions = [r for s in self.stages[:stage] for r in s.reductions]
        names = {c: f"c[{i}]" for i, c in enumerate(self.constants)}
        # A condition among numbers is one of them.
        names |= {c: f"({text} != 0)" for c, text in names.items() if c.is_condition}
        names |= {r: f"r[{i}]" for i, r in enumerate(reductions)}
        names |= {n: f"N[{i}]" for i, n in enumerate(self.counts_over_several(stage))}
        lines: list[str] = []
        for node in ordered(wanted, stop=names):
            if node in names:
                continue
            if node.op == "count":
                names[node] = f"n[{node.detail!r}]"
                continue
            names[node] = f"v{len(lines)}"
            lines.append(f"    {names[node]} = {spell(node, names)}  # {node.line}")
        result = ", ".join(names[w] for w in wanted)
        return "\n".join(["def between(c, r, n, N):", *lines, f"    return [{result}]", ""])

    def counts_over_several(self, stage: int) -> tuple[Symbol, ...]:
        """The nodes that count elements of several tensors, of those that a stage depends on."""
        nodes = ordered(self._reduced_constants(stage))
        return tuple(n for n in nodes if n.op == "count" and n.detail in SEVERAL)

    def _reduced_constants(self, stage: int) -> list[Symbol]:
        if stage == len(self.stages):
            return [node for _, node in self.fed]
        return [c for c in self.stages[stage].constants if c.level is Level.REDUCED]


def build(
    name: str,
    outputs: Sequence[tuple[str, Symbol]],
    scalar_outputs: Mapping[str, Symbol],
    guards: Mapping[Symbol, bool],
    switches: Mapping[str, Any],
    inputs: Mapping[str, str],
    states: Sequence[str],
    vetoes: Sequence[Symbol] = (),
    measured: Mapping[str, Symbol] | None = None,
    fed: Mapping[str, Symbol] | None = None,
) -> Program:
    """A program from what a trace left behind.

    Args:
        name: the rule's name.
        outputs: operands stored and their new values; ``p`` first.
        scalar_outputs: scalar states assigned and their new values.
        guards: scalar conditions the trace branched on, with their truth.
        switches: Python for options that are no numbers, with the values found.
        inputs: input node names and the Python that reads each from ``h`` and ``row``.
        states: the rule's state tensors in declared order.
        vetoes: sums over all tensors that have to be 0 for the step to be made.
        measured: sums over the tensor that are wanted for themselves, by name.
        fed: scalar states assigned what depends on sums, and their new values.
    """
    wanted = [node for _, node in outputs]
    # What no stage waits for.
    beside = {**(measured or {}), **{f"s.{name}": node for name, node in (fed or {}).items()}}
    sums_beside = [n for n in ordered(beside.values()) if n.op == "reduce"]
    last = max(node.stage for node in (*wanted, *vetoes, *(r.args[0] for r in sums_beside)))
    needed = set(ordered([*wanted, *vetoes, *(r.args[0] for r in sums_beside)]))
    reductions = [n for n in ordered([*wanted, *vetoes, *beside.values()]) if n.op == "reduce"]
    # What no stage needs is summed up while the results are stored: all operands are read then.
    stage_of_sum = {r: r.args[0].stage if r in needed else last for r in reductions}
    stages = []
    for k in range(last + 1):
        sums = tuple(r for r in reductions if stage_of_sum[r] == k)
        results = [r.args[0] for r in sums] + (wanted if k == last else [])
        stores = tuple(outputs) if k == last else ()
        watched = frozenset(sums).difference(needed, ordered((fed or {}).values()))
        stages.append(stage_of(results, stores, sums, ("p", "g", *states), watched))

    taken = [c for s in stages for c in s.constants if c.level is Level.REDUCED]
    reduced = ordered([*taken, *(fed or {}).values()])
    direct = [c for s in stages for c in s.constants if c.level is Level.SCALAR]
    nested = [a for n in reduced if n.level is Level.REDUCED for a in n.args]
    constants = tuple(dict.fromkeys(direct + [a for a in nested if a.level is Level.SCALAR]))
    touched = {name for s in stages for name in s.operands}
    source, prologue, expected = prologue_of(constants, scalar_outputs, guards, switches, inputs)
    return Program(
        name=name,
        states=tuple(s for s in states if s in touched),
        stages=tuple(stages),
        scalar_outputs=tuple(scalar_outputs.items()),
        constants=constants,
        guards=expected,
        prologue_source=source,
        prologue=prologue,
        vetoes=tuple(vetoes),
        measured=tuple((measured or {}).items()),
        fed=tuple((fed or {}).items()),
    )


def stage_of(
    results: Sequence[Symbol],
    stores: Sequence[tuple[str, Symbol]],
    reductions: Sequence[Symbol],
    operands: Sequence[str],
    watched: frozenset[Symbol] = frozenset(),
) -> Stage:
    """One pass that computes these results.

    Args:
        results: the nodes wanted.
        stores: operands written, and the nodes whose values they take.
        reductions: the ``reduce`` nodes to sum up.
        operands: the order in which operands are loaded.
        watched: the reductions from which nothing is computed.
    """
    nodes = [n for n in ordered(results, elements_only=True) if n.level is Level.ELEMENT]
    loaded = {n.detail for n in nodes if n.op == "load"}
    body = tuple(n for n in nodes if n.op != "load")
    taken = [a for n in body for a in n.args] + list(results)
    constants = [c for c in dict.fromkeys(taken) if c.level is not Level.ELEMENT]
    return Stage(
        loads=tuple(name for name in operands if name in loaded),
        body=body,
        stores=tuple(stores),
        reductions=tuple(reductions),
        constants=tuple(sorted(constants, key=lambda c: c.level)),
        watched=watched,
    )


def ordered(
    results: Iterable[Symbol], stop: Mapping[Symbol, Any] | None = None, elements_only: bool = False
) -> list[Symbol]:
    """The nodes that the results need, arguments before users, each once (dead code is left out).

    ``stop``: nodes to take as given; ``elements_only``: do not descend below ELEMENT nodes.
    """
    found: dict[Symbol, None] = {}
    stack = [(node, False) for node in reversed(list(results))]
    while stack:
        node, visited = stack.pop()
        if visited:
            found[node] = None
        elif node not in found:
            stack.append((node, True))
            descend = not (stop and node in stop)
            if descend and not (elements_only and node.level is not Level.ELEMENT):
                stack.extend((a, False) for a in reversed(node.args))
    return list(found)


def spell(node: Symbol, names: Mapping[Symbol, str]) -> str:
    """One node as Python on its arguments' names; literals in place."""
    if node.op == "literal":
        return repr(node.value)
    arguments = [names[a] if a in names else repr(a.value) for a in node.args]
    if node.op in ("divide", "power"):  # functions, because Python's operators raise
        return f"{node.op}({', '.join(arguments)})"
    return OPERATIONS[node.op].text.format(*arguments)


def compile_function(source: str, name: str, names: Mapping[str, Any]) -> Callable[..., Any]:
    namespace = dict(names)
    exec(compile(source, f"<thalweg {name}>", "exec"), namespace)
    function: Callable[..., Any] = namespace[name]
    return function


def prologue_of(
    constants: Sequence[Symbol],
    scalar_outputs: Mapping[str, Symbol],
    guards: Mapping[Symbol, bool],
    switches: Mapping[str, Any],
    inputs: Mapping[str, str],
) -> tuple[str, Callable[..., Any], tuple[Any, ...]]:
    """The function that computes every scalar: its source, itself, and the guards it must find."""
    source = _prologue_source(constants, scalar_outputs, guards, switches, inputs)
    function = compile_function(source, "prologue", _PROLOGUE_NAMES)
    return source, function, (*switches.values(), *guards.values())


def _prologue_source(
    constants: Sequence[Symbol],
    scalar_outputs: Mapping[str, Symbol],
    guards: Mapping[Symbol, bool],
    switches: Mapping[str, Any],
    inputs: Mapping[str, str],
) -> str:
    wanted = [*constants, *scalar_outputs.values(), *guards]
    names: dict[Symbol, str] = {}
    lines = []
    for node in ordered(wanted):
        if node.op == "literal":
            names[node] = repr(node.value)
        elif node.op == "input":
            names[node] = node.detail.replace(".", "_")
            lines.append(f"    {names[node]} = {inputs[node.detail]}")
        else:
            names[node] = f"v{len(lines)}"
            lines.append(f"    {names[node]} = {spell(node, names)}  # {node.line}")

    def row(nodes: Iterable[Symbol]) -> str:
        return "".join(f"{names[n]}, " for n in nodes)

    checked = "".join(f"{source}, " for source in switches)
    checked += "".join(f"bool({names[node]}), " for node in guards)
    result = f"    return ({row(constants)}), ({row(scalar_outputs.values())}), ({checked})"
    return "\n".join(["def prologue(h, row):", *lines, result, ""])
