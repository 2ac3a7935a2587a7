"""State dicts by name: any order, any grouping, renamed, grown, shrunk; exact or reported."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import thalweg.optim as optim
from tests.optim.problems import DENSE, assert_refused, bits, torchs_sparse_warning
from tests.optim.through import through_a_file

NAMES = (*DENSE, "SparseAdam", "LBFGS")
OPTIONS: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9, "lr": 0.01}, "LBFGS": {"lr": 0.1, "max_iter": 3},
    "ASGD": {"t0": 2}, "Adam": {"amsgrad": True},
}  # fmt: skip
BEFORE, AFTER = 4, 4
DTYPES = [torch.float32, torch.bfloat16]

Layers = dict[str, tuple[int, int]]
# Two of the same shape, so that an exchange would go unnoticed but for the numbers.
LAYERS: Layers = {"first": (3, 4), "second": (3, 4), "head": (2, 3)}


class Model:
    """Named parameters, and a loss whose gradient differs for each name."""

    def __init__(
        self, layers: Layers = LAYERS, dtype: torch.dtype = torch.float32, given: Any = None
    ) -> None:
        self.parameters: dict[str, nn.Parameter] = {}
        for layer, shape in layers.items():
            for kind, size in (("weight", shape), ("bias", shape[:1])):
                name = f"{layer}.{kind}"
                start = 0.5 * drawn(name, size) if given is None else given[name]
                self.parameters[name] = nn.Parameter(start.detach().to(dtype).clone())
        self.frozen: tuple[str, ...] = ()

    def gradient(self, step: int) -> float:
        """Set the gradients, towards a target that moves; the loss."""
        loss = 0.0
        for name, p in self.parameters.items():
            own = name.removeprefix("new.")
            pull = p.detach().float() - drawn(own, tuple(p.shape)) * (1 + 0.1 * step)
            loss += float(pull.square().sum() / 2)
            p.grad = None if own.startswith(self.frozen or ("-",)) else pull.to(p.dtype)
        return loss

    def train(self, optimizer: Any, begin: int, end: int) -> None:
        for step in range(begin, end):
            self.gradient(step)
            if isinstance(optimizer, optim.SparseAdam):
                for p in self.parameters.values():
                    p.grad = None if p.grad is None else p.grad.to_sparse()
            if isinstance(optimizer, optim.LBFGS):
                optimizer.step(lambda step=step: self.gradient(step))
            else:
                optimizer.step()

    def values(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self.parameters.items()}

    def pairs(self) -> list[tuple[str, nn.Parameter]]:
        return list(self.parameters.items())


def drawn(name: str, shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    return torch.randn(shape, generator=generator)


def made(name: str, params: Iterable[Any], **more: Any) -> Any:
    return getattr(optim, name)(params, **{**OPTIONS.get(name, {}), **more})


def two_groups(pairs: list[Any]) -> list[dict[str, Any]]:
    return [{"params": pairs[:3]}, {"params": pairs[3:], "lr": 0.02}]


def interrupted(name: str, model: Model, optimizer: Any) -> tuple[Any, dict[str, Tensor]]:
    """Train half way; what is saved then, and go on to the end: the values that must be met."""
    model.train(optimizer, 0, BEFORE)
    saved, values = through_a_file(optimizer.state_dict()), model.values()
    model.train(optimizer, BEFORE, BEFORE + AFTER)
    return saved, values


def assert_reached(name: str, model: Model, expected: Model, names: dict[str, str]) -> None:
    """Bit for bit; with LBFGS, which adds up over all parameters in their order, to rounding."""
    for own, theirs in names.items():
        got, wanted = model.parameters[own].detach(), expected.parameters[theirs].detach()
        if name == "LBFGS" and list(names) != list(expected.parameters):
            tolerance = 1e-5 if got.dtype is torch.float32 else 2e-2
            torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)
        else:
            assert bits(got) == bits(wanted), own


@torchs_sparse_warning
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("named", [False, True], ids=["plain", "named"])
@pytest.mark.parametrize("grouped", [False, True], ids=["one group", "groups"])
@pytest.mark.parametrize("name", NAMES)
def test_continuing_as_it_was(name: str, grouped: bool, named: bool, dtype: torch.dtype) -> None:
    if name == "LBFGS" and grouped:
        pytest.skip("LBFGS has one group")

    def params(model: Model) -> list[Any]:
        pairs = model.pairs() if named else list(model.parameters.values())
        return two_groups(pairs) if grouped else pairs

    whole = Model(dtype=dtype)
    saved, values = interrupted(name, whole, made(name, params(whole)))
    model = Model(dtype=dtype, given=values)
    optimizer = made(name, params(model))
    for group in optimizer.param_groups:
        group["lr"] = 7.0
    report = optimizer.load_state_dict(saved)
    assert report.complete
    assert len(report.loaded) == 6
    model.train(optimizer, BEFORE, BEFORE + AFTER)
    assert_reached(name, model, whole, {name: name for name in whole.parameters})


@torchs_sparse_warning
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_another_order_and_grouping(name: str, dtype: torch.dtype) -> None:
    whole = Model(dtype=dtype)
    saved, values = interrupted(name, whole, made(name, whole.pairs()))
    model = Model(dict(reversed(LAYERS.items())), dtype, values)
    grouped = name != "LBFGS"
    optimizer = made(name, two_groups(model.pairs()) if grouped else model.pairs())
    report = optimizer.load_state_dict(saved)
    assert report.complete
    assert list(report.loaded) == list(model.parameters)
    model.train(optimizer, BEFORE, BEFORE + AFTER)
    assert_reached(name, model, whole, {name: name for name in model.parameters})


@torchs_sparse_warning
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_renamed(name: str, dtype: torch.dtype) -> None:
    whole = Model(dtype=dtype)
    saved, values = interrupted(name, whole, made(name, whole.pairs()))
    new = {name: f"new.{name}" for name in whole.parameters}
    layers = {f"new.{layer}": shape for layer, shape in LAYERS.items()}
    for rename in (new, lambda name: f"new.{name}"):
        model = Model(layers, dtype, {new[k]: v for k, v in values.items()})
        optimizer = made(name, model.pairs())
        assert_refused(optimizer, saved, ("first.weight", "new.first.weight", "rename="))
        assert optimizer.load_state_dict(saved, rename=rename).complete
        model.train(optimizer, BEFORE, BEFORE + AFTER)
        assert_reached(name, model, whole, {v: k for k, v in new.items()})


@torchs_sparse_warning
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("change", ["added", "removed", "both"])
@pytest.mark.parametrize("name", NAMES)
def test_a_layer_added_or_removed(name: str, change: str, dtype: torch.dtype) -> None:
    whole = Model(dtype=dtype)
    saved, values = interrupted(name, whole, made(name, whole.pairs()))
    layers = dict(LAYERS)
    if change != "added":
        del layers["second"]
    if change != "removed":
        layers = {"extra": (3, 4), **layers}
    fresh = {"extra.weight": drawn("extra.weight", (3, 4)), "extra.bias": drawn("extra.bias", (3,))}
    model = Model(layers, dtype, values | fresh)
    optimizer = made(name, model.pairs())
    missing = ("extra.weight", "extra.bias") if change != "removed" else ()
    unexpected = ("second.weight", "second.bias") if change != "added" else ()
    assert_refused(optimizer, saved, (*missing, *unexpected, "strict=False"))

    report = optimizer.load_state_dict(saved, strict=False)
    assert (report.missing, report.unexpected) == (missing, unexpected)
    assert not report.complete
    if name == "LBFGS":  # its history couples all parameters
        assert not optimizer.state.get(model.parameters["head.bias"])
        assert "anew" in str(report)
        return
    # What is new is trained as if from the beginning, beside the rest.
    alone = Model({"extra": (3, 4)}, dtype, fresh)
    beginner = made(name, alone.pairs())
    model.train(optimizer, BEFORE, BEFORE + AFTER)
    alone.train(beginner, BEFORE, BEFORE + AFTER)
    kept = {n: n for n in model.parameters if n not in missing}
    assert_reached(name, model, whole, kept)
    assert_reached(name, model, alone, {n: n for n in missing})


@torchs_sparse_warning
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("named", [False, True], ids=["plain", "named"])
@pytest.mark.parametrize("name", NAMES)
def test_frozen_then_thawed(name: str, named: bool, dtype: torch.dtype) -> None:
    """A layer without gradients before the checkpoint has its first update after it."""

    def params(model: Model) -> list[Any]:
        return model.pairs() if named else list(model.parameters.values())

    whole = Model(dtype=dtype)
    optimizer = made(name, params(whole))
    whole.frozen = ("second",)
    whole.train(optimizer, 0, BEFORE)
    saved, values = through_a_file(optimizer.state_dict()), whole.values()
    whole.frozen = ()
    whole.train(optimizer, BEFORE, BEFORE + AFTER)

    model = Model(dtype=dtype, given=values)
    again = made(name, params(model))
    assert again.load_state_dict(saved).complete
    model.train(again, BEFORE, BEFORE + AFTER)
    assert_reached(name, model, whole, {name: name for name in whole.parameters})


@torchs_sparse_warning
@pytest.mark.parametrize("name", NAMES)
def test_a_frozen_layer_outside_the_optimizer_is_reported_when_it_joins(name: str) -> None:
    whole = Model()
    trained = [(n, p) for n, p in whole.pairs() if not n.startswith("second")]
    optimizer = made(name, trained)
    whole.train(optimizer, 0, BEFORE)
    saved = through_a_file(optimizer.state_dict())
    again = made(name, whole.pairs())
    assert_refused(again, saved, ("second.weight", "second.bias"))
    assert again.load_state_dict(saved, strict=False).missing == ("second.weight", "second.bias")


@torchs_sparse_warning
@pytest.mark.parametrize("name", NAMES)
def test_by_order_every_shape_is_checked_before_anything_changes(name: str) -> None:
    """Without names, two layers of one shape that change places cannot be told from another."""
    whole, model = Model(), Model(dict(reversed(LAYERS.items())))
    optimizer = made(name, list(whole.parameters.values()))
    whole.train(optimizer, 0, BEFORE)
    saved = through_a_file(optimizer.state_dict())
    again = made(name, list(model.parameters.values()))
    if name == "LBFGS":  # torch's format does not tell where one parameter ends: as with torch
        again.load_state_dict(saved)
        return
    assert_refused(again, saved, ("parameter 0", "(3, 4)", "(2, 3)", "parameter 4"))
