"""Updates whose norm is set by that of the parameter, tensor by tensor or row by row."""

from collections.abc import Mapping
from typing import Any

from thalweg.ranges import NON_NEGATIVE, flag, one_of
from thalweg.rule import Transform, norm, sqrt, sum, where
from thalweg.transforms.around_update import AroundUpdate


def scaled_to_weights(p: Any, u: Any, g: Any, s: Any, h: Any) -> Any:
    """p, and an update as long as lr times p."""
    weight, step = norm(p), norm(u)
    # u is -lr times the direction, so lr takes the place of the direction's own.
    usable = (weight > 0) & (step > 0)
    return p + u * where(usable, h.lr * weight / where(usable, step, 1.0), 1.0)


def trust_ratio(trust_ratio: bool = True) -> Transform:
    """Scale the update of each tensor to lr times the norm of its weights.

    ::

        u = what the rule adds to p, weight decay included: -lr * r
        p <- p + u * ||p|| / ||r||    where both norms are above 0; elsewhere p + u

    Around AdamW this is LAMB, with its phi(z) = z.

    Args:
        trust_ratio: False leaves no trace in the kernel; for the groups of biases and norms. The
            optimizer needs an option ``lr``.

    Source: You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 Minutes",
    2020, Algorithm 2.
    """
    return Transform(
        AroundUpdate("trust_ratio", scaled_to_weights),
        options={"trust_ratio": flag("trust_ratio", "trust_ratio", trust_ratio)},
        name="trust_ratio",
    )


def moved_on_sphere(p: Any, u: Any, g: Any, s: Any, h: Any) -> Any:
    """p after a step along the direction of u, on the sphere on which it lies."""
    radius, step = norm(p), norm(u)
    scale = where(step > 0, h.lr * radius / where(step > 0, step, 1.0), 0.0)
    # ||p + scale * u|| by one pass over p and u: no second one over what is to be stored.
    longer = sqrt(radius * radius + 2 * scale * sum(p * u) + scale * scale * step * step)
    return (p + scale * u) * where(longer > 0, radius / where(longer > 0, longer, 1.0), 1.0)


def hyperball(hyperball: bool = True) -> Transform:
    """Keep the norm of each tensor's weights: lr is the angle of a step, and decay needless.

    ::

        R = ||p||
        u = what the rule adds to p, as a direction: u / ||u||
        p <- R * (p + lr * R * u) / ||p + lr * R * u||

    Where the update is 0, p stays. With it ``weight_decay`` is to be 0.

    Args:
        hyperball: False leaves no trace in the kernel; for the groups of biases and norms. The
            optimizer needs an option ``lr``.

    Source: Wen et al., "Fantastic Pretraining Optimizers and Where to Find Them II: Hyperball
    Optimization", 2026; with p's norm of now for that of the beginning: equal up to rounding.
    """
    return Transform(
        AroundUpdate("hyperball", moved_on_sphere),
        options={"hyperball": flag("hyperball", "hyperball", hyperball)},
        name="hyperball",
    )


FLOOR_SCOPES = ("tensor", "row")


def lifted_to_floor(p: Any, u: Any, g: Any, s: Any, h: Any) -> Any:
    """p, and an update that is no shorter than a share of lr times p."""
    over = "unit" if h.update_floor_over == "row" else "tensor"
    least, step = h.lr * h.update_floor * norm(p, over), norm(u, over)
    short = (step > 0) & (step < least)
    return p + u * where(short, least / where(short, step, 1.0), 1.0)


def _check_floor_scope(owner: str, options: Mapping[str, Any]) -> None:
    one_of(owner, "update_floor_over", options.get("update_floor_over"), FLOOR_SCOPES)


def update_floor(ratio: float = 0.35, over: str = "tensor") -> Transform:
    """Lengthen updates that are short beside their weights.

    ::

        u = what the rule adds to p: -lr * r
        r <- r * ratio * ||p|| / ||r||    where 0 < ||r|| < ratio * ||p||

    Args:
        ratio: the least ratio of the norms of r and p, >= 0; 0 leaves no trace in the kernel.
            Option ``update_floor``. The optimizer needs an option ``lr``.
        over: "tensor": the norms are those of the whole tensor; "row": of what belongs to one
            index of the first dimension (a row of a matrix, a filter of a convolution), each row
            by itself. A vector is one row. Option ``update_floor_over``.

    Raises:
        ValueError: ``over`` is neither.

    Source: the speed runs of modded-nanoGPT, 2026 (KellerJordan/modded-nanogpt), there by rows.
    """
    one_of("update_floor", "over", over, FLOOR_SCOPES)
    return Transform(
        AroundUpdate("update_floor", lifted_to_floor),
        options={"update_floor": ratio, "update_floor_over": over},
        ranges={"update_floor": NON_NEGATIVE},
        name="update_floor",
        check=_check_floor_scope,
    )
