"""What is trained: data, a network and a target."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

TEST_SHARE = 0.25
LAYERS = (48, 48, 48, 10)


@dataclass(frozen=True, eq=False)
class Task:
    """A classification problem and the multilayer perceptron that learns it.

    Attributes:
        name: for tables and files.
        x: training inputs, (N, features).
        y: training classes, (N,), int64.
        test_x: test inputs, (M, features).
        test_y: test classes, (M,), int64.
        layers: widths of the layers after the input, the last one being the number of classes.
        target: the test accuracy to reach, between 0 and 1.
        batch_size: rows of ``x`` per step; an epoch's last batch is smaller if N asks for it.
        seed: of the initial weights and the order of the batches.
    """

    name: str
    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor
    layers: tuple[int, ...]
    target: float = 0.95
    batch_size: int = 32
    seed: int = 0

    def network(self) -> nn.Sequential:
        """The network with its initial weights: the same ones at every call.

        torch's global random state is left as it was.
        """
        widths = (self.x.shape[1], *self.layers)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            parts: list[nn.Module] = []
            for inputs, outputs in pairwise(widths):
                parts += [nn.Linear(inputs, outputs), nn.ReLU()]
        return nn.Sequential(*parts[:-1])  # no ReLU on the logits

    def batches(self, epochs: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of so many epochs, reshuffled for each: the same ones at every call."""
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(epochs):
            order = torch.randperm(len(self.x), generator=generator)
            for rows in torch.split(order, self.batch_size):
                yield self.x[rows], self.y[rows]

    @torch.no_grad()
    def accuracy(self, network: nn.Module) -> float:
        """The share of test rows that the network puts into the right class."""
        guesses = network(self.test_x).argmax(dim=1)
        return float((guesses == self.test_y).double().mean())


def digits(seed: int = 0) -> Task:
    """The 1797 handwritten digits of scikit-learn (8×8 pixels), which need no download.

    A quarter of them, drawn by the seed, is the test set. Pixels are standardised with the
    training set's mean and deviation; those that never vary become 0.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed; the message says what to install.

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
    Learning Repository, 1998 (its test part is what scikit-learn ships).
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'the digits need scikit-learn; install it with: pip install "thalweg[race]"',
            name=error.name,
        ) from error
    pixels, classes = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels, dtype=torch.float32), torch.tensor(classes)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    tests = round(TEST_SHARE * len(x))
    test, train = order[:tests], order[tests:]
    deviation, mean = torch.std_mean(x[train], dim=0)
    x = (x - mean) / torch.where(deviation > 0, deviation, 1.0)
    x[:, deviation == 0] = 0.0
    return Task("digits", x[train], y[train], x[test], y[test], layers=LAYERS, seed=seed)
