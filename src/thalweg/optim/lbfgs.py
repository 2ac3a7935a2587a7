"""L-BFGS: a quasi-Newton direction from the last few steps and gradient changes.

Sources: Nocedal and Wright, *Numerical Optimization*, 2nd edition (2006), Algorithm 7.5 and the
two-loop recursion, Algorithm 7.4; Byrd, Nocedal and Schnabel, "Representations of quasi-Newton
matrices and their use in limited memory methods", Mathematical Programming 63 (1994), Theorem 2.2:
the two loops are two triangular systems. Chen, Wang and Zhou, "Large-scale L-BFGS using
MapReduce", NeurIPS 2014: only inner products of the history are needed to solve them.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from thalweg.engine.interrupts import uninterrupted
from thalweg.optim import state_dict as state_dicts
from thalweg.optim.line_search import Point, strong_wolfe
from thalweg.optim.optimizer import Closure, Number, Optimizer, Params
from thalweg.optim.ranges import Ranges
from thalweg.ranges import ANY, AT_LEAST_ONE, NON_NEGATIVE, integer

CURVATURE = 1e-10
"""A pair with s . y below this is left out: the matrix would lose positive definiteness."""

BLOCK = 1024
"""Columns per block of an inner product, and the most for which all work is done in float64.

Smaller blocks round less (512: as little as the two-loop recursion) and cost more (512: half more).
"""


WIDE_BLOCK = 16384
"""Columns per block of a sum of rows."""

Evaluate = Callable[[], tuple[Any, Tensor]]
"""Calls the closure; its result, and all gradients as one vector."""


class LBFGS(Optimizer):
    """Limited-memory BFGS, for smooth functions that can be evaluated again and again.

    With g the gradient, s_1 ... s_m the last steps and y_i the changes of the gradient on them::

        V_i = I - y_i s_i' / (s_i . y_i)
        H_i = V_i' H_(i-1) V_i + s_i s_i' / (s_i . y_i)      H_0 = h I
        h   = (s_m . y_m) / (y_m . y_m)
        d   = -H_m g
        x   = x + t d      t = lr, or found by the line search that starts with t = lr

    The very first direction is -g, with t = min(1, 1 / ||g||_1) lr. One call of ``step`` makes up
    to ``max_iter`` such iterations. It ends early after ``max_eval`` evaluations, when
    max |g| <= ``tolerance_grad``, or when g . d > -c, max |t d| <= c or the loss changes by less
    than c, where c is ``tolerance_change``.

    A step is made whole or not at all: where the closure raises or is interrupted by Ctrl-C, all
    parameters go back to where the step began, bit for bit, and the state stays as it was, so that
    the next step is the one that this would have been. Gradients are left as the closure left them.

    Args:
        params: the parameters, in one group (n numbers in all; a complex number counts as two).
            All on one device; a parameter without a gradient counts as having a zero one.
        lr: step length, >= 0, a float or a tensor of one element. Default 1.
        max_iter: iterations per call. Default 20.
        max_eval: evaluations of the closure per call. Default ``max_iter * 5 // 4``. A line search
            that is under way may exceed it by one.
        tolerance_grad: largest gradient entry that counts as zero. Default 1e-7.
        tolerance_change: smallest change of a parameter or of the loss that counts. Default 1e-9.
        history_size: the most pairs kept, m >= 1; memory is 2 (m + 1) n numbers. Default 100.
        line_search_fn: None, or ``"strong_wolfe"`` (strong Wolfe conditions, cubic interpolation).

    State, kept under the first parameter:
        func_evals, n_iter: evaluations and iterations so far.
        d, prev_flat_grad: the last direction and the gradient it was made from, [n].
        t, prev_loss: its step length, and the loss before it.
        old_dirs, old_stps: the y_i and s_i, oldest first, lists of up to m tensors [n].
        ro: 1 / (s_i . y_i), a list as long. al: the first loop's coefficients, a list of m.
        H_diag: h.

    Raises:
        ValueError: more than one parameter group; lr < 0 or not of one element; history_size < 1.
        RuntimeError: an unknown line_search_fn.
        TypeError: ``step`` without a closure.

    Source: Nocedal and Wright, *Numerical Optimization*, 2nd edition, Algorithm 7.5; line search
    Algorithms 3.5 and 3.6.

    >>> import torch
    >>> x = torch.tensor([-1.2, 1.0], dtype=torch.float64, requires_grad=True)
    >>> optimizer = LBFGS([x], line_search_fn="strong_wolfe")
    >>> def rosenbrock():
    ...     optimizer.zero_grad()
    ...     loss = (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
    ...     loss.backward()
    ...     return loss
    >>> for _ in range(3):
    ...     loss = optimizer.step(rosenbrock)
    >>> [round(v, 3) for v in x.tolist()]
    [1.0, 1.0]
    """

    ranges: ClassVar[Ranges] = {
        "lr": NON_NEGATIVE,
        "tolerance_grad": ANY,
        "tolerance_change": ANY,
        "history_size": AT_LEAST_ONE,
    }

    _history: "History | None" = None  # rebuilt from the state after loading or copying

    def __init__(
        self,
        params: Params,
        lr: Number = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "max_iter": max_iter,
            "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
            "history_size": history_size,
            "line_search_fn": line_search_fn,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take the one group that the constructor makes; a second is a ``ValueError``."""
        if self.param_groups:
            raise ValueError(
                "LBFGS: got a second parameter group, but there can be only one, since a direction "
                "couples all parameters; put them in one list, or use one LBFGS per group"
            )
        super().add_param_group(param_group)

    def check_options(self, group: Mapping[str, Any]) -> None:
        super().check_options(group)
        for name in ("max_iter", "max_eval", "history_size"):
            integer("LBFGS", name, group[name], flags=False)
        if group["line_search_fn"] not in (None, "strong_wolfe"):
            raise RuntimeError(
                "LBFGS: line_search_fn must be None or 'strong_wolfe', got "
                f"{group['line_search_fn']!r}"
            )

    @property
    def step_count(self) -> int:
        """The number of iterations made, of which one call of ``step`` makes several."""
        return max((int(entry.get("n_iter", 0)) for entry in self.state.values()), default=0)

    @property
    def _entry(self) -> dict[str, Any]:
        """The state: all of it belongs to all parameters, and is kept under the first."""
        return cast(dict[str, Any], self.state[self.param_groups[0]["params"][0]])

    def _step(self, closure: Closure | None) -> Any:
        if not callable(closure):
            raise TypeError(
                f"LBFGS: step needs a closure, got {closure!r}; pass a function that clears the "
                "gradients, computes the loss, calls backward() and returns the loss"
            )
        (group,) = self.param_groups
        self.check_options(group)
        params: list[Tensor] = group["params"]
        # Only the closure may be interrupted: whatever it raises, all that follows is done.
        with torch.no_grad(), uninterrupted() as shield:
            origin = [p.clone() for p in params]

            def evaluate() -> tuple[Any, Tensor]:
                with torch.enable_grad():
                    result = shield.but_for(closure)
                return result, flat_gradient(params)

            try:
                return self._iterate(group, params, evaluate)
            except BaseException:
                with uninterrupted():
                    for p, start in zip(params, origin, strict=True):
                        p.copy_(start)
                    if self._history is not None:
                        self._history.undo()
                raise

    def _iterate(self, group: dict[str, Any], params: list[Tensor], evaluate: Evaluate) -> Any:
        """Make the iterations of one step; only its end writes to the state."""
        lr = float(group["lr"])
        max_iter, max_eval = group["max_iter"], group["max_eval"]
        tolerance_grad, tolerance_change = group["tolerance_grad"], group["tolerance_change"]
        state = self.state.get(params[0], {})
        iterations = state.get("n_iter", 0)
        before = state.get("func_evals", 0)

        result, gradient = evaluate()
        loss, evaluations = float(result), 1
        if gradient.abs().max() <= tolerance_grad:
            self._entry.update(func_evals=before + 1, n_iter=iterations)
            return result

        history = self._restored_history(gradient, group["history_size"])
        d, t = state.get("d"), float(state.get("t") or 0.0)
        previous, previous_loss = state.get("prev_flat_grad"), state.get("prev_loss")
        for iteration in range(1, max_iter + 1):
            iterations += 1
            if d is None or previous is None:
                d, t = -gradient, min(1.0, float(1.0 / gradient.abs().sum())) * lr
            else:
                d, t = history.direction(gradient, previous, d, t), lr
            slope = product(gradient, d)
            previous, previous_loss = gradient, loss
            if slope > -tolerance_change:
                break

            used = 0
            if group["line_search_fn"] is not None:
                start = Point(0.0, loss, gradient, slope)
                point, used = search_along(
                    evaluate, params, d, t, start, max_eval - evaluations, tolerance_change
                )
                t, loss, gradient = point.t, point.loss, point.gradient
            else:
                move(params, params, d, t)
                if iteration != max_iter:  # the next step evaluates here anyway, on its own data
                    trial, gradient = evaluate()
                    loss, used = float(trial), 1
            evaluations += used

            if (
                evaluations >= max_eval
                or gradient.abs().max() <= tolerance_grad
                or d.abs().max() * t <= tolerance_change
                or abs(loss - previous_loss) < tolerance_change
            ):
                break

        self._entry.update(
            func_evals=before + evaluations, n_iter=iterations,
            d=d, t=t, prev_flat_grad=previous, prev_loss=previous_loss, **history.state(),
        )  # fmt: skip
        history.begin()
        return result

    def _restored_history(self, like: Tensor, size: int) -> "History":
        """The history that the state's lists belong to, made from them where they were replaced."""
        history = self._history
        state = self.state.get(self.param_groups[0]["params"][0], {})
        steps, changes = (state.get(name) or [] for name in ("old_stps", "old_dirs"))
        if history is None or not history.holds(steps, changes, like, size):
            history = self._history = History(size, like, steps, changes)
        return history

    # ---- checkpoints and copies: rows leave as tensors of their own --------------------------

    def state_dict(self) -> dict[str, Any]:
        """State and options in torch's format. Unlike other optimizers' tensors these are copies.

        The history's rows are views of matrices that later steps write to, and that would be
        saved whole, each time anew, with every row.
        """
        result = super().state_dict()
        result["state"] = {key: copied(entry) for key, entry in result["state"].items()}
        return result

    def checked_states(
        self,
        saved: state_dicts.Saved,
        matched: state_dicts.Match,
        groups: state_dicts.Groups,
        misfits: state_dicts.Misfits,
    ) -> dict[Tensor, state_dicts.Entry]:
        """The one entry of all parameters, its vectors in the order that these have here."""
        order = [place.key for place in matched.places]
        keys = list(dict.fromkeys(saved.all_keys))
        held = [
            key
            for key in keys
            if key in saved.state
            and not (isinstance(entry := saved.state[key], dict) and not entry)
        ]
        if not held:
            return {}
        if held != keys[:1]:
            raise ValueError(
                f"LBFGS: the state dict has a state for parameter {held[-1]}, but LBFGS keeps one "
                "state, for the first. Is it another optimizer's?"
            )
        params: list[Tensor] = groups[0]["params"]
        if set(order) != set(keys) or matched.misshaped:
            misfits.dropped.append(
                "the history, which couples all parameters, is of other ones: it starts anew"
            )
            return {}
        sizes = {place.key: _real(place.param).numel() for place in matched.places}
        entry = checked_entry(saved.state[keys[0]], params)
        return {params[0]: _reordered(entry, keys, order, sizes)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._history = None
        super().__setstate__(state)

    def __getstate__(self) -> dict[str, Any]:
        """As the base class, with the history's rows instead of its matrices."""
        result = super().__getstate__()
        result.pop("_history", None)
        result["state"] = {p: copied(entry) for p, entry in self.state.items()}
        return result


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
        self.sy = torch.zeros(size + 1, size + 1, dtype=torch.float64)  # s_i . y_j, by rows
        self.yy = torch.zeros(size + 1, size + 1, dtype=torch.float64)
        for block in range(0, len(like), 16 * BLOCK):  # by parts: all blocks' results can be large
            s_part, y_part = (m[:kept, block : block + 16 * BLOCK] for m in (self.s, self.y))
            self.sy[:kept, :kept] += products(s_part, y_part)
            self.yy[:kept, :kept] += products(y_part, y_part)
        self.al = torch.empty(0, dtype=torch.float64)  # the first loop's coefficients
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
        order = torch.tensor(self.order)
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


def search_along(
    evaluate: Evaluate,
    params: list[Tensor],
    d: Tensor,
    t: float,
    start: Point,
    max_ls: int,
    tolerance_change: float,
) -> tuple[Point, int]:
    """Move the parameters to the point that the line search accepts; also the evaluations made."""
    origin = [p.clone() for p in params]

    def trial(t: float) -> Point:
        move(params, origin, d, t)
        loss, gradient = evaluate()
        return Point(t, float(loss), gradient, product(gradient, d))

    largest = float(d.abs().max())
    point, used = strong_wolfe(
        trial, start, t, largest, max_ls=max_ls, tolerance_change=tolerance_change
    )
    move(params, origin, d, point.t)
    return point, used


def flat_gradient(params: list[Tensor]) -> Tensor:
    """All gradients as one new vector [n] of real numbers."""
    return torch.cat([_flat(_dense_gradient(p)) for p in params])


def _dense_gradient(p: Tensor) -> Tensor:
    if p.grad is None:
        return torch.zeros_like(p)
    return p.grad.to_dense() if p.grad.is_sparse else p.grad


def _flat(x: Tensor) -> Tensor:
    return _real(x).reshape(-1)


def _real(x: Tensor) -> Tensor:
    return torch.view_as_real(x) if x.is_complex() else x


def move(params: list[Tensor], origin: list[Tensor], d: Tensor, t: float) -> None:
    """Set the parameters to origin + t d."""
    offset = 0
    for p, start in zip(map(_real, params), map(_real, origin), strict=True):
        part = d[offset : offset + p.numel()].view(p.shape)
        torch.add(start, part, alpha=t, out=p)
        offset += p.numel()


SCALARS = ("func_evals", "n_iter", "t", "prev_loss", "H_diag")
VECTORS = ("d", "prev_flat_grad")
LISTS = ("old_dirs", "old_stps", "ro", "al")


def copied(value: Any) -> Any:
    """The same with tensors of their own."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


def _reordered(value: Any, keys: list[Any], order: list[Any], sizes: Mapping[Any, int]) -> Any:
    """A saved state with the parts of its vectors, one for each parameter, in another order."""
    if keys == order:
        return value
    if isinstance(value, dict):
        moved = (*VECTORS, "old_dirs", "old_stps")
        return {
            name: _reordered(item, keys, order, sizes) if name in moved else item
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [_reordered(item, keys, order, sizes) for item in value]
    if not isinstance(value, Tensor):
        return value  # None, before the first iteration
    parts = dict(zip(keys, torch.split(value, [sizes[key] for key in keys]), strict=True))
    return torch.cat([parts[key] for key in order])


def checked_entry(entry: Mapping[str, Any], params: list[Tensor]) -> dict[str, Any]:
    """A saved state, copied to the parameters' device and dtype; raises where it does not fit."""
    if not isinstance(entry, Mapping):
        raise TypeError(f"LBFGS: the saved state must be a dict, got {type(entry).__name__}")
    if not entry:
        return {}
    for key in entry:
        if key not in (*SCALARS, *VECTORS, *LISTS):
            raise ValueError(f"LBFGS: {key!r} is no state of LBFGS. Is it another optimizer's?")
    began = entry.get("prev_flat_grad") is not None
    for key in ("func_evals", "n_iter", *(("d", "t", "prev_loss") if began else ())):
        if entry.get(key) is None:
            raise ValueError(f"LBFGS: the saved state lacks {key!r}; save it with state_dict()")
    for key in ("func_evals", "n_iter"):
        integer("LBFGS", key, entry[key])
    for key in ("t", "prev_loss"):  # which may be infinite or NaN by now
        if entry.get(key) is not None and not state_dicts.is_number(entry[key]):
            raise ValueError(f"LBFGS: {key} must be one number, got {entry[key]!r:.200}")
    for key in LISTS:
        if not (entry.get(key) is None or isinstance(entry[key], list)):
            raise ValueError(f"LBFGS: {key} must be a list, got {type(entry[key]).__name__}")
    pairs = [entry.get(key) or [] for key in ("old_dirs", "old_stps")]
    if len(pairs[0]) != len(pairs[1]):
        raise ValueError(
            f"LBFGS: old_dirs and old_stps must be equally long, got {len(pairs[0])} and "
            f"{len(pairs[1])}"
        )
    n = sum(_real(p).numel() for p in params)
    vectors = [(key, entry[key]) for key in VECTORS if entry.get(key) is not None]
    vectors += [("old_dirs", y) for y in pairs[0]] + [("old_stps", s) for s in pairs[1]]
    for key, vector in vectors:
        if not isinstance(vector, Tensor) or vector.shape != (n,) or not vector.is_floating_point():
            is_tensor = isinstance(vector, Tensor)
            got = f"{tuple(vector.shape)} of {vector.dtype}" if is_tensor else type(vector).__name__
            raise ValueError(
                f"LBFGS: {key} must hold the parameters' {n} numbers, shape ({n},), got {got}"
            )
    like = _real(params[0].detach())

    def cast_to_params(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.detach().to(like, copy=True)
        return [cast_to_params(item) for item in value] if isinstance(value, list) else value

    return {key: cast_to_params(value) for key, value in entry.items()}
