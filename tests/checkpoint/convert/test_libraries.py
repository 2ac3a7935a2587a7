"""Trained with a library, converted, and trained on: the same as training on with that library.

Where a library's rule has another form of eps (HeavyBall's is a floor, optimi's RAdam adds it to
the debiased root), it is small enough here not to matter in float32.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.checkpoint.convert.libraries import (
    LATE,
    MORE,
    NEVER,
    OPTIM,
    STEPS,
    Case,
    copies,
    gradients,
    grouped,
    installed,
    start,
    their_class,
    train,
)
from thalweg.checkpoint.convert import OTHERS, convert
from thalweg.checkpoint.convert.library import Library
from thalweg.checkpoint.convert.torch_optim import WAYS

ROOT = Path(__file__).parents[3]
FLOAT32 = dict(rtol=2e-5, atol=2e-6)  # two float32 forms of one formula, over 20 steps

CASES = [
    Case("optimi", "SGD", "SGD", dict(lr=0.1), dict(lr=0.1)),
    Case("optimi", "SGD", "SGD", dict(lr=0.1, momentum=0.9), dict(lr=0.1, momentum=0.9)),
    Case(
        *("optimi", "SGD", "SGD"),
        dict(lr=0.1, momentum=0.9, dampening=True, torch_init=True, weight_decay=0.1),
        dict(lr=0.1, momentum=0.9, dampening=0.9, weight_decay=0.1),
    ),
    Case("optimi", "Adam", "Adam", dict(lr=0.01), dict(lr=0.01, betas=(0.9, 0.99), eps=1e-6)),
    Case(
        *("optimi", "Adam", "Adam"),
        dict(lr=0.01, weight_decay=0.1, betas=(0.8, 0.95)),
        dict(lr=0.01, weight_decay=0.1, betas=(0.8, 0.95), eps=1e-6),
    ),
    Case(
        *("optimi", "Adam", "Adam"),
        dict(lr=0.01, weight_decay=0.1, decouple_wd=True),
        dict(
            **dict(lr=0.01, weight_decay=0.1, decoupled_weight_decay=True),
            **dict(betas=(0.9, 0.99), eps=1e-6),
        ),
    ),
    Case(
        *("optimi", "Adam", "AdamW"),
        dict(lr=0.01, weight_decay=0.1, decouple_wd=True),
        dict(lr=0.01, weight_decay=0.1, betas=(0.9, 0.99), eps=1e-6),
    ),
    Case(
        *("optimi", "AdamW", "AdamW"),
        dict(lr=0.01, weight_decay=5e-4, decouple_lr=True, max_lr=0.03),
        dict(lr=0.01, weight_decay=5e-4 / 0.03, betas=(0.9, 0.99), eps=1e-6),
    ),
    Case("optimi", "AdamW", "AdamW", dict(lr=0.01), dict(lr=0.01, betas=(0.9, 0.99), eps=1e-6)),
    Case(
        *("optimi", "RAdam", "RAdam"),
        dict(lr=0.01, betas=(0.9, 0.99), eps=1e-9),
        dict(lr=0.01, betas=(0.9, 0.99), eps=1e-9),
    ),
    Case(
        *("optimi", "RAdam", "RAdam"),
        dict(lr=0.01, betas=(0.9, 0.99), eps=1e-9, weight_decay=0.1, decouple_wd=True),
        dict(
            **dict(lr=0.01, betas=(0.9, 0.99), eps=1e-9, weight_decay=0.1),
            decoupled_weight_decay=True,
        ),
    ),
    Case(
        *("bitsandbytes", "SGD", "SGD"),
        dict(lr=0.1, momentum=0.9, weight_decay=0.1),
        dict(lr=0.1, momentum=0.9, weight_decay=0.1),
    ),
    Case("bitsandbytes", "Adam", "Adam", dict(lr=0.01), dict(lr=0.01)),
    Case(
        *("bitsandbytes", "Adam", "Adam"),
        dict(lr=0.01, weight_decay=0.1),
        dict(lr=0.01, weight_decay=0.1, decoupled_weight_decay=True),
    ),
    Case("bitsandbytes", "AdamW32bit", "AdamW", dict(lr=0.01), dict(lr=0.01)),
    Case("bitsandbytes", "AdamW8bit", "AdamW", dict(lr=0.01), dict(lr=0.01)),  # small: 32-bit
    Case(
        *("bitsandbytes", "RMSprop", "RMSprop"),
        dict(lr=0.01, alpha=0.9, weight_decay=0.1),
        dict(lr=0.01, alpha=0.9, weight_decay=0.1),
    ),
    Case(
        *("bitsandbytes", "Adagrad", "Adagrad"),
        dict(lr=0.1, weight_decay=0.1),
        dict(lr=0.1, weight_decay=0.1),
    ),
    Case("timm", "AdamWLegacy", "AdamW", dict(lr=0.01), dict(lr=0.01)),
    Case(
        *("timm", "AdamWLegacy", "Adam"),
        dict(lr=0.01, amsgrad=True, maximize=True, weight_decay=0.1),
        dict(
            **dict(lr=0.01, amsgrad=True, maximize=True, weight_decay=0.1),
            decoupled_weight_decay=True,
        ),
    ),
    Case(
        *("timm", "AdamWLegacy", "AdamW"),
        dict(lr=0.01, corrected_weight_decay=True, weight_decay=0.0),
        dict(lr=0.01, weight_decay=0.0),
    ),
    Case(
        *("timm", "NAdamLegacy", "NAdam"),
        dict(lr=0.01, weight_decay=0.1, schedule_decay=0.02),
        dict(lr=0.01, weight_decay=0.1, momentum_decay=0.02),
    ),
    Case("timm", "RAdamLegacy", "RAdam", dict(lr=0.01), dict(lr=0.01)),
    Case(
        *("timm", "RAdamLegacy", "RAdam"),
        dict(lr=0.01, weight_decay=0.1),
        dict(lr=0.01, weight_decay=0.1, decoupled_weight_decay=True),
    ),
    Case(
        *("timm", "SGDW", "SGD"),
        dict(lr=0.1, momentum=0.9, nesterov=True),
        dict(lr=0.1, momentum=0.9, nesterov=True),
    ),
    Case(
        *("timm", "SGDW", "SGD"),
        dict(lr=0.1, momentum=0.9, dampening=0.3, maximize=True),
        dict(lr=0.1, momentum=0.9, dampening=0.3, maximize=True),
    ),
    Case("timm", "Adamax", "Adamax", dict(lr=0.01), dict(lr=0.01)),  # torch's own
    Case("heavyball", "SGD", "SGD", dict(lr=0.1, beta=0.8), dict(lr=0.1, momentum=0.8)),
    Case(
        *("heavyball", "AdamW", "AdamW"),
        dict(lr=0.01, weight_decay=0.1),
        dict(lr=0.01, weight_decay=0.1, betas=(0.9, 0.99)),
    ),
    Case(
        *("heavyball", "AdamW", "Adam"),
        dict(lr=0.01, weight_decay=0.1),
        dict(lr=0.01, weight_decay=0.1, betas=(0.9, 0.99), decoupled_weight_decay=True),
    ),
    Case(
        *("heavyball", "NAdam", "NAdam"),
        dict(lr=0.01, betas=(0.8, 0.95), momentum_decay=0.02),
        dict(lr=0.01, betas=(0.8, 0.95), momentum_decay=0.02),
    ),
    Case(
        *("heavyball", "NAdam", "NAdam"),
        dict(lr=0.01, weight_decay=0.1, decoupled_weight_decay=True),
        dict(lr=0.01, weight_decay=0.1, decoupled_weight_decay=True),
    ),
    Case(  # the warmup is over
        *("heavyball", "AdamW", "AdamW"),
        dict(lr=0.01, warmup_steps=STEPS),
        dict(lr=0.01, weight_decay=0, betas=(0.9, 0.99)),
    ),
    # beta2 ** STEPS is small enough for the missing bias correction not to matter
    Case(
        "heavyball", "RMSprop", "RMSprop", dict(lr=0.01, betas=(0, 0.2)), dict(lr=0.01, alpha=0.2)
    ),
]
# torch's first RAdam looked alike: test_refusals.
AMBIGUOUS = [
    case for case in CASES if case.theirs == "RAdamLegacy" and "weight_decay" in case.options
]
# Counted once for the whole group, so that a parameter that starts late has another bias.
BY_GROUP = ("optimi", "heavyball")


@pytest.mark.parametrize("optim", OPTIM)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_goes_on_as_the_library_would(case: Case, optim: str) -> None:
    """With a parameter that started late, and one that never had a gradient."""
    params = start()
    theirs = case.make(params)
    train(theirs, params, gradients(STEPS), without=(NEVER,), late=LATE)
    own = copies(params)
    ours = getattr(OPTIM[optim], case.ours)(grouped(own), **case.our_defaults())
    saved = copy.deepcopy(theirs.state_dict())  # as from a file: torch's optimizers take no copy
    before = copy.deepcopy(saved)

    converted = convert(saved, ours, source=case.library)
    if case not in AMBIGUOUS:
        assert shown(convert(saved, ours)) == shown(converted)
    ours.load_state_dict(converted)

    assert shown(saved) == shown(before)
    assert [group["lr"] for group in ours.param_groups] == [case.options["lr"], 0.02]
    for group in ours.param_groups:
        for name, value in {k: v for k, v in case.same.items() if k != "lr"}.items():
            assert group[name] == pytest.approx(value), name
    train(theirs, params, gradients(MORE, seed=1), without=(NEVER,))
    train(ours, own, gradients(MORE, seed=1), without=(NEVER,))
    for mine, other in zip(own, params, strict=True):
        torch.testing.assert_close(mine, other, **FLOAT32)


def shown(state_dict: Any) -> str:
    with torch._tensor_str.printoptions(precision=9, threshold=10**6):
        return repr(state_dict)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_states_are_what_ours_would_be(case: Case) -> None:
    """Against ours in float64, trained with the same gradients from the same start."""
    params, own = start(), start(torch.float64)
    theirs = case.make(params)
    ours = getattr(OPTIM["thalweg"], case.ours)(grouped(own), **case.same)
    late = None if case.library in BY_GROUP else LATE
    for optimizer, those in ((theirs, params), (ours, own)):
        train(optimizer, those, gradients(STEPS), without=(NEVER,), late=late)
    converted = convert(theirs.state_dict(), ours, source=case.library)
    expected = convert(ours.state_dict(), ours)
    assert list(converted["state"]) == list(expected["state"])
    for key, states in expected["state"].items():
        found = converted["state"][key]
        assert found.keys() == states.keys()
        for name, value in states.items():
            # From a parameter on, as sums of its differences from the start: a few roundings.
            torch.testing.assert_close(
                found[name].double(),
                value.double(),
                rtol=1e-4,
                atol=1e-6,
                msg=lambda m, n=name: f"{n}: {m}",
            )


@pytest.mark.parametrize("library", BY_GROUP)
def test_moments_of_late_parameters_are_exact_too(library: str) -> None:
    """The debiased mean of one that started at step 4 is divided by the group's 1 - beta^t."""
    case = Case(library, "AdamW", "AdamW", dict(lr=0.01, betas=(0.9, 0.99), weight_decay=0))
    params, own = start(), start(torch.float64)
    theirs = case.make(params)
    ours = OPTIM["thalweg"].AdamW(grouped(own), betas=(0.9, 0.99), weight_decay=0)
    for optimizer, those in ((theirs, params), (ours, own)):
        train(optimizer, those, gradients(STEPS), late=LATE)
    found = convert(theirs.state_dict(), ours)["state"][LATE]
    for name in ("exp_avg", "exp_avg_sq"):
        torch.testing.assert_close(
            found[name].double(), ours.state[own[LATE]][name], rtol=1e-4, atol=1e-6
        )
    assert found["step"] == STEPS  # the library does not keep the parameter's own count
    assert ours.state[own[LATE]]["step"] == STEPS - 3


