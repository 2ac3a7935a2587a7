"""The CPU back end: a program's stages printed as Numba source.

A generated kernel takes the address of an argument block (the constants below name its places) and
works through spans of chunks until none is left. A span is what one thread takes at a time, a chunk
a piece of one tensor. Any number of threads may run the same call.
"""

from collections.abc import Sequence
from typing import Protocol

from thalweg.engine.backends.cpu.kernel import ENTRY, Kernel, compile_source
from thalweg.engine.backends.cpu.spelling import spelled
from thalweg.engine.formats import Format, compute_type
from thalweg.rule import Stage
from thalweg.rule.symbols import Symbol

# Places in the argument block, each an int64.
TICKET, SPANS, SPAN_COUNT, CHUNKS, ADDRESSES, TENSORS, ROWS, CONSTANTS, WIDTH, PARTIALS, BLOCKS = (
    range(11)
)
ARGUMENTS = 11

SHORT = 6  # operations that are not worth a second loop over their results
BLOCK = 4096  # elements that share one partial sum; fixed, so that sums do not depend on chunks

_WORK = f"""\
def work(arguments):
    a = int64_pointer(arguments)
    spans, span_count = int64_pointer(a[{SPANS}]), a[{SPAN_COUNT}]
    chunks, rows = int64_pointer(a[{CHUNKS}]), int64_pointer(a[{ROWS}])
    addresses, tensors = int64_pointer(a[{ADDRESSES}]), a[{TENSORS}]
    constants, width = {{compute}}_pointer(a[{CONSTANTS}]), a[{WIDTH}]
    zero, one = {{compute}}(0.0), {{compute}}(1.0)
{{partials}}    span = take(arguments)
    while span < span_count:
        for chunk in range(spans[span], spans[span + 1]):
            t, start, count = chunks[4 * chunk], chunks[4 * chunk + 1], chunks[4 * chunk + 2]
            row = rows[t] * width
{{body}}
        span = take(arguments)


"""


class Compilable(Protocol):
    """What can be printed as kernels: a rule's program, or a formula's."""

    @property
    def name(self) -> str: ...

    @property
    def operands(self) -> Sequence[str]: ...

    @property
    def stages(self) -> Sequence[Stage]: ...


def compile_stage(program: Compilable, index: int, formats: dict[str, Format]) -> Kernel:
    """Compile a stage (or fetch it from memory or disk) for operands stored in these formats."""
    columns = {name: k for k, name in enumerate(program.operands)}
    stage = program.stages[index]
    used = {name: formats[name] for name in stage.operands}
    compute = compute_type(tuple(formats.values()))
    suffix = "_".join(dict.fromkeys(f.name for f in used.values()))
    title = f"{program.name}, stage {index + 1} of {len(program.stages)}, {suffix}"
    text = _kernel_source(stage, columns, used, compute)
    return compile_source(f"{program.name}_{suffix}", title, text)


def _kernel_source(
    stage: Stage, columns: dict[str, int], formats: dict[str, Format], compute: str
) -> str:
    def name_of(node: Symbol) -> str:
        return f"x_{node.detail}" if node.op == "load" else names[node]

    names: dict[Symbol, str] = {c: f"c{i}" for i, c in enumerate(stage.constants)}
    setup = [
        # A condition among the constants arrives as 1.0 or 0.0.
        f"c{i} = constants[row + {i}]" + (" != zero" if c.is_condition else "")
        for i, c in enumerate(stage.constants)
    ]
    for operand in stage.operands:
        form = formats[operand]
        address = f"addresses[{columns[operand]} * tensors + t] + {form.itemsize} * start"
        setup.append(f"at_{operand} = {form.storage}_pointer({address})")

    loop = []
    for operand in stage.loads:
        value = formats[operand].load.format(x=f"at_{operand}[i]", compute=compute)
        loop.append(f"x_{operand} = {value}")
    for node in stage.body:
        names[node] = f"v{len(names)}"
        expression = spelled(node, compute, [name_of(a) for a in node.args])
        loop.append(f"{names[node]} = {expression}  # {node.line}")

    for operand, node in stage.stores:
        value = formats[operand].store.format(x=name_of(node))
        loop.append(f"at_{operand}[i] = {value}")
    if not stage.reductions:
        body = [*setup, "for i in range(count):", *indented(loop)]
    else:
        # A float64 sum in the loop halves the lanes of all that it computes in float32: where that
        # is much, values are kept for a block and summed in a loop of their own.
        apart = len(stage.body) > SHORT
        numbers = range(len(stage.reductions))
        summing = []
        for r, node in zip(numbers, stage.reductions, strict=True):
            value = name_of(node.args[0])
            if apart:
                loop.append(f"values{r}[i - first] = {value}")
                setup.append(f"values{r} = {compute}_scratch({BLOCK})")
                value = f"values{r}[i]"
            summing.append(f"sum{r} = add_in_any_order(sum{r}, float64({value}))")
        block = [
            *(f"sum{r} = float64(0.0)" for r in numbers),
            f"end = first + {BLOCK}",
            "end = end if end < count else count",
            "for i in range(first, end):",
            *indented(loop if apart else loop + summing),
            *(["for i in range(end - first):", *indented(summing)] if apart else []),
            *(f"partials[{r} * blocks + block] = sum{r}" for r in numbers),
            "block += 1",
        ]
        setup.append("block = chunks[4 * chunk + 3]")
        body = [*setup, f"for first in range(0, count, {BLOCK}):", *indented(block)]
    partials = f"    partials, blocks = float64_pointer(a[{PARTIALS}]), a[{BLOCKS}]\n"
    work = _WORK.format(
        compute=compute,
        partials=partials if stage.reductions else "",
        body="\n".join(indented(body, 12)),
    )
    return work + ENTRY


def indented(lines: list[str], by: int = 4) -> list[str]:
    return [" " * by + line for line in lines]
