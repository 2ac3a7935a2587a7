"""Evaluating a row formula on the results of a linear layer, for a few rows at a time.

The logits of a chunk of rows are computed, replaced by their own gradients in place, and multiplied
into the gradients of input and weight. The logits of the whole batch never exist.
"""

from typing import Any, NamedTuple

import torch

from thalweg.losses.evaluation.evaluator import Gradients, Needed, Tensors
from thalweg.losses.evaluation.rows import RowEvaluator
from thalweg.losses.evaluation.tensor_operations import summed
from thalweg.rule.formula import EACH

Tensor = torch.Tensor

OF_PRODUCTS = ("input", "linear_weight", "linear_bias")


def linear_logits(input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None) -> Tensor:
    """``input @ linear_weight.T + linear_bias``, of size [N, C, *] or [C].

    Args:
        input: [N, D] or [D].
        linear_weight: [C, *, D].
        linear_bias: [C, *], or None.
    """
    size = linear_weight.shape[:-1]
    # Of negated views, torch's forward mode takes no views.
    rows = input if input.ndim == 2 else input.resolve_neg().unsqueeze(0)
    columns = linear_weight.resolve_neg().flatten(0, -2).t()
    if linear_bias is None:
        logits = torch.mm(rows, columns)
    else:
        logits = torch.addmm(linear_bias.resolve_neg().flatten(), rows, columns)
    return logits.reshape(*input.shape[:-1], *size)


class ChunkEvaluator(NamedTuple):
    """A linear layer and a row formula of its logits; an :class:`Evaluator`.

    Attributes:
        of_logits: the row formula on the logits of a chunk; it works in place.
        chunk_rows: how many rows a chunk has.
        names: of the operands: input, linear_weight and target, then weight and linear_bias where
            given.
        needed: which operands need a gradient; empty if none does.
    """

    of_logits: RowEvaluator
    chunk_rows: int
    names: tuple[str, ...]
    needed: Needed

    @property
    def kind(self) -> str:
        return self.of_logits.kind

    @property
    def dtype(self) -> torch.dtype:
        return self.of_logits.dtype

    @property
    def scale(self) -> float:
        return self.of_logits.scale

    def with_kind(self, kind: str, needed: Needed, **options: Any) -> "ChunkEvaluator":
        return self._replace(of_logits=self.of_logits.with_kind(kind, (), **options), needed=needed)

    def arranged(self, values: list[Tensor]) -> "tuple[ChunkEvaluator, list[Tensor]]":
        """Matrix products take any strides, the kernel that reads targets and weights does not."""
        laid_out = [
            v if name in OF_PRODUCTS else v.contiguous()
            for name, v in zip(self.names, values, strict=True)
        ]
        return self, laid_out

    def new_values(self, values: Tensors) -> Tensor:
        return values[0].new_empty(len(values[0]), dtype=self.dtype)

    def arranged_upstream(self, upstream: Tensor, values: Tensors) -> Tensor:
        return self.of_logits.arranged_upstream(upstream, values)

    def by_tensor_operations(self, values: Tensors) -> Tensor:
        given = dict(zip(self.names, values, strict=True))
        logits = linear_logits(given["input"], given["linear_weight"], given.get("linear_bias"))
        operands = [logits.to(self.dtype), given["target"]]
        operands += [given[name] for name in ("weight",) if name in given]
        each = self.of_logits.with_kind(EACH, ()).by_tensor_operations(operands)
        return each if self.kind == EACH else summed(each, 1.0) * self.scale

    @property
    def converts(self) -> bool:
        return False

    def __call__(self, values: Tensors, *of_rows: Tensor) -> tuple[list[float], Gradients]:
        given = dict(zip(self.names, values, strict=True))
        needed = {name for name, need in zip(self.names, self.needed, strict=False) if need}
        input, linear_weight, target = values[:3]
        bias, weights = given.get("linear_bias"), [given[n] for n in ("weight",) if n in given]
        gradients = _gradients_to_fill(given, needed)
        of_logits = self.of_logits._replace(needed=(True,) if needed else ())
        classes, rows = len(linear_weight), len(input)
        room = input.new_empty(min(self.chunk_rows, rows), classes)
        total = 0.0
        # Operands were cast for autocast before. Here ``out=`` decides the dtype of products.
        with torch.autocast("cpu", enabled=False):
            for first in range(0, rows, self.chunk_rows):
                chunk = slice(first, first + self.chunk_rows)
                vectors = input[chunk]
                logits = room[: len(vectors)]
                if bias is None:
                    torch.mm(vectors, linear_weight.t(), out=logits)
                else:
                    torch.addmm(bias, vectors, linear_weight.t(), out=logits)
                # Under autocast the loss is computed in a wider dtype than the products.
                wide_logits = logits.to(self.dtype)
                evaluator = of_logits._replace(sizes=(len(vectors), classes, 1))
                (value,), _ = evaluator(
                    [wide_logits, target[chunk], *weights], *[t[chunk] for t in of_rows]
                )
                total += value
                if not needed:
                    continue
                if wide_logits is not logits:
                    logits.copy_(wide_logits)
                _add_gradients_of(gradients, chunk, vectors, logits, linear_weight)
        found = {name: g.to(input.dtype) for name, g in gradients.items()}
        return [total], [found.get(name) for name in self.names]


def _gradients_to_fill(given: dict[str, Tensor], needed: set[str]) -> dict[str, Tensor]:
    """Tensors for the gradients needed. Sums over chunks are in float32 at least."""
    input, linear_weight = given["input"], given["linear_weight"]
    wide = torch.promote_types(input.dtype, torch.float32)
    gradients: dict[str, Tensor] = {}
    if "input" in needed:
        gradients["input"] = torch.empty_like(input)
    if "linear_weight" in needed:
        make = torch.empty_like if len(input) else torch.zeros_like  # the first chunk overwrites it
        gradients["linear_weight"] = make(linear_weight, dtype=wide)
    if "linear_bias" in needed:
        gradients["linear_bias"] = torch.zeros_like(given["linear_bias"], dtype=wide)
    return gradients


def _add_gradients_of(
    gradients: dict[str, Tensor],
    chunk: slice,
    vectors: Tensor,
    by_logits: Tensor,
    linear_weight: Tensor,
) -> None:
    """Multiply the gradient by a chunk's logits into the gradients of the layer's operands."""
    if "input" in gradients:
        torch.mm(by_logits, linear_weight, out=gradients["input"][chunk])
    if "linear_weight" in gradients:
        total = gradients["linear_weight"]
        beta = 1 if chunk.start else 0
        total.addmm_(by_logits.t().to(total.dtype), vectors.to(total.dtype), beta=beta)
    if "linear_bias" in gradients:
        gradients["linear_bias"] += by_logits.sum(0, dtype=gradients["linear_bias"].dtype)
