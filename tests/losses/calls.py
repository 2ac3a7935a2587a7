"""A call of each loss, and the ways in which its operands can lie in memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from tests.losses import examples
from tests.losses.examples import CASES, logit, positive, probability, real
from tests.losses.rows import examples as rows
from thalweg import losses

Tensor = torch.Tensor


class Call(NamedTuple):
    """A loss with operands that are float32 or integers, and options.

    Attributes:
        name: of the function.
        operands: by name.
        options: of the call, but for the reduction.
        differentiated: the operands by which autograd differentiates.
    """

    name: str
    operands: Mapping[str, Tensor]
    options: Mapping[str, Any]
    differentiated: tuple[str, ...]

    def __str__(self) -> str:
        size = "x".join(map(str, next(iter(self.operands.values())).shape))
        return f"{self.name}-{'-'.join(self.operands)}-{size}"

    def ours(self, operands: Mapping[str, Tensor], **more: Any) -> Tensor:
        """Our loss of these operands."""
        return self._of(getattr(losses, self.name), operands, more)

    def reference(self, operands: Mapping[str, Tensor], **more: Any) -> Tensor:
        """Torch's loss of these operands; ours of packed ones where torch has none."""
        own = examples.REFERENCES | rows.REFERENCES
        function = own.get(self.name) or getattr(F, self.name, None)
        packed = {
            name: t.clone(memory_format=torch.contiguous_format) for name, t in operands.items()
        }
        return self._of(function or getattr(losses, self.name), packed, more)

    def plain_reference(self, operands: Mapping[str, Tensor], **more: Any) -> Tensor:
        """Torch's loss of the operands as they are."""
        return self._of(getattr(F, self.name), operands, more)

    def _of(self, function: Any, operands: Mapping[str, Tensor], more: Mapping[str, Any]) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result: Tensor = function(**operands, **self.options, **more)
        return result


def calls() -> list[Call]:
    """One call of each loss at least; the same ones each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [*_of_elements(), *_of_rows(), *_others()]


def _of_elements() -> list[Call]:
    first = {}
    for case in CASES:  # the case with the most operands
        known = first.get(case.name)
        if known is None or len(known.operands) < len(case.operands):
            first[case.name] = case
    found = []
    for case in first.values():
        wanted = tuple(n for n in case.operands if n not in case.undifferentiated)
        found += [
            Call(case.name, case.make(shape), case.options, wanted)
            for shape in ((6, 5), (2, 5, 3, 4))
        ]
    return found


def _of_rows() -> list[Call]:
    first: dict[tuple[str, ...], rows.RowCase] = {}
    for case in rows.ROW_CASES:
        first.setdefault((case.name, *case.operands), case)
    found = []
    for case in first.values():
        wanted = tuple(rows.floating(case, case.operands))
        for shape in ((6, 5), (2, 5, 3, 4)) if case.spatial else ((6, 5),):
            found.append(Call(case.name, case.make(shape), case.options, wanted))
    return found


def _others() -> list[Call]:
    corner = torch.rand(6, 4)
    boxes = torch.cat([corner[:, :2], corner[:, :2] + corner[:, 2:] + 0.1], 1)
    target_boxes = boxes + 0.05
    both = ("input", "target")
    layer = ("input", "linear_weight", "linear_bias")
    return [
        *(
            Call(name, {"input": boxes, "target": target_boxes}, {}, both)
            for name in ("iou_loss", "giou_loss", "diou_loss", "ciou_loss")
        ),
        Call("zero_one_loss", {"input": real([6, 5]), "target": torch.randint(5, (6,))}, {}, ()),
        Call(
            "multilabel_margin_loss",
            {
                "input": real([6, 5]),
                "target": torch.tensor([[3, 0, -1, 1, 2], [1, 2, 3, -1, 0]] * 3),
            },
            {},
            ("input",),
        ),
        Call(
            "ctc_loss",
            {
                "log_probs": logit([7, 3, 5]).log_softmax(2),
                "targets": torch.randint(1, 5, (3, 3)),
                "input_lengths": torch.tensor([7, 6, 7]),
                "target_lengths": torch.tensor([2, 3, 1]),
            },
            {},
            ("log_probs",),
        ),
        Call(
            "linear_cross_entropy",
            {
                "input": real([8, 5]),
                "linear_weight": real([4, 5]),
                "linear_bias": real([4]),
                "target": torch.randint(4, (8,)),
                "weight": positive([4]),
            },
            {},
            layer,
        ),
        Call(
            "linear_cross_entropy",
            {"input": real([8, 5]), "linear_weight": real([4, 5]), "target": probability([8, 4])},
            {},
            layer[:2],
        ),
    ]


# ------------------------------------------------------------------------------ layouts

Layout = Callable[[Tensor], Tensor]


def packed(t: Tensor) -> Tensor:
    return t.clone()


def transposed(t: Tensor) -> Tensor:
    """The first dimension's elements as neighbours."""
    return t.movedim(0, -1).contiguous().movedim(-1, 0) if t.ndim else t


def channels_last(t: Tensor) -> Tensor:
    return t.movedim(1, -1).contiguous().movedim(-1, 1) if t.ndim > 1 else t


def every_second(t: Tensor) -> Tensor:
    """Of a tensor that has others between its elements."""
    return torch.stack([t, 7 - t], -1).flatten(-2)[..., ::2] if t.ndim else t


def part_of_a_larger(t: Tensor) -> Tensor:
    """Rows with a gap after each, and something before the first."""
    if not t.ndim:
        return torch.stack([7 - t, t])[1]
    room = torch.full([n + 2 for n in t.shape], 3, dtype=t.dtype)
    view = room[tuple(slice(1, n + 1) for n in t.shape)]
    return view.copy_(t)


def repeated(t: Tensor) -> Tensor:
    """One row, which all are."""
    return t[:1].expand_as(t) if t.ndim else t


def negated(t: Tensor) -> Tensor:
    """A view that is negated when it is read."""
    return torch._neg_view(-t) if t.is_floating_point() else t


def unaligned(t: Tensor) -> Tensor:
    """At an address that is no multiple of an element's size."""
    room = np.zeros(t.numel() * t.itemsize + 1, dtype=np.uint8)
    found = torch.frombuffer(room, dtype=t.dtype, count=t.numel(), offset=1).view(t.shape)
    return found.copy_(t)


LAYOUTS: list[Layout] = [
    transposed,
    channels_last,
    every_second,
    part_of_a_larger,
    repeated,
    negated,
    unaligned,
]
