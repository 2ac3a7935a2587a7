"""The time of one ``step()``: ours, torch's best, and the least that memory allows.

Every figure is a median of rounds; in each round ours, torch's and the limit are timed one after
another, and ratios are medians of the rounds' ratios, so that a drift of the machine cancels. Short
steps are timed ten in a row. That leaves all they touch in the caches, where training does not
leave it: a backward pass comes in between. So small tensors are measured a second time, cold, with
96 MB written before each single step.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

import thalweg
import thalweg.optim as ours

Step = Callable[[], Any]

# Class, options, and the ratio to torch that one large tensor, a thousand small ones, the same with
# cold caches, and a model should at least have.
OPTIMIZERS: list[tuple[str, dict[str, Any], tuple[float, float, float, float]]] = [
    ("SGD", {"momentum": 0.9}, (1, 8, 6, 1)),
    ("Adam", {}, (1, 20, 14, 1)),
    ("AdamW", {}, (1, 20, 14, 1)),
    ("Adagrad", {}, (1, 20, 14, 1)),
    ("RMSprop", {}, (4, 20, 20, 3)),
    ("Adamax", {}, (4, 20, 20, 3)),
    ("Adadelta", {}, (4, 20, 20, 3)),
    ("NAdam", {}, (4, 20, 20, 3)),
    ("RAdam", {}, (4, 20, 20, 3)),
    ("Rprop", {}, (4, 20, 20, 3)),
    ("ASGD", {}, (2, 20, 20, 3)),
]
COLD = ", cold"


def gpt2_small() -> list[tuple[int, ...]]:
    """The shapes of GPT-2 small's 148 tensors, 124 million numbers."""
    width = 768
    layer = [
        *((width,), (width,), (width, 3 * width), (3 * width,), (width, width), (width,)),
        *((width,), (width,), (width, 4 * width), (4 * width,), (4 * width, width), (width,)),
    ]
    return [(50257, width), (1024, width), *(12 * layer), (width,), (width,)]


SHAPES: dict[str, list[tuple[int, ...]]] = {
    "one tensor of 16 M": [(16 * 2**20,)],
    "1000 tensors of 64": 1000 * [(64,)],
    f"1000 tensors of 64{COLD}": 1000 * [(64,)],
    "GPT-2 small, 148 tensors": gpt2_small(),
}


@dataclass(frozen=True)
class Row:
    """Milliseconds of one step, and ratios."""

    case: str
    optimizer: str
    ours: float
    torch: float
    torch_mode: str
    limit: float
    ratio: float  # torch / ours
    share: float  # limit / ours
    wanted: float

    @property
    def reached(self) -> bool:
        return self.ratio >= self.wanted


def measure(case: str, rounds: int, only: list[str] | None = None) -> Iterator[Row]:
    """One row for each optimizer on the case's shapes."""
    shapes = SHAPES[case]
    place = list(SHAPES).index(case)
    generator = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(s, generator=generator)) for s in shapes]
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator) * 1e-3
    for name, options, wanted in OPTIMIZERS:
        if only and name not in only:
            continue
        optimizer = getattr(ours, name)(params, **options)
        optimizer.step()
        mode, theirs = _best_of_torch(name, options, params)
        limit = _touching_the_same(optimizer, params)
        cold = case.endswith(COLD)
        repeats = 1 if cold or max(p.numel() for p in params) > 10**5 else 10
        before = _cache_emptier() if cold else None
        times = timed([optimizer.step, theirs, limit], rounds, repeats, before)
        yield Row(
            case,
            name,
            *(statistics.median(t) for t in times[:2]),
            mode,
            statistics.median(times[2]),
            statistics.median(t / o for o, t, _ in zip(*times, strict=True)),
            statistics.median(low / o for o, _, low in zip(*times, strict=True)),
            wanted[place],
        )


def timed(
    steps: list[Step], rounds: int, repeats: int = 1, before: Step | None = None
) -> list[list[float]]:
    """Milliseconds of each step in each round, after two that do not count.

    ``before`` is called, untimed, before each of them.
    """
    times: list[list[float]] = [[] for _ in steps]
    for number in range(rounds + 2):
        for step, taken in zip(steps, times, strict=True):
            if before is not None:
                before()
            start = time.perf_counter()
            for _ in range(repeats):
                step()
            elapsed = 1e3 * (time.perf_counter() - start) / repeats
            if number >= 2:
                taken.append(elapsed)
    return times


def _cache_emptier() -> Step:
    """Writes 96 MB, more than any cache holds."""
    memory = torch.zeros(24 * 2**20)
    return lambda: memory.add_(1.0)


def _best_of_torch(
    name: str, options: dict[str, Any], params: list[torch.nn.Parameter]
) -> tuple[str, Step]:
    """torch's fastest way of making this step, of the default, foreach and fused."""
    found: dict[str, tuple[float, Step]] = {}
    for mode in ("default", "foreach", "fused"):
        flags = {} if mode == "default" else {mode: True}
        try:
            step = getattr(torch.optim, name)(params, **options, **flags).step
        except TypeError:  # no fused kernel for this one
            continue
        step()
        found[mode] = (min(timed([step], 3)[0]), step)
    best = min(found, key=lambda mode: found[mode][0])
    return best, found[best][1]


def _touching_the_same(optimizer: ours.Optimizer, params: list[torch.nn.Parameter]) -> Step:
    """A step that reads and writes the optimizer's operands and hardly computes: memory's limit."""
    entry = optimizer.state[params[0]]
    names = [name for name in optimizer.rule.tensor_states if name in entry]

    @thalweg.optimizer(lr=0.0, states=dict.fromkeys(names, 0.0))
    def touch(p: Any, g: Any, s: Any, h: Any) -> Any:
        for name in names:
            setattr(s, name, getattr(s, name) + g)
        return p - h.lr * g

    limit = touch(params)
    limit.step()
    return limit.step
