"""What is in a checkpoint, as tables."""

import math
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from thalweg.checkpoint.contents import CHECKPOINT, RANDOM, SAFETENSORS, TORCH
from thalweg.checkpoint.entries import Contents, Optimizer, Parameter, Part, Stored, Value
from thalweg.cli.cells import ALARM, HEAD, alarm, columns, cut, pairs, shape, size, value
from thalweg.cli.printing import Name, escaped
from thalweg.race.report.formats import MISSING, counted, format_count

NAMED = 10  # tensors that are named at the top

FORMATS = {
    CHECKPOINT: "checkpoint of thalweg",
    SAFETENSORS: "safetensors file without a header of thalweg",
    TORCH: "file of torch.save",
}


def report(contents: Contents, everything: bool) -> Group:
    """All of it; ``everything``: every row, and values in full."""
    blocks: list[RenderableType] = [*_about(contents)]
    single = [part for part in contents.parts if _is_single(part)]
    several = [part for part in contents.parts if part not in single]
    if several:
        blocks += [Text(), _parts(several)]
    if single:
        blocks += [Text(), *_values("", [part.entries[0] for part in single], everything)]
    for part in several:
        blocks += [Text(), *_block(part, everything)]
    return Group(*blocks)


def _about(contents: Contents) -> Iterable[Text]:
    title = escaped(contents.path)
    title.stylize(HEAD)
    yield title.append(f": {FORMATS[contents.format]}, {size(contents.size)}", "")
    if contents.saved is not None:
        by = ", ".join(f"{name} {version}" for name, version in contents.versions.items())
        yield escaped(f"saved {contents.saved:%Y-%m-%d %H:%M:%S} UTC by {by}")
    if contents.checked:
        yield Text("whole: everything has its digest")
    else:
        yield Text("it has no digests: whether it is whole cannot be told")
    found = contents.nonfinite
    if not found:
        yield Text("finite: no tensor holds NaN or infinity")
        return
    tensors = sum(isinstance(entry, Stored) for entry in found)
    counts = ((tensors, "tensor"), (len(found) - tensors, "value"))
    yield Text(f"NOT FINITE: {', '.join(counted(n, what) for n, what in counts if n)}", ALARM)
    for entry in found[:NAMED]:
        line = Text("  ", ALARM).append(escaped(entry.name))
        of = f" of {counted(entry.elements, 'element')}" if isinstance(entry, Stored) else ""
        yield line.append(f": {alarm(entry)}{of}")
    if len(found) > NAMED:
        yield Text(f"  and {counted(len(found) - NAMED, 'other')}, marked below", ALARM)


def _parts(parts: Sequence[Part]) -> Table:
    table = columns("part", "kind", ">tensors", ">elements", ">size", "dtypes", fold=True)
    for part in parts:
        table.add_row(
            escaped(part.name),
            escaped(_kind(part)),
            f"{len(part.tensors)}" if part.tensors else MISSING,
            format_count(part.elements) if part.tensors else MISSING,
            size(part.bytes) if part.tensors else MISSING,
            _dtypes(part.dtypes),
        )
    if sum(bool(part.tensors) for part in parts) > 1:
        dtypes: dict[str, int] = {}
        for part in parts:
            for dtype, count in part.dtypes.items():
                dtypes[dtype] = dtypes.get(dtype, 0) + count
        table.add_row(
            "all together",
            "",
            f"{sum(len(part.tensors) for part in parts)}",
            format_count(sum(part.elements for part in parts)),
            size(sum(part.bytes for part in parts)),
            _dtypes(dtypes),
            style=HEAD,
        )
    return table


def _dtypes(dtypes: Mapping[str, int]) -> str:
    if len(dtypes) == 1:
        return next(iter(dtypes))
    return ", ".join(f"{dtype} {size(count)}" for dtype, count in dtypes.items())


def _kind(part: Part) -> str:
    made_by = None if part.optimizer is None else part.optimizer.made_by
    return f"{part.kind} {made_by}" if made_by else part.kind


def _within(part: str, entry: Stored | Value) -> str:
    return entry.name.removeprefix(f"{part}/")


def _is_single(part: Part) -> bool:
    """Whether the part is one value or one tensor, as a step or a generator's state."""
    return [entry.name for entry in part.entries] == [part.name]


def _block(part: Part, everything: bool) -> Iterable[RenderableType]:
    title = escaped(part.name)
    title.stylize(HEAD)
    if part.kind == RANDOM:
        kept = (entry for entry in part.entries if isinstance(entry, Stored) or entry.value != [])
        which = dict.fromkeys(_within(part.name, entry).partition("/")[0] for entry in kept)
        yield title.append_text(Text(": random states of ").append(escaped(", ".join(which))))
        return
    if part.optimizer is not None:
        yield title.append_text(Text(": ").append(escaped(_about_optimizer(part.optimizer))))
        yield from _optimizer(part.optimizer, everything)
        return
    yield title.append(f": {part.kind}", "")
    if part.values:
        yield from _values(part.name, part.values, everything)
    if part.tensors:
        yield from _tensors(part, everything)


def _tensors(part: Part, everything: bool) -> Iterable[RenderableType]:
    notes = any(tensor.nonfinite or tensor.same_as for tensor in part.tensors)
    table = columns("tensor", "shape", "dtype", ">size", ">rms", *(["remarks"] if notes else []))
    rows, rest = cut(part.tensors, everything, lambda tensor: bool(tensor.nonfinite))
    for tensor in rows:
        table.add_row(
            Name(escaped(_within(part.name, tensor))),
            shape(tensor.shape),
            tensor.dtype,
            size(tensor.bytes),
            _typical(tensor),
            *([_remark(tensor)] if notes else []),
            style=ALARM if tensor.nonfinite else "",
        )
    yield table
    yield from rest


