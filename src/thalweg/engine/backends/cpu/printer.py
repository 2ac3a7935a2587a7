"""The CPU back end: a program's stages printed as the source of kernels.

A generated kernel takes the address of an argument block (the constants below name its places) and
works through spans of chunks until none is left. A span is what one thread takes at a time, a chunk
a piece of one tensor. Any number of threads may run the same call.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from thalweg.engine.backends.cpu.kernel import (
    INTRINSICS,
    INTRINSICS_MODULE,
    KINDS,
    KINDS_MODULE,
    Kernel,
    compile_source,
)
from thalweg.engine.backends.cpu.loops import Blocks, indented, nested
from thalweg.engine.backends.cpu.spelling import spelled
from thalweg.engine.formats import Buffer, Format, Names, Plain, buffers_of, compute_type, salt
from thalweg.rule import Stage
from thalweg.rule.symbols import Symbol

# Places in the argument block, each an int64. ADDRESSES leads to a table with a row for each buffer
# (see ``buffers_of``) and a column for each tensor.
TICKET, SPANS, SPAN_COUNT, CHUNKS, ADDRESSES, TENSORS, ROWS, CONSTANTS, WIDTH, PARTIALS, BLOCKS = (
    range(11)
)
ARGUMENTS = 11
# One place more, where a format draws random numbers: it leads to an integer below 2^32 for each
# tensor, another one at each step.
SEEDS = ARGUMENTS

SHORT = 6  # operations that are not worth a second loop over their results
AHEAD = 3  # chunks between the one worked on and the one that is fetched
FETCHED = 64  # elements of that chunk: the processor fetches what follows by itself
KEPT = 256  # elements whose values are kept until they are summed
BLOCK = 4096  # elements that share one partial sum; fixed, so that sums do not depend on chunks

_WORK = f"""\
def work(arguments):
    a = int64_pointer(arguments)
    spans, span_count = int64_pointer(a[{SPANS}]), a[{SPAN_COUNT}]
    chunks, rows = int64_pointer(a[{CHUNKS}]), int64_pointer(a[{ROWS}])
    addresses, tensors = int64_pointer(a[{ADDRESSES}]), a[{TENSORS}]
    constants, width = {{compute}}_pointer(a[{CONSTANTS}]), a[{WIDTH}]
    zero, one = {{compute}}(0.0), {{compute}}(1.0)
    chunk_count = spans[span_count]
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


def compile_stage(
    program: Compilable, index: int, formats: Mapping[str, Format], optional: str | None = None
) -> Kernel:
    """Compile a stage (or fetch it from memory or disk): see :func:`print_stage`."""
    return compile_source(*print_stage(program, index, formats, optional))


def print_stage(
    program: Compilable, index: int, formats: Mapping[str, Format], optional: str | None = None
) -> tuple[str, str, str]:
    """A stage's kernel for operands stored in these formats.

    Args:
        program: the program.
        index: the number of the stage.
        formats: of all operands of the program.
        optional: an operand that may be absent: a tensor for which its address is 0 is left as it
            is, and adds nothing to sums.

    Returns:
        A short name, a title and the source: what :func:`compile_source` takes.

    Raises:
        ValueError: a format's block does not divide the elements that share a partial sum, or two
            buffers would have one name.
    """
    stage = program.stages[index]
    used = {name: formats[name] for name in stage.operands}
    for form in used.values():
        if BLOCK % form.block:
            raise ValueError(
                f"format {form.name} stores {form.block} elements together; kernels need a number "
                f"that divides {BLOCK}, so that neither partial sums nor threads share a block"
            )
    suffix = "_".join(dict.fromkeys(f.name for f in used.values()))
    title = f"{program.name}, stage {index + 1} of {len(program.stages)}, {suffix}"
    buffers = buffers_of(program.operands, formats)
    compute = compute_type(formats.values())
    absent = None if optional is None else program.operands.index(optional)
    text = _StagePrinter(stage, buffers, used, compute, absent).source()
    return f"{program.name}_{suffix}", title, text


