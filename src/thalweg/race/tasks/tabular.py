"""Two tables of measurements and small multilayer perceptrons."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from thalweg import losses
from thalweg.page.extras import needs
from thalweg.race.task import Task
from thalweg.race.tasks.split import classification, split_rows

PENALTY = 0.03

Loss = Callable[[nn.Module, tuple[Tensor, Tensor]], Tensor]


def breast_cancer() -> Task:
    """Benign or malignant, from 30 measurements of cell nuclei; 569 rows, 40% for testing.

    One hidden layer of 32 units. Every measurement is standardised.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed; the message says what to install.

    Source: W. Wolberg, O. Mangasarian, N. Street and W. Street, "Breast Cancer Wisconsin
    (Diagnostic)", UCI Machine Learning Repository, 1993.
    """
    features, classes = needs("sklearn.datasets").load_breast_cancer(return_X_y=True)
    x = torch.tensor(features, dtype=torch.float32, device="cpu")
    rows = split_rows(x, torch.tensor(classes, device="cpu"), test_share=0.4, batch_size=32)
    return classification(
        "breast_cancer",
        lambda: nn.Sequential(nn.Linear(30, 32), nn.ReLU(), nn.Linear(32, 2)),
        rows,
        target=0.97,
        steps=120,
        description=f"569 tumours by 30 measurements, {len(rows.x)} for training in batches of 32; "
        "one hidden layer of 32",
    )


def diabetes() -> Task:
    """How far the disease has gone a year later, from 10 measurements; 442 rows, a quarter to test.

    One hidden layer of 16 units (tanh), full batches. Measurements and target are standardised, so
    that a loss of 1 is that of the mean. In training 0.03 times the sum of squares of all weights
    is added, without which every optimizer soon fits the noise of 332 rows; the test loss, which
    decides, is without it.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed; the message says what to install.

    Source: B. Efron, T. Hastie, I. Johnstone and R. Tibshirani, "Least Angle Regression", Annals of
    Statistics 32 (2004).
    """
    features, values = needs("sklearn.datasets").load_diabetes(return_X_y=True, scaled=False)
    x, y = (torch.tensor(each, dtype=torch.float32, device="cpu") for each in (features, values))
    rows = split_rows(x, y, test_share=0.25, batch_size=len(x), standardise_targets=True)

    def loss_with(function: Callable[[Tensor, Tensor], Tensor]) -> Loss:
        def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
            value = function(model(batch[0]), batch[1])
            return value + PENALTY * squares(model) if model.training else value

        return loss

    return Task(
        name="diabetes",
        model=lambda: nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 1), nn.Flatten(0)),
        batches=rows.batches,
        loss=loss_with(losses.mse_loss),
        target=0.495,
        steps=100,
        description=f"442 patients by 10 measurements, {len(rows.x)} for training in one batch; "
        "regression, one hidden layer of 16",
        torch_loss=loss_with(mse_loss),
        loss_name="mse_loss",
    )


def squares(model: nn.Module) -> Tensor:
    """The sum of the squares of all weights."""
    return torch.cat([p.flatten() for p in model.parameters()]).square().sum()
