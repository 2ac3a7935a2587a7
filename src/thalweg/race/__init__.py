"""Train one small network on real data with many optimizers, and compare them.

Every trial starts from the same weights and sees the same batches; only the optimizer and its
learning rate differ. The library part is here, the command is ``thalweg race``:

>>> import torch
>>> from thalweg.race import Task, find, race
>>> x = torch.randn(80, 4, generator=torch.Generator().manual_seed(0))
>>> y = (x.sum(1) > 0).long()
>>> task = Task("halves", x[:60], y[:60], x[60:], y[60:], layers=(8, 2), target=0.6, batch_size=20)
>>> result = race(task, [find("adam")], learning_rates=2, epochs=3)
>>> [trial.steps for trial in result.standings[0].trials]
[9, 9]
"""

from thalweg.race.racers import RACERS, Racer, find, grid
from thalweg.race.result import LossTime, Result, Standing, StepTime, Trial
from thalweg.race.run import measure_loss, measure_steps, race, run_trial
from thalweg.race.task import Task, digits

__all__ = [
    "RACERS",
    "LossTime",
    "Racer",
    "Result",
    "Standing",
    "StepTime",
    "Task",
    "Trial",
    "digits",
    "find",
    "grid",
    "measure_loss",
    "measure_steps",
    "race",
    "run_trial",
]
