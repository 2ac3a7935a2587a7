"""HeavyBall: SGD, AdamW, NAdam and RMSprop.

States lie one level deeper than torch's, by the view of the parameter that they belong to, and are
called by the function that made them and its place in the chain: ``update_by_adam_exp_avg_0``.
Means are debiased as optimi's are, by the step of the whole group. The rest of the state dict,
pickled objects among it, is never looked at. Layouts as of HeavyBall 3.2.1.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch

from thalweg.checkpoint.convert.library import (
    Entry,
    Group,
    Layout,
    Library,
    Refusal,
    Saved,
    always,
    if_decayed,
    same,
    unless_off,
)

IDLE = (
    *("cautious_weight_decay", "warmup_steps", "multi_tensor", "storage_dtype", "caution"),
    *("mars", "mars_gamma", "ecc", "param_ecc", "param_count", "is_preconditioning", "base_lr"),
    *("step_count", "step", "prev_lr", "orig_shapes", "promote", "consume_grad"),
)
PLACE = re.compile(r"_\d+$")  # at the end of a state's name, in the chain
# Up to here the missing bias correction changes a step by less than 0.05 %.
FADED = 1e-3


def marked(saved: Saved, target: str) -> bool:
    return "heavyball" in saved.whole or {"mars_gamma", "is_preconditioning"} <= saved.options()


def _flat(entry: Entry, place: str) -> Entry:
    """The only view's states: ``update_by_adam_exp_avg``, without the place in the chain."""
    if len(entry) != 1 or not isinstance(views := next(iter(entry.values())), Mapping):
        raise ValueError(
            f"convert: {place}: HeavyBall keeps its state for {len(entry)} parts of the parameter "
            f"({', '.join(map(repr, entry))}); only whole parameters' states can be converted"
        )
    flat: dict[str, Any] = {}
    for name, value in views.items():
        if name in ("step", "is_initialized"):
            continue  # the group's count is used; which functions have begun is not
        made = PLACE.sub("", str(name))
        if made in flat:
            raise ValueError(
                f"convert: {place}: HeavyBall keeps {made!r} for two places in its chain of "
                "functions, which is another rule"
            )
        flat[made] = value
    return flat


def _step(group: Group, entry: Entry) -> Any:
    return group.options["step_count"]


def _warming_up(group: Group) -> str | None:
    steps, warmup = float(group.options.get("step_count", 0)), group.options.get("warmup_steps", 0)
    if steps < warmup:
        return (
            f"warmup_steps={warmup}, of which {steps:.0f} are done: lr is still rising inside "
            "the optimizer; train on until they are over, or set warmup_steps=0 and use a "
            "thalweg.schedules warmup"
        )
    return None


def _cautious_decay(group: Group) -> str | None:
    if group.options.get("cautious_weight_decay") and group.decays():
        return "cautious_weight_decay=True: decay where signs agree only is another rule"
    return None


def _scheduled_beta(group: Group) -> str | None:
    if any(isinstance(beta, torch.Tensor) for beta in group.options.get("betas", ())):
        return "betas holds a tensor: with palm=True beta2 changes with the step"
    return None


def _packed(group: Group) -> str | None:
    for key, entry in group.entries.items():
        found = [str(name) for name in entry if "::ecc" in str(name)]
        if found:
            return f"the states of parameter {key} are kept in two parts ({', '.join(found)})"
    return None


def _followed(group: Group) -> str | None:
    for entry in group.entries.values():
        for name in entry:
            if str(name).startswith(("scale_by_adam", "scale_by_nadam")):
                return (
                    f"{name}: the update goes through something more before it reaches the "
                    "parameter (update_clipping), which is another rule"
                )
    return None


CHANGED: tuple[Refusal, ...] = (
    unless_off("ecc", "states in two parts of low precision are not read; train with ecc=None"),
    unless_off("param_ecc", "parameters in two parts are not read; train with param_ecc=None"),
    unless_off("caution", "cautious updates are another rule"),
    unless_off("mars", "gradients corrected by their change (MARS) are another rule"),
    _packed,
    _followed,
    _cautious_decay,
    _scheduled_beta,
    _warming_up,
)


def _debiased_steps(group: Group) -> str | None:
    steps, beta = float(group.options.get("step_count", 0)), float(group.options["betas"][1])
    if group.entries and beta**steps > FADED:
        return (
            "its RMSprop divides by a debiased mean, ours by the mean itself, which is "
            f"{1 - beta**steps:.3f} of it after {steps:.0f} steps: steps would grow by a jump; "
            f"convert once betas[1]**step is below {FADED:g}"
        )
    return None


def _nadam_decay(group: Group) -> str | None:
    if group.decays() and not group.options.get("decoupled_weight_decay"):
        return (
            "decoupled_weight_decay=False: HeavyBall's NAdam takes weight_decay * p off the update "
            "again, ours does not"
        )
    return None


def _not_on_the_gradient(name: str) -> Refusal:
    return if_decayed(
        f"HeavyBall's weight decay acts on the parameter, our {name}'s on the gradient"
    )


ADAMW = Layout(
    options={
        **same("lr", "betas", "eps", "weight_decay"),
        **always(amsgrad=False, maximize=False, decoupled_weight_decay=True),
    },
    idle=("beta2_scale", *IDLE),
    states={"update_by_adam_exp_avg": "exp_avg", "update_by_adam_exp_avg_sq": "exp_avg_sq"},
    debiased={
        "exp_avg": lambda o: o["betas"][0],
        "exp_avg_sq": lambda o: o["betas"][1],
    },
    refusals=CHANGED,
)

LIBRARY = Library(
    "heavyball",
    {
        "SGD": Layout(
            options={
                **same("lr", "weight_decay"),
                "momentum": lambda o: o["beta"],
                **always(dampening=0, nesterov=False, maximize=False),
            },
            idle=("beta", "eps", *IDLE),
            states={"heavyball_momentum_momentum": "momentum_buffer"},
            refusals=(*CHANGED, _not_on_the_gradient("SGD")),
        ),
        "Adam": ADAMW,
        "AdamW": ADAMW,
        "NAdam": Layout(
            options={
                **same("lr", "betas", "eps", "weight_decay", "momentum_decay"),
                **same("decoupled_weight_decay"),
                **always(maximize=False),
            },
            idle=("beta2_scale", *IDLE),
            states={
                "update_by_nadam_mu_product": "mu_product",
                "update_by_nadam_exp_avg": "exp_avg",
                "update_by_nadam_exp_avg_sq": "exp_avg_sq",
            },
            debiased={"exp_avg_sq": lambda o: o["betas"][1]},  # and the first moment is not
            refusals=(*CHANGED, _nadam_decay),
        ),
        "RMSprop": Layout(
            options={
                **same("lr", "eps", "weight_decay"),
                "alpha": lambda o: o["betas"][1],
                **always(momentum=0, centered=False, maximize=False),
            },
            idle=("betas", "r", "weight_lr_power", "beta2_scale", *IDLE),
            states={"scale_by_exp_avg_sq_exp_avg_sq": "square_avg"},
            debiased={"square_avg": lambda o: o["betas"][1]},
            refusals=(*CHANGED, _not_on_the_gradient("RMSprop"), _debiased_steps),
        ),
    },
    marked,
    flat=_flat,
    step=_step,
)
