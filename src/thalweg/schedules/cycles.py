"""Schedules that go up and down: with restarts, in cycles, in one cycle."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from thalweg.ranges import (
    ANY,
    AT_LEAST_ONE,
    NON_NEGATIVE,
    POSITIVE,
    UNIT_INTERVAL,
    Range,
    flag,
    one_of,
)
from thalweg.schedules.base import Schedule, blend, ramp, span
from thalweg.schedules.ramps import WEIGHTS, cosine
from thalweg.schedules.shapes import powered


@dataclass(frozen=True, slots=True)
class CosineRestarts(Schedule):
    """From start to end along a cosine, again and again, in cycles that may grow.

    ::

        end + (start - end) * (1 + cos(pi * position / length)) / 2

    where ``position`` counts the steps since the last restart and the cycle i = 0, 1, ... has the
    length period * growth ** i.

    Args:
        start: value at each restart.
        end: value that each cycle approaches.
        period: length of the first cycle, > 0.
        growth: each cycle is so many times as long as the one before it, >= 1.

    Raises:
        ValueError: an argument out of range.

    Source: Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017,
    equation 5 (T_0 = period, T_mult = growth).

    >>> [round(value, 4) for value in CosineRestarts(1, 0, period=2, growth=2).values(8)]
    [1.0, 0.5, 1.0, 0.8536, 0.5, 0.1464, 1.0, 0.9619]
    """

    start: float
    end: float
    period: float
    growth: float = 1

    ranges = {"start": ANY, "end": ANY, "period": POSITIVE, "growth": AT_LEAST_ONE}

    def place(self, t: float) -> tuple[float, float]:
        """The position in the cycle at step t, and the length of that cycle.

        >>> CosineRestarts(1, 0, period=2, growth=2).place(5)
        (3, 4)
        """
        position, length = t, self.period
        if self.growth == 1:
            return position % length, length
        # A logarithm would round, and put the first step of a cycle into the one before it.
        while position >= length:
            position -= length
            length *= self.growth
        return position, length

    def _value(self, t: float) -> float:
        position, length = self.place(t)
        return blend(self.start, self.end, cosine(position / length))

    @property
    def bounds(self) -> tuple[float, float]:
        return span(self.start, self.end)


@dataclass(frozen=True, slots=True)
class Cyclic(Schedule):
    """Up from start to peak and down again, in a straight line each, for ever.

    ::

        start + (peak - start) * triangle * scale

    where ``triangle`` rises from 0 to 1 in ``up`` steps and falls back to 0 in ``down`` steps, and
    ``scale`` in the cycle number c = 1, 2, ... is ::

        triangular:   1
        triangular2:  1 / 2 ** (c - 1)
        exp_range:    gamma ** t

    Args:
        start: value at the ends of each cycle.
        peak: value in the middle of the first cycle; below ``start`` for one that dips.
        up: steps from start to peak, > 0.
        down: steps back, >= 0 (default: ``up``).
        mode: "triangular", "triangular2" or "exp_range".
        gamma: factor per step of "exp_range", >= 0.
        scale: a function that is used in place of the mode's.
        scale_by: what ``scale`` is a function of: "cycle" (c) or "iterations" (t).

    Raises:
        ValueError: an argument out of range.

    Source: Smith, "Cyclical Learning Rates for Training Neural Networks", 2017, section 3.

    >>> Cyclic(1, 5, up=2, mode="triangular2").values(9)
    [1.0, 3.0, 5.0, 3.0, 1.0, 2.0, 3.0, 2.0, 1.0]
    """

    start: float
    peak: float
    up: float
    down: float | None = None
    mode: str = "triangular"
    gamma: float = 1.0
    scale: Callable[[float], float] | None = None
    scale_by: str = "cycle"

    ranges = {"start": ANY, "peak": ANY, "up": POSITIVE, "gamma": NON_NEGATIVE}

    def __post_init__(self) -> None:
        Schedule.__post_init__(self)
        if self.down is not None:
            self._check("down", NON_NEGATIVE)
        one_of("Cyclic", "scale_by", self.scale_by, ("cycle", "iterations"))
        if self.scale is None:
            one_of("Cyclic", "mode", self.mode, ("triangular", "triangular2", "exp_range"))
        elif not callable(self.scale):
            raise TypeError(f"Cyclic: scale must be a function or None, got {self.scale!r}")

    def scale_at(self, x: float) -> float:
        """The scale at x, which is a cycle's number or a step: what the scale is a function of."""
        if self.scale is not None:
            return float(self.scale(x))
        if self.mode == "triangular2":
            return powered(1, 0.5, x - 1)
        return powered(1, self.gamma, x) if self.mode == "exp_range" else 1

    def _value(self, t: float) -> float:
        down = self.up if self.down is None else self.down
        index, position = divmod(t, self.up + down)
        rises = position <= self.up
        # The length of the cycle is rounded: from there, it may be further than `down`.
        triangle = position / self.up if rises else min(1, (self.up + down - position) / down)
        by_cycle = self.scale_by == "cycle" if self.scale is not None else self.mode != "exp_range"
        scale = self.scale_at(int(index) + 1 if by_cycle else t)
        return blend(self.peak, self.start, triangle * scale)

    @property
    def bounds(self) -> tuple[float, float]:
        grows = self.mode == "exp_range" and self.gamma > 1
        if self.scale is not None or grows:
            return -math.inf, math.inf
        return span(self.start, self.peak)


