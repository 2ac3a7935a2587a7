"""A rule: the function that updates a parameter, its states, and the programs traced from it."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from thalweg.forks import in_child
from thalweg.rule.program import Program, number
from thalweg.rule.tracer import trace

Update = Callable[[Any, Any, Any, Any], Any]
Initial = float | Callable[[Mapping[str, Any]], Any]

RESERVED = ("step", "p", "g")  # what a rule knows by these names is no state of its own

_one_at_a_time = threading.RLock()


@in_child
def _renew_lock() -> None:
    global _one_at_a_time
    _one_at_a_time = threading.RLock()


@dataclass(frozen=True)
class State:
    """A state of a rule.

    Attributes:
        initial: the value before the first update, or a function of the group's options.
        scalar: one number per parameter, computed in float64 from ``h``, other such states
            (NAdam's product of momenta) and sums (the norm of the last update), instead of a
            tensor of the parameter's shape. On devices other than the CPU, a step waits for sums
            that are assigned to it.
        dtype: what a tensor is stored as, asked of the group's options; None, or the answer None:
            the parameter's own dtype.
        begun: for a state that may be created at any update (an average that starts late): tells
            from a parameter's other states whether it must exist by now. None: a state that exists
            from the first update on.
        given: a scalar that is handed to the engine for each step (:meth:`Engine.give`), the same
            for all parameters, with ``initial`` until then; it is kept nowhere else.
        format: how the engine stores it (:mod:`thalweg.engine.formats`); None: as a plain tensor.
    """

    initial: Initial = 0.0
    scalar: bool = False
    dtype: Callable[[Mapping[str, Any]], torch.dtype | None] | None = None
    begun: Callable[[Mapping[str, Any]], bool] | None = None
    given: bool = False
    format: Any = None

    @property
    def late(self) -> bool:
        """Whether it may be missing after an update: its absence does not tell the first one."""
        return self.begun is not None

    def stored_dtype(
        self, options: Mapping[str, Any], parameter: torch.dtype
    ) -> torch.dtype | None:
        """The dtype asked for (for a complex parameter a complex one), or None."""
        asked = self.dtype(options) if self.dtype else None
        if asked is not None and parameter.is_complex and not asked.is_complex:
            return torch.complex128 if asked is torch.float64 else torch.complex64
        return asked

    def initial_value(self, options: Mapping[str, Any]) -> float:
        return number(self.initial(options) if callable(self.initial) else self.initial)


def declared(states: Mapping[str, State | Initial]) -> dict[str, State]:
    """The states by name, those given by their initial value as a :class:`State`."""
    return {key: s if isinstance(s, State) else State(s) for key, s in states.items()}


class Rule:
    """An update rule: the function, its states, and the programs traced from it so far.

    Args:
        update: ``update(p, g, s, h)``, returning the new ``p``.
        states: each state's name and :class:`State`, or its initial value. A state appears in the
            optimizer only where the rule uses it (``max_exp_avg_sq`` only with ``amsgrad``).
        counted: keep ``step``, the number of updates, in each parameter's state. Without it
            ``h.step`` only tells the first update (1) from later ones after a checkpoint.
        every_row: an update changes every element, whatever its gradient, so that rows absent from
            a sparse gradient cannot be left out.
        name: for messages and generated files; the function's name by default.
    """

    def __init__(
        self,
        update: Update,
        states: Mapping[str, State | Initial] | None = None,
        *,
        counted: bool = True,
        every_row: bool = False,
        name: str | None = None,
    ) -> None:
        self.update = update
        self.counted = counted
        self.every_row = every_row
        self.name = name or str(getattr(update, "__name__", "rule"))
        self.states = declared(states or {})
        self.tensor_states = tuple(k for k, s in self.states.items() if not s.scalar)
        self.scalar_states = tuple(k for k, s in self.states.items() if s.scalar)
        self.kept_scalars = tuple(k for k in self.scalar_states if not self.states[k].given)
        for taken in RESERVED:
            if taken in self.states:
                raise ValueError(
                    f"{self.name}: every rule has `{taken}` already; call the state something else"
                )
        self._programs: list[Program] = []
        self._transformed: dict[tuple[Any, ...], Rule] = {}  # see `transformed`

    def __repr__(self) -> str:
        return f"Rule({self.name}, states={list(self.states)})"

    def program(self, options: Mapping[str, Any], row: Sequence[float]) -> Program:
        """The program for these options and scalar states, ``step`` first.

        Traced at most once for each setting of the rule's switches, whichever threads ask.
        """
        program = self._known_program(options, row)
        if program is None:
            with _one_at_a_time:
                program = self._known_program(options, row)
                if program is None:
                    program = trace(self, options, row)
                    self._programs.append(program)
        return program

    def _known_program(self, options: Mapping[str, Any], row: Sequence[float]) -> Program | None:
        for program in self._programs:
            if program.scalars(options, row) is not None:
                return program
        return None

    def check_state(self, name: str) -> None:
        if name not in self.states:
            declared = ", ".join(self.states) or "none"
            raise AttributeError(
                f"{self.name}: state {name!r} is not declared; declared states: {declared}. Add "
                f"it to Rule(..., states={{{name!r}: 0.0}})"
            )
