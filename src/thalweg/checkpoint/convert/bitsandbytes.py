"""bitsandbytes: SGD, Adam, AdamW, RMSprop and Adagrad with 32-bit states.

The states are called state1 and state2 whatever they are, and the options betas whatever they mean;
the state dict does not say which optimizer it is of. So ``to`` says it, and what cannot be that
optimizer's is refused. Layouts as of bitsandbytes 0.50.2.
"""

from collections.abc import Callable, Mapping
from typing import Any

from thalweg.checkpoint.convert.library import (
    Entry,
    Group,
    Layout,
    Library,
    Options,
    Refusal,
    Saved,
    always,
    same,
)

# Around the states in a state dict, so that FSDP leaves them alone.
WRAPPED = "__bnb_optimizer_quant_state__"
ONE_STATE = {"lr", "betas", "eps", "weight_decay"}
QUANTIZED = ("qmap1", "qmap2", "max1", "max2", "new_max1", "new_max2", "absmax1", "absmax2")


def marked(saved: Saved, target: str) -> bool:
    """By the states' names; without states, by options that only it calls so."""
    if saved.states() & {WRAPPED, "state1"}:
        return True
    options = saved.options()
    bare = options - {"initial_lr"} == ONE_STATE and target in ("SGD", "RMSprop", "Adagrad")
    return bare or {"t_alpha", "t_beta3"} <= options


def _flat(entry: Entry, place: str) -> Entry:
    flat = {key: value for key, value in entry.items() if key != WRAPPED}
    wrapped = entry.get(WRAPPED, {})
    return {**flat, **wrapped} if isinstance(wrapped, Mapping) else dict(entry)


def _quantized(group: Group) -> str | None:
    for key, entry in group.entries.items():
        found = [name for name in QUANTIZED if name in entry]
        if found:
            return (
                f"the states of parameter {key} are 8-bit codes ({', '.join(found)} belong to "
                "them), which are not read; train with optim_bits=32"
            )
    return None


def _norm(group: Group) -> str | None:
    if any("unorm_vec" in entry for entry in group.entries.values()):
        return "unorm_vec: updates are limited by their norm (LAMB, LARS), which is another rule"
    return None


def _ademamix(group: Group) -> str | None:
    o = group.options
    if len(o["betas"]) != 2 or o.get("alpha") or o.get("t_alpha") or o.get("t_beta3"):
        return "three betas or an alpha are AdEMAMix's, which is another rule"
    return None


def _unless(fits: Callable[[Options], bool], marks: str) -> Refusal:
    """The marks by which one-state optimizers can be told apart."""

    def refusal(group: Group) -> str | None:
        o = group.options
        if fits(o):
            return None
        return f"its options have {marks}; here eps={o['eps']}, betas={o['betas']}"

    return refusal


def _adam() -> Layout:
    return Layout(
        options={
            **same("lr", "betas", "eps", "weight_decay"),
            # So it is for its Adam too.
            **always(decoupled_weight_decay=True, amsgrad=False, maximize=False),
        },
        idle=("alpha", "t_alpha", "t_beta3"),
        states={"state1": "exp_avg", "state2": "exp_avg_sq"},
        refusals=(_quantized, _norm, _ademamix),
    )


def _one_state(
    options: Mapping[str, Callable[[Options], Any]],
    state: str,
    refusal: Refusal,
) -> Layout:
    return Layout(
        options={**same("lr", "weight_decay"), **always(maximize=False), **options},
        idle=("betas", "eps"),
        states={"state1": state},
        refusals=(_quantized, _norm, refusal),
    )


LIBRARY = Library(
    "bitsandbytes",
    {
        "SGD": _one_state(
            {"momentum": lambda o: o["betas"][0], **always(dampening=0, nesterov=False)},
            "momentum_buffer",
            _unless(
                lambda o: o["eps"] == 0 and o["betas"][1] == 0,
                "eps=0 and betas=(momentum, 0) if it is an SGD's (Lion's have a second beta; SGD's "
                "dampening, kept there, has no effect in bitsandbytes: set it to 0)",
            ),
        ),
        "Adam": _adam(),
        "AdamW": _adam(),
        "RMSprop": _one_state(
            {
                **same("eps"),
                "alpha": lambda o: o["betas"][0],
                **always(momentum=0, centered=False),
            },
            "square_avg",
            _unless(
                lambda o: o["eps"] > 0 and o["betas"][0] > 0 and o["betas"][1] == 0,
                "eps > 0 and betas=(alpha, 0) if it is an RMSprop's (a momentum, kept as the "
                "second, has no effect in bitsandbytes: set it to 0)",
            ),
        ),
        "Adagrad": _one_state(
            {**same("eps"), **always(lr_decay=0, initial_accumulator_value=0)},
            "sum",
            _unless(
                lambda o: tuple(o["betas"]) == (0, 0),
                "betas=(0, 0) if it is an Adagrad's",
            ),
        ),
    },
    marked,
    flat=_flat,
)
