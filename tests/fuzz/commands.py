"""What users do to an optimizer between steps, each a command of a program."""

from __future__ import annotations

import copy
import pickle
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from tests.engine.interrupting import traced
from tests.fuzz.world import SHAPES, World, parameter

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
def step_interrupted(w: World, j: int, k: int) -> None:
    """A step that Ctrl-C ends early, before some instruction.

    It is taken or not, and each parameter with its states is as before or after. Those that it has
    not updated get no gradient where the step is only repeated.
    """
    w.gradients()
    if w.told is None:
        before = [_bits(w, p) for p in w.params]
        _interrupted(w, (10 * j + k) ** 2 // 4, signal.SIGINT)
        w.updated.append([k for k, p in enumerate(w.params) if before[k] != _bits(w, p)])
    else:
        updated = w.told.pop(0)
        for number, p in enumerate(w.params):
            if number not in updated:
                p.grad = None
        w.optimizer.step()
    for p in w.params:  # hooks may have changed them
        p.grad = None


@command
def step_undone(w: World, j: int, k: int) -> None:
    """A step that ends early by what another signal's handler raises.

    It may be half taken, as by torch. Parameters and states are put back, twice, as the whole step
    tells whether it raises.
    """
    state = w.optimizer.state
    before = [(p.detach().clone(), _cloned(state[p]) if p in state else None) for p in w.params]
    w.gradients()
    if w.told is None:
        _interrupted(w, (10 * j + k) ** 2 // 4, signal.SIGUSR1)
        _put_back(w, before)
    w.optimizer.step()
    _put_back(w, before)
    for p in w.params:
        p.grad = None


def _put_back(w: World, before: list[tuple[Tensor, dict[str, Any] | None]]) -> None:
    for p, (value, entry) in zip(w.params, before, strict=True):
        with torch.no_grad():
            p.copy_(value)
        if entry is None:
            w.optimizer.state.pop(p, None)
        else:
            w.optimizer.state[p] = _cloned(entry)


def _cloned(entry: dict[str, Any]) -> dict[str, Any]:
    return {k: v.detach().clone() if isinstance(v, Tensor) else v for k, v in entry.items()}


def _interrupted(w: World, instruction: int, number: signal.Signals) -> None:
    handler = signal.signal(number, _interrupt)
    enabled = torch.is_grad_enabled()
    try:
        traced(w.optimizer.step, "/thalweg/", instruction, number)
    except _Interrupted:
        pass
    finally:
        signal.signal(number, handler)
    assert torch.is_grad_enabled() is enabled


class _Interrupted(Exception):
    pass


def _interrupt(number: int, frame: Any) -> None:
    raise _Interrupted


def _bits(w: World, p: Parameter) -> list[bytes]:
    """A parameter and its states as they are, to the last bit."""
    tensors = [p, *w.optimizer.state.get(p, {}).values()]
    dense = [t.detach() for t in tensors if isinstance(t, Tensor) and not t.is_meta]
    return [t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for t in dense]


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
def cast(w: World, k: int) -> None:
    """As ``module.to(dtype)``: it keeps the parameters, and the optimizer its states."""
    dtype = (torch.float64, torch.float32, torch.bfloat16, torch.float16)[k % 4]
    for p in w.params:
        p.data = p.data.to(dtype)
        p.grad = None


@command
def cast_one(w: World, k: int, to: int) -> None:
    p = w.param(k)
    p.grad = None
    p.data = p.data.to((torch.float64, torch.float32, torch.bfloat16, torch.float16)[to % 4])


@command
def cast_states(w: World, k: int, to: int) -> None:
    dtype = (torch.float64, torch.float32, torch.bfloat16, torch.float16)[to % 4]
    for name, value in w.optimizer.state.get(w.param(k), {}).items():
        if isinstance(value, Tensor) and value.dim() and name != "step":
            value.data = value.data.to(dtype)


@command
def to_meta(w: World, k: int) -> None:
    """As ``module.to("meta")`` where tensors are swapped."""
    p = w.param(k)
    p.grad = None
    torch.utils.swap_tensors(p, Parameter(p.detach().to("meta"), requires_grad=p.requires_grad))


@command
def states_to_meta(w: World, k: int) -> None:
    entry = w.optimizer.state.get(w.param(k), {})
    for name, value in entry.items():
        if isinstance(value, Tensor) and value.dim():
            entry[name] = value.to("meta")


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
            group["betas"] = (0.8 + 0.02 * (k % 5), 0.95, *group["betas"][2:])


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
    p = parameter(SHAPES[k % len(SHAPES)], w.program, 50 + len(w.params))
    w.params.append(p)
    w.optimizer.add_param_group({"params": [p], "lr": 0.03})


@command
def zero_grad(w: World, k: int) -> None:
    w.optimizer.zero_grad(set_to_none=bool(k % 2))


@command
def set_fused(w: World, k: int) -> None:
    for group in w.optimizer.param_groups:
        if "fused" in group and not group.get("foreach"):
            group["fused"] = (None, False, True)[k % 3]


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