def test_gradient_release_counts_by_parameter() -> None:
    case = Case("optimi", "AdamW", "AdamW", dict(lr=0.01, gradient_release=True))
    params = start()[:4]  # optimi asks for the length of a parameter, which a 0-d one has not
    theirs = case.make(params)
    for i, p in enumerate(params):
        for step in gradients(3 + i):
            p.grad = step[i].clone()
            theirs.step(param=p)
    ours = OPTIM["thalweg"].AdamW(grouped(params))
    converted = convert(theirs.state_dict(), ours)
    assert [int(states["step"]) for states in converted["state"].values()] == [3, 4, 5, 6]
    ours.load_state_dict(converted)


def test_before_the_first_step() -> None:
    """Options are converted, and every parameter starts fresh."""
    for case in CASES:
        if "warmup_steps" in case.options:  # refused until it is over
            continue
        params = start()
        theirs = case.make(params)
        ours = getattr(OPTIM["torch"], case.ours)(grouped(copies(params)), **case.our_defaults())
        ours.load_state_dict(convert(theirs.state_dict(), ours, source=case.library))
        assert ours.param_groups[0]["lr"] == case.options["lr"]
        assert ours.param_groups[0].get("weight_decay", 0) == pytest.approx(
            case.same.get("weight_decay", ours.param_groups[0].get("weight_decay", 0))
        )


