"""What cannot be converted is refused, with the reason, and nothing is changed."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

import thalweg
from tests.checkpoint.convert.libraries import (
    OPTIM,
    Case,
    gradients,
    grouped,
    start,
    their_class,
    train,
)
from thalweg.checkpoint.convert import convert

# Library, its optimizer, options, ours, and words of the reason.
REFUSED: list[tuple[str, str, dict[str, Any], str, str]] = [
    ("optimi", "SGD", dict(lr=0.1, weight_decay=0.1, decouple_wd=True), "SGD", "on the parameter"),
    ("optimi", "SGD", dict(lr=0.1, momentum=0.9, dampening=True), "SGD", "first gradient as well"),
    ("optimi", "Adam", dict(lr=0.1, weight_decay=0.1), "AdamW", "convert to Adam"),
    ("optimi", "Adam", dict(lr=0.1), "SGD", "lacks the option 'momentum'"),
    ("optimi", "Lion", dict(lr=0.1), "AdamW", "lacks the option 'eps'"),
    ("optimi", "StableAdamW", dict(lr=0.1), "AdamW", "'decouple_wd'"),
    ("optimi", "Ranger", dict(lr=0.1), "RAdam", "the option 'k'"),
    ("optimi", "SGD", dict(lr=0.1), "RMSprop", "shared with thalweg are SGD, Adam, AdamW, RAdam"),
    (
        "bitsandbytes",
        "Adam8bit",
        dict(min_8bit_size=1),
        "Adam",
        "8-bit codes (qmap1, qmap2, absmax",
    ),
    ("bitsandbytes", "SGD8bit", dict(lr=0.1, momentum=0.9, min_8bit_size=1), "SGD", "8-bit codes"),
    ("bitsandbytes", "LAMB", {}, "Adam", "limited by their norm (LAMB, LARS)"),
    ("bitsandbytes", "LARS", dict(lr=0.1, momentum=0.9), "SGD", "limited by their norm"),
    ("bitsandbytes", "AdEMAMix", {}, "AdamW", "AdEMAMix's"),
    ("bitsandbytes", "Lion", {}, "SGD", "Lion's have a second beta"),
    ("bitsandbytes", "SGD", dict(lr=0.1, momentum=0.9, dampening=0.1), "SGD", "set it to 0"),
    ("bitsandbytes", "SGD", dict(lr=0.1, momentum=0.9), "RMSprop", "eps > 0 and betas=(alpha, 0)"),
    ("bitsandbytes", "SGD", dict(lr=0.1, momentum=0.9), "Adagrad", "if it is an Adagrad's"),
    ("bitsandbytes", "RMSprop", {}, "SGD", "eps=0 and betas=(momentum, 0)"),
    ("bitsandbytes", "RMSprop", dict(momentum=0.9), "RMSprop", "no effect in bitsandbytes"),
    ("bitsandbytes", "Adagrad", {}, "RMSprop", "eps > 0 and betas=(alpha, 0)"),
    ("bitsandbytes", "Adagrad", {}, "SGD", "eps=1e-10"),
    ("bitsandbytes", "SGD", dict(lr=0.1, momentum=0.9), "Adam", "lacks exp_avg_sq"),
    ("bitsandbytes", "Adam", {}, "NAdam", "no optimizer there has the rule of NAdam"),
    ("timm", "AdamWLegacy", dict(caution=True), "AdamW", "caution=True"),
    ("timm", "AdamWLegacy", dict(clipping_threshold=1.0), "AdamW", "clipping_threshold=1.0"),
    ("timm", "AdamWLegacy", dict(corrected_weight_decay=True), "AdamW", "lr squared"),
    ("timm", "NAdamW", {}, "AdamW", "timm's NAdamW"),
    ("timm", "NAdamW", {}, "NAdam", "timm's NAdamW"),
    ("timm", "RMSpropTF", {}, "RMSprop", "eps inside the root"),
    ("timm", "SGDW", dict(momentum=0.9, weight_decay=0.1), "SGD", "SGDW's weight decay"),
    ("timm", "SGDW", dict(momentum=0.9, caution=True), "SGD", "caution=True"),
    ("timm", "Lamb", {}, "AdamW", "lacks the option 'amsgrad'"),
    ("heavyball", "SGD", dict(weight_decay=0.1), "SGD", "weight decay acts on the parameter"),
    ("heavyball", "NAdam", dict(weight_decay=0.1), "NAdam", "off the update again"),
    ("heavyball", "RMSprop", {}, "RMSprop", "convert once betas[1]**step is below 0.001"),
    ("heavyball", "RMSprop", dict(betas=(0, 0.1), weight_decay=1.0), "RMSprop", "acts on the para"),
    ("heavyball", "AdamW", dict(warmup_steps=100), "AdamW", "of which 4 are done"),
    ("heavyball", "AdamW", dict(caution=True), "AdamW", "caution=True"),
    *(
        ("heavyball", name, dict(update_clipping="trust_region_clip_"), name, "update_clipping")
        for name in ("AdamW", "NAdam")
    ),
    ("heavyball", "AdamW", dict(mars=True), "AdamW", "MARS"),
    ("heavyball", "AdamW", dict(palm=True), "AdamW", "palm=True"),
    ("heavyball", "AdamW", dict(ecc="bf16+8"), "AdamW", "two parts of low precision"),
    ("heavyball", "AdamW", dict(param_ecc="bf16+8"), "AdamW", "param_ecc"),
    (
        *("heavyball", "AdamW", dict(cautious_weight_decay=True, weight_decay=0.1)),
        *("AdamW", "cautious_weight_decay=True"),
    ),
    ("heavyball", "SFAdamW", {}, "AdamW", "has the option"),
    ("heavyball", "LaProp", {}, "AdamW", "'update_by_laprop_exp_avg'"),
    ("heavyball", "AdamW", {}, "NAdam", "lacks the option 'momentum_decay'"),
    ("heavyball", "AdamW", {}, "Adamax", "no optimizer there has the rule of Adamax"),
]


@pytest.mark.parametrize(
    ("library", "theirs", "options", "ours", "reason"),
    REFUSED,
    ids=lambda x: str(x).replace(" ", "") if isinstance(x, (str, dict)) else None,
)
def test_refused_with_the_reason(
    library: str, theirs: str, options: dict[str, Any], ours: str, reason: str
) -> None:
    params = start()
    if options.get("param_ecc"):
        params = [torch.nn.Parameter(p.detach().bfloat16()) for p in params]
    optimizer = Case(library, theirs, ours, options).make(params)
    train(optimizer, params, gradients(4), without=(3,))
    to = getattr(OPTIM["thalweg"], ours)(grouped(start()))
    with pytest.raises(ValueError, match="convert: ") as error:
        convert(optimizer.state_dict(), to, source=library)
    assert reason in str(error.value)
    assert library in str(error.value) or "lacks the option" in str(error.value)


def test_dampening_without_torchs_start_is_taken_once_all_have_begun() -> None:
    params = start()
    case = Case("optimi", "SGD", "SGD", dict(lr=0.1, momentum=0.9, dampening=True))
    optimizer = case.make(params)
    train(optimizer, params, gradients(2))
    to = thalweg.optim.SGD(grouped(start()))
    to.load_state_dict(convert(optimizer.state_dict(), to))
    assert to.param_groups[0]["dampening"] == 0.9


def test_what_low_precision_parameters_left_over() -> None:
    """optimi's Kahan sums: refused while there is something in them."""
    params = [torch.nn.Parameter(torch.ones(300, dtype=torch.bfloat16))]
    theirs = their_class("optimi", "AdamW")(params, lr=1e-4)
    params[0].grad = torch.ones_like(params[0])
    theirs.step()
    to = thalweg.optim.AdamW([torch.nn.Parameter(torch.ones(300, dtype=torch.bfloat16))])
    with pytest.raises(ValueError, match="kahan_comp holds the part"):
        convert(theirs.state_dict(), to)
    theirs.state[params[0]]["kahan_comp"].zero_()
    to.load_state_dict(convert(theirs.state_dict(), to))
    assert to.state[to.param_groups[0]["params"][0]]["exp_avg"].dtype == torch.bfloat16


