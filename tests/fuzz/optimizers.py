"""Random programs of what users do to an optimizer between steps, run on thalweg and on torch.

A program is plain data: the optimizer's name and options, the parameters, and a list of commands,
each a name and numbers. So it can be sent to another process, printed, and kept as a test.
"""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

NAMES = (
    *("SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "Adagrad", "Adadelta", "RMSprop"),
    *("Rprop", "ASGD", "SparseAdam"),
)
SHAPES = ((3,), (2, 4), (), (17, 5), (0, 3), (2, 3, 2), (4, 1), (40, 30))
SPARSE = {"SGD", "Adagrad", "SparseAdam"}
# Smooth rules. The others decide by a sign or a maximum, which rounding can turn over.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "SGD": [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"weight_decay": 0.1}],
    "Adam": [{}, {"amsgrad": True}, {"weight_decay": 0.1}],
    "AdamW": [{}, {"amsgrad": True}],
    "RMSprop": [{}, {"momentum": 0.5}, {"weight_decay": 0.1}],
    "Adagrad": [{}, {"lr_decay": 0.01}],
    "NAdam": [{}, {"weight_decay": 0.1, "decoupled_weight_decay": True}],
}
FLAGS: list[dict[str, Any]] = [
    *({}, {}, {}, {"foreach": False}, {"foreach": True}, {"maximize": True}),
    *({"capturable": True}, {"differentiable": True}),
]


class Program(NamedTuple):
    """What is done, in which order."""

    name: str
    options: dict[str, Any]
    dtype: str
    shapes: tuple[int, ...]  # places in SHAPES
    commands: tuple[tuple[Any, ...], ...]


class Ending(NamedTuple):
    """What became of a program.

    Attributes:
        raised: the names of the exception's classes, empty if there was none.
        at: the number of the command that raised, or of all commands.
        message: the exception's.
        values: the numbers of every parameter, and of its states by name.
    """

    raised: tuple[str, ...]
    at: int
    message: str
    values: list[dict[str, list[float]]]


@dataclass
class World:
    """An optimizer with its parameters, as the commands find them."""

    module: Any
    program: Program
    params: list[Parameter]
    optimizer: Any
    seed: int = 0
    absent: set[int] = field(default_factory=set)
    sparse: set[int] = field(default_factory=set)
    layouts: dict[int, int] = field(default_factory=dict)

    def param(self, number: int) -> Parameter:
        return self.params[number % len(self.params)]

    def gradients(self) -> None:
        """Give each parameter a gradient, but for those that get none this time."""
        self.seed += 1
        for k, p in enumerate(self.params):
            if k in self.absent or not p.requires_grad:
                p.grad = None
                continue
            draw = torch.Generator(device="cpu").manual_seed(100 * self.seed + k)
            dense = torch.randn(
                tuple(p.shape), generator=draw, dtype=torch.float64, device="cpu"
            ).to(p.dtype)
            p.grad = None
            if p.dim() and (k in self.sparse or self.program.name == "SparseAdam"):
                kept = dense * (dense.reshape(len(p), -1).sum(1) > 0).view(-1, *[1] * (p.dim() - 1))
                p.grad = kept.to_sparse(1)
            elif self.program.name != "SparseAdam":
                p.grad = _laid_out(dense, self.layouts.get(k, 0))
        self.absent, self.sparse, self.layouts = set(), set(), {}


def _laid_out(dense: Tensor, how: int) -> Tensor:
    """The same numbers in another layout."""
    if how == 1 and dense.dim() > 1:
        return dense.mT.contiguous().mT
    if how == 2:
        room = torch.zeros(*dense.shape, 2, dtype=dense.dtype, device="cpu")
        room[..., 0] = dense
        return room[..., 0]
    if how == 3 and dense.numel():
        return dense.reshape(-1)[:1].reshape([1] * dense.dim()).expand(dense.shape)
    if how == 4:
        return torch._neg_view(-dense)
    return dense


COMMANDS: dict[str, Callable[..., None]] = {}


def command(function: Callable[..., None]) -> Callable[..., None]:
    """A command: takes the world and numbers."""
    COMMANDS[function.__name__] = function
    return function


@command
def step(w: World) -> None:
    w.gradients()
    w.optimizer.step()


@command
def step_again(w: World) -> None:
    w.optimizer.step()


@command
def step_with_closure(w: World) -> None:
    def closure() -> float:
        assert torch.is_grad_enabled()
        w.gradients()
        return 1.0

    assert w.optimizer.step(closure) == 1.0


@command
def step_under(w: World, k: int) -> None:
    w.gradients()
    with _surroundings(k):
        w.optimizer.step()


