"""What a surface is; :mod:`thalweg.landscape.catalogue` has those with names."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.engine.modes import with_gradients
from thalweg.ranges import Range, integer, number, numbers

Point = tuple[float, float]
Array = NDArray[np.float64]


def pair(owner: str, name: str, value: Any) -> Point:
    """Two finite numbers.

    Raises:
        TypeError: something else than numbers.
        ValueError: not two of them, or one is not finite.
    """
    found = numbers(owner, name, value)
    if len(found) != 2:
        raise ValueError(f"{owner}: {name} must be two numbers, got {value!r}")
    return found


@dataclass(frozen=True, eq=False)
class Surface:
    """A function of two variables, and what is known of it.

    Attributes:
        name: for titles and the command line.
        formula: in plain text, ``f(x, y) = ...``.
        function: of two tensors that broadcast, differentiable by autograd.
        region: the part to draw: lowest and highest x, lowest and highest y.
        minima: where it is lowest; empty if it has no lower bound, or if that is unknown.
        start: where trajectories begin if nothing else is said.
        across: direction of the cross-sections whose lowest points make up the valley line, or
            several of them, each for the lines of its own; None for the steepest direction at the
            first of the minima.
        source: where it comes from.
        resolution: points to a side of the grids that pictures are drawn from; fewer where the
            function takes long.

    Raises:
        TypeError: ``function`` cannot be called, or something is not a number.
        ValueError: the region is empty, or a number is not finite.
    """

    name: str
    formula: str
    function: Callable[[Tensor, Tensor], Tensor]
    region: tuple[float, float, float, float]
    minima: tuple[Point, ...] = ()
    start: Point = (0.0, 0.0)
    across: Point | tuple[Point, ...] | None = None
    source: str = ""
    resolution: int = 401

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"Surface: function must be callable, got {self.function!r}")
        region = numbers("Surface", "region", self.region)
        if len(region) != 4 or not (region[0] < region[1] and region[2] < region[3]):
            raise ValueError(
                "Surface: region must be lowest and highest x, lowest and highest y, "
                f"got {self.region}"
            )
        for k, minimum in enumerate(self.minima):
            pair("Surface", f"minima[{k}]", minimum)
        pair("Surface", "start", self.start)
        number("Surface", "resolution", integer("Surface", "resolution", self.resolution), Range(2))

    @property
    def ratio(self) -> float:
        """Height of the region over its width."""
        left, right, bottom, top = self.region
        return (top - bottom) / (right - left)

    @property
    def one_scale(self) -> bool:
        """Pictures have one scale for x and y, so that angles are true: no side is far longer."""
        return 0.4 < self.ratio < 2.5

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The values at these points.

        Raises:
            TypeError: the function returns no tensor.
            ValueError: its shape is not that of the points.
        """
        value = self.function(x, y)
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{self.name}: function must return a tensor, got {type(value).__name__} "
                f"{value!r}; compute it from x and y"
            )
        shape = torch.broadcast_shapes(x.shape, y.shape)  # type: ignore[no-untyped-call]
        if not _expands(value.shape, shape):
            raise ValueError(
                f"{self.name}: function must return one value per point, shape {tuple(shape)}, got "
                f"shape {tuple(value.shape)}"
            )
        return value

    def check_gradient(self, owner: str, value: Tensor) -> None:
        """Raise ValueError unless autograd leads from a value to the point."""
        if not value.requires_grad:
            raise ValueError(
                f"{owner}: {self.name} must be differentiable by autograd, but its value does not "
                "depend on the point; a level function is 0 * (x + y)"
            )

    @property
    def lowest(self) -> float | None:
        """The value at the minima, in float64; None without any."""
        if not self.minima:
            return None
        x, y = torch.tensor(self.minima[0], dtype=torch.float64, device="cpu")
        return float(self(x, y))

    @with_gradients(False)
    def grid(self, count: int | None = None) -> tuple[Array, Array, Array]:
        """Values over the region: x of shape (count,), y of shape (count,), z[j, i] at x[i], y[j].

        Args:
            count: points to a side, at least 2 (default: :attr:`resolution`).
        """
        count = self.resolution if count is None else integer("grid", "count", count)
        number("grid", "count", count, Range(2))
        left, right, bottom, top = self.region
        x = torch.linspace(left, right, count, dtype=torch.float64, device="cpu")
        y = torch.linspace(bottom, top, count, dtype=torch.float64, device="cpu")
        z = self(x[None, :], y[:, None])
        return x.numpy(), y.numpy(), z.expand(count, count).numpy()


def _expands(shape: torch.Size, to: torch.Size) -> bool:
    """Whether a tensor of this shape can be expanded to that: it may be of one variable alone."""
    pairs = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(one in (1, other) for one, other in pairs)