def of(optimizer: type[torch.optim.Optimizer], **options: Any) -> dict[str, Any]:
    params = start()
    made = optimizer(grouped(params), **options)
    train(made, params, gradients(2))
    return made.state_dict()


def adamw() -> thalweg.optim.AdamW:
    return thalweg.optim.AdamW(grouped(start()))


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        (lambda sd: 3, TypeError, "must be a dict, got int"),
        (lambda sd: {}, ValueError, "has no 'state'; it has nothing"),
        (lambda sd: {"wrapped": sd}, ValueError, "it has 'wrapped'"),
        (lambda sd: {**sd, "param_groups": [3]}, ValueError, "group 0 must be a dict"),
        (lambda sd: {**sd, "state": {9: {}}}, ValueError, "for parameter 9, which no group"),
        (lambda sd: {**sd, "state": {0: 3}}, TypeError, "state of parameter 0 must be a dict"),
    ],
)
def test_no_state_dict(change: Callable[[Any], Any], error: type[Exception], reason: str) -> None:
    saved = of(torch.optim.AdamW)
    with pytest.raises(error, match=reason):
        convert(change(saved), adamw())


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("exp_avg", torch.zeros(3, 4, dtype=torch.uint8), "is torch.uint8, a quantized"),
        ("exp_avg", torch.zeros(3, 4).to(torch.float8_e4m3fn), "float8_e4m3fn, a quantized"),
        ("exp_avg", 3.0, "must be a tensor, got float"),
        ("step", torch.tensor(-1.0), "'step' must be a number of updates, got tensor"),
        ("step", torch.tensor(1.5), "must be a number of updates"),
        ("step", torch.tensor(float("nan")), "must be a number of updates"),
        ("step", float("inf"), "must be a number of updates"),
        ("step", "three", "must be one number, got 'three'"),
        ("step", torch.ones(2), "must be one number"),
        ("exp_avg", None, "lacks exp_avg"),
        ("momentum", torch.zeros(3, 4), "has the state 'momentum', which AdamW has not there"),
    ],
)
def test_bad_states(name: str, value: Any, reason: str) -> None:
    saved = of(torch.optim.AdamW)
    saved["state"][0][name] = value
    before = copy.deepcopy(saved)
    with pytest.raises(ValueError, match=r"parameter 0 \(group 0\).*" + reason):
        convert(saved, adamw())
    assert repr(saved) == repr(before)