@contextmanager
def _surroundings(k: int) -> Iterator[None]:
    device, dtype = torch.get_default_device(), torch.get_default_dtype()
    try:
        if k % 4 == 0:
            torch.set_default_device("meta")
        elif k % 4 == 1:
            torch.set_default_dtype(torch.float64)
        if k % 4 == 2:
            with torch.no_grad():
                yield
        elif k % 4 == 3:
            with torch.device("meta"):
                yield
        else:
            yield
    finally:
        torch.set_default_device(device)
        torch.set_default_dtype(dtype)


@command
def leave_out(w: World, k: int) -> None:
    w.absent.add(k % len(w.params))


@command
def sparse(w: World, k: int) -> None:
    w.sparse.add(k % len(w.params))


@command
def layout(w: World, k: int, how: int) -> None:
    w.layouts[k % len(w.params)] = how % 5


@command
def replace_data(w: World, k: int) -> None:
    p = w.param(k)
    p.data = p.data.clone()


@command
def move_into_a_buffer(w: World, k: int) -> None:
    p = w.param(k)
    room = torch.zeros(p.numel() + 7, dtype=p.dtype, device="cpu")
    place = room[3 : 3 + p.numel()].view(p.shape)
    p.data = place.copy_(p.data)


@command
def set_storage(w: World, k: int) -> None:
    p = w.param(k)
    p.data.set_(p.data.clone())


@command
def lay_out_anew(w: World, k: int) -> None:
    p = w.param(k)
    if p.dim() == 2:
        p.data = p.data.mT.contiguous().mT


@command
def tie(w: World, i: int, j: int) -> None:
    a, b = w.param(i), w.param(j)
    if a.shape == b.shape and a.dtype == b.dtype:
        b.data = a.data


@command
def freeze(w: World, k: int) -> None:
    w.param(k).requires_grad_(False)


@command
def thaw(w: World, k: int) -> None:
    w.param(k).requires_grad_(True)


@command
def share(w: World, k: int) -> None:
    w.param(k).share_memory_()


@command
def share_states(w: World, k: int) -> None:
    for value in w.optimizer.state.get(w.param(k), {}).values():
        if isinstance(value, Tensor):
            value.share_memory_()


@command
def replace_states(w: World, k: int) -> None:
    entry = w.optimizer.state.get(w.param(k), {})
    for name in list(entry):
        if isinstance(entry[name], Tensor):
            entry[name] = entry[name].clone()


@command
def replace_memory_of_states(w: World, k: int) -> None:
    for value in w.optimizer.state.get(w.param(k), {}).values():
        if isinstance(value, Tensor):
            value.data = value.data.clone()


@command
def set_storage_of_states(w: World, k: int) -> None:
    for value in w.optimizer.state.get(w.param(k), {}).values():
        if isinstance(value, Tensor):
            value.set_(value.clone())


@command
def delete_states(w: World, k: int) -> None:
    w.optimizer.state.pop(w.param(k), None)


@command
def clear_states(w: World) -> None:
    w.optimizer.state.clear()


@command
def change_rate(w: World, k: int) -> None:
    for group in w.optimizer.param_groups:
        group["lr"] = 0.01 * (1 + k % 5)


@command
def tensor_rate(w: World) -> None:
    for group in w.optimizer.param_groups:
        if not group.get("foreach"):
            group["lr"] = torch.tensor(float(group["lr"]), device="cpu")


@command
def change_decay(w: World, k: int) -> None:
    for group in w.optimizer.param_groups:
        if "weight_decay" in group and w.program.name != "SparseAdam":
            group["weight_decay"] = 0.05 * (k % 3)


@command
def change_betas(w: World, k: int) -> None:
    for group in w.optimizer.param_groups:
        if "betas" in group:
            group["betas"] = (0.8 + 0.02 * (k % 5), 0.95)


@command
def turn_around(w: World) -> None:
    for group in w.optimizer.param_groups:
        if "maximize" in group:
            group["maximize"] = not group["maximize"]


@command
def set_foreach(w: World, k: int) -> None:
    for group in w.optimizer.param_groups:
        if "foreach" in group and not group.get("fused"):
            group["foreach"] = (None, False, True)[k % 3]


@command
def load_own(w: World) -> None:
    w.optimizer.load_state_dict(w.optimizer.state_dict())


@command
def load_into_new(w: World) -> None:
    state = copy.deepcopy(w.optimizer.state_dict())
    groups = [{"params": list(group["params"])} for group in w.optimizer.param_groups]
    w.optimizer = getattr(w.module, w.program.name)(groups, lr=0.5, **w.program.options)
    w.optimizer.load_state_dict(state)


@command
def deep_copied(w: World) -> None:
    w.params, w.optimizer = copy.deepcopy((w.params, w.optimizer))


@command
def pickled(w: World) -> None:
    w.params, w.optimizer = pickle.loads(pickle.dumps((w.params, w.optimizer)))


@command
def add_group(w: World, k: int) -> None:
    p = _parameter(SHAPES[k % len(SHAPES)], w.program, 50 + len(w.params))
    w.params.append(p)
    w.optimizer.add_param_group({"params": [p], "lr": 0.03})


