"""What an optimizer computes, in words: equations, states, bytes moved, the back end and why."""

from collections import defaultdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

import thalweg
from thalweg.engine import cache, threads
from thalweg.engine.engine import Engine
from thalweg.engine.formats import FORMATS, Format, compute_type
from thalweg.engine.slots import Slot
from thalweg.engine.units import KernelUnit
from thalweg.rule import Program
from thalweg.rule.equations import equations


class Text(str):
    """A string that a prompt or notebook shows as it prints."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def explain(optimizer: Any, source: bool = False) -> Text:
    """Explain what ``optimizer.step()`` does.

    For each kind of parameter (options, dtype, back end): the rule's equations, where a prime
    marks the value after the step; the states; the bytes moved per element of a parameter; the back
    end and why it was chosen. With ``source``, also the generated kernels. Nothing is changed.

    Args:
        optimizer: a thalweg optimizer.
        source: print the generated source as well.

    Raises:
        TypeError: not an optimizer with a rule.

    >>> import torch, thalweg, thalweg.optim as optim
    >>> p = torch.nn.Parameter(torch.ones(3))
    >>> thalweg.explain(optim.SGD([p], lr=0.1, momentum=0.9))
    SGD: 1 parameter, 3 elements
    <BLANKLINE>
    1 parameter, torch.float32, 3 elements
      momentum_buffer' = where(step == 1, g, momentum * momentum_buffer + (1 - dampening) * g)
      p'               = p - lr * momentum_buffer'
      states     momentum_buffer fp32
      memory     20 bytes per element: reads p, g, momentum_buffer; writes p, momentum_buffer
      arithmetic float32; what depends on options and step alone is computed in float64
      back end   cpu: a kernel for every operand
    """
    engine = getattr(optimizer, "_engine", None)
    if not isinstance(engine, Engine):
        raise TypeError(
            f"explain: got {type(optimizer).__name__}, which has no rule to explain; pass an "
            "optimizer that is made from a rule"
        )
    slots = engine.look_at_slots()
    kinds: dict[tuple[Any, ...], list[Slot]] = defaultdict(list)
    for slot in slots:
        program, formats, choice = engine.foresee(slot)
        kinds[(program, tuple(formats.items()), choice)].append(slot)
    elements = sum(s.param.numel() for s in slots)
    lines = [
        f"{type(optimizer).__name__}: {_count(len(slots), 'parameter')}, {elements:,} elements"
    ]
    for (program, formats, choice), members in kinds.items():
        size = sum(s.param.numel() for s in members)
        dtype = members[0].param.dtype
        lines += ["", f"{_count(len(members), 'parameter')}, {dtype}, {size:,} elements"]
        lines += _kind(program, dict(formats), engine.shown_scalars)
        lines.append(f"  back end   {choice.backend}: {choice.reason}")
    if source:
        for unit in engine.units:
            if isinstance(unit, KernelUnit):
                for kernel in unit.kernels:
                    where = str(kernel.generated.path or "not kept on disk")
                    lines += ["", where, kernel.generated.source]
        if not engine.units:
            lines += ["", "No kernel has been generated yet: run step() once."]
    return Text("\n".join(lines))


def _kind(program: Program, formats: dict[str, Format | None], scalars: list[str]) -> list[str]:
    named = equations(program)
    width = max(len(name) for name, _ in named)
    lines = [f"  {name:<{width}} = {text}" for name, text in named]
    states = [f"{n} {_format_name(formats[n])}" for n in program.states]
    states += [f"{name} (a number)" for name in scalars]
    lines.append(f"  states     {', '.join(states) or 'none'}")
    sizes = {n: f.itemsize if f else 0 for n, f in formats.items()}
    moved = sum(sizes[n] for n in (*program.reads, *program.writes))
    reads, writes = ", ".join(program.reads), ", ".join(program.writes)
    lines.append(f"  memory     {moved} bytes per element: reads {reads}; writes {writes}")
    known = tuple(f for f in formats.values() if f is not None)
    lines.append(
        f"  arithmetic {compute_type(known)}; what depends on options and step alone is computed "
        "in float64"
    )
    return lines


def _format_name(form: Format | None) -> str:
    return form.name if form else "of an unknown format"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def show_config() -> Text:
    """What thalweg found and will use: versions, threads, the kernel cache.

    >>> "kernels" in show_config()
    True
    """
    folder = cache.folder()
    kept = len(list(folder.glob("*.py"))) if folder.is_dir() else 0
    library = threads.openmp_library()
    pool = f"torch's OpenMP pool, {library}" if library else "Numba's threading layer"
    formats = ", ".join(f.name for f in FORMATS.values())
    rows = {
        "thalweg": thalweg.__version__,
        "torch": torch.__version__,
        "numba": _version("numba"),
        "numpy": _version("numpy"),
        "back ends": f"cpu (Numba), for {formats}; eager for everything else",
        "threads": f"{torch.get_num_threads()} (torch.set_num_threads), on {pool}",
        "kernels": f"{folder} ({_count(kept, 'kernel')} kept); set THALWEG_CACHE to move it",
    }
    return Text("\n".join(f"{name:<10} {value}" for name, value in rows.items()))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
