"""Schedules that begin with a warmup."""

import math
from dataclasses import dataclass, field

from thalweg.ranges import ANY, NON_NEGATIVE, POSITIVE, one_of
from thalweg.schedules.base import Schedule, ramp, span
from thalweg.schedules.ramps import WEIGHTS, linear


@dataclass(frozen=True, slots=True)
class Warmup(Schedule):
    """Up from start to end, which is held; a factor for what follows, or joined with it.

    ::

        linear:       end + (start - end) * (1 - x)                  (x = t / steps < 1)
        cosine:       end + (start - end) * (1 + cos(pi * x)) / 2
        exponential:  start * (end / start) ** x
        end                                                          (t >= steps)

    Args:
        steps: length, >= 0; with 0 it is at its end at once.
        start: value at t = 0; > 0 for "exponential".
        end: value from t = steps on; > 0 for "exponential".
        shape: "linear", "cosine" or "exponential".

    Raises:
        ValueError: an argument out of range.

    Source: Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017,
    section 2.2 (gradual warmup).

    >>> Warmup(4).values(6)
    [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """

    steps: float = field()  # field(): see Ramp
    start: float = 0.0
    end: float = 1.0
    shape: str = "linear"

    ranges = {"steps": NON_NEGATIVE, "start": ANY, "end": ANY}

    def __post_init__(self) -> None:
        Schedule.__post_init__(self)
        one_of("Warmup", "shape", self.shape, ("linear", "cosine", "exponential"))
        if self.shape == "exponential":
            self._check("start", POSITIVE)
            self._check("end", POSITIVE)

    def _value(self, t: float) -> float:
        if self.shape != "exponential":
            return ramp(self.start, self.end, self.steps, t, WEIGHTS[self.shape])
        if t >= self.steps:
            return self.end
        low, high = self.bounds
        return min(max(self.start * math.pow(self.end / self.start, t / self.steps), low), high)

    @property
    def bounds(self) -> tuple[float, float]:
        return span(self.start, self.end)


@dataclass(frozen=True, slots=True)
class WarmupStableDecay(Schedule):
    """Up in a straight line, level, and down (WSD, trapezoidal).

    ::

        start -> peak     in `warmup` steps
        peak              for `stable` steps
        peak -> end       in `decay` steps: end + (peak - end) * w
        end               after that

    where w in the fraction x of the decay is ::

        linear:  1 - x
        cosine:  (1 + cos(pi * x)) / 2
        sqrt:    1 - sqrt(x)

    Args:
        warmup: length of the warmup, >= 0.
        stable: length of the level part, >= 0.
        decay: length of the decay, >= 0.
        peak: value between warmup and decay.
        start: value at t = 0.
        end: value after the decay.
        shape: of the decay: "linear", "cosine" or "sqrt".

    Raises:
        ValueError: an argument out of range.

    Source: Hu et al., "MiniCPM: Unveiling the Potential of Small Language Models with Scalable
    Training Strategies", 2024; Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond
    Fixed Training Durations", 2024 (the shape 1 - sqrt(x)).

    >>> WarmupStableDecay(2, 3, 4).values(10)
    [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """

    warmup: float
    stable: float
    decay: float
    peak: float = 1.0
    start: float = 0.0
    end: float = 0.0
    shape: str = "linear"

    ranges = {
        "warmup": NON_NEGATIVE,
        "stable": NON_NEGATIVE,
        "decay": NON_NEGATIVE,
        "peak": ANY,
        "start": ANY,
        "end": ANY,
    }

    def __post_init__(self) -> None:
        Schedule.__post_init__(self)
        one_of("WarmupStableDecay", "shape", self.shape, ("linear", "cosine", "sqrt"))

    def _value(self, t: float) -> float:
        into_decay = t - (self.warmup + self.stable)
        if into_decay >= 0:
            return ramp(self.peak, self.end, self.decay, into_decay, WEIGHTS[self.shape])
        return ramp(self.start, self.peak, self.warmup, t, linear)

    @property
    def steps(self) -> float:
        return self.warmup + self.stable + self.decay

    @property
    def bounds(self) -> tuple[float, float]:
        return span(self.start, self.peak, self.end)


@dataclass(frozen=True, slots=True)
class InverseSqrt(Schedule):
    """Up to peak in a straight line, then down with the inverse square root of the step.

    ::

        start + (peak - start) * t / warmup      (t < warmup)
        peak * sqrt(warmup / t)                  (t >= warmup)

    Args:
        warmup: length of the warmup, > 0.
        peak: value at t = warmup; the paper's is 1 / sqrt(d_model * warmup).
        start: value at t = 0.

    Raises:
        ValueError: an argument out of range.

    Source: Vaswani et al., "Attention Is All You Need", 2017, section 5.3.

    >>> [round(value, 4) for value in InverseSqrt(2).values(9)]
    [0.0, 0.5, 1.0, 0.8165, 0.7071, 0.6325, 0.5774, 0.5345, 0.5]
    """

    warmup: float
    peak: float = 1.0
    start: float = 0.0

    ranges = {"warmup": POSITIVE, "peak": ANY, "start": ANY}

    def _value(self, t: float) -> float:
        if t < self.warmup:
            return ramp(self.start, self.peak, self.warmup, t, linear)
        return self.peak * math.sqrt(self.warmup / t)

    @property
    def bounds(self) -> tuple[float, float]:
        return span(self.start, self.peak, 0)
