"""What a schedule is, and the way from one value to another that most of them take."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from thalweg.ranges import NON_NEGATIVE, POSITIVE, Range, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Schedule(ABC):
    """A pure function of the step: a number for every t >= 0, the same one every time.

    t counts optimizer steps or epochs from 0 and may be a fraction. Schedules are values: they
    never change, compare by ``==``, hash, copy and pickle. They add, multiply and are joined::

        (f * g)(t) = f(t) * g(t)
        (f + g)(t) = f(t) + g(t)
        f.then(g)(t) = f(t) for t < f.steps, then g(t - f.steps)

    ``f >> g`` is ``f.then(g)``,
    and a number stands for the schedule that has that value at every step.

    To write one, give a frozen dataclass a ``_value(t)``. A field called ``steps`` takes the place
    of the property if it is written ``steps: float = field()``, with ``slots=True``.

    >>> from thalweg.schedules import Cosine, Warmup
    >>> schedule = 0.1 * Warmup(2).then(Cosine(1, 0, steps=4))
    >>> [round(value, 4) for value in schedule.values(8)]
    [0.0, 0.05, 0.1, 0.0854, 0.05, 0.0146, 0.0, 0.0]
    """

    __slots__ = ()
    __array_ufunc__ = None  # lets numpy's numbers multiply a schedule: they leave it to us

    # The numbers among the fields, and what each may be.
    ranges: ClassVar[Mapping[str, Range]] = {}

    def __post_init__(self) -> None:
        for name, allowed in self.ranges.items():
            self._check(name, allowed)

    def _check(self, name: str, allowed: Range) -> None:
        self._set(name, number(type(self).__name__, name, getattr(self, name), allowed))

    def _set(self, name: str, value: Any) -> None:
        """Store a field in the form that comparing and hashing need; while it is constructed."""
        object.__setattr__(self, name, value)

    def _length(self, method: str, argument: str) -> float:
        """What a method takes for an argument that is missing: the number of steps."""
        if self.steps == math.inf:
            raise ValueError(
                f"{type(self).__name__}.{method}: {argument} must be given, because {self!r} "
                "never ends"
            )
        return self.steps

    @abstractmethod
    def _value(self, t: float) -> float:
        """The value at a step of the domain, give or take a rounding of the step."""

    def __call__(self, t: float) -> float:
        """The value at step t.

        Raises:
            TypeError: if t is not a number.
            ValueError: if t is negative, not finite or outside of :attr:`domain`.
        """
        domain = self.domain
        remedy = "" if domain.high == math.inf else "; it goes no further: continue it with then()"
        return float(self._value(number(type(self).__name__, "t", t, domain, remedy)))

    @property
    def steps(self) -> float:
        """The step from which on it holds its last value, or at which it ends; else infinity.

        For a constant it is infinity too: it has no length of its own.
        """
        return math.inf

    @property
    def domain(self) -> Range:
        """The steps at which it has a value: t >= 0, with an end for OneCycle and Table."""
        return NON_NEGATIVE

    @property
    def bounds(self) -> tuple[float, float]:
        """Two numbers between which all values lie; infinite where nothing is known."""
        return -math.inf, math.inf

    def values(self, count: int) -> list[float]:
        """The values at t = 0, 1, ..., count - 1."""
        number(f"{type(self).__name__}.values", "count", count, NON_NEGATIVE)
        return [self(t) for t in range(count)]

    def then(self, other: "Schedule | float", at: float | None = None) -> "Schedule":
        """This schedule before step ``at``, and from there on the other one from its own zero.

        ::

            t -> self(t) if t < at else other(t - at)

        Args:
            other: what follows.
            at: the step of the change, >= 0 (default: :attr:`steps`).

        Raises:
            ValueError: if ``at`` is missing and this schedule never ends, if it is negative, or if
                this schedule goes no further than before it.
        """
        from thalweg.schedules.compose import join

        at = self._length("then", "at") if at is None else at
        return join((self, other), (number(f"{type(self).__name__}.then", "at", at, NON_NEGATIVE),))

    def __rshift__(self, other: "Schedule | float") -> "Schedule":
        """``f >> g`` is ``f.then(g)``; it binds less than ``*`` and ``+``."""
        return self.then(other)

    def __mul__(self, other: "Schedule | float") -> "Schedule":
        from thalweg.schedules.compose import Product, as_schedule

        return Product((self, as_schedule("Product", "the factor", other)))

    def __rmul__(self, other: float) -> "Schedule":
        from thalweg.schedules.compose import Product, as_schedule

        return Product((as_schedule("Product", "the factor", other), self))

    def __add__(self, other: "Schedule | float") -> "Schedule":
        from thalweg.schedules.compose import Sum, as_schedule

        return Sum((self, as_schedule("Sum", "the term", other)))

    def __radd__(self, other: float) -> "Schedule":
        from thalweg.schedules.compose import Sum, as_schedule

        return Sum((as_schedule("Sum", "the term", other), self))

    def shifted(self, by: float) -> "Schedule":
        """Later by so many steps: its first value is held until it begins.

        A negative ``by`` starts it in the middle::

            by >= 0:  t -> self(max(0, t - by))
            by < 0:   t -> self(t - by)

        >>> from thalweg.schedules import Linear
        >>> Linear(4, 0, steps=4).shifted(2).values(5)
        [4.0, 4.0, 4.0, 3.0, 2.0]
        >>> Linear(4, 0, steps=4).shifted(-3).values(3)
        [1.0, 0.0, 0.0]
        """
        from thalweg.schedules.transforms import shifted

        return shifted(self, by)

    def repeated(self, every: float | None = None, mirrored: bool = False) -> "Schedule":
        """From its beginning again and again, or there and back.

        ::

            t -> self(t mod every)
            mirrored:  t -> self(every - |t mod (2 * every) - every|)

        Args:
            every: steps after which it starts over, > 0 (default: :attr:`steps`).
            mirrored: run it backwards every second time.

        Raises:
            ValueError: if ``every`` is missing and this schedule never ends, if it is not > 0, or
                if this schedule goes no further than before it.

        >>> from thalweg.schedules import Linear
        >>> Linear(2, 0, steps=2).repeated().values(5)
        [2.0, 1.0, 2.0, 1.0, 2.0]
        >>> Linear(2, 0, steps=2).repeated(mirrored=True).values(5)
        [2.0, 1.0, 0.0, 1.0, 2.0]
        """
        from thalweg.schedules.transforms import Repeated

        return Repeated(
            self, self._length("repeated", "every") if every is None else every, mirrored
        )

    def clamped(self, low: float = -math.inf, high: float = math.inf) -> "Schedule":
        """Never below ``low`` nor above ``high``.

        ::

            t -> min(max(self(t), low), high)

        >>> from thalweg.schedules import Exponential
        >>> Exponential(0.5).clamped(low=0.2).values(4)
        [1.0, 0.5, 0.25, 0.2]
        """
        from thalweg.schedules.transforms import Clamped

        return Clamped(self, low, high)

    def plot(self, steps: float | None = None, ax: "Axes | None" = None) -> "Axes":
        """Draw the values over 0 <= t <= steps and return the axes.

        Args:
            steps: how far, > 0 (default: :attr:`steps`).
            ax: matplotlib axes to draw into (default: pyplot's current ones).

        Raises:
            ImportError: if matplotlib is missing.
            ValueError: if ``steps`` is missing and this schedule never ends.
        """
        steps = self._length("plot", "steps") if steps is None else steps
        steps = number(f"{type(self).__name__}.plot", "steps", steps, POSITIVE)
        if ax is None:
            try:
                from matplotlib import pyplot
            except ImportError as error:
                raise ImportError(
                    "plotting needs matplotlib: pip install 'thalweg[plots]'"
                ) from error
            ax = pyplot.gca()
        # Every whole step, and between them enough points for a smooth line.
        per_step = math.ceil(200 / steps)
        times = [i / per_step for i in range(math.floor(steps * per_step) + 1)]
        times = [t for t in times if t in self.domain]
        ax.plot(times, [self(t) for t in times])
        ax.set_xlabel("step")
        ax.set_ylabel("value")
        return ax


def blend(start: float, end: float, weight: float) -> float:
    """A value between two: end + (start - end) * weight.

    Exactly ``start`` at weight 1, exactly ``end`` at weight 0 and never outside of the two at a
    weight between; other weights extrapolate.

    >>> blend(0.1, 0.5, 1.0), blend(0.1, 0.5, 0.5), blend(0.1, 0.5, 0.0)
    (0.1, 0.3, 0.5)
    """
    # Between 0 and 1 no clamp is needed: a weight below 1 takes more off the difference than its
    # rounding can have added.
    return start if weight == 1 else end + (start - end) * weight


def ramp(
    start: float, end: float, steps: float, t: float, weight: Callable[[float], float]
) -> float:
    """The value at t on the way from start to end, which is held from t = steps on.

    Args:
        start: value at t = 0, unless ``steps`` is 0.
        end: value at t >= steps.
        steps: length of the way.
        t: the step, >= 0.
        weight: the weight of ``start`` as a function of the fraction t / steps, from 1 to 0.
    """
    return blend(start, end, weight(t / steps)) if t < steps else end


def span(*values: float) -> tuple[float, float]:
    """The lowest and the highest of some values."""
    return float(min(values)), float(max(values))