@dataclass(frozen=True, slots=True)
class OneCycle(Schedule):
    """Up from initial to peak once and down to final, over a known number of steps.

    ::

        initial -> peak             from 0 to peak_at * steps - 1
        peak -> final               from there to steps - 1
        final                       from steps - 1 to steps

        three_phase:
        initial -> peak             from 0 to a = peak_at * steps - 1
        peak -> initial             from a to 2 * a
        initial -> final            from 2 * a to steps - 1
        final                       from steps - 1 to steps

    along a cosine or a straight line. There are ``steps`` values, at t = 0 to steps - 1; the last
    one is held until t = steps, since a scheduler is commonly stepped once more than there are
    optimizer steps. Beyond, there is none. With peak_at * steps < 1, a is before 0, and the first
    step is already on its way down.

    Args:
        initial: value at t = 0.
        peak: value at the top.
        final: value at t = steps - 1.
        steps: number of values, >= 1.
        peak_at: fraction of the steps after which the peak is reached, 0 to 1; with
            ``three_phase`` at most (steps + 1) / (2 * steps), which leaves room for the last phase.
        shape: "cosine" or "linear".
        three_phase: come down as steeply as it went up, and then on to ``final``.

    Raises:
        ValueError: an argument out of range; a step past the end.

    Source: Smith and Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large
    Learning Rates", 2018; the phases are those of torch.optim.lr_scheduler.OneCycleLR.

    >>> [round(value, 4) for value in OneCycle(1, 4, 0, steps=8, peak_at=0.5).values(9)]
    [1.0, 1.75, 3.25, 4.0, 3.4142, 2.0, 0.5858, 0.0, 0.0]
    """

    initial: float
    peak: float
    final: float
    steps: float = field()  # field(): see Ramp
    peak_at: float = 0.3
    shape: str = "cosine"
    three_phase: bool = False

    ranges = {
        "initial": ANY,
        "peak": ANY,
        "final": ANY,
        "steps": AT_LEAST_ONE,
        "peak_at": UNIT_INTERVAL,
    }

    def __post_init__(self) -> None:
        Schedule.__post_init__(self)
        self._set("three_phase", flag("OneCycle", "three_phase", self.three_phase))
        one_of("OneCycle", "shape", self.shape, ("cosine", "linear"))
        if self.three_phase and 2 * self.peak_at * self.steps - 2 > self.steps - 1:
            raise ValueError(
                "OneCycle: peak_at must be at most (steps + 1) / (2 * steps) with three_phase, "
                f"got {self.peak_at} with steps={self.steps}; the way down would not end in time"
            )

    def _phases(self) -> Iterator[tuple[float, float]]:
        """Where each phase ends, and at which value."""
        yield self.peak_at * self.steps - 1, self.peak
        if self.three_phase:
            yield 2 * self.peak_at * self.steps - 2, self.initial
        yield self.steps - 1, self.final

    def _value(self, t: float) -> float:
        begin, start = 0.0, self.initial
        for end, value in self._phases():
            if t <= end:
                return ramp(start, value, end - begin, t - begin, WEIGHTS[self.shape])
            begin, start = end, value
        return self.final

    @property
    def domain(self) -> Range:
        return Range(0, self.steps, open="neither")

    @property
    def bounds(self) -> tuple[float, float]:
        return span(self.initial, self.peak, self.final)