@command
def zero_grad(w: World, k: int) -> None:
    w.optimizer.zero_grad(set_to_none=bool(k % 2))


@command
def hook(w: World) -> None:
    def halve(optimizer: Any, args: Any, kwargs: Any) -> None:
        for group in optimizer.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.grad = p.grad * 0.5

    w.optimizer.register_step_pre_hook(halve)


@command
def threads(w: World, k: int) -> None:
    torch.set_num_threads(1 + k % 2)


@command
def swap(w: World, k: int) -> None:
    p = w.param(k)
    p.grad = None
    other = Parameter(p.detach().clone(), requires_grad=p.requires_grad)
    if w.optimizer.state.get(p) is None:
        torch.utils.swap_tensors(p, other)


def _parameter(shape: tuple[int, ...], program: Program, seed: int) -> Parameter:
    draw = torch.Generator(device="cpu").manual_seed(seed)
    numbers = torch.randn(shape, generator=draw, dtype=torch.float64, device="cpu")
    seen = not program.options.get("differentiable")
    return Parameter(numbers.to(getattr(torch, program.dtype)), requires_grad=seen)


def run(module_name: str, program: Program) -> Ending:
    """Run a program on the classes of a module."""
    import importlib
    import warnings

    warnings.simplefilter("ignore")
    module = importlib.import_module(module_name)
    at = -1
    w: Any = None
    try:
        params = [
            _parameter(SHAPES[s % len(SHAPES)], program, k) for k, s in enumerate(program.shapes)
        ]
        optimizer = getattr(module, program.name)(params, lr=0.05, **program.options)
        w = World(module, program, params, optimizer)
        if program.options.get("differentiable"):
            for p in params:
                p.requires_grad_(True)
        for number, (name, *numbers) in enumerate(program.commands):
            at = number
            if program.options.get("differentiable"):
                with torch.no_grad():
                    COMMANDS[name](w, *numbers)
            else:
                COMMANDS[name](w, *numbers)
    except Exception as error:
        kinds = tuple(kind.__name__ for kind in type(error).__mro__)
        return Ending(kinds, at, str(error), [])
    return Ending((), len(program.commands), "", [_numbers(w, p) for p in w.params])


def _numbers(w: World, p: Parameter) -> dict[str, list[float]]:
    entry = w.optimizer.state.get(p, {})
    tensors = {"p": p, **{k: v for k, v in entry.items() if isinstance(v, Tensor)}}
    return {
        name: t.detach().double().reshape(-1).tolist()[:200]
        for name, t in tensors.items()
        if not t.is_sparse and not t.is_meta  # torch makes states on the default device
    }


def run_both(program: Program) -> tuple[Ending, Ending]:
    """Run a program on thalweg and on torch."""
    return run("thalweg.optim", program), run("torch.optim", program)


def difference(program: Program, ours: Ending, theirs: Ending) -> str | None:
    """How thalweg's ending differs from torch's; None if it does not, or is meant to."""
    if theirs.raised:
        if ours.raised and ours.at == theirs.at and _alike(ours, theirs):
            return None
        if not ours.raised and intended(program, theirs):
            return None
        return f"torch raises {theirs.raised[:1]} at {theirs.at}: {theirs.message}; ours: {ours}"
    if ours.raised:
        return f"raises {ours.raised[0]} at {ours.at}, and torch does not: {ours.message}"
    bound = 1e-7 if program.dtype == "float64" else 2e-3
    for k, (own, other) in enumerate(zip(ours.values, theirs.values, strict=True)):
        for name, expected in other.items():
            if name not in own:
                continue
            found = own[name]
            if len(found) != len(expected) or not all(map(_close(bound), found, expected)):
                return f"{name} of parameter {k}: {found[:8]}, torch {expected[:8]}"
    return None


def _close(bound: float) -> Callable[[float, float], bool]:
    def close(a: float, b: float) -> bool:
        if math.isnan(a) or math.isnan(b):
            return math.isnan(a) == math.isnan(b)
        return a == b or abs(a - b) <= bound * (1 + abs(b))

    return close


def _alike(ours: Ending, theirs: Ending) -> bool:
    return theirs.raised[0] in ours.raised or ours.raised[0] in theirs.raised


def intended(program: Program, theirs: Ending) -> bool:
    """Whether thalweg is meant to take what torch refuses."""
    return any(words in theirs.message for words in INTENDED)


# What torch raises where thalweg goes on, by the words of its message, each with the reason.
INTENDED = {
    "aten::_foreach": "where lists have no operation, another back end has one",
    "If capturable=True": "on the CPU there is nothing to capture",
    "add(sparse, dense)": "the momentum of sparse gradients is dense",
    "meta": "tensors name their device, whatever the default is",
}
