"""What the last step has measured: norms of gradients, parameters and updates, by name."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from thalweg.engine.engine import Measured as OfUnit
from thalweg.names import nearest
from thalweg.transforms.measuring import SUMS

# The sums of a measure, then how many elements they are of: floats, arrays or tensors.
_FORMULAS: dict[str, Callable[..., Any]] = {
    "gradient_norm": lambda squares, count: squares**0.5,
    "weight_norm": lambda squares, count: squares**0.5,
    "update_norm": lambda squares, count: squares**0.5,
    "update_ratio": lambda updates, weights, count: (updates / weights) ** 0.5,
    "clipped_share": lambda clipped, count: clipped / count,
    "lost_share": lambda lost, count: lost / count,
}


class Measures(Mapping[str, Any]):
    """The measures of an optimizer's last step: over all its parameters, or of each.

    >>> import torch
    >>> from thalweg import optim
    >>> p = torch.nn.Parameter(torch.tensor([4.0, 0.0]))
    >>> p.grad = torch.tensor([3.0, 4.0])
    >>> optimizer = optim.SGD([p], lr=0.5, measure=("gradient_norm", "update_ratio"))
    >>> optimizer.step()
    >>> optimizer.measured["gradient_norm"], optimizer.measured["update_ratio"]
    (5.0, 0.625)
    >>> optimizer.measured.of(p)["gradient_norm"]
    5.0

    A value is a float, or where parameters are on another device a 0-d tensor there: nothing waits
    for it. Of parameters without a gradient nothing is measured. NaN before the first step, and
    after one that was left out.

    Args:
        names: what was asked for.
        units: what the step has measured.
    """

    def __init__(self, names: Sequence[str], units: Sequence[OfUnit]) -> None:
        self._names = tuple(names)
        self._units = units

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, name: str) -> Any:
        self._check(name)
        if not self._units:
            return float("nan")
        sums = [_total([unit.sums[part] for unit in self._units]) for part in SUMS[name]]
        counts = [_counts(unit).sum() for unit in self._units]
        return _value(name, sums, float(sum(counts)))

    def of(self, p: torch.Tensor) -> dict[str, Any]:
        """The measures of one parameter, by name.

        Raises:
            KeyError: nothing was measured of it: it is of another optimizer, or had no gradient.
        """
        for unit in self._units:
            for k, slot in enumerate(unit.slots):
                if slot.param is p and k not in unit.absent:
                    return {name: self._of_slot(name, unit, k) for name in self._names}
        raise KeyError(
            f"nothing was measured of a parameter of shape {tuple(p.shape)}: it is of another "
            "optimizer, had no gradient at the last step, or there was none"
        )

    def _of_slot(self, name: str, unit: OfUnit, k: int) -> Any:
        sums = [_total([unit.sums[part][k]]) for part in SUMS[name]]
        return _value(name, sums, float(_counts(unit)[k]))

    def _check(self, name: str) -> None:
        if name not in self._names:
            asked = f"asked for were {', '.join(self._names)}" if self._names else "nothing was"
            raise KeyError(
                f"{name!r} is not measured; {asked}. Pass measure=({name!r},) to the optimizer"
                f"{nearest(str(name), SUMS)}"
            )

    def __repr__(self) -> str:
        return f"Measures({', '.join(f'{name}={self[name]}' for name in self._names)})"


def _counts(unit: OfUnit) -> Any:
    counts = np.asarray([slot.numbers for slot in unit.slots], dtype=np.float64)
    counts[list(unit.absent)] = 0
    return counts


def _total(parts: Sequence[Any]) -> Any:
    """The sum of all parts: a float, or a tensor on the device of the first that is one."""
    parts = [part.detach() if isinstance(part, torch.Tensor) else part for part in parts]
    tensors = [part for part in parts if isinstance(part, torch.Tensor)]
    if not tensors:
        return float(sum(part.sum() for part in parts))
    sums = [torch.as_tensor(part, device=tensors[0].device).sum() for part in parts]
    return torch.stack([each.to(tensors[0].device) for each in sums]).sum()


def _value(name: str, sums: Sequence[Any], count: float) -> Any:
    with np.errstate(all="ignore"):
        wide = [x if isinstance(x, torch.Tensor) else np.float64(x) for x in sums]
        found = _FORMULAS[name](*wide, np.float64(count))
    return found if isinstance(found, torch.Tensor) else float(found)
