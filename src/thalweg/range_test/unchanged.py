"""Train a model for a while and have it, and its optimizer, as they were."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.engine.interrupts import put_back_after
from thalweg.engine.modes import with_gradients
from thalweg.engine.torch_internals.modes import keeping_versions

# Of a module: the dicts that hold its tensors by name.
_TABLES = ("_parameters", "_buffers")


@contextmanager
def unchanged(model: nn.Module, optimizer: torch.optim.Optimizer, *more: Any) -> Iterator[None]:
    """Put a model and its optimizer back as they were, bit for bit, however the block ends.

    Inside, the optimizer works on copies of its state and of its groups, and gradients begin at
    None. Afterwards these are again the objects that they were: values, gradients, training mode,
    attributes and version counters of the model's parameters and buffers; state, groups, options
    and attributes of the optimizer. torch's random numbers go on as if there had been no block.

    Not put back: what hooks change elsewhere, and what modules keep in lists or objects of their
    own.

    Args:
        model: the model.
        optimizer: any ``torch.optim.Optimizer``.
        more: other modules that take part, such as a loss; anything else is left alone.

    >>> model = nn.Linear(2, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> before = model.weight.detach().clone()
    >>> with unchanged(model, optimizer):
    ...     model(torch.ones(2)).backward()
    ...     optimizer.step()
    ...     torch.equal(model.weight, before)
    False
    >>> torch.equal(model.weight, before), model.weight.grad
    (True, None)
    """
    modules = [m for root in (model, *more) if isinstance(root, nn.Module) for m in root.modules()]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    memory = _Memory(modules, parameters)
    optimizers = _with_inner(optimizer)
    attributes = [dict(vars(each)) for each in optimizers]
    devices = {t.device.index or 0 for t in memory.tensors if t.device.type == "cuda"}
    # Those made in inference mode have none.
    versions = keeping_versions(t for t in memory.tensors if not t.is_inference())
    randomness = ExitStack()

    def put_back() -> None:
        with randomness, versions:
            for each, found in zip(optimizers, attributes, strict=True):
                vars(each).clear()
                vars(each).update(found)
            memory.restore()

    with put_back_after(put_back):
        randomness.enter_context(torch.random.fork_rng(devices=sorted(devices)))
        _work_on_copies(optimizers, keep={id(t): t for t in memory.tensors})
        memory.drop_gradients()
        yield


class _Memory:
    """The modules' attributes and tensors, and some parameters that may lie outside of them."""

    def __init__(self, modules: list[nn.Module], parameters: list[Tensor]) -> None:
        self.modules = [(m, m.training, dict(vars(m)), _tables(m)) for m in modules]
        found: dict[int, Tensor] = {id(p): p for p in parameters}
        for module in modules:
            held = (
                module.parameters(recurse=False), module.buffers(recurse=False),
                vars(module).values(),
            )  # fmt: skip
            found |= {id(v): v for v in chain(*held) if isinstance(v, Tensor)}
        self.tensors = list(found.values())
        # The memory itself, besides the tensor: a step may give the tensor another one.
        self.values = [(t.detach(), t.detach().clone()) for t in self.tensors]
        self.flags = [t.requires_grad for t in self.tensors]
        self.gradients = [t.grad if t.is_leaf else None for t in self.tensors]

    def drop_gradients(self) -> None:
        """Begin without gradients; those that there are stay as they are, for later."""
        for tensor in self.tensors:
            if tensor.is_leaf:
                tensor.grad = None

    @with_gradients(False)
    def restore(self) -> None:
        for module, training, attributes, tables in self.modules:
            module.training = training
            for name, table in tables.items():
                attributes[name].clear()
                attributes[name].update(table)
            vars(module).clear()
            vars(module).update(attributes)
        for memory, value in self.values:
            if not _spread(memory):
                memory.copy_(value)
        for i, tensor in enumerate(self.tensors):
            memory = self.values[i][0]
            if tensor.layout is torch.strided and tensor.data_ptr() != memory.data_ptr():
                tensor.data = memory
            if tensor.is_leaf:
                tensor.requires_grad_(self.flags[i])
                tensor.grad = self.gradients[i]


def _spread(tensor: Tensor) -> bool:
    """Several elements lie at one place, as expand() makes them; torch does not write to such."""
    return tensor.layout is torch.strided and any(
        step == 0 and size > 1 for step, size in zip(tensor.stride(), tensor.shape, strict=True)
    )


def _tables(module: nn.Module) -> dict[str, dict[str, Any]]:
    tables = {name: vars(module).get(name) for name in _TABLES}
    return {name: dict(table) for name, table in tables.items() if isinstance(table, dict)}


def _with_inner(optimizer: torch.optim.Optimizer) -> list[torch.optim.Optimizer]:
    """The optimizer and those that it holds, as wrappers do, each once."""
    found = [optimizer]
    for each in found:
        inner = [v for v in vars(each).values() if isinstance(v, torch.optim.Optimizer)]
        found += [v for v in inner if all(v is not known for known in found)]
    return found


def _work_on_copies(optimizers: list[torch.optim.Optimizer], keep: dict[int, Any]) -> None:
    """Give optimizers copies of all data that they hold, shared as it was."""
    from thalweg.engine.copying import deep_copy

    for each in optimizers:
        state: Mapping[Any, Any] = each.state
        vars(each).update({name: deep_copy(value, keep) for name, value in vars(each).items()})
        # As loading a checkpoint does, so that whatever an optimizer derives from its state is
        # derived anew.
        each.__setstate__(
            {"state": deep_copy(state, keep), "param_groups": deep_copy(each.param_groups, keep)}
        )
