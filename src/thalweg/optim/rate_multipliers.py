"""Learning rates that differ from parameter to parameter: factors for :func:`optim.groups`."""

import math
import re
from collections.abc import Mapping, Sequence

from thalweg.optim.grouping import Found, Multiplier, check_patterns
from thalweg.ranges import NON_NEGATIVE, POSITIVE, number


def lr_multipliers(factors: Mapping[str, float]) -> Multiplier:
    """Factors by patterns of names; the first that fits counts, and 1 where none does.

    Args:
        factors: pattern: factor, >= 0. ``*`` stands for any characters.

    Raises:
        ValueError: a factor out of range; when used, a pattern that no parameter's name fits.

    >>> import torch
    >>> from thalweg import optim
    >>> twice = optim.lr_multipliers({"bias": 2.0})
    >>> print(optim.groups(torch.nn.Linear(2, 1), multipliers=[twice], lr=0.1, weight_decay=0.01))
    parameters  elements  options
             1         2  lr=0.1, weight_decay=0.01, lr_scale=1  weight
             1         1  lr=0.2, weight_decay=0, lr_scale=2     bias
    """
    known = {
        str(pattern): number("lr_multipliers", str(pattern), factor, NON_NEGATIVE)
        for pattern, factor in factors.items()
    }

    def multiplier(everything: Sequence[Found]) -> list[float]:
        check_patterns(known, everything)
        return [
            next((factor for pattern, factor in known.items() if found.named(pattern)), 1.0)
            for found in everything
        ]

    return multiplier


def layer_decay(rate: float, layers: str) -> Multiplier:
    """Rates that fall from the top of a network to its bottom, for fine-tuning.

    ::

        factor = rate ** (L + 1 - l)

    with l = i + 1 in layer i of L layers, 0 before the first of them and L + 1 after the last.

    Args:
        rate: > 0, as a rule below 1.
        layers: what the layers are called, with ``*`` for their number, such as ``"blocks.*"``.

    Raises:
        ValueError: ``rate`` is not above 0; not one ``*``; when used, no such layers.

    Source: Clark et al., "ELECTRA: Pre-training Text Encoders as Discriminators Rather Than
    Generators", 2020, section 3.1 and appendix B.

    >>> import torch
    >>> from thalweg import optim
    >>> model = torch.nn.Sequential(*(torch.nn.Linear(2, 2, bias=False) for _ in range(3)))
    >>> print(optim.groups(model, multipliers=[optim.layer_decay(0.5, "*")], lr=1.0))
    parameters  elements  options
             1         4  lr=0.125, lr_scale=0.125  0.weight
             1         4  lr=0.25, lr_scale=0.25    1.weight
             1         4  lr=0.5, lr_scale=0.5      2.weight
    """
    rate = number("layer_decay", "rate", rate, POSITIVE)
    if layers.count("*") != 1:
        raise ValueError(
            f"layer_decay: layers must have one * for the layer's number, got {layers!r}"
        )
    pattern = re.compile(re.escape(layers).replace(r"\*", r"(\d+)") + r"\.")

    def multiplier(everything: Sequence[Found]) -> list[float]:
        matches = [pattern.match(found.name) for found in everything]
        inside = [k for k, match in enumerate(matches) if match]
        if not inside:
            names = ", ".join(found.name for found in everything[:5])
            raise ValueError(
                f"layer_decay: no parameter is in a layer {layers!r}; the first of them are {names}"
            )
        count = 1 + max(int(match[1]) for match in matches if match)
        places = [
            int(match[1]) + 1 if match else 0 if k < inside[0] else count + 1
            for k, match in enumerate(matches)
        ]
        return [float(rate ** (count + 1 - place)) for place in places]

    return multiplier


def by_fan_in(base: int) -> Multiplier:
    """Rates of matrices in inverse proportion to their inputs: one tuned rate for all widths.

    ::

        factor = base / fan_in    for matrices that are no embedding; 1 for the rest

    with the product of all dimensions but the first as the fan-in. The rule is for Adam and its
    like; initial values and the scale of logits are up to the model.

    Args:
        base: the fan-in of the model that lr was tuned on, > 0.

    Raises:
        ValueError: ``base`` is not above 0.

    Source: Yang et al., "Tensor Programs V: Tuning Large Neural Networks via Zero-Shot
    Hyperparameter Transfer", 2022, table 3.

    >>> import torch
    >>> from thalweg import optim
    >>> wide = torch.nn.Linear(1024, 8, bias=False)
    >>> optim.groups(wide, multipliers=[optim.by_fan_in(256)], lr=0.01)[0]["lr"]
    0.0025
    """
    base = int(number("by_fan_in", "base", base, POSITIVE))

    def factor(found: Found) -> float:
        if found.parameter.ndim < 2 or found.is_embedding:
            return 1.0
        return base / max(1, math.prod(found.parameter.shape[1:]))

    return lambda everything: [factor(found) for found in everything]
