"""The back ends, each made when it is first asked for."""

from collections.abc import Callable, Iterator
from functools import cache

from thalweg.engine.backends.base import Backend


def _cpu() -> Backend:
    from thalweg.engine.backends.cpu.backend import CpuBackend

    return CpuBackend()


def _foreach() -> Backend:
    from thalweg.engine.backends.foreach.backend import ForeachBackend

    return ForeachBackend()


def _eager() -> Backend:
    from thalweg.engine.backends.eager.backend import EagerBackend

    return EagerBackend()


# In the order in which they are asked; the last takes everything.
_MAKERS: dict[str, Callable[[], Backend]] = {"cpu": _cpu, "foreach": _foreach, "eager": _eager}


@cache
def find(name: str) -> Backend:
    """The back end of this name."""
    return _MAKERS[name]()


def names() -> list[str]:
    """The names of all back ends, in the order in which they are asked."""
    return list(_MAKERS)


def chain() -> Iterator[Backend]:
    """All back ends, in the order in which they are asked."""
    return map(find, _MAKERS)
