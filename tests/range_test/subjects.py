"""Models and optimizers to test the range test on, and all that they consist of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from thalweg import optim


class Net(nn.Module):
    """What a training step may change: parameters, buffers, attributes, random numbers."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.norm = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.25)
        self.last = nn.Linear(6, 1)
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)
        self.columns = nn.Parameter(torch.ones(3, 6).t())  # not contiguous
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("spread", torch.ones(1).expand(4))
        self.calls = 0
        self.total = torch.zeros(1)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.total += 1
        self.seen = self.seen + 1  # another object
        hidden = self.drop(torch.tanh(self.norm(self.first(x))))
        out: Tensor = self.last(hidden) * self.frozen + self.columns.sum() * 0.01
        return out


class Nudging(torch.optim.Optimizer):
    """A wrapper around another optimizer, with whose groups it works, as SAM's."""

    def __init__(self, params: Iterable[Tensor], base: Callable[..., Any], **options: Any) -> None:
        super().__init__(params, dict(options))
        self.base = base(self.param_groups, **options)
        self.param_groups = self.base.param_groups
        self.slow = [p.detach().clone() for g in self.param_groups for p in g["params"]]
        self.steps = {"made": 0}

    def step(self, closure: Any = None) -> Any:
        loss = self.base.step(closure)
        self.steps["made"] += 1
        with torch.no_grad():
            for slow, p in zip(self.slow, self.base.param_groups[0]["params"], strict=False):
                slow.lerp_(p, 0.5)
        return loss


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": partial(optim.SGD, lr=0.1),
    "SGD+momentum": partial(optim.SGD, lr=0.1, momentum=0.9),
    "Adam": partial(optim.Adam, lr=0.01),
    "Adam, amsgrad, lr tensor": lambda p: optim.Adam(p, lr=torch.tensor(0.01), amsgrad=True),
    "NAdam": partial(optim.NAdam, lr=0.01),
    "Rprop": partial(optim.Rprop, lr=0.01),
    "ASGD": partial(optim.ASGD, lr=0.01),
    "RMSprop, eager": partial(optim.RMSprop, lr=0.01, fused=False),
    "LBFGS": partial(optim.LBFGS, lr=0.1, max_iter=3, history_size=4),
    "torch's Adam": partial(torch.optim.Adam, lr=0.01),
    "torch's LBFGS": partial(torch.optim.LBFGS, lr=0.1, max_iter=3, history_size=4),
    "wrapped": partial(Nudging, base=optim.SGD, lr=0.1, momentum=0.5),
}


def batches(count: int = 3) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 8, 4, generator=generator)
    return [(rows, rows.sum(1, keepdim=True)) for rows in x]


def subjects(name: str, steps: int = 0) -> tuple[Net, torch.optim.Optimizer]:
    """A network and its optimizer, after some steps; the same ones at every call."""
    torch.manual_seed(0)
    net = Net()
    if name == "torch's LBFGS":  # which cannot flatten it otherwise
        net.columns = nn.Parameter(torch.ones(6, 3))
    optimizer = OPTIMIZERS[name]([p for p in net.parameters() if p.requires_grad])
    train(net, optimizer, steps)
    return net, optimizer


def train(net: Net, optimizer: torch.optim.Optimizer, steps: int) -> None:
    data = batches()
    for i in range(steps):
        x, y = data[i % len(data)]

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(net(x), y)
            loss.backward()
            return loss

        optimizer.step(closure)


def everything(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Each object that they consist of, by the way to it: identity and content."""
    found: dict[str, Any] = {"random": torch.get_rng_state().numpy().tobytes()}
    for name, module in net.named_modules():
        _collect(f"model.{name}", vars(module), found)
    _collect("optimizer", vars(optimizer), found)
    return found


def _collect(path: str, value: Any, found: dict[str, Any]) -> None:
    if isinstance(value, Tensor):
        dense = value.detach().contiguous().reshape(-1)
        found[path] = (
            id(value),
            value.data_ptr(),
            value._version,
            value.requires_grad,
            value.dtype,
            value.shape,
            value.stride(),
            dense.view(torch.uint8).numpy().tobytes(),
        )
        _collect(f"{path}.grad", value.grad, found)
    elif isinstance(value, dict):
        found[path] = (id(value) if path not in ("optimizer",) else 0, type(value), len(value))
        for place, (key, each) in enumerate(value.items()):
            if key != "_engine_":  # looks at the state; what it does next is tested elsewhere
                _collect(f"{path}[{place}:{key if isinstance(key, str) else id(key)}]", each, found)
    elif isinstance(value, (list, tuple)):
        found[path] = (id(value), type(value), len(value))
        for place, each in enumerate(value):
            _collect(f"{path}[{place}]", each, found)
    elif isinstance(value, torch.optim.Optimizer):
        _collect(f"{path}.", vars(value), found)
    else:
        found[path] = value if isinstance(value, (int, float, str, type(None))) else id(value)
