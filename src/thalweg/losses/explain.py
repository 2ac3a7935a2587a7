"""What a loss computes, in words: formula, derivatives, bytes moved, the back end and why."""

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from thalweg.engine.backends.cpu.kernel import Kernel
from thalweg.engine.backends.cpu.printer import compile_stage
from thalweg.engine.explain import Text, listing
from thalweg.engine.formats import FORMATS
from thalweg.engine.interrupts import uninterrupted
from thalweg.engine.layout import PLAIN_TENSORS
from thalweg.engine.modes import with_gradients
from thalweg.engine.observed import Call, FormulaCall, HandwrittenCall, calls_of
from thalweg.engine.passes import handwritten
from thalweg.engine.passes.rows import RowPass
from thalweg.losses.evaluation.operands import of_one_dtype
from thalweg.losses.example_arguments import arguments_of
from thalweg.rule.equations import equations_of
from thalweg.rule.formula import BACKWARD, EACH, FACTOR, SUM, UPSTREAM
from thalweg.rule.rows import Kind, RowFormula

Tensor = torch.Tensor


def explain_loss(
    loss: Callable[..., Any],
    tensors: Sequence[Any],
    options: Mapping[str, Any],
    source: bool = False,
) -> Text:
    """Explain what a call of a loss evaluates: see :func:`thalweg.explain`.

    Args:
        loss: a function or a module.
        tensors: its arguments; without any, small example tensors are used.
        options: its arguments by name.
        source: print the generated kernels as well.

    Raises:
        TypeError: the call evaluates no formula.
    """
    name = getattr(loss, "__name__", type(loss).__name__)
    arguments = _differentiable(arguments_of(name, loss, tensors, options))

    @with_gradients(True)
    def evaluate() -> None:
        if tensors:
            loss(**arguments)
            return
        with uninterrupted(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nobody chose the sizes of the example tensors
            loss(**arguments)

    calls = calls_of(evaluate)
    if not calls and not _is_ours(loss):
        raise TypeError(
            f"explain: {name} evaluates no formula of thalweg; pass an optimizer that is made from "
            "a rule, or a loss of thalweg and its arguments"
        )
    lines = [f"{name}: {_sizes(arguments)}"]
    if not any(isinstance(call, FormulaCall) for call in calls):
        lines += _written_down(loss)
    if not calls:
        lines.append("  back end   tensor operations")
    distinct = _distinct(calls)
    for call in distinct:
        if len(distinct) > 1:
            lines += ["", "a kernel" if isinstance(call, HandwrittenCall) else call.formula.name]
        if isinstance(call, HandwrittenCall):
            lines += _by_hand(call, source)
        else:
            lines += _Formula(call, arguments).lines(source)
    return Text("\n".join(lines))


def _is_ours(loss: Any) -> bool:
    module = loss.__module__ if inspect.isfunction(loss) else type(loss).__module__
    return module.startswith("thalweg.losses")


def _distinct(calls: Iterable[Call]) -> list[Call]:
    """Each formula and kernel once, as it was called first."""
    found: dict[Any, Call] = {}
    for call in calls:
        key = call.file if isinstance(call, HandwrittenCall) else (call.formula, *call.operands)
        found.setdefault(key, call)
    return list(found.values())


def _differentiable(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments; where none requires a gradient, all that can do."""
    tensors = [v for v in arguments.values() if isinstance(v, Tensor)]
    if any(v.requires_grad for v in tensors):
        return dict(arguments)
    return {
        name: value.detach().requires_grad_()
        if isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())
        else value
        for name, value in arguments.items()
    }


def _sizes(arguments: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
        for name, value in arguments.items()
        if isinstance(value, Tensor)
    )


# --------------------------------------------------------------------------- a formula


class _Pass(NamedTuple):
    """What one pass over the elements reads and writes."""

    when: str
    program: Any
    reads: list[str]
    writes: list[str]


class _Formula:
    """A formula that was evaluated, and what there is to say of it."""

    def __init__(self, call: FormulaCall, arguments: Mapping[str, Any]) -> None:
        self.call, self.arguments = call, arguments
        self.names = tuple(call.operands)
        self.by_rows = isinstance(call.formula, RowFormula)
        numbers = [n for n in self.names if self._kind(n) is not Kind.INDEX]
        alike = of_one_dtype([call.operands[n] for n in numbers])
        self.values = {**call.operands, **dict(zip(numbers, alike, strict=True))}
        self.wanted = tuple(n for n, v in self.values.items() if v.requires_grad)

    def _kind(self, operand: str) -> Kind:
        if not self.by_rows:
            return Kind.ELEMENT
        kind: Kind = self.call.formula.kinds.get(operand, Kind.ELEMENT)
        return kind

    def lines(self, source: bool) -> list[str]:
        """The equations, and a line or two for each of the rest."""
        expressions = self.call.formula.expressions(self.call.options, self.names, self.wanted)
        named = equations_of(
            [
                ("value", expressions.value),
                *((f"d_{n}", d) for n, d in zip(self.wanted, expressions.derivatives, strict=True)),
            ]
        )
        width = max(len(name) for name, _ in named)
        lines = [f"  {name:<{width}} = {text}" for name, text in named]
        if self.call.options:
            settings = (f"{name} = {value}" for name, value in self.call.options.items())
            lines.append(f"  options    {', '.join(settings)}")
        lines.append(f"  operands   {', '.join(map(self._operand, self.names))}")
        passes, obstacle = self._passes(), self._obstacle()
        if obstacle is None:
            for label, found in zip(("memory", ""), passes, strict=False):
                lines.append(f"  {label:<10} {self._memory(found)}")
        wide = any(v.dtype is torch.float64 for v in self.values.values())
        lines.append(f"  arithmetic {'float64' if wide else 'float32'}{self._sums()}")
        lines.append(f"  back end   {self._back_end(passes, obstacle)}")
        if source and obstacle is None:
            for found in passes:
                lines += listing(self._kernel(found.program))
        return lines

    def _operand(self, name: str) -> str:
        """``x is input``: the argument that it is, or whose memory it has."""
        operand, constant = self.call.operands[name], "" if name in self.wanted else " (constant)"
        for argument, value in self.arguments.items():
            if isinstance(value, Tensor) and _is_of(operand, value):
                same = name == argument
                return f"{name}{constant}" if same else f"{name} is {argument}{constant}"
        return f"{name}{constant}"

    def _passes(self) -> list[_Pass]:
        if self.call.reduction == "none":
            kinds = [("forward", EACH, ()), ("backward", BACKWARD, self.wanted)]
        else:
            kinds = [("forward", SUM, self.wanted), ("without gradients", SUM, ())]
        options = {**self.call.options, FACTOR: 1.0}
        found = []
        for when, kind, wanted in kinds[: 1 + bool(self.wanted)]:
            program = self.call.formula.program(kind, options, self.names, wanted)
            if self.by_rows:
                reads = [n for n in program.operands if n in self.names or n == UPSTREAM]
                writes = [n for n in program.operands if n not in reads]
            else:
                reads, writes = program.stage.loads, [name for name, _ in program.stage.stores]
            found.append(_Pass(when, program, list(reads), list(writes)))
        return found

    def _memory(self, found: _Pass) -> str:
        element = row = 0
        for name in (*found.reads, *found.writes):
            size = self._dtype(name).itemsize
            kind = found.program.kinds[name] if self.by_rows else Kind.ELEMENT
            element += size * (kind is Kind.ELEMENT)
            row += size * (kind in (Kind.ROW, Kind.INDEX))
        text = f"{found.when}: {element} bytes per element{f' and {row} per row' if row else ''}"
        text += f": reads {', '.join(n.lstrip('_') for n in found.reads)}"
        writes = ", ".join(n.lstrip("_") for n in found.writes)
        return f"{text}; writes {writes}" if writes else text

    def _dtype(self, operand: str) -> torch.dtype:
        known = self.values.get(operand.removeprefix("_d_"))
        return (self.values[self.names[0]] if known is None else known).dtype

    def _obstacle(self) -> str | None:
        """Why no kernel can evaluate the formula, or None."""
        for name, value in self.values.items():
            if type(value) not in PLAIN_TENSORS:
                return f"{name} is a {type(value).__name__}"
            if not value.is_cpu:
                return f"{name} is on {value.device}, and kernels run on cpu"
            if value.layout is not torch.strided:
                return f"{name} is {value.layout}"
            if self._kind(name) is not Kind.INDEX and value.dtype not in FORMATS:
                return f"{name} is {value.dtype}, for which there is no format"
            if value.is_neg():
                return f"{name} is a view that negates what lies in memory"
            if self._kind(name) is Kind.COLUMN and value.requires_grad:
                return f"the derivative by {name} is a sum over the rows"
        return None

    def _sums(self) -> str:
        if self.by_rows:
            return "; sums and the other numbers of a row in float64"
        return "" if self.call.reduction == "none" else "; the sum in float64"

    def _back_end(self, passes: Sequence[_Pass], obstacle: str | None) -> str:
        if obstacle is not None:
            return f"eager, as tensor operations: {obstacle}"
        over = ""
        if self.by_rows:
            over = f"; it goes over a row {len(passes[0].program.stages)} times"
        if self.call.reduction == "none" and self.wanted:
            return f"cpu: a kernel for the value, one for the derivatives{over}"
        return f"cpu: one kernel{' for value and derivatives' if self.wanted else ''}{over}"

    def _kernel(self, program: Any) -> Kernel:
        dtypes = {name: self._dtype(name) for name in program.operands}
        if not self.by_rows:
            return compile_stage(program, 0, {n: FORMATS[d] for n, d in dtypes.items()})
        first, dim = self.values[self.names[0]], self.call.dim
        across = dim is not None and any(size > 1 for size in first.shape[dim + 1 :])
        return RowPass(program, first.dtype).kernel(across)


def _is_of(operand: Tensor, argument: Tensor) -> bool:
    """Whether an operand is the argument or a view of it."""
    if operand is argument:
        return True
    if any(type(t) not in PLAIN_TENSORS or t.is_meta for t in (operand, argument)):
        return False
    if any(t.layout is not torch.strided for t in (operand, argument)):
        return False
    return operand.untyped_storage().data_ptr() == argument.untyped_storage().data_ptr()


# --------------------------------------------------------------------------- no formula


def _written_down(loss: Any) -> list[str]:
    """The formula in the docstring, of a loss that is not evaluated as one."""
    text = inspect.getdoc(loss) or ""
    _, _, block = text.partition("::\n\n")
    lines = []
    for line in block.splitlines():
        if line and not line.startswith(" "):
            break
        lines.append(line.removeprefix("  "))
    return [line.rstrip() for line in lines if line.strip()]


def _by_hand(call: HandwrittenCall, source: bool) -> list[str]:
    lines = [f"  back end   cpu: a kernel written by hand, thalweg/engine/passes/{call.file}"]
    return [*lines, *listing(handwritten.kernel(call.file))] if source else lines
