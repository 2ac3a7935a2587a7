"""What a range test finds: the loss at each rate, a suggestion, a picture."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEFT = 0.2  # share of the fall that is still to come at the rate that the suggestion starts from
MARGIN = 2.0  # that rate over the suggestion
CLEAR = 1.5  # standard deviations that a fall must exceed; noise does in about 1% of all tests


@dataclass(frozen=True)
class LRFound:
    """The loss at growing learning rates.

    Attributes:
        rates: of the optimizer's group with the highest rate; each is that of one step.
        losses: the training loss that each step began with.
        smoothed: the losses' exponential moving average, taken in both directions.
        diverged: the test ended early, because the loss had risen too far or was not finite.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    diverged: bool

    @property
    def suggestion(self) -> float:
        """Half of the rate at which the smoothed loss had made four fifths of its fall.

        ::

            lowest     = min(smoothed)
            level      = lowest + (smoothed[0] - lowest) / 5
            suggestion = rates[i] / 2      i: the last before the lowest with smoothed[i] >= level

        Each rate is held for one step only, and so the loss still falls at rates that a training
        run does not stand. The rate at four fifths of the fall is sometimes above those that work;
        half of it leaves room. It is a rate to begin with, not the best one.

        Raises:
            ValueError: the test ended within three steps; or the loss never fell, or by no more
                than 1.5 standard deviations of its differences from the smoothed loss.
        """
        if self.diverged and len(self.losses) < 3:
            raise ValueError(
                f"lr_find: the loss rose too far, or stopped being finite, right after the rate of "
                f"{self.rates[-1]:.3g}, so no rate can be suggested; check data and loss, or begin "
                "at a lower rate (low)"
            )
        lowest = min(self.smoothed)
        place = self.smoothed.index(lowest)
        fall = self.smoothed[0] - lowest
        # At the rates up to there; further on the loss may be as wild as it likes.
        pairs = list(zip(self.losses, self.smoothed, strict=True))[: place + 1]
        if fall <= CLEAR * _deviation(loss - mean for loss, mean in pairs):
            raise ValueError(
                f"lr_find: between the rates {self.rates[0]:.3g} and {self.rates[-1]:.3g} the loss "
                f"fell by {fall:.3g}, which is no more than it differs between batches, so no rate "
                "can be suggested; check loss and targets, or test other rates (low, high)"
            )
        level = lowest + LEFT * fall
        start = max(i for i in range(place) if self.smoothed[i] >= level)
        return self.rates[start] / MARGIN

    def plot(self, where: str | os.PathLike[str] | Axes) -> Axes:
        """Draw losses and smoothed losses over the rates, with the suggestion where there is one.

        Args:
            where: a file, PNG or SVG by its suffix, or matplotlib axes to draw into.

        Returns:
            The axes.

        Raises:
            ModuleNotFoundError: matplotlib is missing.
            ValueError: another suffix.
            OSError: the file cannot be written.
        """
        from thalweg.range_test.picture import draw, write

        if isinstance(where, (str, os.PathLike)):
            return write(self, where)
        draw(self, where)
        return where


def _deviation(values: Iterable[float]) -> float:
    """The standard deviation; that of ``statistics`` takes a tenth of a second to import."""
    found = list(values)
    mean = math.fsum(found) / len(found)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in found) / len(found))
