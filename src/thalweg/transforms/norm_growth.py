"""Updates that grow from step to step by no more than a factor."""

from typing import Any

from thalweg.ranges import NON_NEGATIVE
from thalweg.rule import State, Transform, norm, where
from thalweg.transforms.around_update import AroundUpdate


def growing_slowly(p: Any, u: Any, g: Any, s: Any, h: Any) -> Any:
    """p, and an update that is at most ``h.norm_growth`` times as long as the last one."""
    length, last = norm(u), s.last_update_norm
    limit = h.norm_growth * last
    grown = (last > 0) & (length > limit)
    s.last_update_norm = where(grown, limit, length)
    return p + u * where(grown, limit / where(grown, length, 1.0), 1.0)


def norm_growth_limited(factor: float = 1.01) -> Transform:
    """Let the norm of each tensor's update grow by no more than a factor from step to step.

    ::

        u = what the rule adds to p
        u <- u * factor * n / ||u||    where n > 0 and ||u|| > factor * n
        n <- ||u||
        p <- p + u

    Spikes of the loss after which a rule takes long steps are held back; the update may shrink at
    any rate. The norm is what the step has used, so it grows by the factor at each step until the
    rule's own is shorter.

    Args:
        factor: >= 0; 0 leaves no trace in the kernel. Option ``norm_growth``.

    States:
        last_update_norm: n, 0-d; 0 before the first update.

    Source: Chen et al., "Fira: Can We Achieve Full-rank Training of LLMs Under Low-rank
    Constraint?", 2024, the norm-growth limiter, equation 10, there around the part of the gradient
    outside of a low-rank space.
    """
    return Transform(
        AroundUpdate("norm_growth", growing_slowly),
        states={"last_update_norm": State(scalar=True)},
        options={"norm_growth": factor},
        ranges={"norm_growth": NON_NEGATIVE},
        name="norm_growth_limited",
    )
