"""The numbers that formats which round at random begin with: one for each parameter and step.

They depend on nothing else, so that a run that is repeated, or goes on from a checkpoint, rounds as
before. torch's generators are not touched.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt


class Numbered(Protocol):
    """A parameter with its place among all."""

    index: int


def seeds_of(slots: Sequence[Numbered], steps: Sequence[float]) -> npt.NDArray[np.int64]:
    """An integer below 2^32 for each parameter.

    The bits of place and step are mixed as by the finalizer of MurmurHash3 (A. Appleby, 2011).

    Args:
        slots: the parameters.
        steps: the number of this update of each.
    """
    place = np.asarray([slot.index for slot in slots], dtype=np.uint64)
    x = place << np.uint64(32) | np.asarray(steps, dtype=np.float64).astype(np.uint64)
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        x = (x ^ (x >> np.uint64(33))) * np.uint64(factor)
    return ((x ^ (x >> np.uint64(33))) & np.uint64(0xFFFFFFFF)).astype(np.int64)
