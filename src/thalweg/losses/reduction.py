"""The reduction of a loss: today's argument, and the two deprecated ones that it replaced."""

import warnings

REDUCTIONS = ("none", "mean", "sum")


def chosen_reduction(
    owner: str,
    reduction: str,
    size_average: bool | None = None,
    reduce: bool | None = None,
    known: tuple[str, ...] = REDUCTIONS,
) -> str:
    """The reduction that a caller asks for.

    The deprecated ``size_average`` and ``reduce`` override ``reduction`` where they are given, and
    "elementwise_mean" is a deprecated name of "mean"; both warn.

    Args:
        owner: the loss's name, for messages.
        reduction: "none", "mean" or "sum".
        size_average: whether "mean", not "sum"; None if not given.
        reduce: whether there is a reduction at all; None if not given.
        known: the reductions that the loss has.

    Raises:
        ValueError: the reduction is not one of those known.

    >>> chosen_reduction("mse_loss", "sum")
    'sum'
    """
    if size_average is not None or reduce is not None:
        return legacy_reduction(owner, size_average, reduce, stacklevel=4)
    if reduction in known:
        return reduction
    if reduction == "elementwise_mean":
        warnings.warn(
            f"{owner}: reduction='elementwise_mean' is deprecated; write reduction='mean'",
            stacklevel=3,
        )
        return "mean"
    raise ValueError(
        f"{owner}: reduction must be one of {', '.join(map(repr, known))}, got {reduction!r}"
    )


def legacy_reduction(
    owner: str, size_average: bool | None, reduce: bool | None, stacklevel: int
) -> str:
    """The reduction that the deprecated arguments stand for; warns. None means True."""
    if reduce is not None and not reduce:
        meant = "none"
    else:
        meant = "sum" if size_average is not None and not size_average else "mean"
    warnings.warn(
        f"{owner}: size_average and reduce are deprecated; write reduction={meant!r}",
        stacklevel=stacklevel,
    )
    return meant
