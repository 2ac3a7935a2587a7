"""L-BFGS: a quasi-Newton direction from the last few steps and gradient changes.

Sources: Nocedal and Wright, *Numerical Optimization*, 2nd edition (2006), Algorithm 7.5 and the
two-loop recursion, Algorithm 7.4; Byrd, Nocedal and Schnabel, "Representations of quasi-Newton
matrices and their use in limited memory methods", Mathematical Programming 63 (1994), Theorem 2.2:
the two loops are two triangular systems. Chen, Wang and Zhou, "Large-scale L-BFGS using
MapReduce", NeurIPS 2014: only inner products of the history are needed to solve them.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Unpack, cast

import torch
from torch import Tensor

from thalweg.engine.interrupts import uninterrupted
from thalweg.engine.modes import with_gradients
from thalweg.optim.extras import Extras
from thalweg.optim.lbfgs.history import History, product
from thalweg.optim.lbfgs.line_search import Point
from thalweg.optim.lbfgs.moves import Evaluate, flat_gradient, move, real, search_along
from thalweg.optim.lbfgs.state import checked_entry, reordered
from thalweg.optim.optimizer import Closure, Number, Optimizer, Params
from thalweg.optim.options import given
from thalweg.ranges import ANY, AT_LEAST_ONE, NON_NEGATIVE, Ranges, integer

if TYPE_CHECKING:
    from thalweg.optim import state_dict as state_dicts


class LBFGS(Optimizer, torch.optim.LBFGS):
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
        TypeError: ``step`` without a closure; transforms, as there is no rule to put them around.

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

    _history: History | None = None  # rebuilt from the state after loading or copying

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
        **extras: Unpack[Extras],
    ) -> None:
        if max_eval is None:
            max_eval = max_iter * 5 // 4
        super().__init__(params, given(locals()), **extras)

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
        # Only the closure may be interrupted: whatever it raises, all that follows is done.
        with uninterrupted() as shield:
            return self._whole(group, lambda: shield.but_for(with_gradients(True)(closure)))

    @with_gradients(False)
    def _whole(self, group: dict[str, Any], closure: Closure) -> Any:
        """Make a step, or if the closure raises, none of it."""
        params: list[Tensor] = group["params"]
        origin = [p.clone() for p in params]

        def evaluate() -> tuple[Any, Tensor]:
            result = closure()
            return result, flat_gradient(params)

        try:
            return self._iterate(group, params, evaluate)
        except BaseException:
            with uninterrupted():
                for p, start in zip(params, origin, strict=True):
                    p.detach().copy_(start)  # whatever mode an interrupt has left
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

    def _restored_history(self, like: Tensor, size: int) -> History:
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
        saved whole with every row, again and again.
        """
        from thalweg.engine.copying import deep_copy

        result = super().state_dict()
        result["state"] = {key: deep_copy(entry) for key, entry in result["state"].items()}
        return result

    def checked_states(
        self,
        saved: "state_dicts.Saved",
        matched: "state_dicts.Match",
        groups: "state_dicts.Groups",
        misfits: "state_dicts.Misfits",
    ) -> "dict[Tensor, state_dicts.Entry]":
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
        sizes = {place.key: real(place.param).numel() for place in matched.places}
        entry = checked_entry(saved.state[keys[0]], params)
        return {params[0]: reordered(entry, keys, order, sizes)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._history = None
        super().__setstate__(state)

    def __getstate__(self) -> dict[str, Any]:
        """As the base class, with the history's rows instead of its matrices."""
        from thalweg.engine.copying import deep_copy

        result = super().__getstate__()
        result.pop("_history", None)
        result["state"] = {p: deep_copy(entry) for p, entry in self.state.items()}
        return result
