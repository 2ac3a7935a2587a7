"""What an optimizer's step costs, beside torch's class of the same name."""

import statistics
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.engine.modes import with_gradients
from thalweg.race.racers import Racer
from thalweg.race.result import StepTime
from thalweg.race.training import OptimizerError, optimizer_errors, rounded

WARMUP = 5  # steps that are made before those that are timed
PATIENCE = 1.0  # seconds after which no more steps are timed
CURVATURES = (1e-3, 1.0)  # of the bowl on which an optimizer that needs a closure steps


def measure_steps(
    parameters: Callable[[], list[nn.Parameter]], racer: Racer, repeats: int = 100
) -> StepTime:
    """Time a step of the racer's class and of torch's, in turn, on equal parameters and gradients.

    The gradient is the same at every step. An optimizer that needs a closure (LBFGS) sees it at the
    beginning of each step, and within the step a bowl: a gradient that grows with the distance
    gone, by a factor between 0.001 and 1 from element to element. The time in the closure is not
    the optimizer's; what is left is divided by the gradients evaluated.

    Args:
        parameters: makes the parameters, with ``.grad`` set; the same values at each call.
        racer: whose class is timed, with its options and the middle of its learning rates.
        repeats: steps that are timed, after a few that are not; fewer, but at least 5, if they take
            longer than a second.

    Raises:
        OptimizerError: the optimizer refuses the parameters, an option or the gradients. Where only
            torch's class does, there is no time for it.

    >>> def parameters():
    ...     p = nn.Parameter(torch.ones(1000))
    ...     p.grad = torch.ones(1000)
    ...     return [p]
    >>> from thalweg.race import find
    >>> measure_steps(parameters, find("adam"), repeats=5).state_bytes  # 2 means, a step count
    8.008
    """
    with quiet():
        return _measured(parameters, racer, repeats)


@contextmanager
def quiet() -> Iterator[None]:
    """Without torch's remark that it does not check the sparse tensors that its optimizers make."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse invariant checks")
        yield


def _measured(parameters: Callable[[], list[nn.Parameter]], racer: Racer, repeats: int) -> StepTime:
    ours = Stepper(racer, parameters())
    first_step = ours.first_s
    theirs = None
    if racer.torch_twin is not None:
        try:
            theirs = Stepper(racer.torch_twin, parameters())
        except OptimizerError:
            theirs = None
    times: list[tuple[float, float]] = []
    start = perf_counter()
    for i in range(WARMUP + repeats):
        times.append(_in_turn(ours, theirs, ours_first=i % 2 == 0))
        if i >= 2 * WARMUP and perf_counter() - start > PATIENCE:
            break
    counted = times[WARMUP:]
    elements = sum(p.numel() for p in ours.parameters)
    return StepTime(
        own_us=rounded(1e6 * statistics.median(t[0] for t in counted)),
        torch_us=None
        if theirs is None
        else rounded(1e6 * statistics.median(t[1] for t in counted)),
        first_step_s=rounded(first_step),
        state_bytes=rounded(state_bytes(ours.optimizer) / elements),
    )


def _in_turn(ours: "Stepper", theirs: "Stepper | None", ours_first: bool) -> tuple[float, float]:
    # Whoever goes first finds the caches as the other left them: take turns at that, too.
    if theirs is None:
        return ours.step(), 0.0
    if ours_first:
        return ours.step(), theirs.step()
    theirs_s = theirs.step()
    return ours.step(), theirs_s


class Stepper:
    """An optimizer whose steps are timed; the first one is made at once."""

    def __init__(self, racer: Racer, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        with optimizer_errors():
            self.optimizer = racer.make(parameters, racer.centre)
            self._bowl: Bowl | None = None
            start = perf_counter()
            try:
                self.optimizer.step()
                self.first_s = perf_counter() - start
            except (TypeError, AssertionError):  # it needs a closure, or fails once more
                self._bowl = Bowl(parameters)
                self.first_s = self.step()

    def step(self) -> float:
        """Seconds of a step; of one with a closure, per gradient and without the closure's."""
        with optimizer_errors():
            if self._bowl is None:
                start = perf_counter()
                self.optimizer.step()
                return perf_counter() - start
            self._bowl.move()
            start = perf_counter()
            self.optimizer.step(self._bowl)  # type: ignore[arg-type]  # a tensor will do
            took = perf_counter() - start
        return (took - self._bowl.seconds) / max(1, self._bowl.calls)


class Bowl:
    """A closure: a quadratic function whose gradient is the given one where the step begins."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self._parameters = [p for p in parameters if p.grad is not None]
        self._gradients = [_dense(p.grad).clone() for p in self._parameters]
        low, high = (torch.tensor(c, device="cpu").log10().item() for c in CURVATURES)
        self._curvatures = [
            torch.logspace(low, high, p.numel(), dtype=p.dtype, device=p.device).view_as(p)
            for p in self._parameters
        ]
        self.move()

    def move(self) -> None:
        """Let the next step begin where the parameters are."""
        self._starts = [p.detach().clone() for p in self._parameters]
        self.seconds, self.calls = 0.0, 0

    @with_gradients(False)
    def __call__(self) -> Tensor:
        start = perf_counter()
        total = torch.zeros((), device="cpu")
        rows = zip(self._parameters, self._starts, self._gradients, self._curvatures, strict=True)
        for p, at_start, g, curvature in rows:
            gone = p - at_start
            p.grad = g + curvature * gone
            total = total + ((g + p.grad) * gone).sum() / 2
        self.calls += 1
        self.seconds += perf_counter() - start
        return total


def _dense(gradient: Tensor | None) -> Tensor:
    assert gradient is not None
    return gradient.to_dense() if gradient.is_sparse else gradient


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of all tensors in the optimizer's state."""
    state = getattr(optimizer, "state", {})  # foreign classes may keep theirs elsewhere
    return sum(t.numel() * t.element_size() for t in _tensors(list(state.values())))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors(each)
