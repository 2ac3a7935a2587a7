"""Operands whose memory overlaps: the order in which they are written then decides.

A kernel gives chunks of all tensors to threads at once. Where two operands share memory and one of
them is written (weights tied by ``.data``, views of one buffer, a gradient that is its parameter),
what comes out would depend on who comes first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thalweg.engine.layout import Integers

_NONE: Integers = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Ranges:
    """Where the operands of some parameters lie, an entry for each operand of each.

    Attributes:
        starts, stops: addresses.
        slots: the parameter's number.
        written: whether it is written, not only read.
    """

    starts: Integers
    stops: Integers
    slots: Integers
    written: Integers

    @staticmethod
    def of(parts: Sequence["Ranges"]) -> "Ranges":
        """All of them, without those that are empty, by where they begin."""
        columns = [
            np.concatenate([_NONE, *(getattr(part, name) for part in parts)])
            for name in ("starts", "stops", "slots", "written")
        ]
        found = columns[0] < columns[1]
        order = np.flatnonzero(found)[np.argsort(columns[0][found], kind="stable")]
        return Ranges(*(column[order] for column in columns))

    def only_written(self) -> tuple[Integers, Integers]:
        """Where the written ones begin and end."""
        chosen = self.written != 0
        return self.starts[chosen], self.stops[chosen]

    def overlapping(self) -> frozenset[int]:
        """The parameters with an operand that overlaps with another, where one is written.

        Takes those that :meth:`of` has sorted.
        """
        if not len(self.starts):
            return frozenset()
        reach = np.maximum.accumulate(self.stops)
        begins = np.concatenate([[True], self.starts[1:] >= reach[:-1]])
        if begins.all():
            return frozenset()
        # What overlaps directly or through others is one cluster.
        cluster = np.cumsum(begins) - 1
        several = np.bincount(cluster) > 1
        several &= np.bincount(cluster, weights=self.written) > 0
        return frozenset(self.slots[several[cluster]].tolist())
