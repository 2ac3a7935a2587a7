"""Handwritten digits and a small convolutional network."""

import torch
from torch import nn

from thalweg.page.extras import needs
from thalweg.race.task import Task
from thalweg.race.tasks.split import classification, split_rows


def digits() -> Task:
    """The 1797 handwritten digits of scikit-learn, 8×8 pixels; a quarter of them is for testing.

    Two convolutions of 3×3, to 8 channels and, at every second pixel, to 16, and a linear layer.
    Every pixel is standardised.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed; the message says what to install.

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
    Learning Repository, 1998 (its test part is what scikit-learn has).
    """
    pixels, classes = needs("sklearn.datasets").load_digits(return_X_y=True)
    x = torch.tensor(pixels, dtype=torch.float32, device="cpu")
    rows = split_rows(x, torch.tensor(classes, device="cpu"), test_share=0.25, batch_size=32)
    return classification(
        "digits",
        network,
        rows,
        target=0.97,
        steps=400,
        description=f"1797 handwritten digits of 8×8 pixels, {len(rows.x)} for training in batches "
        "of 32; two convolutions and a linear layer",
    )


def network() -> nn.Module:
    """3818 parameters; takes rows of 64 pixels."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 8, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, kernel_size=3, padding=1, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 10),
    )
