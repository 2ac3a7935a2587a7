"""The loops of a row kernel: over the elements of a row, and over their values to sum them up."""

from collections.abc import Mapping
from itertools import count

from thalweg.engine.backends.cpu.loops import indented
from thalweg.engine.backends.cpu.printer import BLOCK, SHORT
from thalweg.engine.backends.cpu.spelling import ELEMENTARY, SPELLED_IN
from thalweg.engine.passes.row_spelling import IN_PLACE, LANES, RowSpelling
from thalweg.rule.program import Stage, ordered
from thalweg.rule.symbols import Level, Symbol

# Values that take long to compute, by the result whose memory holds them until the last stage.
Kept = Mapping[Symbol, str]


class LoopPrinter:
    """Prints the stages of a program, each as a loop over the elements of a row."""

    def __init__(self, spelling: RowSpelling) -> None:
        self._spelling = spelling
        self._stages = spelling.program.stages
        self._kept = _kept_values(spelling)
        self._numbered = count()  # the variables of all loops: each has one kind

    def stage(self, stage: Stage) -> list[str]:
        """The loop of a stage, and what it needs before."""
        spelling = self._spelling
        names: dict[Symbol, str] = {}
        before = []
        for c in stage.constants:
            if c.level is Level.SCALAR:
                names[c] = f"c{spelling.constants[c]}"
            elif c.is_condition or c.op == "index":
                names[c] = spelling.numbers[c]
            elif spelling.across:
                names[c] = f"{spelling.compute}({spelling.numbers[c]})"
            else:
                names[c] = f"e{spelling.numbers[c]}"
                before.append(f"{names[c]} = {spelling.compute}({spelling.numbers[c]})")
        element = self._element(stage, names)
        return [*before, *self._loop(stage, names, element)]

    def _element(self, stage: Stage, names: dict[Symbol, str]) -> list[str]:
        """The lines for one element; adds the name of each node's value to ``names``."""
        spelling = self._spelling
        last = stage is self._stages[-1]
        kept = self._kept if last else {}
        needed = set(_needed(stage, kept))
        loaded = _loaded(stage, kept)
        lines = []
        for name in stage.loads:
            if name in loaded:
                value = spelling.load(name, spelling.element_at(name), spelling.compute)
                lines.append(f"x_{name} = {value}")
        for node in stage.body:
            if node not in needed:
                continue
            names[node] = f"v{next(self._numbered)}"
            if node in kept:
                text = self._kept_element(kept[node])
            elif node.op == "is_at":
                text = f"i == {spelling.numbers[node.args[0]]}"
            else:
                arguments = (_value_of(a, names) for a in node.args)
                text = SPELLED_IN[spelling.compute][node.op].format(*arguments)
            lines.append(f"{names[node]} = {text}  # {node.line}")
        for name, node in stage.stores:
            value = spelling.unless_ignored(_value_of(node, names), "zero")
            lines.append(spelling.store(name, spelling.element_at(name), value))
        if not last:
            for node, name in self._kept.items():
                if node in needed:
                    lines.append(f"{self._kept_element(name)} = {names[node]}")
        return lines

    def _kept_element(self, result: str) -> str:
        """Where an element is kept; as it is, because the result has the kernel's own type."""
        return f"at_{result}[{self._spelling.element_at(result)}]"

    def _loop(self, stage: Stage, names: Mapping[Symbol, str], element: list[str]) -> list[str]:
        """The loop over the elements, with its sums and maxima.

        A float64 sum in the loop halves the lanes of all that it computes in float32: where that is
        much, values are stored and summed in a loop of their own.
        """
        spelling = self._spelling
        across, compute = spelling.across, spelling.compute
        slow = any(n.op in ELEMENTARY for n in stage.body)
        sums_later = slow or len(stage.body) > SHORT
        scratches, begin, summing, end = [], [], [], []
        for r in stage.reductions:
            number, value = spelling.new_number(r), _value_of(r.args[0], names)
            k = number.split("[")[0]
            if r.op == "largest":
                largest = f"m{k}[lane]" if across else f"m{k}"
                if across:
                    scratches.append(f"m{k} = {compute}_scratch({LANES})")
                begin.append(f"{largest} = {compute}(-math.inf)")
                element.append(f"{largest} = larger_of({largest}, {value})")
                end.append(f"{number} = float64({largest})")
                continue
            begin.append(f"{number} = float64(0.0)")
            if sums_later and r.args[0] in self._kept:
                value = self._kept_element(self._kept[r.args[0]])
            elif sums_later:
                scratches.append(f"of_{k} = {compute}_scratch({LANES if across else BLOCK})")
                place = "lane" if across else "i - begin"
                element.append(f"of_{k}[{place}] = {value}")
                value = f"of_{k}[{place}]"
            if across:  # a sum in each lane
                summing.append(f"{number} = {number} + float64({value})")
            else:
                summing.append(f"{number} = add_in_any_order({number}, float64({value}))")
        if across:
            inner = element if sums_later else element + summing
            inner = ["for lane in range(lanes):", *indented(inner)]
            inner += spelling.for_lanes(summing) if sums_later else []
            return [
                *scratches,
                *spelling.for_lanes(begin),
                "for i in range(count):",
                *indented(inner),
                *spelling.for_lanes(end),
            ]
        if not sums_later or not summing:
            return [*begin, "for i in range(count):", *indented(element + summing), *end]
        return [
            *scratches,
            *begin,
            f"for begin in range(0, count, {BLOCK}):",
            f"    end = begin + {BLOCK}",
            "    end = end if end < count else count",
            "    for i in range(begin, end):",
            *indented(element, 8),
            "    for i in range(begin, end):",
            *indented(summing, 8),
            *end,
        ]


def _kept_values(spelling: RowSpelling) -> dict[Symbol, str]:
    """The values to keep, and the results to keep them in."""
    if len(spelling.program.stages) < 2:
        return {}
    *earlier, last = spelling.program.stages
    # A result of fewer bits would round them.
    exact = spelling.form.storage == spelling.compute
    results = [name for name, _ in last.stores] if exact else []
    slow = [n for n in last.body if n.op in ELEMENTARY]
    computed_before = {n for stage in earlier for n in stage.body}
    kept = dict(zip([n for n in slow if n in computed_before], results, strict=False))
    if spelling.in_place and kept:
        # They overwrite x, so no stage after that one may load x.
        keeper = min(k for k, s in enumerate(earlier) for n in s.body if n in kept)
        for stage in spelling.program.stages[keeper + 1 :]:
            if IN_PLACE in _loaded(stage, kept if stage is last else {}):
                return {}
    return kept


def _value_of(node: Symbol, names: Mapping[Symbol, str]) -> str:
    return f"x_{node.detail}" if node.op == "load" else names[node]


def _needed(stage: Stage, kept: Kept) -> list[Symbol]:
    """The nodes that a stage computes or loads, apart from those kept from an earlier one."""
    results = [node for _, node in stage.stores] + [r.args[0] for r in stage.reductions]
    return ordered(results, kept, elements_only=True)


def _loaded(stage: Stage, kept: Kept) -> set[str]:
    return {n.detail for n in _needed(stage, kept) if n.op == "load"}
