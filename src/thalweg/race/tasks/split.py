"""Data that is a table: its split into training and test rows, and its batches."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from thalweg import losses
from thalweg.race.task import Split, Task

SPLIT_SEED = 0  # of which rows are for testing: the same whatever the seed of the race


@dataclass(frozen=True, eq=False)
class Rows:
    """Inputs and targets, the training rows apart from the test rows.

    Attributes:
        x: training inputs, shape (N, ...).
        y: training targets, shape (N, ...).
        test_x: test inputs, shape (M, ...).
        test_y: test targets, shape (M, ...).
        batch_size: rows of a training batch. What is left of a pass is dropped.
    """

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor
    batch_size: int

    def batches(self, split: Split, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """A shuffled pass over the training rows, or all test rows at once."""
        if split == "test":
            yield self.test_x, self.test_y
            return
        if self.batch_size >= len(self.x):  # full batches have no order
            yield self.x, self.y
            return
        order = torch.randperm(len(self.x), generator=generator, device="cpu")
        for rows in order[: len(order) // self.batch_size * self.batch_size].view(
            -1, self.batch_size
        ):
            yield self.x[rows], self.y[rows]


def split_rows(
    x: Tensor,
    y: Tensor,
    *,
    test_share: float,
    batch_size: int,
    standardise_targets: bool = False,
) -> Rows:
    """Rows whose inputs have mean 0 and deviation 1 over the training set.

    Args:
        x: inputs, shape (N, features). A feature that never varies in training becomes 0.
        y: targets, shape (N,).
        test_share: part of the rows that is kept for testing, drawn at random.
        batch_size: rows of a training batch.
        standardise_targets: treat the targets as the inputs.
    """
    order = torch.randperm(
        len(x), generator=torch.Generator().manual_seed(SPLIT_SEED), device="cpu"
    )
    tests = round(test_share * len(x))
    test, train = order[:tests], order[tests:]
    x = standardised(x, train)
    y = standardised(y, train) if standardise_targets else y
    return Rows(x[train], y[train], x[test], y[test], batch_size)


def standardised(x: Tensor, train: Tensor) -> Tensor:
    """All rows, shifted and scaled so that the training rows have mean 0 and deviation 1."""
    deviation, mean = torch.std_mean(x[train], dim=0)
    result = (x - mean) / torch.where(deviation > 0, deviation, 1.0)
    return torch.where(deviation > 0, result, 0.0)


def classification(
    name: str,
    model: Callable[[], nn.Module],
    rows: Rows,
    *,
    target: float,
    steps: int,
    description: str,
) -> Task:
    """The task of putting rows into classes: trained with cross entropy, decided by accuracy.

    Args:
        name: see :class:`Task`.
        model: see :class:`Task`; it gives logits of shape (rows, classes).
        rows: inputs and classes.
        target: the accuracy to reach.
        steps: see :class:`Task`.
        description: see :class:`Task`.
    """
    return Task(
        name=name,
        model=model,
        batches=rows.batches,
        loss=lambda model, batch: losses.cross_entropy(model(batch[0]), batch[1]),
        score=lambda model, batch: accuracy(model(batch[0]), batch[1]),
        metric="accuracy",
        target=target,
        steps=steps,
        description=description,
        torch_loss=lambda model, batch: cross_entropy(model(batch[0]), batch[1]),
        loss_name="cross_entropy",
    )


def accuracy(logits: Tensor, classes: Tensor) -> Tensor:
    """The share of rows whose greatest logit is that of their class.

    >>> accuracy(torch.tensor([[1.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1]))
    tensor(0.5000, dtype=torch.float64)
    """
    return (logits.argmax(dim=-1) == classes).double().mean()
