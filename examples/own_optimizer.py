"""An optimizer of one's own: the rule, its state and its defaults, and it runs as one kernel.

    python examples/own_optimizer.py

The rule is Lion (Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023, Algorithm 2),
with decoupled weight decay. It is fitted to a small regression beside AdamW.
"""

import torch

import thalweg
import thalweg.optim as optim
from thalweg.rule import lerp, sign


@thalweg.optimizer(lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0, states={"exp_avg": 0.0})
def Lion(p, g, s, h):
    update = sign(lerp(s.exp_avg, g, 1 - h.beta1)) + h.weight_decay * p
    s.exp_avg = lerp(s.exp_avg, g, 1 - h.beta2)
    return p - h.lr * update


def main() -> None:
    """Fit both and print the losses and what Lion's step does."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(512, 8, generator=generator)
    y = torch.sin(x.sum(1, keepdim=True))
    for cls, lr in ((Lion, 1e-3), (optim.AdamW, 3e-3)):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1))
        optimizer = cls(model.parameters(), lr=lr)
        for _ in range(500):
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
        print(f"{cls.__name__:6} loss {loss.item():.4f}")
        if cls is Lion:
            print(thalweg.explain(optimizer))


if __name__ == "__main__":
    main()
