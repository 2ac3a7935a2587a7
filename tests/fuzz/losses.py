"""Programs that use one loss, as data; and running them on thalweg's losses and on torch's.

A program names a call of ``tests/losses/calls.py`` and says how its operands lie, what their dtype
is, which modes and hooks are on, and what is done with the result. It is run twice, each time in a
process of its own, with one module of losses and with the other.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch.autograd.graph import saved_tensors_hooks

from tests.fuzz.apart import Raised, Returned
from tests.losses.calls import LAYOUTS, Call, calls

Tensor = torch.Tensor

CALLS = {str(call): call for call in calls() if hasattr(F, call.name)}
BY_LAYOUT = {layout.__name__: layout for layout in LAYOUTS}
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


class Program(NamedTuple):
    """What is done with a loss.

    Attributes:
        call: the text of one of the calls.
        reduction: "none", "mean" or "sum".
        dtype: of the floating-point operands.
        layouts: of the operands in order, by name; None for packed ones.
        rows: how many of the first dimension's elements are kept; None for all.
        modes: what is on around forward.
        hook: what a hook on saved tensors makes of them, by name; None for no hook.
        between: what happens between forward and backward.
        use: what is done with the result.
    """

    call: str
    reduction: str
    dtype: str
    layouts: tuple[str | None, ...]
    rows: int | None
    modes: frozenset[str]
    hook: str | None
    between: str
    use: str


@contextmanager
def _default_device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def _default_dtype() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


MODES: dict[str, Callable[[], Any]] = {
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "anomaly": torch.autograd.detect_anomaly,
    "default_device": _default_device,
    "default_dtype": _default_dtype,
}


def _among_others(t: Tensor) -> Tensor:
    """As ``every_second``, of truth values as well."""
    return torch.stack([t, t.flip(0)], -1).flatten(-2)[..., ::2]


HOOKS: dict[str, Callable[[Tensor], Tensor]] = {
    "same": lambda t: t,
    "copied": torch.clone,
    "transposed": BY_LAYOUT["transposed"],
    "strided": lambda t: _among_others(t) if t.ndim else t,
    "fewer": lambda t: t[:1] if t.ndim else t,
    "one": lambda t: t.flatten()[:1].reshape(()) if t.numel() else t,
}
USES = (
    *("value", "backward", "twice", "retained", "double", "batched", "jacobian", "vmap", "jacrev"),
    *("hessian", "functionalize", "threads", "scaled", "zeros"),
)
BETWEEN = ("nothing", "in_place", "target_in_place", "freed")


def programs() -> st.SearchStrategy[Program]:
    """Any program."""
    return st.builds(
        Program,
        call=st.sampled_from(sorted(CALLS)),
        reduction=st.sampled_from(("none", "mean", "sum")),
        dtype=st.sampled_from(("float32", "float32", *DTYPES)),
        layouts=st.tuples(*[st.sampled_from((None, *BY_LAYOUT))] * 5),
        rows=st.sampled_from((None, None, None, 0, 1)),
        modes=st.frozensets(st.sampled_from(sorted(MODES)), max_size=2),
        hook=st.sampled_from((None, None, *HOOKS)),
        between=st.sampled_from(("nothing", *BETWEEN)),
        use=st.sampled_from(USES),
    )


def run_all(some: list[Program], ours: bool) -> list[Returned | Raised]:
    """What becomes of each program. One process runs many: imports take most of the time."""
    return [outcome(program, ours) for program in some]


def outcome(program: Program, ours: bool) -> Returned | Raised:
    """What becomes of a program."""
    try:
        return Returned(run(program, ours))
    except Exception as error:
        return Raised(tuple(kind.__name__ for kind in type(error).__mro__), str(error))


def run(program: Program, ours: bool) -> list[Any]:
    """The results of a program, as arrays and in float64."""
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    torch.set_num_threads(2)
    call = CALLS[program.call]
    operands = _operands(program, call)
    function = call.ours if ours else call.plain_reference

    def loss(operands: dict[str, Tensor]) -> Tensor:
        return function(operands, reduction=program.reduction)

    with ExitStack() as stack:
        for mode in sorted(program.modes):
            stack.enter_context(MODES[mode]())
        found = _used(program, call, loss, operands)
    return [t.detach().double().resolve_neg().numpy(force=True).copy() for t in found]


def _operands(program: Program, call: Call) -> dict[str, Tensor]:
    operands = {}
    for (name, value), layout in zip(call.operands.items(), program.layouts, strict=False):
        t = value.clone()
        if t.is_floating_point():
            t = t.to(DTYPES[program.dtype])
        of_classes = name in ("linear_weight", "linear_bias") or (name == "weight" and t.ndim == 1)
        if program.rows is not None and not of_classes and call.name != "ctc_loss":
            t = t[: program.rows]
        t = BY_LAYOUT[layout](t) if layout and t.numel() else t
        operands[name] = t.requires_grad_() if name in call.differentiated else t
    return operands


def _used(
    program: Program,
    call: Call,
    loss: Callable[[dict[str, Tensor]], Tensor],
    operands: dict[str, Tensor],
) -> list[Tensor]:
    leaves = [operands[n] for n in call.differentiated]
    first = call.differentiated[0] if leaves else next(iter(operands))
    x = operands[first]

    def of_first(x: Tensor) -> Tensor:
        return loss({**operands, first: x})

    def total(x: Tensor) -> Tensor:
        return of_first(x).sum()

    functional = torch.autograd.functional
    single: dict[str, Callable[[], Tensor]] = {
        "jacobian": lambda: functional.jacobian(of_first, x, vectorize=True),
        "vmap": lambda: torch.vmap(of_first)(torch.stack([x.detach(), x.detach()])),
        "jacrev": lambda: torch.func.jacrev(of_first)(x),
        "hessian": lambda: torch.func.hessian(total)(x),
        "functionalize": lambda: torch.func.functionalize(of_first)(x.detach()),
    }
    if program.use in single:
        return [single[program.use]()]
    # Without hooks, torch notices that a saved tensor was changed.
    hooks = saved_tensors_hooks(lambda t: t, HOOKS[program.hook]) if program.hook else nullcontext()
    with hooks:
        value = loss(operands)
    if program.use == "value" or not leaves:
        return [value]
    _change(program.between, operands, first)
    return [value, *_gradients(program.use, value, leaves)]


def _change(what: str, operands: dict[str, Tensor], first: str) -> None:
    with torch.no_grad():
        if what == "in_place":
            operands[first].mul_(0.5)
        elif what == "target_in_place" and "target" in operands:
            operands["target"].mul_(1)
        elif what == "freed":
            operands.clear()


def _gradients(use: str, value: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    grad = torch.autograd.grad
    above = torch.linspace(0.5, 1.5, value.numel(), device="cpu").view(value.shape).to(value.dtype)
    if use == "twice":
        grad(value, leaves, above)
        return [*grad(value, leaves, above)]
    if use == "retained":
        return [*grad(value, leaves, above, retain_graph=True), *grad(value, leaves, 2 * above)]
    if use == "double":
        once = grad(value, leaves, above, create_graph=True)
        return [*grad(once[0].square().sum(), leaves, allow_unused=True, materialize_grads=True)]
    if use == "batched":
        many = torch.stack([above, -above, 3 * above])
        return [*grad(value, leaves, many, is_grads_batched=True)]
    if use == "threads":
        return _on_threads(lambda: grad(value, leaves, above, retain_graph=True))
    if use == "scaled":
        return [*grad(value, leaves, above * 1024)]
    if use == "zeros":
        return [*grad(value, leaves, torch._efficientzerotensor(value.shape, dtype=value.dtype))]
    return [*grad(value, leaves, above)]


def _on_threads(backward: Callable[[], Any]) -> list[Tensor]:
    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(backward) for _ in range(2)]
        return [t for one in both for t in one.result()]
