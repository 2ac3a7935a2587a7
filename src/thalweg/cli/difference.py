"""How two checkpoints differ, as tables."""

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from thalweg.checkpoint.difference import Alone, ChangedTensor, ChangedValue, Difference
from thalweg.cli.cells import ALARM, ASIDE, HEAD, LONG, columns, cut, pairs, short, value
from thalweg.cli.printing import Name, escaped
from thalweg.race.report.formats import MISSING, counted, format_count

MEANING = (
    "Largest and relative: of a pair of elements, relative to the larger one. Overall: norm of the "
    "difference relative to A's."
)


def report(found: Difference, everything: bool) -> Group:
    """All of it; ``everything``: every row, and values in full."""
    blocks: list[RenderableType] = [escaped(f"A  {found.a}"), escaped(f"B  {found.b}")]
    if found.identical:
        blocks.append(
            Text(f"the same in every bit: all {format_count(found.same)} tensors and values", HEAD)
        )
    else:
        blocks += [_summary(found), *_not_finite(found)]
    for name in found.by_order:
        blocks.append(
            escaped(f"{name}: only one file has its parameters' names; they go by their order")
        )
    for letter, alone in (("A", found.only_a), ("B", found.only_b)):
        if alone:
            blocks += [Text(), Text(f"only in {letter}", HEAD), *_alone(alone, everything)]
    if found.forms:
        table = columns("another shape or dtype", "A", "B", fold=True)
        rows, rest = cut(found.forms, everything)
        for form in rows:
            table.add_row(Name(escaped(form.name)), escaped(form.a), escaped(form.b))
        blocks += [Text(), table, *rest]
    if values := _values(found):
        table = pairs()
        rows, rest = cut(values, everything)
        for each in rows:
            style = ALARM if _is_nan(each.a) or _is_nan(each.b) else ""
            arrow = Text(" → ").join(_both(each, everything))
            table.add_row(Name(escaped(each.name)), arrow, style=style)
        blocks += [Text(), Text("values, A → B", HEAD), table, *rest]
    if tensors := [each for each in found.tensors if each.a is None]:
        blocks += [Text(), *_tensors(tensors, everything), Text(MEANING, ASIDE)]
    return Group(*blocks)


def _summary(found: Difference) -> Text:
    scalars = sum(each.a is not None for each in found.tensors)
    told = [
        (len(found.tensors) - scalars, "tensor differs", "tensors differ"),
        (len(found.values) + scalars, "value differs", "values differ"),
        (len(found.forms), "has another shape or dtype", "have another shape or dtype"),
        (sum(each.entries for each in found.only_a), "is only in A", "are only in A"),
        (sum(each.entries for each in found.only_b), "is only in B", "are only in B"),
        (found.same, "is the same in every bit", "are the same in every bit"),
    ]
    return Text(
        "; ".join(f"{format_count(n)} {one if n == 1 else many}" for n, one, many in told if n),
        HEAD,
    )


def _not_finite(found: Difference) -> Iterable[Text]:
    for letter in "AB":
        count = sum(
            getattr(each.changed, f"nonfinite_{letter.lower()}") > 0 for each in found.tensors
        )
        if count:
            told = f"NOT FINITE in {letter}: {counted(count, 'tensor')} of those that differ"
            yield Text(told, ALARM)


def _alone(alone: Sequence[Alone], everything: bool) -> Iterable[Text]:
    rows, rest = cut(alone, everything)
    for each in rows:
        more = f" ({format_count(each.entries)} entries)" if each.entries > 1 else ""
        yield escaped(each.name).append(more)
    yield from rest


def _values(found: Difference) -> list[ChangedValue]:
    """Values and tensors of one number; of steps that change alike, one stands for all."""
    alike: dict[tuple[str, ...], list[ChangedTensor]] = {}
    for each in found.tensors:
        if each.a is not None:
            part, _, rest = each.name.partition("/")
            state = rest.startswith("state/")
            together = (
                f"{part}/state/*/{_last(rest, '/')}" if state else f"{part}/*.{_last(rest, '.')}"
            )
            alike.setdefault((together, repr(each.a), repr(each.b)), []).append(each)
    numbers = [
        ChangedValue(
            each[0].name if len(each) == 1 else f"{together} ({len(each)})",
            each[0].a,
            each[0].b,
        )
        for (together, *_), each in alike.items()
    ]
    return [*found.values, *numbers]


def _both(each: ChangedValue, everything: bool) -> tuple[Text, Text]:
    """Both values; long ones from shortly before where they differ."""
    a, b = str(value(each.a, True)), str(value(each.b, True))
    same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), 0)
    start = same - LONG // 4
    if everything or start <= 0 or max(len(a), len(b)) <= LONG:
        return value(each.a, everything), value(each.b, everything)
    return Text(f"…{short(a[start:])}"), Text(f"…{short(b[start:])}")


def _last(name: str, separator: str) -> str:
    return name.rpartition(separator)[2]


def _is_alarming(each: ChangedTensor) -> bool:
    return each.changed.nonfinite_a + each.changed.nonfinite_b > 0


def _is_nan(data: object) -> bool:
    return isinstance(data, (float, complex)) and data != data


def _tensors(tensors: Sequence[ChangedTensor], everything: bool) -> Iterable[RenderableType]:
    notes = any(_is_alarming(each) or each.changed.equal for each in tensors)
    table = columns(
        "tensor", ">elements", ">differ", ">largest", ">relative", ">overall",
        *(["remarks"] if notes else []),
    )  # fmt: skip
    rows, rest = cut(tensors, everything, _is_alarming)
    for each in rows:
        found = each.changed
        table.add_row(
            Name(escaped(each.name)),
            format_count(each.elements),
            "all" if found.different == each.elements else format_count(found.different),
            f"{found.largest:.3g}",
            f"{found.relative:.2g}",
            MISSING if found.overall is None else f"{found.overall:.2g}",
            *([_remarks(each)] if notes else []),
            style=ALARM if _is_alarming(each) else "",
        )
    yield table
    yield from rest


def _remarks(each: ChangedTensor) -> str:
    found = each.changed
    told = [
        (found.nonfinite_a, "NaN or infinite in A"),
        (found.nonfinite_b, "NaN or infinite in B"),
        (found.equal, "the same number, in other bits"),
    ]
    return "; ".join(f"{format_count(count)} {what}" for count, what in told if count)