def test_a_schedule_goes_on() -> None:
    case = Case("bitsandbytes", "AdamW", "AdamW", dict(lr=0.01))
    params = start()
    theirs = case.make(params)
    schedule = torch.optim.lr_scheduler.ExponentialLR(theirs, 0.9)
    train(theirs, params, gradients(1))
    schedule.step()
    ours = OPTIM["thalweg"].AdamW(grouped(copies(params)))
    ours.load_state_dict(convert(theirs.state_dict(), ours))
    assert [group["initial_lr"] for group in ours.param_groups] == [0.01, 0.02]
    assert ours.param_groups[0]["lr"] == pytest.approx(0.009)


def test_names_go_along() -> None:
    model = torch.nn.Linear(3, 2)
    theirs = their_class("timm", "AdamWLegacy")(model.named_parameters())
    model(torch.ones(3)).sum().backward()
    theirs.step()
    ours = OPTIM["thalweg"].AdamW(torch.nn.Linear(3, 2).named_parameters())
    converted = convert(theirs.state_dict(), ours)
    assert converted["param_groups"][0]["param_names"] == ["weight", "bias"]
    ours.load_state_dict(converted)


@pytest.mark.parametrize("library", OTHERS.values(), ids=OTHERS)
def test_every_layout_is_tried_and_tells_all_options(library: Library) -> None:
    tried = {case.ours for case in CASES if case.library == library.name}
    assert set(library.layouts) <= tried
    for name, layout in library.layouts.items():
        ours = getattr(OPTIM["thalweg"], name)(start())
        assert layout.options.keys() == ours.defaults.keys() - WAYS
        assert set(layout.states.values()) <= {*ours.rule.scalar_states, *ours.rule.tensor_states}


