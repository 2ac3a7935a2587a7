"""What is wrong with a set-up for training, before it has cost a run: ``thalweg.doctor``.

====================  =============================================================
``setup.py``          the model, optimizer and scheduler that are looked at
``memberships.py``    which parameters are in which group
``settings.py``       weight decay, embeddings, dtypes
``progress.py``       what a step changes; whether the scheduler keeps pace
``finding.py``        one finding, and all of them as text
====================  =============================================================
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from thalweg.diagnosis import memberships, progress, settings
from thalweg.diagnosis.finding import Diagnosis, Finding
from thalweg.diagnosis.setup import Setup

__all__ = ["Diagnosis", "Finding", "doctor"]

Check = Callable[[Setup], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (*memberships.CHECKS, *settings.CHECKS, *progress.CHECKS)


def doctor(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any = None
) -> Diagnosis:
    """Look for what goes wrong in training without a word. Nothing is changed.

    - Parameters that no group holds, that stand in two, that are frozen, or not the model's.
    - Weight decay of biases, norms and embeddings; embeddings given to a rule for matrices.
    - States of 16 bits that nobody asked for; updates too small for the parameters' dtype (asked of
      a copy, where there are gradients).
    - Gradients that are used up in the backward pass, so that a clip after it sees none.
    - A scheduler of another optimizer, or one that runs ahead of the updates.

    Args:
        model: the model.
        optimizer: any optimizer of torch's kind.
        scheduler: its scheduler, if any.

    Returns:
        The findings, each a sentence with what to do; ``healthy`` if none of them is a mistake.

    Raises:
        TypeError: the model is no module, or the optimizer none of torch's kind.

    >>> from thalweg import optim
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2))
    >>> print(doctor(model, optim.AdamW(model[0].parameters(), weight_decay=0.1)))
    wrong: no group holds 2 of 4 trainable parameters (1.weight, 1.bias): they are ...
    note: weight decay of 0.1 acts on 1 bias, norm or embedding (0.bias); ...
    """
    found = Setup(model, optimizer, scheduler)
    return Diagnosis(finding for check in CHECKS for finding in check(found))
