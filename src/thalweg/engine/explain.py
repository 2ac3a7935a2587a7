"""What an optimizer computes, in words: equations, states, bytes moved, the back end and why."""

from collections import defaultdict
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from typing import Any

import torch

import thalweg
from thalweg.engine.backends.cpu import cache, threads
from thalweg.engine.backends.cpu.kernel import Kernel
from thalweg.engine.backends.cpu.unit import KernelUnit
from thalweg.engine.engine import Engine
from thalweg.engine.formats import FORMATS, Format, compute_type
from thalweg.engine.slots import Slot
from thalweg.rule import Program
from thalweg.rule.equations import equations


class Text(str):
    """A string that a prompt or notebook shows as it prints."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def has_rule(subject: Any) -> bool:
    """Whether this is an optimizer that is made from a rule."""
    return isinstance(getattr(subject, "_engine", None), Engine)


def explain_optimizer(optimizer: Any, source: bool = False) -> Text:
    """Explain what ``optimizer.step()`` does: see :func:`thalweg.explain`.

    Args:
        optimizer: a thalweg optimizer.
        source: print the generated source as well.

    Raises:
        TypeError: not an optimizer with a rule.
    """
    if not has_rule(optimizer):
        raise TypeError(
            f"explain: got {type(optimizer).__name__}, which has no rule to explain; pass an "
            "optimizer that is made from a rule, or a loss"
        )
    engine: Engine = optimizer._engine
    slots = engine.look_at_slots()
    kinds: dict[tuple[Any, ...], list[Slot]] = defaultdict(list)
    for slot in slots:
        program, formats, choice = engine.preview(slot)
        kinds[(program, tuple(formats.items()), choice)].append(slot)
    elements = sum(s.param.numel() for s in slots)
    lines = [
        f"{type(optimizer).__name__}: {count_of(len(slots), 'parameter')}, {elements:,} elements"
    ]
    for (program, formats, choice), members in kinds.items():
        size = sum(s.param.numel() for s in members)
        dtype = members[0].param.dtype
        lines += ["", f"{count_of(len(members), 'parameter')}, {dtype}, {size:,} elements"]
        lines += _kind(program, dict(formats), engine.shown_scalars)
        lines.append(f"  back end   {choice.backend}: {choice.reason}")
    if source:
        for unit in engine.units:
            if isinstance(unit, KernelUnit):
                lines += chain.from_iterable(listing(kernel) for kernel in unit.kernels)
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
    sizes = {n: f.bytes_per_element if f else 0 for n, f in formats.items()}
    moved = sum(sizes[n] for n in (*program.reads, *program.writes))
    reads, writes = ", ".join(program.reads), ", ".join(program.writes)
    lines.append(f"  memory     {moved:g} bytes per element: reads {reads}; writes {writes}")
    known = tuple(f for f in formats.values() if f is not None)
    lines.append(
        f"  arithmetic {compute_type(known)}; what depends on options and step alone is computed "
        "in float64"
    )
    return lines


def listing(kernel: Kernel) -> list[str]:
    """A kernel's source, and where it lies."""
    return ["", str(kernel.generated.path or "not kept on disk"), kernel.generated.source]


def _format_name(form: Format | None) -> str:
    return form.name if form else "of an unknown format"


def count_of(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def configuration() -> dict[str, str]:
    """What thalweg found and will use, by name: versions, threads, the kernel cache.

    >>> list(configuration())
    ['thalweg', 'torch', 'llvmlite', 'numpy', 'back ends', 'threads', 'kernels']
    """
    folder = cache.folder()
    kept = len(list(folder.glob("*.py"))) if folder.is_dir() else 0
    library = threads.openmp_library()
    pool = f"torch's OpenMP pool, {library}" if library else "threads of Python's"
    formats = ", ".join(f.name for f in FORMATS.values())
    return {
        "thalweg": thalweg.__version__,
        "torch": torch.__version__,
        "llvmlite": _version("llvmlite"),
        "numpy": _version("numpy"),
        "back ends": f"cpu (compiled kernels), for {formats}; eager for everything else",
        "threads": f"{torch.get_num_threads()} (torch.set_num_threads), on {pool}",
        "kernels": f"{folder} ({count_of(kept, 'kernel')} kept); set THALWEG_CACHE to move it",
    }


def show_config() -> Text:
    """What thalweg found and will use, a line each: versions, threads, the kernel cache.

    >>> "kernels" in show_config()
    True
    """
    return Text("\n".join(f"{name:<10} {value}" for name, value in configuration().items()))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
