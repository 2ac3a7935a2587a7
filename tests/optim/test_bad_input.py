"""What is refused: with torch's exception type, and with nothing changed."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing._internal.common_optimizers import OptimizerErrorEnum

import thalweg.optim as optim
from tests.optim.problems import DATABASE, DENSE, SHARED, snapshot

ALL = (*SHARED, "SparseAdam", "LBFGS")


def parameter(*shape: int) -> Tensor:
    return torch.ones(shape or (2,), requires_grad=True)


def outcome(action: Callable[[], Any]) -> type[BaseException] | None:
    """The type of what is raised; warnings are errors here, and so have one too."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            action()
        except Exception as error:
            return type(error)
    return None


# ------------------------------------------------------------------------- torch's own error inputs


def error_inputs(name: str) -> list[Any]:
    return DATABASE[name].optim_error_inputs_func(device="cpu", dtype=torch.float32)


@pytest.mark.parametrize(
    ("name", "index", "label"),
    [
        (name, i, e.optimizer_error_input.desc)
        for name in ALL
        for i, e in enumerate(error_inputs(name))
    ],
    ids=lambda value: str(value) if not isinstance(value, int) else "",
)
def test_the_databases_error_inputs(name: str, index: int, label: str) -> None:
    def construct(library: Any) -> type[BaseException] | None:
        # Made anew each time: constructors fill in the dicts they are given.
        given = error_inputs(name)[index].optimizer_error_input
        params = given.params  # None, mostly: the options are looked at first
        return outcome(lambda: getattr(library, name)(params, **given.kwargs))

    expected = error_inputs(name)[index]
    assert expected.error_on is OptimizerErrorEnum.CONSTRUCTION_ERROR
    assert construct(torch.optim) is expected.error_type
    assert construct(optim) is expected.error_type


# --------------------------------------------------------------------------------- hyperparameters

BETAS = [(1.0, 0.9), (-0.1, 0.9), (0.9, 1.0), (0.9, -0.1)]
OUT_OF_RANGE: dict[str, dict[str, list[Any]]] = {
    "SGD": {"lr": [-0.1], "momentum": [-0.5], "weight_decay": [-0.1]},
    "Adam": {"lr": [-0.1], "betas": BETAS, "eps": [-1e-8], "weight_decay": [-0.1]},
    "AdamW": {"lr": [-0.1], "betas": BETAS, "eps": [-1e-8], "weight_decay": [-0.1]},
    "SparseAdam": {"lr": [-0.1, 0.0], "betas": BETAS, "eps": [-1e-8, 0.0]},
    "Adamax": {"lr": [-0.1], "betas": BETAS, "eps": [-1e-8], "weight_decay": [-0.1]},
    "NAdam": {"lr": [-0.1], "betas": BETAS, "eps": [-1e-8], "weight_decay": [-0.1],
              "momentum_decay": [-0.1]},
    "RAdam": {"lr": [-0.1], "betas": BETAS, "eps": [-1e-8], "weight_decay": [-0.1]},
    "Adagrad": {"lr": [-0.1], "lr_decay": [-0.1], "weight_decay": [-0.1], "eps": [-1e-10],
                "initial_accumulator_value": [-0.1]},
    "Adadelta": {"lr": [-0.1], "rho": [-0.1, 1.1], "eps": [-1e-6], "weight_decay": [-0.1]},
    "RMSprop": {"lr": [-0.1], "alpha": [-0.1], "eps": [-1e-8], "weight_decay": [-0.1],
                "momentum": [-0.1]},
    "Rprop": {"lr": [-0.1], "etas": [(0.0, 1.2), (1.0, 1.2), (0.5, 1.0), (0.5, 0.9)]},
    "ASGD": {"lr": [-0.1], "weight_decay": [-0.1]},
    "LBFGS": {"lr": [-0.1]},
}  # fmt: skip
INVALID = [
    (name, {option: value})
    for name, options in OUT_OF_RANGE.items()
    for option, values in options.items()
    for value in values
] + [
    ("SGD", {"nesterov": True}),
    ("SGD", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}),
]


