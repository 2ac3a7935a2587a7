"""Placing: the order of a stage's operations, and the memory that each result goes to.

A result takes the place of its first argument where nothing needs that any more: a temporary, or
an operand that the result is stored to. Other results are temporaries of their own. A store into
an operand is made as soon as nothing needs its old value.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from thalweg.engine.backends.lowering.values import Scalar, Selection, Value

COMMUTATIVE = ("add", "mul", "maximum", "minimum")
# Functions whose result is of another kind than their first argument, or that take a number there.
NEVER_IN_PLACE = (
    *("lt", "le", "gt", "ge", "eq", "ne", "logical_and", "logical_or", "logical_not"),
    *("where", "full_like"),
)
Sum = tuple[int, tuple[str, Value | Scalar]]  # its number, its kind, and what is summed


@dataclass(frozen=True)
class Instruction:
    """One line of a lowered stage.

    Attributes:
        op: a function of torch, or ``load``, ``store``, ``copy``, ``fill``, ``clone``, ``sum``,
            ``squares`` or ``count``.
        out: the variable that takes the result; of ``store``, ``copy`` and ``fill`` the operand,
            of a sum its number.
        args: variables and scalars.
        keyword: the name of the last argument, where torch wants one.
        in_place: the result takes the place of ``args[0]``, which is ``out``.
        frees: variables not used any more.
        line: of the rule.
    """

    op: str
    out: str
    args: tuple[str, ...] = ()
    keyword: str = ""
    in_place: bool = False
    frees: tuple[str, ...] = ()
    line: str = ""


@dataclass(frozen=True)
class Lowered:
    """A stage as operations on tensors.

    Variables: ``at_p`` is the operand p as it is stored, ``x_p`` its numbers (the same, unless the
    operand is converted), ``r0`` the first constant made from sums, ``t0`` a temporary, ``k0`` the
    first scalar.

    Attributes:
        scalars: Python for each scalar, of ``c``, the values of the program's constants.
        temporaries: how many tensors of the parameter's shape live at once, converted operands
            included.
    """

    instructions: tuple[Instruction, ...]
    scalars: tuple[str, ...]
    temporaries: int


def variables(lowered: Lowered) -> list[str]:
    """The variables that a parameter brings: the parameter itself first."""
    used = {name for i in lowered.instructions for name in (i.out, *i.args)}
    own = sorted(name for name in used if name.startswith(("at_", "r")))
    loaded = {i.out for i in lowered.instructions if i.op == "load"}
    own += sorted(name for name in used if name.startswith("x_") and name not in loaded)
    first = next((name for name in ("x_p", "at_p") if name in own), "x_p")
    return [first, *(name for name in own if name != first)]


def place(selection: Selection, converted: Iterable[str]) -> Lowered:
    """Put the values of a stage in order and in memory.

    Args:
        selection: the values.
        converted: operands that are not stored as the numbers one computes with.
    """
    placing = _Placing(selection, frozenset(converted))
    placing.run()
    return Lowered(tuple(placing.instructions), tuple(placing.scalars), placing.most)


@dataclass
class _Placing:
    selection: Selection
    converted: frozenset[str]
    instructions: list[Instruction] = field(default_factory=list)
    scalars: dict[str, str] = field(default_factory=dict)
    most: int = 0  # temporaries at once

    def run(self) -> None:
        selection = self.selection
        wanted = [v for _, v in (*selection.stores, *selection.sums) if isinstance(v, Value)]
        order = _in_order(wanted)
        self.uses = Counter([*wanted, *(a for v in order for a in v.inputs)])
        # The variable that holds a value. A converted operand's is loaded when it is first used.
        self.places: dict[Value, str] = {
            v: f"x_{v.detail}" if v.op == "load" else f"r{v.detail}"
            for v in order
            if v.op == "reduced" or (v.op == "load" and v.detail not in self.converted)
        }
        self.live: set[str] = set()
        self.made = 0
        # Each operand's value as it was before the stage, while something needs it.
        self.old = {v.detail: v for v in order if v.op == "load"}
        self.pending = dict(selection.stores)
        sums = list(enumerate(selection.sums))

        self._store_what_can_be()
        for value in order:
            if value.op not in ("load", "reduced"):
                self._compute(value)
                self._store_what_can_be()
                sums = self._sum_what_can_be(sums)
        sums = self._sum_what_can_be(sums)
        while self.pending:
            blocked = next(iter(self.pending.values()))
            # Two operands change places: one has to wait in a temporary.
            assert isinstance(blocked, Value)
            name = self._new()
            self._emit("clone", name, (self.places[blocked],), blocked)
            self.places[blocked] = name
            self._store_what_can_be()
        assert not sums

    # ---- one value --------------------------------------------------------------------------

    def _compute(self, value: Value) -> None:
        args = list(value.args)
        for arg in value.inputs:
            self._fetch(arg)
        for arg in value.inputs:
            self.uses[arg] -= 1
        candidates = [args]
        if value.op in COMMUTATIVE and not value.keyword and len(value.inputs) == 2:
            candidates.append(args[::-1])
        for order in candidates:
            if self._may_take_the_place_of(order[0], value):
                return self._in_place(value, order)
        first = args[0]
        if isinstance(first, Value) and first.wide and self._may_begin_in_target(value):
            # A copy now, and not of the result, needs no temporary.
            name = f"x_{value.target}"
            self._emit("copy", name, (self.places[first],), value)
            return self._in_place(value, args, name)
        out = self._new()
        self.places[value] = out
        self._emit(value.op, out, self._names(args), value, self._freed(value))

    def _fetch(self, value: Value) -> None:
        """Convert an operand when it is first used."""
        if value not in self.places:
            out = f"x_{value.detail}"
            self.places[value] = out
            self._take(out)
            self._emit("load", out, (f"at_{value.detail}",), value)

    def _may_take_the_place_of(self, first: Value | Scalar, value: Value) -> bool:
        if isinstance(first, Scalar) or value.op in NEVER_IN_PLACE:
            return False
        if self.uses[first] or first.wide != value.wide or first.op == "reduced":
            return False
        name = self.places[first]
        return name in self.live or name == f"x_{value.target}"

    def _may_begin_in_target(self, value: Value) -> bool:
        """Whether the operand that a value goes to may be overwritten before it is computed."""
        target = value.target
        if target is None or target in self.converted or value.op in NEVER_IN_PLACE:
            return False
        taken = any(self.places[a] == f"x_{target}" for a in value.inputs)
        return not taken and self._is_free(target)

    def _in_place(
        self, value: Value, args: Sequence[Value | Scalar], name: str | None = None
    ) -> None:
        names = list(self._names(args))
        if name is not None:
            names[0] = name
        self.places[value] = names[0]
        self._emit(value.op, names[0], tuple(names), value, self._freed(value), in_place=True)

    def _freed(self, value: Value) -> tuple[str, ...]:
        """The temporaries among a value's arguments that nothing needs after it."""
        kept = self.places[value]
        done = {self.places[a]: None for a in value.inputs if not self.uses[a]}
        freed = tuple(name for name in done if name in self.live and name != kept)
        self.live.difference_update(freed)
        return freed

    # ---- stores and sums --------------------------------------------------------------------

    def _store_what_can_be(self) -> None:
        progress = True
        while progress:
            progress = False
            for operand, value in list(self.pending.items()):
                if isinstance(value, Value) and not self._is_at_hand(value):
                    continue
                if self._store(operand, value):
                    del self.pending[operand]
                    progress = True

    def _is_at_hand(self, value: Value) -> bool:
        """Whether a value is computed, or lies in an operand that is converted."""
        return value in self.places or value.op == "load"

    def _store(self, operand: str, value: Value | Scalar) -> bool:
        """Store a value if the operand's old one is not needed; tell whether it was."""
        own = f"x_{operand}"
        if isinstance(value, Value) and self.places.get(value) == own:
            if operand not in self.converted:
                self.uses[value] -= 1
                return True
        elif not self._is_free(operand, but=value):
            return False
        out = f"at_{operand}" if operand in self.converted else own
        if isinstance(value, Scalar):
            self._emit("fill", out, (self._scalar(value),))
            return True
        self._fetch(value)
        self.uses[value] -= 1
        name = self.places[value]
        freed = (name,) if not self.uses[value] and name in self.live else ()
        self.live.difference_update(freed)
        self._emit("store" if operand in self.converted else "copy", out, (name,), value, freed)
        return True

    def _is_free(self, operand: str, but: Value | Scalar | None = None) -> bool:
        """Whether nothing needs what lies in an operand's memory."""
        if operand in self.converted:
            old = self.old.get(operand)
            return old is None or old in self.places or old is but or not self.uses[old]
        name = f"x_{operand}"
        return not any(self.uses[v] for v, at in self.places.items() if at == name)

    def _sum_what_can_be(self, sums: list[Sum]) -> list[Sum]:
        """Sum the values that are at hand; return what is left."""
        left: list[Sum] = []
        for number, (kind, value) in sums:
            if isinstance(value, Value) and not self._is_at_hand(value):
                left.append((number, (kind, value)))
                continue
            freed: tuple[str, ...] = ()
            if isinstance(value, Value):
                self._fetch(value)
                self.uses[value] -= 1
                name = self.places[value]
                if not self.uses[value] and name in self.live:
                    freed = (name,)
                    self.live.discard(name)
            else:
                name = self._scalar(value)
            self._emit(kind, str(number), (name,), None, freed)
        return left

    # ---- names ------------------------------------------------------------------------------

    def _new(self) -> str:
        name = f"t{self.made}"
        self.made += 1
        self._take(name)
        return name

    def _take(self, name: str) -> None:
        self.live.add(name)
        self.most = max(self.most, len(self.live))

    def _scalar(self, scalar: Scalar) -> str:
        return self.scalars.setdefault(scalar.text, f"k{len(self.scalars)}")

    def _names(self, args: Sequence[Value | Scalar]) -> tuple[str, ...]:
        return tuple(self.places[a] if isinstance(a, Value) else self._scalar(a) for a in args)

    def _emit(
        self,
        op: str,
        out: str,
        args: tuple[str, ...],
        value: Value | None = None,
        frees: tuple[str, ...] = (),
        in_place: bool = False,
    ) -> None:
        own = value is not None and value.op == op
        keyword = value.keyword if value is not None and own else ""
        line = value.line if value is not None else ""
        self.instructions.append(Instruction(op, out, args, keyword, in_place, frees, line))


def _in_order(wanted: Iterable[Value]) -> list[Value]:
    """The values needed, arguments before users, each once.

    The first argument of each comes last: what takes its place may overwrite an operand, and the
    other arguments may need the old value.
    """
    found: dict[Value, None] = {}

    def visit(value: Value) -> None:
        if value not in found:
            for arg in [*value.inputs[1:], *value.inputs[:1]]:
                visit(arg)
            found[value] = None

    for value in wanted:
        visit(value)
    return list(found)
