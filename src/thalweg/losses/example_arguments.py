"""The arguments of a loss by name, and examples of those that it needs and is not given."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from thalweg.engine.copying import deep_copy
from thalweg.losses.define import Defined
from thalweg.rule.rows import Kind, RowFormula


def arguments_of(
    name: str, loss: Any, tensors: Sequence[Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments by name, as given; without any tensor, an example for each that is needed."""
    function = loss.forward if isinstance(loss, torch.nn.Module) else loss
    parameters = dict(inspect.signature(function).parameters)
    if isinstance(loss, Defined):
        del parameters["h"]
    if len(tensors) > len(parameters):
        raise TypeError(
            f"explain: {name} takes {len(parameters)} arguments ({', '.join(parameters)}), got "
            f"{len(tensors)}"
        )
    given = {**dict(zip(parameters, tensors, strict=False)), **options}
    if tensors or any(isinstance(value, torch.Tensor) for value in options.values()):
        return given
    needed = [n for n, p in parameters.items() if p.default is inspect.Parameter.empty]
    special = EXAMPLES.get(_kind_of_loss(name), {})
    if isinstance(loss, Defined) and isinstance(loss.formula, RowFormula):
        special = {n: BY_KIND[kind] for n, kind in loss.formula.kinds.items()}
    return {n: deep_copy(special.get(n, CORNERS)) for n in needed} | given


# Two rows of four: probabilities, variances, and the corners of a box all the same.
CORNERS = torch.tensor([[0.25, 0.25, 0.75, 0.75]] * 2, dtype=torch.float32, device="cpu")
PLACES = torch.tensor([1, 0], device="cpu")
BY_KIND = {
    Kind.ELEMENT: CORNERS,
    Kind.COLUMN: CORNERS[0],
    Kind.ROW: CORNERS[:, 0],
    Kind.INDEX: PLACES,
}
CLASSES = {"target": PLACES}
EXAMPLES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("crossentropy", "nll", "focal", "multimargin", "zeroone"), CLASSES),
    "linearcrossentropy": {
        **CLASSES,
        "linear_weight": torch.full((3, 4), 0.5, dtype=torch.float32, device="cpu"),
    },
    "multilabelmargin": {"target": torch.tensor([[1, -1, 0, 0]] * 2, device="cpu")},
    "cosineembedding": {"target": torch.tensor([1.0, -1.0], dtype=torch.float32, device="cpu")},
    "ctc": {
        "log_probs": torch.full((4, 1, 3), 1 / 3, dtype=torch.float32, device="cpu").log(),
        "targets": torch.tensor([[1]], device="cpu"),
        "input_lengths": [4],
        "target_lengths": [1],
    },
}


def _kind_of_loss(name: str) -> str:
    """What ``cross_entropy`` and ``CrossEntropyLoss`` have in common."""
    return name.replace("_", "").lower().removesuffix("loss")
