"""State dicts: exchange with torch.optim, copies, and loads that must be refused whole."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import thalweg.optim as optim
from tests.optim.problems import (
    SHARED,
    SHARED_CASES,
    SHARED_FULLEST,
    Case,
    Problem,
    Run,
    advance,
    assert_as_close,
    assert_refused,
    assert_same_layout,
    bits,
    exact_run,
    snapshot,
    start,
    torch_run,
    torchs_sparse_warning,
)
from tests.optim.through import through_a_file

SINGLE = ("Adam-tensor-betas", "RMSprop-centered-alone")
LABELS = ("default", "Tensor-lr", "momentum", "averaging")
EXCHANGED = [
    *SHARED_FULLEST,
    *(case for case in SHARED_CASES if case.label in LABELS),
    *(case for case in SHARED_CASES if str(case) in SINGLE),
]
GIVEN = Problem(torch.float32, seed=4, steps=14)


def handed_over(first: Any, second: Any, case: Case) -> Run:
    """Seven steps with ``first``, seven more with ``second`` from its checkpoint."""
    before = advance(start(first, case, GIVEN, torch.float32), GIVEN, 0, 7)
    # Another lr: the checkpoint's must win.
    after = start(second, case, GIVEN, torch.float32, lr=0.123)
    with torch.no_grad():
        for name, p in before.parameters.items():
            after.parameters[name].copy_(p)
    after.optimizer.load_state_dict(through_a_file(before.optimizer.state_dict()))
    advance(after, GIVEN, 7)
    for name, path in before.points.items():
        after.points[name] = torch.cat([path, after.points[name]])
        for key, looks in before.state[name].items():
            after.state[name][key] = torch.cat([looks, after.state[name][key]])
    return after


@pytest.mark.parametrize("direction", ["from torch", "to torch", "to ourselves"])
@pytest.mark.parametrize("case", EXCHANGED, ids=str)
def test_continuing_from_a_checkpoint(case: Case, direction: str) -> None:
    ours, theirs = getattr(optim, case.name), getattr(torch.optim, case.name)
    first, second = {
        "from torch": (theirs, ours),
        "to torch": (ours, theirs),
        "to ourselves": (ours, ours),
    }[direction]
    plain = torch_run(case, GIVEN, torch.float32)
    exchanged = handed_over(first, second, case)
    assert_same_layout(exchanged, plain)
    assert_as_close(exchanged, plain, exact_run(case, GIVEN), torch.float32)


@pytest.mark.parametrize("case", EXCHANGED, ids=str)
def test_our_own_checkpoint_continues_bit_for_bit(case: Case) -> None:
    make = getattr(optim, case.name)
    whole = advance(start(make, case, GIVEN, torch.float32), GIVEN)
    halves = handed_over(make, make, case)
    assert bits(halves.points) == bits(whole.points)
    assert bits(halves.state) == bits(whole.state)


@pytest.mark.parametrize("case", EXCHANGED, ids=str)
def test_the_format_is_torchs(case: Case) -> None:
    # Four steps: before the states are first looked at, which would create empty ones.
    made = [
        advance(
            start(getattr(m, case.name), case, GIVEN, torch.float32), GIVEN, 0, 4
        ).optimizer.state_dict()
        for m in (optim, torch.optim)
    ]
    ours, theirs = (through_a_file(state_dict) for state_dict in made)
    assert list(ours) == list(theirs) == ["state", "param_groups"]
    assert {i: list(s) for i, s in ours["state"].items()} == {
        i: list(s) for i, s in theirs["state"].items()
    }
    for index, state in theirs["state"].items():
        for key, value in state.items():
            mine = ours["state"][index][key]
            assert type(mine) is type(value), key
            if isinstance(value, Tensor):
                assert mine.shape == value.shape
                assert key in ("step", "eta", "mu", "mu_product") or mine.dtype == value.dtype
    for mine, group in zip(ours["param_groups"], theirs["param_groups"], strict=True):
        assert set(group) <= set(mine)
        assert mine["params"] == group["params"]
        assert {type(mine[key]) for key in group} == {type(value) for value in group.values()}


def sparse_embedding(make: Any, **options: Any) -> tuple[Any, Tensor]:
    p = torch.linspace(-1, 1, 12).reshape(6, 2).clone().requires_grad_()
    return make([p], **options), p


def sparse_gradient(step: int) -> Tensor:
    rows = torch.tensor([[step % 6, (2 * step + 1) % 6, step % 6]])
    generator = torch.Generator().manual_seed(step)
    values = torch.randn(3, 2, generator=generator)
    return torch.sparse_coo_tensor(rows, values, (6, 2), check_invariants=True)


@torchs_sparse_warning
@pytest.mark.parametrize("options", [{}, {"lr": 0.01, "betas": (0.8, 0.9), "maximize": True}])
@pytest.mark.parametrize("direction", ["from torch", "to torch"])
def test_continuing_sparse_adam(direction: str, options: dict[str, Any]) -> None:
    makers = [torch.optim.SparseAdam, optim.SparseAdam]
    first, second = makers if direction == "from torch" else makers[::-1]
    whole, expected = sparse_embedding(torch.optim.SparseAdam, **options)
    optimizer, p = sparse_embedding(first, **options)
    for step in range(14):
        if step == 7:
            saved = through_a_file(optimizer.state_dict())
            optimizer, fresh = sparse_embedding(second)
            fresh.data.copy_(p.data)
            p = fresh
            optimizer.load_state_dict(saved)
        p.grad, expected.grad = sparse_gradient(step), sparse_gradient(step)
        optimizer.step()
        whole.step()
    torch.testing.assert_close(p, expected, rtol=1e-6, atol=1e-7)
    assert list(optimizer.state[p]) == list(whole.state[expected])
    assert int(optimizer.state[p]["step"]) == 14


# ----------------------------------------------------------------------------------------- copies


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
@pytest.mark.parametrize("case", SHARED_FULLEST, ids=str)
def test_copies_keep_everything_and_continue_alike(case: Case, how: str) -> None:
    make = getattr(optim, case.name)
    original = advance(start(make, case, GIVEN, torch.float32), GIVEN, 0, 5)
    duplicate: Callable[[Any], Any] = {
        "deepcopy": copy.deepcopy,
        "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    }[how]
    optimizer, parameters = duplicate((original.optimizer, original.parameters))
    assert type(optimizer) is make
    # torch pickles a parameter without its gradient.
    for part in (0, 2, 3, 4):
        assert snapshot(optimizer)[part] == snapshot(original.optimizer)[part]
    assert optimizer.defaults.keys() == original.optimizer.defaults.keys()
    assert repr(optimizer) == repr(original.optimizer)
    twin = advance(Run({}, {}, optimizer, parameters), GIVEN, 5)
    before = snapshot(optimizer)[:3]
    advance(original, GIVEN, 5)
    assert bits(twin.points) == bits(original.points)
    assert bits(twin.state) == bits(original.state)
    assert snapshot(optimizer)[:3] == before, "the original's steps wrote into its copy"


@pytest.mark.parametrize("case", SHARED_FULLEST, ids=str)
def test_two_optimizers_loaded_from_one_dict_do_not_share_memory(case: Case) -> None:
    make = getattr(optim, case.name)
    source = advance(start(make, case, GIVEN, torch.float32), GIVEN, 0, 5)
    live = source.optimizer.state_dict()
    loaded = start(make, case, GIVEN, torch.float32)
    loaded.optimizer.load_state_dict(live)
    before = snapshot(source.optimizer)
    advance(loaded, GIVEN, 5, 8)
    assert snapshot(source.optimizer) == before


@pytest.mark.parametrize("saved", [torch.float64, torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("own", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_a_checkpoint_of_another_precision_continues(saved: torch.dtype, own: torch.dtype) -> None:
    def model(dtype: torch.dtype) -> Tensor:
        return torch.ones(3, dtype=dtype, requires_grad=True)

    def step(optimizer: Any, p: Tensor) -> None:
        p.grad = torch.full((3,), 0.5, dtype=p.dtype)
        optimizer.step()

    p, q = model(saved), model(own)
    source, target = optim.Adam([p]), optim.Adam([q])
    step(source, p)
    target.load_state_dict(through_a_file(source.state_dict()))
    assert float(target.state[q]["step"]) == 1.0
    # After one step of Adam with a constant gradient: (1 - beta1) * 0.5, nothing lost but rounding.
    assert target.state[q]["exp_avg"].float() == pytest.approx([0.05] * 3, rel=4e-3)
    with torch.no_grad():
        q.copy_(p)
    step(target, q)
    assert float(target.state[q]["step"]) == 2.0
    assert q.detach().float() == pytest.approx([1 - 2e-3] * 3, rel=4e-3)


def test_an_old_checkpoint_without_the_newer_options_loads() -> None:
    """Options that torch added over the years are absent from older files; they keep our values."""
    p = torch.ones(3, requires_grad=True)
    optimizer = optim.Adam([p], maximize=True)
    p.grad = torch.ones(3)
    optimizer.step()
    saved = through_a_file(optimizer.state_dict())
    for key in ("foreach", "capturable", "differentiable", "fused", "decoupled_weight_decay"):
        saved["param_groups"][0].pop(key, None)
    optimizer.load_state_dict(saved)
    optimizer.step()
    assert optimizer.state[p]["step"] == 2


def test_a_parameter_without_state_stays_without() -> None:
    """It never had a gradient; its first step is its first."""
    p, q = (torch.ones(3, requires_grad=True) for _ in range(2))
    source = optim.Adam([p, q])
    p.grad = torch.ones(3)
    source.step()
    saved = through_a_file(source.state_dict())
    assert list(saved["state"]) == [0]
    target = optim.Adam([p, q])
    target.load_state_dict(saved)
    q.grad = torch.ones(3)
    target.step()
    assert (float(target.state[p]["step"]), float(target.state[q]["step"])) == (2.0, 1.0)


def test_scheduler_keys_in_groups_survive() -> None:
    """A scheduler keeps ``initial_lr`` in the groups; a checkpoint carries it."""
    p = torch.ones(3, requires_grad=True)
    source = torch.optim.SGD([p], lr=0.5)
    torch.optim.lr_scheduler.StepLR(source, 3)
    target = optim.SGD([p], lr=0.1)
    target.load_state_dict(through_a_file(source.state_dict()))
    assert target.param_groups[0]["initial_lr"] == target.param_groups[0]["lr"] == 0.5


# ------------------------------------------------------------------------------ refused checkpoints


def seasoned(make: Any, **options: Any) -> Any:
    """An optimizer after two steps on two groups: parameters 0 and 1 (2 x 3), and 2 (4)."""
    shapes = [(2, 3), (2, 3), (4,)]
    a, b, c = (torch.linspace(0, 1, torch.Size(s).numel()).reshape(s) for s in shapes)
    for p in (a, b, c):
        p.requires_grad_()
    optimizer = make([{"params": [a, b]}, {"params": [c], "lr": 0.25}], **options)
    for step in range(2):
        for i, p in enumerate((a, b, c)):
            g = torch.full_like(p, 0.5 + step - 0.1 * i)
            p.grad = g.to_sparse() if make.__name__ == "SparseAdam" else g
        optimizer.step()
    return optimizer


def spoil(path: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    """An edit of a state dict: ``a/b/c`` set to a value (or a function of the old value)."""

    def edit(state_dict: dict[str, Any]) -> Any:
        *parents, last = [int(key) if key.isdigit() else key for key in path.split("/")]
        inner: Any = state_dict
        for key in parents:
            inner = inner[key]
        if value is MISSING:
            del inner[last]
        else:
            inner[last] = value(inner[last]) if callable(value) else value
        return state_dict

    return edit


MISSING = object()
FIRST, SECOND, THIRD = "parameter 0 ", "parameter 1 ", "parameter 2 "

# Edit, and words of the message: which parameter, which field.
REFUSED: dict[str, tuple[Callable[[dict[str, Any]], Any], tuple[str, ...]]] = {
    "not a dict": (lambda d: [d], ()),
    "None": (lambda d: None, ()),
    "no state": (spoil("state", MISSING), ("state",)),
    "no groups": (spoil("param_groups", MISSING), ("param_groups",)),
    "state not a dict": (spoil("state", [1, 2]), ("state",)),
    "groups not a list": (spoil("param_groups", 3), ("param_groups",)),
    "group not a dict": (spoil("param_groups/1", 3), ()),
    "a group less": (spoil("param_groups", lambda g: g[:1]), ("group",)),
    "a group more": (spoil("param_groups", lambda g: [*g, {**g[0], "params": [3]}]), ("group",)),
    "a parameter less": (spoil("param_groups/0/params", [0]), ("group",)),
    "a parameter more": (spoil("param_groups/1/params", [2, 3]), ("group",)),
    "a parameter twice": (spoil("param_groups/0/params", [0, 0]), ()),
    "no params": (spoil("param_groups/0/params", MISSING), ("params",)),
    "no lr": (spoil("param_groups/1/lr", MISSING), ("lr",)),
    "lr a string": (spoil("param_groups/0/lr", "fast"), ("lr",)),
    "state of an unknown parameter": (
        lambda d: d | {"state": d["state"] | {7: d["state"][1]}}, ("7",)),
    "state of one parameter not a dict": (spoil("state/1", 5), (SECOND,)),
    "a state missing": (spoil("state/1/exp_avg", MISSING), (SECOND, "exp_avg")),
    "step missing": (spoil("state/2/step", MISSING), (THIRD, "step")),
    "a slip": (spoil("state/1/exp_agv", torch.zeros(2, 3)), (SECOND, "did you mean exp_avg")),
    "another shape": (spoil("state/1/exp_avg", torch.zeros(3, 2)), (SECOND, "exp_avg")),
    "one element": (spoil("state/1/exp_avg_sq", torch.zeros(())), (SECOND, "exp_avg_sq")),
    "integers": (
        spoil("state/2/exp_avg", torch.zeros(4, dtype=torch.int64)), (THIRD, "exp_avg")),
    "booleans": (
        spoil("state/2/exp_avg_sq", torch.zeros(4, dtype=torch.bool)), (THIRD, "exp_avg_sq")),
    "complex": (
        spoil("state/2/exp_avg", torch.zeros(4, dtype=torch.complex64)), (THIRD, "exp_avg")),
    "a list for a tensor": (spoil("state/2/exp_avg", [0.0] * 4), (THIRD, "exp_avg")),
    "None for a tensor": (spoil("state/0/exp_avg", None), (FIRST, "exp_avg")),
    "two steps": (spoil("state/0/step", torch.ones(2)), (FIRST, "step")),
    "step a string": (spoil("state/0/step", "two"), (FIRST, "step")),
}  # fmt: skip


@pytest.mark.parametrize("reason", REFUSED)
def test_a_bad_state_dict_is_refused_whole(reason: str) -> None:
    edit, words = REFUSED[reason]
    saved = through_a_file(seasoned(optim.Adam, lr=0.5).state_dict())
    assert_refused(seasoned(optim.Adam), edit(saved), words)


STATEFUL = {name: {"momentum": 0.9} if name == "SGD" else {} for name in (*SHARED, "SparseAdam")}


# These keep the same state, and an option that is absent may be one of an older file.
ALIKE = {"Adam", "AdamW", "RAdam", "SparseAdam"}
WIDER = [("NAdam", name) for name in sorted(ALIKE)]  # which has their states, and one more
STRANGERS = [
    pair for pair in itertools.permutations(STATEFUL, 2)
    if not ALIKE.issuperset(pair) and pair not in WIDER
]  # fmt: skip


@torchs_sparse_warning
@pytest.mark.parametrize(("saved", "loading"), STRANGERS)
def test_the_state_of_another_class_is_refused_whole(saved: str, loading: str) -> None:
    source = seasoned(getattr(optim, saved), **STATEFUL[saved])
    target = seasoned(getattr(optim, loading), **STATEFUL[loading])
    assert_refused(target, through_a_file(source.state_dict()))


@torchs_sparse_warning
@pytest.mark.parametrize(("saved", "loading"), WIDER)
def test_a_state_more_than_the_class_has_is_told(saved: str, loading: str) -> None:
    source, target = seasoned(getattr(optim, saved)), seasoned(getattr(optim, loading))
    with pytest.warns(UserWarning, match="has 'mu_product', as other optimizers have"):
        target.load_state_dict(through_a_file(source.state_dict()))
    for p, q in zip(source.state.values(), target.state.values(), strict=True):
        assert torch.equal(p["exp_avg"], q["exp_avg"])


def test_a_refused_load_leaves_the_optimizer_usable() -> None:
    optimizer, twin = seasoned(optim.Adam), seasoned(optim.Adam)
    saved = through_a_file(seasoned(optim.Adam, lr=0.5).state_dict())
    assert_refused(optimizer, REFUSED["another shape"][0](saved))
    optimizer.step()
    twin.step()
    assert snapshot(optimizer)[:5] == snapshot(twin)[:5]


def test_load_state_dict_hooks_see_and_may_replace_the_dict() -> None:
    optimizer = seasoned(optim.Adam)
    saved = through_a_file(seasoned(optim.Adam, lr=0.5).state_dict())
    bad = REFUSED["a group less"][0](copy.deepcopy(saved))
    calls: list[str] = []

    def repair(given: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
        assert given is optimizer
        calls.append("pre")
        return saved

    optimizer.register_load_state_dict_pre_hook(repair)
    optimizer.register_load_state_dict_post_hook(lambda given: calls.append("post"))
    optimizer.load_state_dict(bad)
    assert calls == ["pre", "post"]
    assert optimizer.param_groups[0]["lr"] == 0.5
