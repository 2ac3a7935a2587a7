"""Warmup, a cosine, and averages of the weights, on the handwritten digits.

    python examples/weight_averaging.py

Needs scikit-learn for the data: pip install "thalweg[race]". Two averages are kept. One is that of
Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", 2018: the rate
ends at a value that still moves the weights, and those at the end of each epoch count alike. The
other is an exponential moving average of every step, which the optimizer carries along. For both,
the statistics of the batch normalizations are measured anew.
"""

from copy import deepcopy

import torch
from torch import nn

import thalweg.optim as optim
from thalweg.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from thalweg.optim.swa_utils import SWALR, AveragedModel, CarriedAverage, update_bn
from thalweg.race import find_task

EPOCHS, WARMUP, SWA_START = 30, 2, 20


def network() -> nn.Module:
    """A small network with batch normalization; the same weights at every call."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU()),
        *(nn.Linear(32, 32), nn.BatchNorm1d(32), nn.ReLU()),
        nn.Linear(32, 10),
    )


def main() -> None:
    """Train, average, and print the rates and the accuracy on images not trained on."""
    torch.set_num_threads(1)  # the layers are too small for more
    task = find_task("digits")
    generator = torch.Generator().manual_seed(0)
    steps = len(list(task.batches("train", torch.Generator())))  # of an epoch
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    schedule = SequentialLR(
        optimizer,
        [
            LinearLR(optimizer, start_factor=0.01, total_iters=WARMUP * steps),
            CosineAnnealingLR(optimizer, T_max=(SWA_START - WARMUP) * steps, eta_min=0.02),
        ],
        milestones=[WARMUP * steps],
    )
    swa_schedule = SWALR(optimizer, swa_lr=0.05, anneal_epochs=2)
    swa = AveragedModel(model)
    ema = CarriedAverage(optimizer, decay=0.99)  # from here on, a part of optimizer.step()

    for epoch in range(EPOCHS):
        rate = optimizer.param_groups[0]["lr"]
        losses = []
        for x, y in task.batches("train", generator):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if epoch < SWA_START:
                schedule.step()
        if epoch >= SWA_START:
            swa.update_parameters(model)
            swa_schedule.step()
        if epoch % 5 == 0 or epoch == EPOCHS - 1:
            mean = sum(losses) / len(losses)
            print(f"epoch {epoch:2}  rate at its start {rate:.4f}  mean loss {mean:.4f}")

    of_steps = deepcopy(model)
    ema.copy_to(of_steps, model)
    images = [x for x, _ in task.batches("train", generator)]
    (tests,) = task.batches("test", generator)
    for name, trained in (
        ("the last weights", model),
        (f"average of {EPOCHS - SWA_START} epochs", swa),
        ("moving average of steps", of_steps),
    ):
        if trained is not model:
            update_bn(images, trained)
        trained.eval()
        with torch.no_grad():
            right = (trained(tests[0]).argmax(dim=1) == tests[1]).double().mean()
        print(f"{name:24} {right:.2%} of the test images")


if __name__ == "__main__":
    main()
