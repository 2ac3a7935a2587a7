"""timm.optim: its own Adam, NAdam, RAdam and SGD, older and newer than torch's.

timm hands on torch's classes as well (``timm.optim.AdamW`` is ``torch.optim.AdamW``); their state
dicts are torch's. Layouts as of timm 1.0.31.
"""

from collections.abc import Mapping

from thalweg.checkpoint.convert.library import (
    Group,
    Layout,
    Library,
    Saved,
    always,
    if_decayed,
    same,
    unless_off,
)
from thalweg.checkpoint.convert.torch_optim import WAYS, first_radam
from thalweg.optim.options import GROUP_KEYS

MARKS = {
    *("caution", "corrected_weight_decay", "clipping_threshold", "max_lr_snapshot"),
    *("schedule_decay", "lr_in_momentum"),
}
ADDED = ("caution", "corrected_weight_decay", "max_lr_snapshot", "clipping_threshold")

NADAMW = {"lr", "betas", "eps", "weight_decay", "maximize", *ADDED, *WAYS, *GROUP_KEYS}


def _corrected_decay(group: Group) -> str | None:
    if group.options.get("corrected_weight_decay") and group.decays():
        return "corrected_weight_decay=True: its decay falls with lr squared, ours with lr"
    return None


def _nesterov(group: Group) -> str | None:
    if {"caution", "betas", "capturable"} <= group.options.keys() <= NADAMW:
        return (
            "this is timm's NAdamW (it has no amsgrad), Nesterov's variant without NAdam's "
            "schedule of momentum, which is neither AdamW nor NAdam"
        )
    return None


CHANGED = (
    unless_off("caution", "cautious updates are another rule; set caution=False there first"),
    unless_off("clipping_threshold", "clipped updates are another rule"),
    _corrected_decay,
)

ADAMW = Layout(  # AdamWLegacy
    options={
        **same("lr", "betas", "eps", "weight_decay", "amsgrad", "maximize"),
        **always(decoupled_weight_decay=True),
    },
    idle=(*ADDED, *WAYS),
    states={name: name for name in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")},
    refusals=(_nesterov, *CHANGED),
)
NADAM = Layout(  # NAdamLegacy
    options={
        **same("lr", "betas", "eps", "weight_decay"),
        "momentum_decay": lambda o: o["schedule_decay"],
        **always(decoupled_weight_decay=False, maximize=False),
    },
    idle=("schedule_decay",),
    states={"m_schedule": "mu_product", "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"},
    refusals=(_nesterov,),
)
RADAM = Layout(  # RAdamLegacy: its decay is decoupled, always
    options={
        **same("lr", "betas", "eps", "weight_decay"),
        **always(decoupled_weight_decay=True, maximize=False),
    },
    states={name: name for name in ("exp_avg", "exp_avg_sq")},
)
SGD = Layout(  # SGDW
    options=same(
        *("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize"),
    ),
    idle=(*ADDED, *WAYS),
    states={"momentum_buffer": "momentum_buffer"},
    refusals=(
        *CHANGED,
        if_decayed("SGDW's weight decay acts on the parameter, SGD's on the gradient"),
    ),
)
LAYOUTS: Mapping[str, Layout] = {
    "Adam": ADAMW,
    "AdamW": ADAMW,
    "NAdam": NADAM,
    "RAdam": RADAM,
    "SGD": SGD,
}


def marked(saved: Saved, target: str) -> bool:
    """By options of timm's own; RAdamLegacy has none, and torch's first RAdam looked alike."""
    options = saved.options()
    heavyballs = "is_preconditioning" in options  # whose groups have a caution as well
    return first_radam(saved, target) or (not heavyballs and not MARKS.isdisjoint(options))


LIBRARY = Library(
    "timm",
    LAYOUTS,
    marked,
    refused={
        "RMSprop": "RMSpropTF adds eps inside the root and starts from a mean of ones",
    },
)
