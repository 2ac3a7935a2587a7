"""Train small networks on real data with many optimizers, and compare them.

Every run of a task begins with the same weights and sees the same batches; only the optimizer and
its learning rate differ. The library part is here, the command is ``thalweg race``:

>>> import torch
>>> from thalweg import losses
>>> from thalweg.race import TASKS, Task, race, settings
>>> x = torch.randn(80, 4, generator=torch.Generator().manual_seed(0))
>>> y = x.sum(1, keepdim=True).sign()
>>> rows = {"train": (x[:60], y[:60]), "test": (x[60:], y[60:])}
>>> def halves():
...     return Task(
...         name="halves",
...         model=lambda: torch.nn.Linear(4, 1),
...         batches=lambda split, generator: [rows[split]],
...         loss=lambda model, batch: losses.soft_margin_loss(model(batch[0]), batch[1]),
...         target=0.1,
...         steps=20,
...     )
>>> TASKS["halves"] = halves
>>> result = race(settings(tasks=["halves"], optimizers=["sgd", "adam"], seeds=1, length=1))
>>> [(entry.name, entry.steps_to(0.1)) for entry in result.tasks[0].entries]
[('SGD', 2), ('Adam', 8)]
>>> del TASKS["halves"]
"""

from thalweg.race import files
from thalweg.race.loss_time import measure_loss
from thalweg.race.objects import find_object
from thalweg.race.presets import PRESETS, settings
from thalweg.race.racers import RACERS, Racer, find, find_all, grid, split_specs
from thalweg.race.result import Entry, LossTime, Result, Run, Settings, StepTime, TaskResult
from thalweg.race.run import Stage, race
from thalweg.race.step_time import measure_steps
from thalweg.race.task import Split, Task
from thalweg.race.tasks import TASKS, find_task

__all__ = [
    "PRESETS",
    "RACERS",
    "TASKS",
    "Entry",
    "LossTime",
    "Racer",
    "Result",
    "Run",
    "Settings",
    "Split",
    "Stage",
    "StepTime",
    "Task",
    "TaskResult",
    "files",
    "find",
    "find_all",
    "find_object",
    "find_task",
    "grid",
    "measure_loss",
    "measure_steps",
    "race",
    "settings",
    "split_specs",
]