@pytest.mark.parametrize(("name", "options"), INVALID, ids=str)
def test_invalid_hyperparameters(name: str, options: dict[str, Any]) -> None:
    assert outcome(lambda: getattr(torch.optim, name)([parameter()], **options)) is ValueError
    with pytest.raises(ValueError, match="|".join(options)) as caught:
        getattr(optim, name)([parameter()], **options)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options"),
    [given for given in INVALID if given[0] != "LBFGS"],  # LBFGS takes one group
    ids=str,
)
def test_invalid_hyperparameters_of_a_group(name: str, options: dict[str, Any]) -> None:
    """torch checks the constructor's only; a group's are as wrong."""
    with pytest.raises(ValueError, match="|".join(options)):
        getattr(optim, name)([{"params": [parameter()], **options}])
    optimizer = getattr(optim, name)([parameter()])
    before = snapshot(optimizer)
    with pytest.raises(ValueError, match="|".join(options)):
        optimizer.add_param_group({"params": [parameter()], **options})
    assert snapshot(optimizer) == before


# Constructor options on which torch's answer, whatever it is, is ours: (options, only for).
MIRRORED: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"lr": float("nan")}, tuple(n for n in ALL if n != "SGD")),
    ({"lr": "fast"}, ALL),
    ({"lr": None}, ALL),
    ({"betas": 0.9}, ("Adam", "AdamW", "SparseAdam", "Adamax", "NAdam", "RAdam")),
    ({"betas": (torch.tensor(0.9), 0.999)}, ("Adam", "AdamW")),
    ({"lr": torch.tensor([0.1, 0.2])}, ALL),
    ({"lr": torch.tensor([0.1])}, ALL),
    ({"lr": torch.tensor(0.1), "foreach": True}, ("Adam", "AdamW")),
    ({"no_such_option": 1}, ALL),
    ({"learning_rate": 0.1}, ALL),
    ({"lr": 0}, tuple(n for n in ALL if n != "SparseAdam")),
    ({"lr": 1}, ALL),
    ({"fused": True, "foreach": True}, ("SGD", "Adam", "AdamW", "Adagrad")),
    ({"fused": True, "differentiable": True}, ("SGD", "Adam", "AdamW", "Adagrad")),
]


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, options) for options, names in MIRRORED for name in names],
    ids=lambda v: v if isinstance(v, str) else str(v),
)
def test_constructors_answer_as_torchs(name: str, options: dict[str, Any]) -> None:
    def answer(library: Any) -> type[BaseException] | None:
        return outcome(lambda: getattr(library, name)([parameter()], **options))

    assert answer(optim) is answer(torch.optim)


def test_tensor_betas_have_one_element() -> None:
    """torch means to say so, but compares before it counts and fails with another error."""
    with pytest.raises(ValueError, match=r"betas\[0\].*1-element"):
        optim.Adam([parameter()], betas=(torch.tensor([0.9, 0.8]), torch.tensor(0.999)))


@pytest.mark.parametrize("flag", ["foreach", "differentiable"])
@pytest.mark.parametrize("name", DENSE)
def test_fused_excludes_other_implementations(name: str, flag: str) -> None:
    with pytest.raises(RuntimeError, match=flag):
        getattr(optim, name)([parameter()], fused=True, **{flag: True})


@pytest.mark.parametrize("name", ALL)
def test_signatures_are_torchs(name: str) -> None:
    """Names, order, kinds and defaults; ``fused`` where torch has none, and the extras last."""

    def arguments(library: Any) -> list[tuple[str, Any, Any]]:
        found = inspect.signature(getattr(library, name)).parameters.values()
        return [(p.name, p.kind, p.default) for p in found]

    ours, theirs = arguments(optim), arguments(torch.optim)
    assert [a for a in ours if a in theirs] == theirs
    assert {a[0] for a in ours if a not in theirs} <= {"fused", "extras"}
    assert ours[-1][:2] == ("extras", inspect.Parameter.VAR_KEYWORD)


# -------------------------------------------------------------------------------------- parameters


def non_leaf() -> Tensor:
    return parameter() * 2


