"""optimi (torch-optimi): SGD, Adam, AdamW and RAdam.

The moments are debiased: optimi keeps m / (1 - beta^t), with t the step of the whole group, where
ours are m. That factor is taken out, and each parameter gets the group's step; so a continued run
does what optimi's would. Layouts as of optimi 0.3.3.
"""

from collections.abc import Callable
from typing import Any

import torch

from thalweg.checkpoint.convert.library import (
    Entry,
    Group,
    Layout,
    Library,
    Options,
    Saved,
    always,
    same,
)

RUNNING = ("kahan_sum", "foreach", "triton", "gradient_release", "setup", "step")
DECAY = ("decouple_wd", "decouple_lr")


def marked(saved: Saved, target: str) -> bool:
    return {"setup", "kahan_sum"} <= saved.options()


def _step(group: Group, entry: Entry) -> Any:
    # With gradient release each parameter counts for itself.
    return entry["step"] if "step" in entry else group.options["step"]


def _kahan(group: Group) -> str | None:
    for entry in group.entries.values():
        rest = entry.get("kahan_comp")
        if isinstance(rest, torch.Tensor) and rest.dtype != torch.uint8 and rest.any():
            return (
                "kahan_comp holds the part of the low-precision parameters that did not fit in "
                "them, for which there is no place here; add it to the parameters in float32 and "
                "set it to zero first"
            )
    return None


def _left_out(group: Group, name: str) -> bool:
    if name in ("step", "group"):  # gradient release's count, and its way back to the options
        return True
    if name == "exp_avg":  # SGD has one made in any case
        return group.options.get("momentum") == 0
    return name == "kahan_comp"


def _decoupled(options: Options) -> bool:
    return bool(options["decouple_wd"] or options["decouple_lr"])


def _decay(options: Options) -> Any:
    """With decouple_lr the decay is weight_decay at the highest rate and falls with lr."""
    if options["decouple_lr"] and options["weight_decay"]:
        return options["weight_decay"] / options["max_lr"]
    return options["weight_decay"]


def _sgd_decay(group: Group) -> str | None:
    if group.decays() and _decoupled(group.options):
        return "its weight decay acts on the parameter, our SGD's on the gradient"
    return None


def _sgd_start(group: Group) -> str | None:
    o = group.options
    begins = any(key not in group.entries for key in group.params)
    if o.get("momentum") and o.get("dampening") and not o.get("torch_init") and begins:
        return (
            "dampening=True without torch_init damps a parameter's first gradient as well, and "
            "some parameters have had none yet; take a step with gradients for all first"
        )
    return None


def _adaptive(**more: Callable[[Options], Any]) -> Layout:
    return Layout(
        options={
            **same("lr", "eps"),
            "betas": lambda o: (o["beta1"], o["beta2"]),
            "weight_decay": _decay,
            "decoupled_weight_decay": _decoupled,
            **always(maximize=False),
            **more,
        },
        idle=("beta1", "beta2", *DECAY, *RUNNING),
        states={"exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"},
        unused=_left_out,
        debiased={"exp_avg": lambda o: o["beta1"], "exp_avg_sq": lambda o: o["beta2"]},
        refusals=(_kahan,),
    )


LIBRARY = Library(
    "optimi",
    {
        "SGD": Layout(
            options={
                **same("lr", "momentum", "weight_decay"),
                # Its momentum is then a mean: the new gradient has the weight 1 - momentum.
                "dampening": lambda o: o["momentum"] if o["dampening"] else 0,
                **always(nesterov=False, maximize=False),
            },
            idle=("torch_init", *DECAY, *RUNNING),
            states={"exp_avg": "momentum_buffer"},
            unused=_left_out,
            refusals=(_kahan, _sgd_decay, _sgd_start),
        ),
        "Adam": _adaptive(**always(amsgrad=False)),
        "AdamW": _adaptive(**always(amsgrad=False)),
        "RAdam": _adaptive(),
    },
    marked,
    step=_step,
)
