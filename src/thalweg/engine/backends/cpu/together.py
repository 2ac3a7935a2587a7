"""A step whose units all have one kernel: looking and running in one call."""

from collections.abc import Sequence
from typing import Self

from thalweg.engine.backends.base import Unit
from thalweg.engine.backends.cpu import addresses, threads
from thalweg.engine.backends.cpu.unit import KernelUnit


class Together:
    """Runs units whose operands are read by compiled code, and who have one stage.

    Between reading an address and using it, nothing of others runs: no signal handler, no other
    thread, nothing that a collection of garbage calls. So no reference is needed to keep the memory
    where it is, and holding thousands would cost more than the step.
    """

    def __init__(self, lib: addresses.Library, units: Sequence[KernelUnit]) -> None:
        self.units = units
        readers = [unit.reader for unit in units if unit.reader is not None]
        self._at_once = addresses.AtOnce(lib, readers)

    @classmethod
    def of(cls, units: Sequence[Unit]) -> Self | None:
        """What runs these; None where one of them cannot be run so."""
        lib = addresses.library()
        kernels = [u for u in units if isinstance(u, KernelUnit) and u.reader is not None]
        return None if lib is None or len(kernels) < len(units) else cls(lib, kernels)

    def run(self, exposed: bool) -> bool:
        """Look and run; False if nothing was run, as something was not as planned or has moved.

        Args:
            exposed: see :meth:`Unit.prepare`.
        """
        let_go = False
        for unit in self.units:
            unit.begin(exposed)
            let_go = let_go or unit.lets_go
        calls = [unit.call(0) for unit in self.units]
        if not threads.openmp_pool_address() and any(wanted > 1 for _, _, wanted in calls):
            return False
        done = not any(unit.moved for unit in self.units) and self._at_once.run(calls, let_go)
        for unit in self.units:
            if done:
                unit.take_in()
            else:
                unit.moved = True
        return done