P = parameter()
PARAMS: dict[str, tuple[Callable[[], Any], type[BaseException] | None]] = {
    "nothing": (lambda: [], ValueError),
    "an empty iterator": (lambda: iter(()), ValueError),
    "a tensor": (parameter, TypeError),
    "numbers": (lambda: [1.0, 2.0], TypeError),
    "None": (lambda: [None], TypeError),
    "a set in a group": (lambda: [{"params": {parameter()}}], TypeError),
    "a non-leaf": (lambda: [non_leaf()], ValueError),
    "a non-leaf second": (lambda: [parameter(), non_leaf()], ValueError),
    "twice": (lambda: [P, P], UserWarning),
    "twice in a group": (lambda: [{"params": [P, P]}], UserWarning),
    "in two groups": (lambda: [{"params": [P]}, {"params": [P]}], ValueError),
    "a name missing": (lambda: [("a", parameter()), parameter()], ValueError),
    "a group without names": (
        lambda: [{"params": [("a", parameter())]}, {"params": [parameter()]}],
        ValueError,
    ),
    "a generator": (lambda: (parameter() for _ in range(2)), None),
    "a group of one tensor": (lambda: [{"params": parameter()}], None),
    "an empty group": (lambda: [{"params": []}], None),
    "names": (lambda: [("a", parameter()), ("b", parameter())], None),
    "an extra key": (lambda: [{"params": [parameter()], "note": "mine"}], None),
    "no gradient needed": (lambda: [torch.ones(2)], None),
}


@pytest.mark.parametrize("name", [n for n in ALL if n != "LBFGS"])
@pytest.mark.parametrize("label", PARAMS)
def test_parameters_answer_as_torchs(name: str, label: str) -> None:
    make, expected = PARAMS[label]
    assert outcome(lambda: getattr(torch.optim, name)(make())) is expected
    assert outcome(lambda: getattr(optim, name)(make())) is expected


@pytest.mark.parametrize("name", ["SGD", "Adam", "SparseAdam"])
def test_a_set_of_parameters_is_refused(name: str) -> None:
    """Its order changes between runs. torch only sees this inside a group, not at the top."""
    with pytest.raises(TypeError, match="order"):
        getattr(optim, name)({parameter()})


ADDED: dict[str, tuple[Any, type[BaseException]]] = {
    "not a dict": (lambda: [parameter()], TypeError),
    "a set": (lambda: {"params": {parameter()}}, TypeError),
    "a number": (lambda: {"params": [1.0]}, TypeError),
    "a non-leaf": (lambda: {"params": [parameter(), non_leaf()]}, ValueError),
    "one that is there": (lambda: {"params": [P]}, ValueError),
    "names": (lambda: {"params": [("a", parameter())]}, ValueError),
}


@pytest.mark.parametrize("label", ADDED)
def test_a_refused_group_is_not_added(label: str) -> None:
    make, expected = ADDED[label]
    reference, optimizer = torch.optim.Adam([P]), optim.Adam([P])
    assert outcome(lambda: reference.add_param_group(make())) is expected
    before = snapshot(optimizer)
    with pytest.raises(expected):
        optimizer.add_param_group(make())
    assert snapshot(optimizer) == before


def test_a_group_without_params_is_refused() -> None:
    optimizer = optim.Adam([P])
    before = snapshot(optimizer)
    with pytest.raises((KeyError, ValueError), match="params"):
        optimizer.add_param_group({"lr": 0.1})
    assert snapshot(optimizer) == before


MISSPELT = [
    ("Adam", "weight_deacy", "weight_decay"),
    ("Adam", "beta", "betas"),
    ("AdamW", "amsgard", "amsgrad"),
    ("SGD", "momentun", "momentum"),
    ("SGD", "nestrov", "nesterov"),
    ("Rprop", "step_size", "step_sizes"),
    ("RMSprop", "alhpa", "alpha"),
    ("ASGD", "lamda", "lambd"),
]


@pytest.mark.parametrize(("name", "wrong", "right"), MISSPELT)
def test_a_misspelt_option_of_a_group_suggests_the_right_one(
    name: str, wrong: str, right: str
) -> None:
    """torch keeps it without a word, and without an effect."""
    optimizer = getattr(optim, name)([P])
    before = snapshot(optimizer)
    with pytest.raises((TypeError, ValueError), match=rf"{wrong}.*\b{right}\b"):
        optimizer.add_param_group({"params": [parameter()], wrong: 0.5})
    assert snapshot(optimizer) == before
    with pytest.raises((TypeError, ValueError), match=rf"{wrong}.*\b{right}\b"):
        getattr(optim, name)([{"params": [parameter()], wrong: 0.5}])