class _StagePrinter:
    """Prints a stage for operands of some formats.

    Args:
        stage: the stage.
        buffers: all operands' buffers, in the order of the address table.
        formats: of the operands that the stage touches.
        compute: the type of the arithmetic.
        absent: the row of addresses in which 0 stands for an absent operand; None: there is none.
    """

    def __init__(
        self,
        stage: Stage,
        buffers: Sequence[tuple[str, Buffer]],
        formats: Mapping[str, Format],
        compute: str,
        absent: int | None = None,
    ) -> None:
        self._stage = stage
        self._buffers = buffers
        self._formats = formats
        self._compute = compute
        self._values: dict[Symbol, str] = {c: f"c{i}" for i, c in enumerate(stage.constants)}
        self._setup = [] if absent is None else self._of_many_tensors(absent)
        self._setup += self._constants() + self._pointers()
        self._element: list[str] = []
        sizes = sorted({form.block for form in formats.values() if form.block > 1}, reverse=True)
        self._blocks = {size: Blocks(size, f"first{size}", f"end{size}") for size in sizes}

    def source(self) -> str:
        """Everything below the header."""
        for operand in self._stage.loads:
            self._load(operand)
        for node in self._stage.body:
            self._values[node] = name = f"v{len(self._values)}"
            arguments = [self._value(a) for a in node.args]
            text = (
                self._stored(*arguments)
                if node.op == "stored"
                else spelled(node, self._compute, arguments)
            )
            self._element.append(f"{name} = {text}  # {node.line}")
        for operand, node in self._stage.stores:
            self._store(operand, self._value(node))
        blocks = [*self._sums(), *self._blocks.values()]
        body = [*self._setup, *nested(blocks, self._element)]
        partials = f"    partials, blocks = float64_pointer(a[{PARTIALS}]), a[{BLOCKS}]\n"
        work = _WORK.format(
            compute=self._compute,
            partials=partials if self._stage.reductions else "",
            body="\n".join(indented(body, 12)),
        )
        return self._imports() + work

    def _imports(self) -> str:
        """What the formats use and a kernel's header does not have."""
        used = {name for form in self._formats.values() for name in form.uses}
        used |= {f"{b.storage}_pointer" for f in self._formats.values() for b in f.buffers}
        missing = sorted(used - set(INTRINSICS))
        types = [name for name in missing if name in KINDS]
        own = [name for name in missing if name not in KINDS]
        lines = [f"from {KINDS_MODULE} import {', '.join(types)}\n"] if types else []
        lines += [f"from {INTRINSICS_MODULE} import {', '.join(own)}\n"] if own else []
        return "".join([*lines, "\n\n"]) if lines else ""

    def _of_many_tensors(self, absent: int) -> list[str]:
        """Leave out what is absent, and fetch the beginning of a later chunk.

        A model has many small tensors, and a backward pass leaves none of them in the caches.
        """
        lines = [
            f"if addresses[{absent} * tensors + t] == 0:",
            "    continue",
            f"ahead = chunk + {AHEAD} if chunk + {AHEAD} < chunk_count else chunk",
            "later, since = chunks[4 * ahead], chunks[4 * ahead + 1]",
        ]
        for operand, form in self._formats.items():
            for buffer in form.buffers:
                address = self._address(operand, buffer, "later", "since")
                size = -(-FETCHED * buffer.itemsize // buffer.elements)
                lines.append(f"prefetch({address}, {size})")
        return lines

    def _constants(self) -> list[str]:
        return [
            # A condition among the constants arrives as 1.0 or 0.0.
            f"c{i} = constants[row + {i}]" + (" != zero" if c.is_condition else "")
            for i, c in enumerate(self._stage.constants)
        ]

    def _pointers(self) -> list[str]:
        lines = []
        for operand, form in self._formats.items():
            for buffer in form.buffers:
                address = self._address(operand, buffer, "t", "start")
                lines.append(f"{_pointer(operand, buffer)} = {buffer.storage}_pointer({address})")
        for operand, form in self._formats.items():
            if form.seeded:
                seeds = f"int64_pointer(a[{SEEDS}])"
                lines.append(f"seed_{operand} = {seeds}[t] ^ {salt(operand)}")
        return lines

    def _address(self, operand: str, buffer: Buffer, tensor: str, element: str) -> str:
        """The address of the entry of an element of a tensor."""
        row = self._buffers.index((operand, buffer))
        entry = element if buffer.elements == 1 else f"({element} // {buffer.elements})"
        return f"addresses[{row} * tensors + {tensor}] + {buffer.itemsize} * {entry}"

    def _names(self, operand: str) -> Names:
        form = self._formats[operand]
        return Names(
            own=f"{operand}__",
            compute=self._compute,
            pointers={b.suffix: _pointer(operand, b) for b in form.buffers},
            index="i",
            first=self._blocks[form.block].first if form.block > 1 else "i",
            element="(start + i)",
            seed=f"seed_{operand}",
        )

    def _load(self, operand: str) -> None:
        form, names = self._formats[operand], self._names(operand)
        self._element += form.load_lines(names, f"x_{operand}")
        if form.block > 1:
            self._blocks[form.block].begin += form.load_block_lines(names)

    def _store(self, operand: str, value: str) -> None:
        form, names = self._formats[operand], self._names(operand)
        if form.block == 1:
            self._element += form.store_lines(names, value)
            return
        block, kept = self._blocks[form.block], f"kept_{operand}"
        self._setup.append(f"{kept} = {self._compute}_scratch({form.block})")
        block.begin += form.begin_block_lines(names)
        place = f"{kept}[i - {block.first}]"
        self._element += [f"{place} = {value}", *form.see_lines(names, value)]
        # A loop for each operand: the fewer pointers, the fewer LLVM has to prove apart.
        storing = block.elements(form.store_lines(names, place))
        block.finish += [*form.end_block_lines(names), *storing]

    def _stored(self, value: str) -> str:
        """What is left of a value that is stored as p is; without a dtype for that, all of it."""
        form = self._formats.get("p")
        if not isinstance(form, Plain):
            return value
        return form.load.format(x=form.store.format(x=value), compute=self._compute)

    def _sums(self) -> list[Blocks]:
        """Where the stage has reductions, the blocks whose partial sums it writes."""
        reductions = list(enumerate(self._stage.reductions))
        if not reductions:
            return []
        # A float64 sum in the loop halves the lanes of all that it computes in float32: where that
        # is much, values are kept for a block and summed in a loop of their own.
        apart = len(self._stage.body) > SHORT
        whole = Blocks(BLOCK)
        # So few that the values kept stay in the first cache; formats' blocks may be larger.
        part = whole if self._blocks else Blocks(KEPT, "first_kept", "end_kept")
        summing = []
        for r, node in reductions:
            value = self._value(node.args[0])
            if apart and part is not whole and node in self._stage.watched:
                # A loop of its own would take as long as some rules; so few may be summed in
                # float32 at a time.
                self._element.append(f"few{r} = add_in_any_order(few{r}, {value})")
                part.begin.append(f"few{r} = zero")
                part.finish.append(f"sum{r} = sum{r} + float64(few{r})")
                continue
            if apart:
                self._element.append(f"values{r}[i - {part.first}] = {value}")
                self._setup.append(f"values{r} = {self._compute}_scratch({part.size})")
                value = f"values{r}[i]"
            summing.append(f"sum{r} = add_in_any_order(sum{r}, float64({value}))")
        self._setup.append("block = chunks[4 * chunk + 3]")
        whole.begin = [f"sum{r} = float64(0.0)" for r, _ in reductions]
        if apart:
            loop = [f"for i in range({part.end} - {part.first}):", *indented(summing)]
            part.finish += loop if summing else []
        else:
            self._element += summing
        whole.finish += [
            *(f"partials[{r} * blocks + block] = sum{r}" for r, _ in reductions),
            "block += 1",
        ]
        return [whole, part] if apart and part is not whole else [whole]

    def _value(self, node: Symbol) -> str:
        return f"x_{node.detail}" if node.op == "load" else self._values[node]


def _pointer(operand: str, buffer: Buffer) -> str:
    # Two underscores: a state may be named like another one's second buffer.
    return f"at_{operand}__{buffer.suffix}" if buffer.suffix else f"at_{operand}"
