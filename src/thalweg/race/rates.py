"""The learning-rate range test on a task of the race."""

from functools import partial
from typing import Any

import torch

from thalweg.race.protocol import endless, guarded, new_model, trained
from thalweg.race.racers import Racer
from thalweg.race.task import Task
from thalweg.range_test import LRFound, range_test


def find_rate(task: Task, racer: Racer, seed: int = 0, **options: Any) -> LRFound:
    """The loss at growing rates, with the weights and batches that a race has for this seed.

    Args:
        task: what is trained.
        racer: whose rate is looked for.
        seed: of the weights and the order of the batches.
        **options: of :func:`thalweg.range_test.range_test`.

    Raises:
        ValueError: the task fails, or the optimizer refuses what it should train.
    """
    model, state = new_model(task, seed)
    try:
        optimizer = racer.make(trained(model), racer.centre)
        batches = endless(task, torch.Generator().manual_seed(seed))
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(state)
            loss = partial(guarded, task, "loss", task.loss)
            return range_test(model, batches, optimizer, loss, **options)
    except RuntimeError as error:  # as AdamW's, which takes no sparse gradient
        raise ValueError(f"lr_find: {racer.name}: {error}") from error