@pytest.mark.parametrize("key", ["lr_mult", "weight_decay_mult", "moment", "betas_end"])
def test_own_keys_of_a_group_are_kept(key: str) -> None:
    group = {"params": [parameter()], key: 0.5}
    optimizer = optim.SGD([group])
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.param_groups[0][key] == 0.5


# ------------------------------------------------------------------------------------------- steps


def spoilt(spoil: Callable[[Any], None], **options: Any) -> Any:
    """Adam with a step behind it and good gradients, then spoilt."""
    parameters = [parameter(2), parameter(3)]
    optimizer = optim.Adam([{"params": [parameters[0]]}, {"params": [parameters[1]]}], **options)
    for p in parameters:
        p.grad = torch.ones_like(p)
    optimizer.step()
    spoil(optimizer)
    return optimizer


def set_option(key: str, value: Any) -> Callable[[Any], None]:
    return lambda optimizer: optimizer.param_groups[1].__setitem__(key, value)


def sparse(optimizer: Any) -> None:
    optimizer.param_groups[1]["params"][0].grad = torch.ones(3).to_sparse()


STEPS: dict[str, tuple[Callable[[Any], None], tuple[type[Exception], ...]]] = {
    "a sparse gradient": (sparse, (RuntimeError,)),
    "lr a string": (set_option("lr", "fast"), (TypeError, ValueError)),
    "lr None": (set_option("lr", None), (TypeError, ValueError)),
    "betas a number": (set_option("betas", 0.9), (TypeError, ValueError)),
    "no lr": (lambda o: o.param_groups[1].pop("lr"), (KeyError, ValueError)),
}


@pytest.mark.parametrize("fused", [None, False], ids=["kernel", "eager"])
@pytest.mark.parametrize("label", STEPS)
def test_a_failing_step_changes_nothing(label: str, fused: bool | None) -> None:
    spoil, expected = STEPS[label]
    optimizer = spoilt(spoil, fused=fused)
    before = snapshot(optimizer)
    with pytest.raises(expected):
        optimizer.step()
    assert snapshot(optimizer) == before


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool], ids=str)
@pytest.mark.parametrize("name", DENSE)
def test_integer_parameters_fail_at_the_step(name: str, dtype: torch.dtype) -> None:
    """torch constructs and fails while updating, with a RuntimeError (or a subclass of it)."""
    good, bad = torch.ones(2), torch.ones(2, dtype=dtype)
    optimizer = getattr(optim, name)([good, bad])
    good.grad, bad.grad = torch.ones(2), torch.ones(2, dtype=dtype)
    before = snapshot(optimizer)
    with pytest.raises(RuntimeError):
        optimizer.step()
    assert snapshot(optimizer) == before


def test_fused_says_why_there_is_no_kernel() -> None:
    """``fused=True`` is a demand, never quietly dropped."""
    p = torch.ones(2, device="meta", requires_grad=True)

    def step() -> None:
        optimizer = optim.Adam([p], fused=True)
        p.grad = torch.ones(2, device="meta")
        optimizer.step()

    with pytest.raises(RuntimeError, match=r"meta"):
        step()


def test_meta_parameters_step_without_a_kernel() -> None:
    p = torch.ones(3, 2, device="meta", requires_grad=True)
    optimizer = optim.Adam([p])
    p.grad = torch.ones(3, 2, device="meta")
    optimizer.step()
    assert optimizer.state[p]["exp_avg"].is_meta
    assert optimizer.state[p]["exp_avg"].shape == p.shape


@pytest.mark.parametrize("where", ["closure", "pre hook"])
def test_an_exception_of_the_callers_passes_through(where: str) -> None:
    class MineError(Exception):
        pass

    def fail(*_: Any) -> None:
        raise MineError

    optimizer = spoilt(lambda o: None)
    before = snapshot(optimizer)
    closure = fail if where == "closure" else None
    if where == "pre hook":
        optimizer.register_step_pre_hook(fail)
    with pytest.raises(MineError):
        optimizer.step(closure)
    assert snapshot(optimizer) == before
