"""A slice through a network's loss: the surface around a trained point, along two directions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from thalweg.engine.interrupts import put_back_after
from thalweg.engine.modes import with_gradients
from thalweg.landscape.directions import check_plane, given, principal, random, vector
from thalweg.landscape.surfaces import Array, Point, Surface
from thalweg.landscape.trajectory import Trajectory, follow
from thalweg.ranges import POSITIVE, integer, number, one_of

Loss = Callable[[nn.Module], Tensor]
Directions = str | tuple[Tensor, Tensor]

RESOLUTION = 41  # every point of a picture is a pass over the data


def snapshot(model: nn.Module) -> Tensor:
    """All parameters of a model in one vector, float64 and on the CPU, in the model's order.

    >>> snapshot(torch.nn.Linear(2, 3)).shape
    torch.Size([9])
    """
    parts = [p.detach().double().cpu().flatten() for p in model.parameters()]
    return torch.cat([torch.empty(0, dtype=torch.float64, device="cpu"), *parts])


@dataclass(frozen=True, eq=False)
class NetworkSlice:
    """The plane ``theta + a d1 + b d2`` in the space of a network's parameters.

    Attributes:
        surface: the loss as a function of a and b. Gradients follow from autograd, so that
            optimizers can be traced on it. Its minima are not known.
        origin: theta, all parameters in one vector, float64.
        directions: d1 and d2, shape (2, parameters), float64.
        explained: for principal directions, how much of the snapshots' squared distance from theta
            lies along each of them, between 0 and 1; else None.
    """

    surface: Surface
    origin: Array
    directions: Array
    explained: Point | None = None

    def project(self, snapshot: Tensor) -> Point:
        """The point of the plane that is nearest to a snapshot: its a and b.

        By least squares, as the directions need not be at right angles.

        Raises:
            TypeError: it is no tensor.
            ValueError: it has another number of parameters, or one that is not finite.
        """
        offset = vector("project: snapshot", snapshot, len(self.origin)) - self.origin
        a, b = np.linalg.lstsq(self.directions.T, offset)[0]
        return float(a), float(b)

    def trajectory(self, snapshots: Sequence[Tensor], name: str = "training") -> Trajectory:
        """Snapshots of a training run projected on the plane, and the loss there.

        The loss is that of the projections. The network's own was another, as far as the run left
        the plane.

        Args:
            snapshots: at least one, in order.
            name: for legends.

        Raises:
            TypeError: see :meth:`project`.
            ValueError: see :meth:`project`; there is no snapshot.
        """
        if not snapshots:
            raise ValueError("trajectory: snapshots must hold at least one")
        return follow(self.surface, name, np.array([self.project(each) for each in snapshots]))


def slice_of(
    model: nn.Module,
    loss: Loss,
    *,
    directions: Directions = "random",
    snapshots: Sequence[Tensor] | None = None,
    span: float = 1.0,
    seed: int = 0,
    name: str = "Loss of the network",
) -> NetworkSlice:
    """The loss of a network around its present parameters, along two directions.

    ::

        f(a, b) = loss(theta + a d1 + b d2)

    Random directions are filter-normalised: each is drawn from a normal distribution, and then each
    filter in it (what belongs to one index of a parameter's first dimension: a convolution's output
    channel, a neuron's weights) is scaled to the norm of the network's own filter. Networks whose
    weights differ in scale alone then look the same. Parameters of fewer than two dimensions
    (biases, normalisations) and frozen ones stay as they are.

    Principal directions are the unit vectors along which the snapshots of a training run are
    spread most about theta: the first two right singular vectors of their differences from it.
    They are not centred, so that the plane contains theta itself.

    The model is not touched: parameters and buffers are replaced by copies while the loss is
    computed, and random numbers (dropout) begin from the seed every time, outside of torch's own
    sequence, so that the surface is a function. Put the model into the mode (``eval()`` or not)
    that the loss should be looked at in.

    Args:
        model: the network, trained; what it holds at the time of the call is theta.
        loss: takes the model and returns its loss, a scalar tensor; on all data that should count.
        directions: ``"random"``, ``"principal"``, or two vectors as :func:`snapshot` makes them.
        snapshots: of the training run, each from :func:`snapshot`; for principal directions.
        span: half the width of the region. 1 with random directions reaches as far as the filters'
            norms; with principal directions the region is the snapshots' extent and a margin,
            times this.
        seed: of random directions, and of the random numbers inside the loss.
        name: for titles.

    Raises:
        TypeError: an argument has the wrong type, or the loss returns no tensor.
        ValueError: an argument is out of range; the loss is not one finite number at theta; the
            snapshots do not fit or span no plane; the directions are parallel.

    Source: Li, Xu, Taylor, Studer and Goldstein, "Visualizing the Loss Landscape of Neural Nets",
    2018, section 4 (filter normalisation) and section 7.2 (principal directions).

    >>> model = torch.nn.Linear(3, 2)
    >>> x = torch.eye(3)
    >>> found = slice_of(model, lambda m: (m(x) ** 2).mean())
    >>> found.surface.region
    (-1.0, 1.0, -1.0, 1.0)
    >>> zero = torch.zeros((), dtype=torch.float64)
    >>> bool(found.surface(zero, zero).float() == (model(x) ** 2).mean())
    True
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"slice_of: model must be a torch.nn.Module, got {type(model).__name__}")
    span = number("slice_of", "span", span, POSITIVE)
    seed = integer("slice_of", "seed", seed, flags=False)
    for p in model.parameters():
        if is_lazy(p) or p.is_complex():
            raise ValueError(
                "slice_of: the model's parameters must be real and exist already, got "
                + ("one that its first call makes; call it once" if is_lazy(p) else str(p.dtype))
            )
    snapshots = None if snapshots is None else list(snapshots)
    origin = snapshot(model).numpy()
    if not np.isfinite(origin).all() or not len(origin):
        raise ValueError("slice_of: model must have parameters, and all of them finite")
    region = (-span, span, -span, span)
    explained: Point | None = None
    if isinstance(directions, str):
        one_of("slice_of", "directions", directions, ("random", "principal"))
        if directions == "random":
            plane = random(model, seed)
        else:
            plane, explained, region = principal(origin, snapshots, span)
    else:
        plane = given(directions, len(origin))
    check_plane(plane)
    function = _LossOfPlane(model, loss, origin, plane, seed)
    function.check()
    surface = Surface(
        name=name,
        formula="f(a, b) = loss(θ + a d₁ + b d₂)",
        function=function,
        region=region,
        source="Li et al., Visualizing the Loss Landscape of Neural Nets, 2018",
        resolution=RESOLUTION,
    )
    return NetworkSlice(surface, origin, plane, explained)


