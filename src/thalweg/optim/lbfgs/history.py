"""The pairs that L-BFGS keeps, and the direction that they give.

Sources: Byrd, Nocedal and Schnabel, "Representations of quasi-Newton matrices and their use in
limited memory methods", Mathematical Programming 63 (1994), Theorem 2.2: the two loops of the
recursion are two triangular systems. Chen, Wang and Zhou, "Large-scale L-BFGS using MapReduce",
NeurIPS 2014: only inner products of the history are needed to solve them.
"""

from typing import Any

import torch
from torch import Tensor

CURVATURE = 1e-10
"""A pair with s . y below this is left out: the matrix would lose positive definiteness."""

BLOCK = 1024
"""Columns per block of an inner product, and the most for which all work is done in float64.

Smaller blocks round less (512: as little as the two-loop recursion) and cost more (512: half more).
"""

WIDE_BLOCK = 16384
"""Columns per block of a sum of rows."""


class History:
    """The pairs (s_i, y_i) as rows of two matrices, and the products that a direction needs.

    The matrices are ring buffers of ``size + 1`` rows: the next pair is written to the spare row,
    so that one that turns out unusable costs nothing. They start small and double as they fill.
    Inner products are kept in float64 whatever the parameters are: directions are worked out from
    them alone, where the two-loop recursion goes back to the vectors and so repairs itself.
    """

    def __init__(self, size: int, like: Tensor, steps: list[Tensor], changes: list[Tensor]) -> None:
        self.size = size
        kept = min(size, len(steps))
        rows = min(size + 1, max(8, 2 * kept))
        self.s, self.y = like.new_empty(rows, len(like)), like.new_empty(rows, len(like))
        for row, (s, y) in enumerate(zip(steps[-kept:], changes[-kept:], strict=True)):
            self.s[row].copy_(s)
            self.y[row].copy_(y)
        self.order = list(range(kept))  # rows, oldest pair first
        self.spare = kept
        self.steps, self.changes = list(self.s[:kept]), list(self.y[:kept])
        # s_i . y_j and y_i . y_j, by rows.
        self.sy, self.yy = torch.zeros(2, size + 1, size + 1, dtype=torch.float64, device="cpu")
        for block in range(0, len(like), 16 * BLOCK):  # by parts: all blocks' results can be large
            s_part, y_part = (m[:kept, block : block + 16 * BLOCK] for m in (self.s, self.y))
            self.sy[:kept, :kept] += products(s_part, y_part)
            self.yy[:kept, :kept] += products(y_part, y_part)
        self.al = torch.empty(0, dtype=torch.float64, device="cpu")  # the first loop's coefficients
        self.begin()

    def begin(self) -> None:
        """Let :meth:`undo` lead back to here. Costs a copy of each pair that is overwritten."""
        self._overwritten: dict[int, tuple[Tensor, Tensor]] = {}
        self._before: dict[str, Any] = {
            "s": self.s, "y": self.y, "sy": self.sy.clone(), "yy": self.yy.clone(), "al": self.al,
            "order": self.order.copy(), "spare": self.spare,
        }  # fmt: skip
        self._views = self.steps.copy(), self.changes.copy()

    def undo(self) -> None:
        """Go back to the pairs as they were at :meth:`begin`, bit for bit."""
        vars(self).update(self._before)
        self.steps[:], self.changes[:] = self._views  # the state holds these very lists
        for row, (s, y) in self._overwritten.items():
            self.s[row], self.y[row] = s, y
        self.begin()

    def holds(self, steps: list[Tensor], changes: list[Tensor], like: Tensor, size: int) -> bool:
        same_lists = steps is self.steps and changes is self.changes
        row = self.s[0]
        same_kind = (row.shape, row.dtype, row.device) == (like.shape, like.dtype, like.device)
        return same_lists and same_kind and size == self.size

    def direction(self, gradient: Tensor, previous: Tensor, d: Tensor, t: float) -> Tensor:
        """Take in the pair of the last move, t d, and return -H g."""
        if self.spare == len(self.s):
            self._grow()
        row, used = self.spare, len(self.order) + 1
        if row in self._before["order"] and row not in self._overwritten:
            self._overwritten[row] = self.s[row].clone(), self.y[row].clone()
        s = torch.mul(d, t, out=self.s[row])
        y = torch.sub(gradient, previous, out=self.y[row])
        both = torch.stack((gradient, y))
        s_both, y_both = products(self.s[:used], both), products(self.y[:used], both)
        if s_both[row, 1] > CURVATURE:
            self.sy[:used, row] = s_both[:, 1]
            self.yy[:used, row] = self.yy[row, :used] = y_both[:, 1]
            self._accept(s, y)
        else:  # its zero coefficient must not meet an Inf or NaN
            s.zero_()
            y.zero_()
        return self._combine(gradient, s_both[:, 0], y_both[:, 0])

    def _accept(self, s: Tensor, y: Tensor) -> None:
        self.order.append(self.spare)
        self.steps.append(s)
        self.changes.append(y)
        self.spare = len(self.order)
        if len(self.order) > self.size:
            self.spare = self.order.pop(0)
            del self.steps[0], self.changes[0]

    def _grow(self) -> None:
        """Double the rows. Only before the ring is full, when rows are in the pairs' order."""
        rows, kept = min(self.size + 1, 2 * len(self.s)), len(self.order)
        for name, views in (("s", self.steps), ("y", self.changes)):
            old = getattr(self, name)
            new = old.new_empty(rows, old.shape[1])
            new[:kept] = old[:kept]
            setattr(self, name, new)
            views[:] = new[:kept]

    def _combine(self, gradient: Tensor, s_g: Tensor, y_g: Tensor) -> Tensor:
        """-H g = -h g - h Y' a + S' c, from S g and Y g.

        With R the upper triangle of S Y' (newer pairs to the right) and D its diagonal, the first
        loop solves R a = -S g and the second R' c = D a + h (Y g + Y Y' a).
        """
        if not self.order:
            return -gradient
        order = torch.tensor(self.order, device="cpu")
        r, yy = self.sy[order][:, order], self.yy[order][:, order]
        diagonal = r.diagonal()
        h = diagonal[-1] / yy[-1, -1]
        a = torch.linalg.solve_triangular(r, -s_g[order, None], upper=True)[:, 0]
        right = diagonal * a + h * (y_g[order] + yy @ a)
        c = torch.linalg.solve_triangular(r.mT, right[:, None], upper=False)[:, 0]
        self.al = a

        weights = s_g.new_zeros(2, len(s_g))
        weights[0, order], weights[1, order] = c, -h * a
        # The terms cancel. The two-loop recursion repairs that as it goes; here precision does, for
        # as many columns as it is free for. In longer vectors roundings average out instead.
        exact = torch.float64 if len(gradient) <= BLOCK else gradient.dtype
        s, y = self.s[: len(s_g)].to(exact), self.y[: len(s_g)].to(exact)
        weights = weights.to(gradient.device, exact)
        d = gradient.to(exact) * -float(h)
        d += combination(weights[0], s)
        d += combination(weights[1], y)
        return d.to(gradient.dtype)

    def state(self) -> dict[str, Any]:
        """The part of the optimizer's state that describes the pairs."""
        products = self.sy[self.order, self.order]
        h: Any = 1
        if self.order:
            newest = self.order[-1]
            h = (products[-1] / self.yy[newest, newest]).to(self.s)
        return {
            "old_dirs": self.changes,
            "old_stps": self.steps,
            "ro": list((1 / products).to(self.s)),
            "H_diag": h,
            "al": list(self.al.to(self.s)) + [None] * (self.size - len(self.al)),
        }