def test_bitsandbytes_states_as_older_versions_have_them() -> None:
    params = start()
    theirs = Case("bitsandbytes", "Adam32bit", "Adam").make(params)
    train(theirs, params, gradients(2))
    wrapped = theirs.state_dict()
    flat = {**wrapped, "state": {}}
    for key, states in wrapped["state"].items():
        assert states.keys() == {"step", "__bnb_optimizer_quant_state__"}
        flat["state"][key] = {"step": states["step"], **states["__bnb_optimizer_quant_state__"]}
    ours = OPTIM["thalweg"].Adam(grouped(copies(params)))
    assert shown(convert(flat, ours)) == shown(convert(wrapped, ours))


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
def test_paged_states() -> None:
    params = start()
    theirs = Case("bitsandbytes", "PagedAdamW", "AdamW").make(params)
    train(theirs, params, gradients(2))
    ours = OPTIM["thalweg"].AdamW(grouped(copies(params)))
    ours.load_state_dict(convert(theirs.state_dict(), ours))
    assert ours.step_count == 2


def test_half_precision_states_are_read() -> None:
    params = start()
    case = Case("heavyball", "AdamW", "AdamW", dict(storage_dtype="bfloat16", betas=(0.9, 0.99)))
    theirs = case.make(params)
    train(theirs, params, gradients(1))
    ours = OPTIM["thalweg"].AdamW(grouped(copies(params)))
    found = convert(theirs.state_dict(), ours)["state"][0]["exp_avg"]
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), 0.1 * gradients(1)[0][0], rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("library", OTHERS)
def test_the_documented_version_is_the_one_that_is_tried(library: str) -> None:
    package = installed(library)
    heading = (
        f"({package.version})" if library == package.name else f"({package.name} {package.version})"
    )
    text = (ROOT / "docs" / "convert.md").read_text(encoding="utf-8")
    headings = [line.lower() for line in text.splitlines() if line.startswith("## ")]
    assert f"## {library} {heading}" in headings
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert f"{package.name}=={package.version}" in pins