class _LossOfPlane:
    """The loss at each of a tensor of points, one after the other, in float64.

    The parameters are a function of the point, with autograd: the graph reaches from the loss back
    to a and b.
    """

    def __init__(
        self, model: nn.Module, loss: Loss, origin: Array, plane: Array, seed: int
    ) -> None:
        self.wrapped = _Wrapped(model, loss)
        self.seed = seed
        self.axes: dict[str, tuple[Tensor, Tensor, Tensor, torch.dtype]] = {}
        begin = 0
        for name, p in self.wrapped.named_parameters():
            end = begin + p.numel()
            theta, d1, d2 = (
                torch.from_numpy(part[begin:end]).reshape(p.shape).to(p.device)
                for part in (origin, *plane)
            )
            self.axes[name] = (theta, d1, d2, p.dtype)
            begin = end
        self.buffers = {name: b.clone() for name, b in self.wrapped.named_buffers()}

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        a, b = torch.broadcast_tensors(x, y)  # type: ignore[no-untyped-call]
        # A graph leads to the point or is not made: the loss may have parameters of its own.
        needed = torch.is_grad_enabled() and (a.requires_grad or b.requires_grad)
        return with_gradients(needed)(self._at_each)(a, b)

    def _at_each(self, a: Tensor, b: Tensor) -> Tensor:
        values = [self.at(*point) for point in zip(a.flatten(), b.flatten(), strict=True)]
        return torch.stack(values).reshape(a.shape).to(a.dtype)

    def at(self, a: Tensor, b: Tensor) -> Tensor:
        parameters = {
            name: (theta + a.to(theta) * d1 + b.to(theta) * d2).to(dtype)
            for name, (theta, d1, d2, dtype) in self.axes.items()
        }
        # Copies, because a normalisation in training mode writes into its buffers.
        buffers = {name: buffer.clone() for name, buffer in self.buffers.items()}
        modes = [(module, module.training) for module in self.wrapped.modules()]

        def put_back() -> None:
            for module, training in modes:
                module.training = training

        with put_back_after(put_back), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            value = torch.func.functional_call(self.wrapped, {**parameters, **buffers}, ())
        return value.to(a.device, torch.float64).reshape(())  # type: ignore[no-any-return]

    def check(self) -> None:
        """Raise unless the loss is one finite number at the origin."""
        zero = torch.zeros((), dtype=torch.float64, device="cpu")
        value = self(zero, zero)
        if not bool(torch.isfinite(value)):
            raise ValueError(
                f"slice_of: the loss at the model's parameters must be finite, got {float(value)}"
            )


class _Wrapped(nn.Module):
    """A module that returns the loss, so that parameters can be replaced while it is computed."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model = model
        # In a list it is no child: a loss that is a module may have parameters of its own.
        self.losses = [loss]

    def forward(self) -> Tensor:
        value = self.losses[0](self.model)
        if not isinstance(value, Tensor):
            raise TypeError(
                f"slice_of: loss must return a tensor, got {type(value).__name__} {value!r}"
            )
        if value.numel() != 1:
            raise ValueError(
                "slice_of: loss must return one number, got a tensor of shape "
                f"{tuple(value.shape)}; take its mean"
            )
        return value