def _typical(tensor: Stored) -> str:
    if tensor.value is not None:
        return f"= {tensor.value:.6g}" if isinstance(tensor.value, float) else f"= {tensor.value}"
    return MISSING if tensor.numbers.rms is None else f"{tensor.numbers.rms:.3g}"


def _remark(tensor: Stored) -> Text:
    if tensor.nonfinite:
        return Text(alarm(tensor))
    return Text() if tensor.same_as is None else escaped(f"is {tensor.same_as}")


def _values(
    part: str, entries: Sequence[Stored | Value], everything: bool
) -> Iterable[RenderableType]:
    table = pairs()
    rows, rest = cut(entries, everything, lambda entry: bool(entry.nonfinite))
    for entry in rows:
        if isinstance(entry, Value) or entry.value is not None:
            text = value(entry.value, everything)
        else:
            text = Text(f"{entry.dtype} {shape(entry.shape)}, {size(entry.bytes)}")
        name = Name(escaped(_within(part, entry)))
        table.add_row(name, text, style=ALARM if entry.nonfinite else "")
    yield table
    yield from rest


# -------------------------------------------------------------------------------------- optimizers


def _about_optimizer(found: Optimizer) -> str:
    steps = ""
    if found.steps is not None:
        low, high = (f"{count:.16g}" for count in found.steps)
        steps = f"at step {low}" if low == high else f"at steps {low} to {high}"
    by = "name" if found.by_name else "number"
    groups = f" in {len(found.groups)} groups" if len(found.groups) > 1 else ""
    parameters = f"{counted(len(found.parameters), 'parameter')} by {by}{groups}"
    head = " ".join(filter(None, (found.made_by, steps)))
    return f"{head}, {parameters}" if head else parameters


def _optimizer(optimizer: Optimizer, everything: bool) -> Iterable[RenderableType]:
    yield from _groups(optimizer, everything)
    yield from _parameters(optimizer, everything)


def _groups(optimizer: Optimizer, everything: bool) -> Iterable[RenderableType]:
    groups = optimizer.groups
    names = list(dict.fromkeys(name for group in groups for name in group))
    varied = [n for n in names if len({str(value(g.get(n, MISSING), True)) for g in groups}) > 1]
    common = [n for n in names if n not in varied]
    if common:
        told = Text(", ").join(
            Text.assemble(escaped(f"{name} "), value(groups[0][name], everything))
            for name in common
        )
        table = pairs()
        table.add_row(Name(Text("all groups" if len(groups) > 1 else "options")), told)
        yield table
    if len(groups) > 1:
        table = columns("group", ">parameters", ">elements", *(f">{name}" for name in varied))
        rows, rest = cut(range(len(groups)), everything)
        for k in rows:
            members = [p for p in optimizer.parameters if p.group == k]
            shapes = [p.shape for p in members]
            table.add_row(
                f"{k}",
                format_count(len(members)),
                MISSING
                if None in shapes
                else format_count(sum(math.prod(s or ()) for s in shapes)),
                *(value(groups[k][n], everything) if n in groups[k] else MISSING for n in varied),
            )
        yield table
        yield from rest


def _parameters(optimizer: Optimizer, everything: bool) -> Iterable[RenderableType]:
    parameters = optimizer.parameters
    states = list(dict.fromkeys(name for p in parameters for name in p.states))
    if optimizer.steps is not None and len(set(optimizer.steps)) == 1:
        states.remove("step")  # it stands above
    several, alarming = len(optimizer.groups) > 1, any(map(_alarms, parameters))
    heads = [_head(name, parameters) for name in states]
    table = columns(
        "parameter", *([">group"] if several else []), "shape", *heads,
        *(["remarks"] if alarming else []),
    )  # fmt: skip
    rows, rest = cut(parameters, everything, lambda p: bool(_alarms(p)))
    for p in rows:
        group = MISSING if p.group is None else f"{p.group}"
        remarks = "; ".join(_alarms(p))
        table.add_row(
            Name(escaped(p.name)),
            *([group] if several else []),
            MISSING if p.shape is None else shape(p.shape),
            *(_cell(p, p.states.get(name, ())) for name in states),
            *([escaped(remarks)] if alarming else []),
            style=ALARM if remarks else "",
        )
    if parameters:
        yield table
    yield from rest


def _head(name: str, parameters: Sequence[Parameter]) -> str:
    entries = [entry for p in parameters for entry in p.states.get(name, ())]
    dtypes = {entry.dtype for entry in entries if isinstance(entry, Stored)}
    return f">{name}\n{', '.join(sorted(dtypes))}" if dtypes else f">{name}"


def _cell(p: Parameter, entries: Sequence[Stored | Value]) -> Text:
    if not entries:
        return Text(MISSING)
    if len(entries) > 1:
        tensors = [entry for entry in entries if isinstance(entry, Stored)]
        return Text(
            f"{len(tensors)} × {size(sum(t.bytes for t in tensors) // max(len(tensors), 1))}"
        )
    (entry,) = entries
    if isinstance(entry, Value) or entry.value is not None:
        return value(entry.value, False)
    other = "" if entry.shape == p.shape else f"{shape(entry.shape)}: "
    return Text(f"{other}{size(entry.bytes)}")


def _alarms(p: Parameter) -> list[str]:
    return [
        f"{name}: {alarm(entry)}" for name, entries in p.states.items() for entry in entries
        if entry.nonfinite
    ]  # fmt: skip