class Packed(torch.Tensor):
    """Says that it is float32, as quantized tensor classes do."""


def test_tensor_classes_of_others() -> None:
    saved = of(torch.optim.AdamW)
    saved["state"][0]["exp_avg"] = torch.zeros(3, 4).as_subclass(Packed)
    with pytest.raises(ValueError, match="is Packed, a quantized or packed form"):
        convert(saved, adamw())


def test_bad_options() -> None:
    saved = of(torch.optim.AdamW)
    saved["param_groups"][0]["lr"] = -1.0
    with pytest.raises(ValueError, match="lr must be >= 0"):
        convert(saved, adamw())
    saved["param_groups"][0] |= {"lr": 1.0, "caution_": True}
    with pytest.raises(ValueError, match="group 0 has the option 'caution_'"):
        convert(saved, adamw())
    del saved["param_groups"][0]["caution_"], saved["param_groups"][0]["eps"]
    with pytest.raises(ValueError, match="group 0 lacks the option 'eps'; it has lr, betas"):
        convert(saved, adamw())


def test_another_optimizers() -> None:
    saved = of(torch.optim.Adam)
    with pytest.raises(ValueError, match="lacks the option 'momentum_decay'"):
        convert(saved, thalweg.optim.NAdam(grouped(start())))
    with pytest.raises(ValueError, match="convert to Adam"):
        convert(of(torch.optim.Adam, weight_decay=0.1), adamw())


def test_no_optimizer_to_convert_to() -> None:
    saved = of(torch.optim.AdamW)
    with pytest.raises(TypeError, match="to must be an optimizer"):
        convert(saved, thalweg.optim.AdamW)  # type: ignore[arg-type]
    muon = torch.optim.Muon([torch.nn.Parameter(torch.ones(2, 2))])
    with pytest.raises(ValueError, match="of the same name, got Muon; there are ADOPT, ASGD"):
        convert(saved, muon)


def test_unknown_source() -> None:
    with pytest.raises(ValueError, match="unknown source 'bitsandbyte'; did you mean bitsandby"):
        convert(of(torch.optim.AdamW), adamw(), source="bitsandbyte")


def test_two_sources_are_possible() -> None:
    """torch's first RAdam and timm's legacy one: the same keys, another weight decay."""
    params = start()
    optimizer = Case("timm", "RAdamLegacy", "RAdam", dict(weight_decay=0.1)).make(params)
    train(optimizer, params, gradients(2))
    saved, to = optimizer.state_dict(), thalweg.optim.RAdam(grouped(start()))
    with pytest.raises(ValueError, match=r"of torch or timm, .* say which: source='torch'"):
        convert(saved, to)
    decoupled = {
        source: convert(saved, to, source=source)["param_groups"][0]["decoupled_weight_decay"]
        for source in ("torch", "timm")
    }
    assert decoupled == {"torch": False, "timm": True}


class Exploding:
    """Raises when it is unpickled."""

    def __reduce__(self) -> Any:
        return (pytest.fail, ("unpickled",))


def test_nothing_is_unpickled() -> None:
    params = start()
    optimizer = Case("heavyball", "AdamW", "AdamW").make(params)
    train(optimizer, params, gradients(2))
    saved = optimizer.state_dict()
    assert isinstance(saved["heavyball"]["precond_schedule"], bytes)
    saved["heavyball"]["precond_schedule"] = pickle.dumps(Exploding())
    to = adamw()
    to.load_state_dict(convert(saved, to))


def test_parts_of_parameters() -> None:
    params = start()
    optimizer = Case("heavyball", "AdamW", "AdamW").make(params)
    train(optimizer, params, gradients(2))
    saved = optimizer.state_dict()
    views = saved["state"][0]
    views[0]["update_by_adam_exp_avg_3"] = views[0]["update_by_adam_exp_avg_0"]
    with pytest.raises(ValueError, match=r"parameter 0: .* for two places in its chain"):
        convert(saved, adamw())
    views[1] = views[0]
    with pytest.raises(ValueError, match="parameter 0: HeavyBall keeps its state for 2 parts"):
        convert(saved, adamw())