def products(rows: Tensor, vectors: Tensor) -> Tensor:
    """All inner products rows_i . vectors_j, [rows, vectors], in float64 on the CPU.

    Summed over blocks of columns: each block in the rows' precision (at least float32), the blocks
    and the columns left over in float64. One batched product reads the rows once and is bound by
    memory; the transposed order of its operands is the one that BLAS does well for few vectors.
    """
    blocks = max(rows.shape[1] - 1, 0) // BLOCK  # one block or less is left over whole
    whole = blocks * BLOCK
    total = (vectors[:, whole:].double() @ rows[:, whole:].mT.double()).cpu()
    if blocks:
        precision = torch.promote_types(rows.dtype, torch.float32)
        left = vectors[:, :whole].to(precision).view(-1, blocks, BLOCK).transpose(0, 1)
        right = rows[:, :whole].to(precision).view(-1, blocks, BLOCK).permute(1, 2, 0)
        total += torch.bmm(left, right).cpu().sum(0, dtype=torch.float64)
    return total.mT


def product(a: Tensor, b: Tensor) -> Tensor:
    """The inner product a . b, 0-d; BLAS's depends on the number of threads."""
    return products(a[None], b[None])[0, 0].to(a.dtype)


def combination(weights: Tensor, rows: Tensor) -> Tensor:
    """The sum of weights_i rows_i, [n].

    One batched product over blocks of columns: their results stay in the cache while the rows are
    read, which a matrix-vector product with the transposed rows does not manage.
    """
    blocks = rows.shape[1] // WIDE_BLOCK
    whole = blocks * WIDE_BLOCK
    rest = weights @ rows[:, whole:]
    if not blocks:
        return rest
    parts = rows[:, :whole].view(len(rows), blocks, WIDE_BLOCK).transpose(0, 1)
    return torch.cat((torch.bmm(weights.expand(blocks, 1, -1), parts).view(-1), rest))
