"""The contract between a loss and autograd."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch

Tensors = Sequence[torch.Tensor]
Options = Mapping[str, Any]
Needed = tuple[bool, ...]  # for each operand, whether it needs a gradient
Gradients = list[torch.Tensor | None]  # one for each operand; None where it needs none


class Evaluator(Protocol):
    """One loss with its settings: everything of a call but the operands.

    ``kind`` says what a call does with the values of the loss: ``SUM`` adds them up, ``EACH``
    stores them, ``BACKWARD`` multiplies their derivatives by those from above.
    """

    @property
    def kind(self) -> str: ...

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the result."""

    @property
    def scale(self) -> float:
        """What the sum is multiplied by; the gradients of ``SUM`` contain it already."""

    @property
    def converts(self) -> bool:
        """Whether operands that come back from hooks in another precision are converted.

        Where not, they are refused: torch does either, for the same losses.
        """

    def __call__(
        self, values: Tensors, *values_or_upstream: torch.Tensor
    ) -> tuple[list[float], Gradients]:
        """Run the kernel.

        Args:
            values: the operands.
            values_or_upstream: for ``EACH`` the tensor to store the values in, for ``BACKWARD``
                the derivatives from above.

        Returns:
            For ``SUM`` a list with the sum, and the gradients of the operands that need one.
        """

    def with_kind(self, kind: str, needed: Needed, **options: Any) -> "Evaluator":
        """An evaluator of another kind for the same operands, with some options replaced."""

    def arranged(self, values: list[torch.Tensor]) -> "tuple[Evaluator, list[torch.Tensor]]":
        """The operands laid out as the kernel takes them, and the evaluator for that layout."""

    def new_values(self, values: Tensors) -> torch.Tensor:
        """An uninitialized tensor to store the values in."""

    def arranged_upstream(self, upstream: torch.Tensor, values: Tensors) -> torch.Tensor:
        """The derivatives from above, laid out as the values are."""

    def by_tensor_operations(self, values: Tensors) -> torch.Tensor:
        """The values, or for ``SUM`` their scaled sum, in operations that autograd can follow."""
