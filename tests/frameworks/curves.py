"""Trains a small network with one framework in several ways, and prints the losses as JSON.

python curves.py lightning | accelerate | transformers
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import thalweg.optim as ours
from thalweg.transforms import clip_by_norm

STEPS, LR, MAX_NORM = 12, 0.05, 0.05
Make = Callable[[Any], torch.optim.Optimizer]


def torchs(params: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=LR, momentum=0.9)


def plain(params: Any) -> torch.optim.Optimizer:
    return ours.SGD(params, lr=LR, momentum=0.9)


def clipping(params: Any) -> torch.optim.Optimizer:
    return ours.SGD(params, lr=LR, momentum=0.9, transforms=[clip_by_norm(MAX_NORM)])


# How each curve is come by: what makes the optimizer, and what the framework clips by.
WAYS: dict[str, tuple[Make, float | None]] = {
    "torch, the framework clips": (torchs, MAX_NORM),
    "torch, nobody clips": (torchs, None),
    "ours, the framework clips": (plain, MAX_NORM),
    "ours clips": (clipping, None),
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))


def data() -> tuple[Tensor, Tensor]:
    x = torch.randn(4 * STEPS, 8, generator=torch.Generator().manual_seed(1))
    return x, (x.sum(1, keepdim=True) * 3).sin() + x[:, :1] * 4


def batches() -> list[tuple[Tensor, Tensor]]:
    return list(zip(*(part.split(4) for part in data()), strict=True))


def with_lightning(make: Make, max_norm: float | None, precision: Any = "32-true") -> list[float]:
    import lightning

    losses: list[float] = []

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, batch: Any, number: int) -> Tensor:
            x, y = batch
            loss = nn.functional.mse_loss(self.net(x), y)
            losses.append(float(loss.detach()))
            return loss

        def configure_optimizers(self) -> Any:
            optimizer = make(self.parameters())
            schedule = torch.optim.lr_scheduler.StepLR(optimizer, 4, gamma=0.5)
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": schedule, "interval": "step"},
            }

    trainer = lightning.Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=max_norm,
        precision=precision,
    )
    trainer.fit(Module(), torch.utils.data.DataLoader(batches(), batch_size=None))
    return losses


def with_accelerate(make: Make, max_norm: float | None) -> list[float]:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = network()
    optimizer = make(model.parameters())
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 4, gamma=0.5)
    loader = torch.utils.data.DataLoader(batches(), batch_size=None)
    model, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)
    losses = []
    for x, y in loader:
        with accelerator.accumulate(model):
            loss = nn.functional.mse_loss(model(x), y)
            losses.append(float(loss.detach()))
            accelerator.backward(loss)
            if accelerator.sync_gradients and max_norm is not None:
                accelerator.clip_grad_norm_(model.parameters(), max_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return losses


def with_transformers(make: Make, max_norm: float | None) -> list[float]:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, x: Tensor, labels: Tensor, **_: Any) -> dict[str, Tensor]:
            return {"loss": nn.functional.mse_loss(self.net(x), labels)}

    losses: list[float] = []

    class Listening(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "loss" in logs:
                losses.append(float(logs["loss"]))

    x, y = data()
    rows = [{"x": a, "labels": b} for a, b in zip(x, y, strict=True)]
    model = Model()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=STEPS,
            per_device_train_batch_size=4,
            learning_rate=LR,
            max_grad_norm=max_norm or 0.0,
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            seed=3,
        )
        optimizer = make(model.parameters())
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 4, gamma=0.5)
        Trainer(
            model=model,
            args=arguments,
            train_dataset=rows,
            optimizers=(optimizer, schedule),
            callbacks=[Listening()],
        ).train()
    return losses


def main(framework: str) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    run = {
        "lightning": with_lightning,
        "accelerate": with_accelerate,
        "transformers": with_transformers,
    }[framework]
    print(json.dumps({how: run(*way) for how, way in WAYS.items()}))


if __name__ == "__main__":
    main(sys.argv[1])
