"""What the catalogue tells of each optimizer is what the optimizer does."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pytest
import torch

from thalweg import optim
from thalweg.optim.catalogue import catalogue, classes, describe, find
from thalweg.optim.optimizer import Optimizer

NAMES = list(classes())


def stepped(name: str, sparse: bool = False, steps: int = 1) -> Optimizer:
    p = torch.nn.Parameter(torch.linspace(1.0, 2.0, 50).reshape(10, 5))
    optimizer = classes()[name]([p])  # type: ignore[call-arg]

    def closure() -> torch.Tensor:
        curvature = torch.linspace(0.01, 3.0, 50).reshape(10, 5)
        p.grad = (curvature * (p + p**3)).detach()
        if sparse:
            p.grad = p.grad.to_sparse(1)
        return (curvature * (p**2 / 2 + p**4 / 4)).sum().detach()

    for _ in range(steps):
        optimizer.step(closure)
    return optimizer


def test_every_optimizer_is_there() -> None:
    exported = {
        name
        for name in optim.__all__
        if inspect.isclass(cls := getattr(optim, name)) and issubclass(cls, torch.optim.Optimizer)
    }
    assert exported - {"Optimizer"} == set(NAMES)
    assert [found.name for found in catalogue()] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_is_in_the_documentation(name: str) -> None:
    page = Path(__file__).parents[2] / "docs/optimizers.md"
    assert f"::: thalweg.optim.{name}\n" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_states_and_their_memory_are_those_of_a_step(name: str) -> None:
    found = describe(classes()[name])
    optimizer = stepped(name, sparse=found.gradients == "sparse")
    ((p, state),) = optimizer.state.items()
    if name == "LBFGS":
        assert set(found.states) <= set(state)
        return
    whole = [key for key, value in state.items() if value.shape == p.shape]
    assert list(found.states) == whole
    assert sorted(found.numbers) == sorted(set(state) - set(whole))
    nbytes = sum(state[key].numel() * state[key].element_size() for key in whole)
    assert found.bytes_per_parameter == nbytes / p.numel()


def test_memory_of_lbfgs_is_that_of_a_full_history() -> None:
    p = torch.nn.Parameter(torch.linspace(1.0, 2.0, 50))
    optimizer = optim.LBFGS([p], history_size=4, max_iter=12, tolerance_change=0)
    curvature = torch.linspace(0.1, 3.0, 50)

    def closure() -> torch.Tensor:
        p.grad = (curvature * (p + p**3)).detach()
        return (curvature * (p**2 / 2 + p**4 / 4)).sum().detach()

    optimizer.step(closure)
    state = optimizer.state[p]
    kept = [state["d"], state["prev_flat_grad"], *state["old_dirs"], *state["old_stps"]]
    assert len(state["old_dirs"]) == 4
    measured = sum(t.numel() * t.element_size() for t in kept) / p.numel()
    assert measured == 4 * 2 * (4 + 1)
    history = inspect.signature(optim.LBFGS).parameters["history_size"].default
    assert describe(optim.LBFGS).bytes_per_parameter == 4 * 2 * (history + 1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_gradients_that_it_takes(name: str, kind: str) -> None:
    takes = kind in describe(classes()[name]).gradients.split(" and ")
    if name == "LBFGS":
        assert takes == (kind == "dense")
        return
    if takes:
        stepped(name, sparse=kind == "sparse")
    else:
        with pytest.raises(RuntimeError, match="does not support"):
            stepped(name, sparse=kind == "sparse")


@pytest.mark.parametrize("name", NAMES)
def test_defaults_are_those_of_the_groups(name: str) -> None:
    cls = classes()[name]
    found = describe(cls)
    group = cls([torch.nn.Parameter(torch.zeros(1))]).param_groups[0]  # type: ignore[call-arg]
    assert found.defaults["lr"] == group["lr"]
    for key, value in found.defaults.items():
        assert group[key] == value or value is None
    assert not {"params", "foreach", "fused", "capturable"} & set(found.defaults)


@pytest.mark.parametrize("name", NAMES)
def test_the_update_is_that_of_explain(name: str) -> None:
    from thalweg import explain

    found = describe(classes()[name])
    if name == "LBFGS":
        assert ("", "d   = -H_m g") in found.update
        return
    text = str(explain(classes()[name]([torch.nn.Parameter(torch.zeros(4))])))  # type: ignore[call-arg]
    lines = [line.strip() for line in text.splitlines()]
    for key, formula in found.update:
        assert any(re.match(rf"{re.escape(key)} += {re.escape(formula)}$", line) for line in lines)
    assert "p'" in dict(found.update)


@pytest.mark.parametrize("name", NAMES)
def test_source_and_summary(name: str) -> None:
    found = describe(classes()[name])
    assert re.search(r"(19|20)\d\d", found.source)  # a year
    assert not found.source.startswith(("Paper", "Source"))
    assert found.summary.endswith(".")
    assert json.loads(json.dumps(found.to_dict()))["name"] == name


def test_find_takes_any_case_and_suggests() -> None:
    assert find("ADAMW") is optim.AdamW
    with pytest.raises(ValueError, match=r"unknown optimizer 'rmsporp'; did you mean RMSprop\?"):
        find("rmsporp")
    with pytest.raises(ValueError, match=r"unknown optimizer 'zzz'\. There are: ADOPT, ASGD"):
        find("zzz")
