"""Running the command line in the test's own process."""

from __future__ import annotations

from typing import Any

from typer.testing import CliRunner, Result

from thalweg.cli.app import app

# Small enough to be trained many times in a second.
TASK_MODULE = """
import torch
from thalweg import losses
from thalweg.race import Task

x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
y = x.sum(1, keepdim=True)

def build():
    return Task(
        name="sums",
        model=lambda: torch.nn.Linear(3, 1),
        batches=lambda split, generator: [(x[:20], y[:20])] if split == "train" else [(x, y)],
        loss=lambda model, batch: losses.mse_loss(model(batch[0]), batch[1]),
        target=0.1,
        steps=20,
        description="sums of three numbers",
    )

def nan():
    task = build()
    return Task(name="nan", model=task.model, batches=task.batches,
                loss=lambda model, batch: task.loss(model, batch) * float("nan"), steps=20)

def failing():
    raise RuntimeError("no data today")

def constant():
    task = build()
    return Task(name="constant", model=task.model, batches=task.batches,
                loss=lambda model, batch: model(batch[0]).mean() * 0 + 1.0, steps=20)

def table():
    words = torch.arange(10)
    return Task(name="words", model=lambda: torch.nn.Embedding(10, 2, sparse=True),
                batches=lambda split, generator: [words],
                loss=lambda model, batch: (model(batch) ** 2).mean(), steps=20)

def model():
    return torch.nn.Linear(3, 2)

def parameters():
    return [torch.nn.Parameter(torch.ones(5))]

def sound():
    from thalweg import optim
    net = model()
    return net, optim.AdamW(optim.groups(net))

def forgotten():
    from thalweg import optim
    net = model()
    return net, optim.AdamW([net.weight])

def leaving():
    raise SystemExit(3)

def nothing():
    return 3
"""


def thalweg(*arguments: str, columns: int = 200, **options: Any) -> Result:
    # A plain terminal of a fixed width: messages must not be broken or coloured.
    environment = {"COLUMNS": str(columns), "TERM": "dumb", "NO_COLOR": "1"}
    return CliRunner().invoke(app, arguments, env=environment, **options)
