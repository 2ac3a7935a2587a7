"""torch.compile: a compiled training step may hold an optimizer's step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import thalweg.optim as optim

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    # The compiler itself looks at the gradient of the loss.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
]


def train(compiled: bool, steps: int = 4, **options) -> list[torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = optim.Adam(model.parameters(), lr=0.05, **options)
    x, y = torch.randn(16, 4), torch.randn(16, 1)

    def step() -> torch.Tensor:
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    torch.compiler.reset()
    run = torch.compile(step, backend="eager") if compiled else step
    losses = [run().detach() for _ in range(steps)]
    assert [s["step"].item() for s in optimizer.state.values()] == [steps] * 4
    return [*losses, *(p.detach() for p in model.parameters())]


@pytest.mark.parametrize("fused", [None, False], ids=["kernel", "eager"])
def test_a_compiled_training_step_is_the_same(fused) -> None:
    for a, b in zip(train(True, fused=fused), train(False, fused=fused), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_a_compiled_step_alone() -> None:
    p = nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    optimizer = optim.SGD([p], lr=0.25)
    torch.compiler.reset()
    step = torch.compile(optimizer.step, backend="eager")
    for _ in range(3):
        step()
    assert p.tolist() == [0.25] * 3
