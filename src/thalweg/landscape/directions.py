"""The two directions of a slice through a network's loss.

Directions and snapshots are vectors of all parameters, in the order of ``model.parameters()``.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from thalweg.landscape.surfaces import Array, Point

MARGIN = 0.15  # of a trajectory's extent, free around it in the picture


def random(model: nn.Module, seed: int) -> Array:
    """Two filter-normalised random directions, shape (2, parameters)."""
    generator = torch.Generator().manual_seed(seed)
    return np.stack([_filter_normalised(model, generator) for _ in range(2)])


def _filter_normalised(model: nn.Module, generator: torch.Generator) -> Array:
    parts = []
    for p in model.parameters():
        drawn = torch.randn(p.shape, generator=generator, dtype=torch.float64, device="cpu")
        if p.ndim < 2 or not p.requires_grad:
            parts.append(torch.zeros(p.numel(), dtype=torch.float64, device="cpu"))
            continue
        filters = p.detach().double().cpu().flatten(1).norm(dim=1, keepdim=True)
        drawn = drawn.flatten(1)
        parts.append((drawn * (filters / drawn.norm(dim=1, keepdim=True))).flatten())
    return torch.cat(parts).numpy()


def principal(
    origin: Array, snapshots: Sequence[Tensor] | None, span: float
) -> tuple[Array, Point, tuple[float, float, float, float]]:
    """The directions, their shares of the squared distance, and a region with all snapshots."""
    if snapshots is None or len(snapshots) < 2:
        raise ValueError(
            "slice_of: principal directions need snapshots of the training run, at least 2 besides "
            f"the model itself, got {0 if snapshots is None else len(snapshots)}"
        )
    count = len(origin)
    rows = [vector(f"slice_of: snapshots[{k}]", s, count) for k, s in enumerate(snapshots)]
    offsets = np.stack(rows) - origin
    _, sizes, axes = np.linalg.svd(offsets, full_matrices=False)
    if len(sizes) < 2 or sizes[1] <= 1e-9 * sizes[0] or sizes[0] == 0:
        raise ValueError(
            "slice_of: the snapshots and the model lie on one line, which leaves the second "
            "direction open; take snapshots at more steps"
        )
    shares = sizes**2 / (sizes**2).sum()
    # A singular vector's sign is arbitrary: the run comes from the right and from above.
    plane = axes[:2] * np.where(offsets[0] @ axes[:2].T < 0, -1.0, 1.0)[:, None]
    points = np.vstack([offsets @ plane.T, [0.0, 0.0]])
    low, high = points.min(0), points.max(0)
    middle, half = (low + high) / 2, (high - low) / 2 * (1 + 2 * MARGIN) * span
    (left, bottom), (right, top) = (middle - half).tolist(), (middle + half).tolist()
    return plane, (float(shares[0]), float(shares[1])), (left, right, bottom, top)


def given(directions: tuple[Tensor, Tensor], count: int) -> Array:
    if isinstance(directions, (Tensor, Mapping)) or len(directions) != 2:
        raise ValueError("slice_of: directions must be 'random', 'principal' or a pair of vectors")
    return np.stack(
        [vector(f"slice_of: directions[{k}]", d, count) for k, d in enumerate(directions)]
    )


def check_plane(plane: Array) -> None:
    lengths = np.linalg.norm(plane, axis=1)
    cosine = float(plane[0] @ plane[1]) / lengths.prod() if lengths.all() else 1.0
    if abs(cosine) > 1 - 1e-12:
        raise ValueError(
            "slice_of: the two directions must span a plane, but they are parallel or one is zero "
            "(random ones are where no parameter that is trained has two dimensions)"
        )


def vector(what: str, value: Tensor, count: int) -> Array:
    """A vector of so many finite numbers, in float64."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{what} must be a tensor, got {type(value).__name__}")
    found = value.detach().double().cpu().numpy()
    if found.shape != (count,):
        raise ValueError(
            f"{what} must have shape ({count},), as the model has {count} parameters, got "
            f"{found.shape}; make it with snapshot(model)"
        )
    if not np.isfinite(found).all():
        raise ValueError(f"{what} must be finite")
    return found
