"""The average carried by an optimizer: it is that of the trajectory, and changes nothing else."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import thalweg
import thalweg.optim as optim
from tests.optim.cases import fullest
from tests.optim.problems import (
    FULLEST,
    Case,
    Problem,
    bits,
    change_lr,
    flat_state,
    largest,
    problem,
    snapshot,
    start,
    ulp,
)
from thalweg.optim.swa_utils import CarriedAverage
from thalweg.rule import lerp, mean, norm, sign, sqrt

OWN_STATES = ("average", "averaged_steps", "averaged_models")


@thalweg.optimizer(lr=1e-2, betas=(0.9, 0.99), states={"exp_avg": 0.0})
def Lion(p, g, s, h):
    update = sign(lerp(s.exp_avg, g, 1 - h.beta1))
    s.exp_avg = lerp(s.exp_avg, g, 1 - h.beta2)
    return p - h.lr * update


@thalweg.optimizer(lr=1e-2, eps=1e-6)
def Trust(p, g, s, h):
    """A rule of several stages."""
    return p - h.lr * g * (norm(p) + h.eps) / (sqrt(mean(g * g)) + h.eps)


CASES = [*FULLEST, Case("SGD", "plain", {}), Case("Adam", "tensor-lr", {"lr": torch.tensor(0.01)})]
AVERAGES: dict[str, dict[str, Any]] = {
    "equal": {"decay": None},
    "equal-late-sparse": {"decay": None, "start": 3, "every": 2},
    "ema": {"decay": 0.9},
    "ema-far": {"decay": 0.3, "every": 3},
    "ema-late": {"decay": 0.75, "start": 5},
    "none": {"decay": 0.0},
    "first": {"decay": 1.0},
}


class Exact:
    """The average of one parameter's values in float64, and of torch's kind in the dtype."""

    def __init__(
        self, decay: float | None = 0.999, start: int = 0, every: int = 1, dtype: Any = None
    ) -> None:
        self.decay, self.start, self.every = decay, start, every
        self.updates = self.models = 0
        self.value: Tensor | None = None
        self.rounded: Tensor | None = None
        self.magnitude = 0.0

    def add(self, p: Tensor) -> None:
        self.updates += 1
        if self.updates <= self.start or (self.updates - self.start) % self.every:
            return
        p = p.detach()
        wide = p.to(torch.complex128 if p.is_complex() else torch.float64, copy=True)
        if self.value is None or self.rounded is None:
            self.value, self.rounded = wide, p.clone()
        else:
            w = 1 / (self.models + 1) if self.decay is None else 1 - self.decay
            self.value = self.value + w * (wide - self.value)
            self.rounded = torch.lerp(self.rounded, p, w)
        self.models += 1
        self.magnitude = max(self.magnitude, largest(self.value))

    def error(self, x: Tensor) -> float:
        """Of a tensor, in units in the last place of the largest average so far."""
        assert self.value is not None
        real = x.real.dtype if x.is_complex() else x.dtype
        return largest(x.to(self.value.dtype) - self.value) / ulp(self.magnitude, real)


def follow(
    given: Problem, plain: Any, carried: Any, average: CarriedAverage, **options: Any
) -> None:
    """Step without and with an average; check that it is that of the values stepped through."""
    exact = {name: Exact(**options) for name in plain.parameters}
    for step in range(given.steps):
        for run in (plain, carried):
            if step == given.steps // 2:
                change_lr(run.optimizer)
            given.feed(run.parameters, step)
            run.optimizer.step()
        worst = torchs = 0.0
        for name, p in plain.parameters.items():
            if name in given.gradients[step]:
                exact[name].add(p)
            mine, entry = (
                carried.parameters[name],
                carried.optimizer.state[carried.parameters[name]],
            )
            assert bits(mine) == bits(p), f"{name}: the average changed the parameter"
            own = flat_state(carried.optimizer, mine)
            for key, value in flat_state(plain.optimizer, p).items():
                assert bits(own[key]) == bits(value), f"{name}: the average changed {key}"
            if exact[name].value is None:
                assert "average" not in entry
                assert average.of(mine) is mine
                continue
            found = average.of(mine)
            assert found is entry["average"]
            assert found.stride() == mine.stride() or not mine.numel() or name == "sliced"
            assert (int(entry["averaged_steps"]), int(entry["averaged_models"])) == (
                exact[name].updates,
                exact[name].models,
            )
            if exact[name].models == 1:
                assert torch.equal(found.double(), exact[name].value)
            worst = max(worst, exact[name].error(found))
            torchs = max(torchs, exact[name].error(exact[name].rounded))
        assert worst <= 1.5 * torchs + 4, f"step {step}: {worst:.3g} ulp, torch's {torchs:.3g}"


@pytest.mark.parametrize("options", AVERAGES.values(), ids=AVERAGES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_the_average_of_the_values_stepped_through(
    case: Case, options: dict[str, Any]
) -> None:
    given = problem(torch.float32)
    make = getattr(optim, case.name)
    plain, carried = (start(make, case, given, torch.float32) for _ in range(2))
    average = CarriedAverage(carried.optimizer, **options)
    follow(given, plain, carried, average, **options)


@pytest.mark.parametrize("fused", [None, False], ids=["kernel", "eager"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["equal", "equal-late-sparse", "ema"])
def test_in_every_precision(name: str, dtype: torch.dtype, fused: bool | None) -> None:
    """In 16 bits the average takes the value before rounding, half a unit from the one kept."""
    given, case = problem(dtype), fullest("SGD")
    plain, carried = (start(optim.SGD, case, given, dtype, fused=fused) for _ in range(2))
    average = CarriedAverage(carried.optimizer, **AVERAGES[name])
    follow(given, plain, carried, average, **AVERAGES[name])


@pytest.mark.parametrize("name", ["equal", "ema", "ema-far"])
@pytest.mark.parametrize("own", [Lion, Trust])
def test_rules_of_ones_own(own: Any, name: str) -> None:
    given = problem(torch.float32)
    runs = []
    for _ in range(2):
        parameters = given.parameters(torch.float32)
        groups = [
            {"params": list(parameters.values())[:4]},
            {"params": list(parameters.values())[4:], "lr": 0.02},
        ]
        runs.append(type("Run", (), {"parameters": parameters, "optimizer": own(groups)}))
    average = CarriedAverage(runs[1].optimizer, **AVERAGES[name])
    follow(given, *runs, average, **AVERAGES[name])


@pytest.mark.parametrize("name", ["equal", "ema", "equal-late-sparse"])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_complex_parameters(dtype: torch.dtype, name: str) -> None:
    given, case = problem(dtype), fullest("AdamW")
    plain, carried = (start(optim.AdamW, case, given, dtype) for _ in range(2))
    average = CarriedAverage(carried.optimizer, **AVERAGES[name])
    for p in carried.parameters.values():
        assert average.of(p) is p
    exact = {key: Exact(**AVERAGES[name]) for key in plain.parameters}
    for step in range(given.steps):
        for run in (plain, carried):
            given.feed(run.parameters, step)
            run.optimizer.step()
        for key, p in plain.parameters.items():
            assert bits(carried.parameters[key]) == bits(p)
            if key in given.gradients[step]:
                exact[key].add(p)
    for key, p in carried.parameters.items():
        found = average.of(p)
        assert found.dtype is dtype
        torch.testing.assert_close(found, exact[key].value.to(dtype), rtol=1e-5, atol=1e-6)


def trained(
    dtype: torch.dtype = torch.float32, steps: int = 0, make: Any = optim.AdamW, **options: Any
) -> tuple[list[nn.Parameter], Any]:
    """Two parameters and their optimizer after some steps; the second has no gradient."""
    torch.manual_seed(0)
    params = [nn.Parameter(torch.randn(40, dtype=dtype)), nn.Parameter(torch.randn(3, dtype=dtype))]
    optimizer = make(params, lr=0.1, **options)
    train(params, optimizer, 0, steps)
    return params, optimizer


def train(params: list[nn.Parameter], optimizer: Any, begin: int, end: int) -> None:
    for step in range(begin, end):
        generator = torch.Generator().manual_seed(step)
        params[0].grad = torch.randn(40, generator=generator).to(params[0].dtype)
        optimizer.step()


# ------------------------------------------------------------------------------------------ storage


@pytest.mark.parametrize("fused", [None, False], ids=["kernel", "eager"])
@pytest.mark.parametrize(
    ("dtype", "storage", "stored"),
    [
        (torch.bfloat16, torch.float32, torch.float32),
        (torch.float16, torch.float64, torch.float64),
        (torch.float32, None, torch.float32),
        (torch.float32, torch.bfloat16, torch.bfloat16),
        (torch.complex64, torch.float64, torch.complex128),
        (torch.complex64, torch.bfloat16, torch.complex64),
    ],
)
def test_storage(dtype: torch.dtype, storage: Any, stored: torch.dtype, fused: Any) -> None:
    params, optimizer = trained(dtype, fused=fused, make=optim.SGD)
    average = CarriedAverage(optimizer, decay=0.9, dtype=storage)
    exact = Exact(0.9)
    for step in range(12):
        train(params, optimizer, step, step + 1)
        exact.add(params[0])
    found = average.of(params[0])
    assert found.dtype is stored
    coarse = max((torch.finfo(d).eps for d in (dtype, stored)), default=0.0)
    assert largest(found.to(exact.value.dtype) - exact.value) <= 6 * coarse * exact.magnitude
    text = str(thalweg.explain(optimizer))
    assert f"average {({torch.float32: 'fp32', torch.float64: 'fp64'}).get(stored, '')}" in text


def test_a_wide_average_moves_where_a_narrow_one_stands_still() -> None:
    found = []
    for storage in (None, torch.float32):
        params, optimizer = trained(torch.bfloat16, make=optim.SGD)
        average = CarriedAverage(optimizer, decay=0.999, dtype=storage)
        train(params, optimizer, 0, 1)
        first = average.of(params[0]).clone()
        train(params, optimizer, 1, 4)
        found.append((average.of(params[0]) != first).double().mean().item())
    assert found[0] < 0.2
    assert found[1] > 0.9


@pytest.mark.parametrize("every", [1, 3])
def test_before_the_start_nothing_is_read_written_or_allocated(every: int) -> None:
    params, optimizer = trained()
    CarriedAverage(optimizer, start=4, every=every)
    for step in range(8):
        begun = step + 1 >= 4 + every
        plan = str(thalweg.explain(optimizer)) if step else ""
        assert ("average'" in plan) == (begun and step > 0)
        train(params, optimizer, step, step + 1)
        assert ("average" in optimizer.state[params[0]]) == begun


def test_every_update_costs_no_condition() -> None:
    params, optimizer = trained()
    CarriedAverage(optimizer)
    train(params, optimizer, 0, 3)
    text = str(thalweg.explain(optimizer))
    assert "average'         = average + (1 - average_decay) * (p' - average)" in text
    assert "where" not in text
    assert "36 bytes per element" in text
    assert plans_of(params, optimizer, 3, 9) == 0


def plans_of(params: list[nn.Parameter], optimizer: Any, begin: int, end: int) -> int:
    """How often the engine plans anew in these steps but the first."""
    train(params, optimizer, begin, begin + 1)
    plans: list[int] = []
    optimizer.before_plan = lambda: plans.append(1)
    train(params, optimizer, begin + 1, end)
    return len(plans)


def test_an_average_now_and_then_makes_no_plan_either() -> None:
    params, optimizer = trained()
    CarriedAverage(optimizer, every=3, decay=None)
    train(params, optimizer, 0, 9)
    assert plans_of(params, optimizer, 9, 18) == 0


# ------------------------------------------------------------------------- checkpoints and copies


def through_a_file(state_dict: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(state_dict, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("storage", [None, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("at", [0, 1, 2, 5, 9])
@pytest.mark.parametrize("make", [optim.AdamW, optim.SGD, optim.ASGD, optim.NAdam])
def test_resuming_continues_bit_for_bit(make: Any, at: int, storage: Any) -> None:
    momentum = {"momentum": 0.9, "dampening": 0.5} if make is optim.SGD else {}
    options: dict[str, Any] = {"decay": None, "start": 2, "every": 2, "dtype": storage}
    whole = trained(make=make, **momentum)
    CarriedAverage(whole[1], **options)
    train(*whole, 0, 14)

    before = trained(make=make, **momentum)
    CarriedAverage(before[1], **options)
    train(*before, 0, at)
    after = trained(make=make, **momentum)
    average = CarriedAverage(after[1], decay=0.5)  # the checkpoint's options win
    for p, q in zip(after[0], before[0], strict=True):
        p.data.copy_(q.data)
    after[1].load_state_dict(through_a_file(before[1].state_dict()))
    train(*after, at, 14)
    assert bits(after[0]) == bits(whole[0])
    assert bits(after[1].state_dict()) == bits(whole[1].state_dict())
    assert average.of(after[0][0]).dtype is (storage or torch.float32)
    assert CarriedAverage(after[1], **options).of(after[0][0]) is average.of(after[0][0])


@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["deepcopy", "pickle"]
)
def test_copies_carry_the_average_on(again: Callable[[Any], Any]) -> None:
    params, optimizer = trained()
    average = CarriedAverage(optimizer, decay=0.5)
    train(params, optimizer, 0, 3)
    mine, theirs = again((params, average))
    other = theirs.optimizer
    assert CarriedAverage(other, decay=0.5).of(mine[0]) is theirs.of(mine[0])
    before = snapshot(optimizer)
    train(mine, other, 3, 6)
    assert snapshot(optimizer) == before
    train(params, optimizer, 3, 6)
    assert bits(mine) == bits(params)
    assert bits(theirs.of(mine[0])) == bits(average.of(params[0]))


@pytest.mark.parametrize("make", [optim.AdamW, optim.SGD])
def test_attaching_after_some_steps_changes_nothing_else(make: Any) -> None:
    momentum = {"momentum": 0.9, "dampening": 0.5} if make is optim.SGD else {}
    plain, late = trained(make=make, steps=5, **momentum), trained(make=make, steps=5, **momentum)
    average, exact = CarriedAverage(late[1], decay=0.5), Exact(0.5)
    for step in range(5, 10):
        train(*plain, step, step + 1)
        train(*late, step, step + 1)
        exact.add(plain[0][0])
        assert bits(late[0]) == bits(plain[0])
    assert int(late[1].state[late[0][0]]["averaged_steps"]) == 5
    assert exact.error(average.of(late[0][0])) <= 4


@pytest.mark.parametrize("name", ["AdamW", "SGD"])
def test_attaching_after_loading_from_torch(name: str) -> None:
    momentum = {"momentum": 0.9, "dampening": 0.5} if name == "SGD" else {}
    theirs = trained(make=getattr(torch.optim, name), steps=5, **momentum)
    runs = []
    for _ in range(2):
        params, optimizer = trained(make=getattr(optim, name), **momentum)
        for p, q in zip(params, theirs[0], strict=True):
            p.data.copy_(q.data)
        optimizer.load_state_dict(theirs[1].state_dict())
        runs.append((params, optimizer))
    average = CarriedAverage(runs[1][1], decay=0.5)
    for run in runs:
        train(*run, 5, 9)
    assert bits(runs[0][0]) == bits(runs[1][0])
    assert int(runs[1][1].state[runs[1][0][0]]["averaged_models"]) == 4
    assert average.of(runs[1][0][1]) is runs[1][0][1]


def test_a_checkpoint_with_an_average_needs_one() -> None:
    for steps in (0, 3):
        params, optimizer = trained()
        CarriedAverage(optimizer)
        train(params, optimizer, 0, steps)
        _, plain = trained()
        before = snapshot(plain)
        with pytest.raises(ValueError, match=r"build this one with transforms=\[averaged"):
            plain.load_state_dict(optimizer.state_dict())
        assert snapshot(plain) == before


def test_a_checkpoint_without_an_average_is_loaded_before_attaching() -> None:
    _, optimizer = trained(steps=3)
    for decay in (None, 0.9):
        _, carrying = trained()
        CarriedAverage(carrying, decay=decay)
        before = snapshot(carrying)
        with pytest.raises(ValueError, match="no option of the transform averaged"):
            carrying.load_state_dict(optimizer.state_dict())
        assert snapshot(carrying) == before


@pytest.mark.parametrize("missing", OWN_STATES)
def test_a_checkpoint_with_a_part_of_an_average_is_refused(missing: str) -> None:
    params, optimizer = trained()
    CarriedAverage(optimizer)
    train(params, optimizer, 0, 3)
    saved = optimizer.state_dict()
    del saved["state"][0][missing]
    _, fresh = trained()
    CarriedAverage(fresh)
    with pytest.raises(ValueError, match=f"lacks the state '{missing}'"):
        fresh.load_state_dict(saved)


def test_a_checkpoint_made_before_the_first_step_with_an_average() -> None:
    _, optimizer = trained(steps=3)
    CarriedAverage(optimizer)
    params, fresh = trained()
    CarriedAverage(fresh)
    fresh.load_state_dict(optimizer.state_dict())
    train(params, fresh, 3, 5)
    assert int(fresh.state[params[0]]["averaged_models"]) == 2


def test_new_groups_carry_it_too() -> None:
    params, optimizer = trained()
    average = CarriedAverage(optimizer, decay=0.5)
    extra = nn.Parameter(torch.ones(2))
    optimizer.add_param_group({"params": [extra]})
    extra.grad = torch.ones(2)
    train(params, optimizer, 0, 2)
    assert average.of(extra) is not extra


def test_states_made_in_advance_are_no_average() -> None:
    params, optimizer = trained()
    average = CarriedAverage(optimizer)
    optimizer._engine.create_states()
    assert average.of(params[0]) is params[0]


# --------------------------------------------------------------------------------- copy_to, swapped


class Net(nn.Module):
    """A model with a buffer, a frozen parameter and a shared one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 3, bias=False)
        self.head.weight = self.first.weight
        self.frozen = nn.Parameter(torch.randn(2), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.first(x)))


def trained_net(steps: int = 4) -> tuple[Net, Any, CarriedAverage, dict[str, Exact]]:
    torch.manual_seed(3)
    model = Net()
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    average = CarriedAverage(optimizer, decay=0.5)
    exact = {name: Exact(0.5) for name, p in model.named_parameters() if p.requires_grad}
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 3)).square().sum().backward()
        optimizer.step()
        for name, entry in exact.items():
            entry.add(model.get_parameter(name))
    return model, optimizer, average, exact


def assert_averaged(module: nn.Module, exact: dict[str, Exact]) -> None:
    for name, entry in exact.items():
        assert entry.error(module.get_parameter(name)) <= 4


def test_copy_to_a_copy_of_the_model() -> None:
    model, _, average, exact = trained_net()
    other = Net()
    assert not torch.equal(other.frozen, model.frozen)
    before = bits(dict(model.named_parameters()))
    average.copy_to(other, model)
    assert_averaged(other, exact)
    assert bits(other.frozen) == bits(model.frozen)
    assert bits(dict(other.named_buffers())) == bits(dict(model.named_buffers()))
    assert bits(dict(model.named_parameters())) == before
    assert other.head.weight is other.first.weight


def test_copy_to_the_model_itself() -> None:
    model, _, average, exact = trained_net()
    average.copy_to(model)
    assert_averaged(model, exact)


def test_swapped_puts_the_originals_back() -> None:
    model, optimizer, average, exact = trained_net()
    before = snapshot(optimizer)
    with average.swapped():
        assert_averaged(model, exact)
        inside = bits(dict(model.named_parameters()))
        with average.swapped():
            assert bits(dict(model.named_parameters())) == inside
        assert bits(dict(model.named_parameters())) == inside
    assert snapshot(optimizer) == before


def test_swapped_puts_the_originals_back_after_an_exception() -> None:
    model, optimizer, average, exact = trained_net()
    with torch.no_grad():
        model.first.bias.fill_(float("nan"))
    before = snapshot(optimizer)

    def fail() -> None:
        assert_averaged(model, {"norm.weight": exact["norm.weight"]})
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), average.swapped():
        fail()
    assert snapshot(optimizer) == before


def test_a_step_while_swapped_is_refused() -> None:
    model, optimizer, average, _ = trained_net()
    before = snapshot(optimizer)
    with (
        pytest.raises(RuntimeError, match=r"step\(\) inside CarriedAverage.swapped"),
        average.swapped(),
    ):
        optimizer.step()
    assert snapshot(optimizer) == before
    optimizer.step()
    assert model.first.weight.isfinite().all()


def test_autograd_is_told_of_swapping() -> None:
    model, _, average, _ = trained_net()
    loss = model(torch.randn(4, 3)).sum()
    with average.swapped(), pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def unnamed(model: Any) -> None:
    del model.norm


def reshaped(model: Any) -> None:
    model.first = nn.Linear(3, 4)


def widened(model: Any) -> None:
    model.extra = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (unnamed, r"'norm.weight' has shape \(3,\) in the model and None"),
        (reshaped, r"'first.weight' has shape \(3, 3\) in the model and \(4, 3\)"),
        (widened, r"'extra.weight' has shape None in the model and \(2, 2\)"),
    ],
)
def test_modules_that_do_not_match_are_refused_whole(change: Any, message: str) -> None:
    model, _, average, _ = trained_net()
    other = copy.deepcopy(model)
    change(other)
    before = bits(dict(other.named_parameters()))
    with pytest.raises(ValueError, match=message):
        average.copy_to(other, model)
    assert bits(dict(other.named_parameters())) == before


def test_a_module_that_the_optimizer_does_not_know() -> None:
    model, _, average, _ = trained_net()
    with pytest.raises(ValueError, match="pass the trained model as `model`"):
        average.copy_to(copy.deepcopy(model))
    with pytest.raises(ValueError, match="holds no parameter of this Linear"):
        average.copy_to(model, nn.Linear(2, 2))


# ------------------------------------------------------------------------------- modes and refusals


def test_differentiable_steps() -> None:
    p = torch.randn(5, requires_grad=True)
    optimizer = optim.SGD([p.clone()], lr=0.1, differentiable=True)
    average, exact = CarriedAverage(optimizer, decay=0.5), Exact(0.5)
    (q,) = optimizer.param_groups[0]["params"]
    for step in range(4):
        q.grad = torch.full((5,), float(step))
        optimizer.step()
        exact.add(q)
    assert exact.error(average.of(q).detach()) <= 4


def test_late_gradients_count_from_their_own_first_update() -> None:
    params, optimizer = trained()
    average, exact = CarriedAverage(optimizer, decay=None, start=1), Exact(None, start=1)
    for step in range(8):
        params[1].grad = torch.ones(3) if step >= 3 and step % 2 else None
        train(params, optimizer, step, step + 1)
        if params[1].grad is not None:
            exact.add(params[1])
    assert int(optimizer.state[params[1]]["averaged_models"]) == 2
    assert exact.error(average.of(params[1])) <= 4


@pytest.mark.parametrize("make", [optim.SparseAdam, optim.Adagrad])
def test_rows_of_sparse_gradients_are_refused(make: Any) -> None:
    p, q = nn.Parameter(torch.ones(4, 2)), nn.Parameter(torch.ones(4, 2))
    optimizer = make([q, p])
    CarriedAverage(optimizer)
    sparse = torch.ones(4, 2).to_sparse(1)
    p.grad, q.grad = sparse, sparse.clone()
    before = snapshot(optimizer)
    with pytest.raises(
        RuntimeError, match="transform averaged is not compatible with sparse gradients"
    ):
        optimizer.step()
    assert snapshot(optimizer) == before


def test_sparse_gradients_that_are_filled_up_are_fine() -> None:
    p = nn.Parameter(torch.ones(4, 2))
    optimizer = optim.SGD([p], lr=0.5, momentum=0.5)
    average = CarriedAverage(optimizer, decay=None)
    for _ in range(2):
        p.grad = torch.ones(4, 2).to_sparse(1)
        optimizer.step()
    assert average.of(p).tolist() == [[0.125, 0.125]] * 4  # of 0.5 and -0.25


def test_attaching_twice() -> None:
    params, optimizer = trained()
    first = CarriedAverage(optimizer, decay=0.5, every=2)
    train(params, optimizer, 0, 3)
    before = snapshot(optimizer)
    again = CarriedAverage(optimizer, decay=0.5, every=2)
    assert snapshot(optimizer) == before
    assert again.of(params[0]) is first.of(params[0])
    for options in ({"decay": 0.6, "every": 2}, {"decay": 0.5}, {"decay": None, "every": 2}):
        with pytest.raises(ValueError, match="carries an average of other options already"):
            CarriedAverage(optimizer, **options)
    assert snapshot(optimizer) == before


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"decay": 1.5}, ValueError, "decay must be >= 0 and <= 1, got 1.5"),
        ({"decay": float("nan")}, ValueError, "decay must be"),
        ({"decay": "0.9"}, TypeError, "decay must be a number, got str '0.9'"),
        ({"start": -1}, ValueError, "average_start must be >= 0, got -1"),
        ({"start": 1.5}, TypeError, "start must be an integer, got float 1.5"),
        ({"every": 0}, ValueError, "average_every must be >= 1, got 0"),
        ({"every": None}, TypeError, "every must be an integer, got NoneType"),
        ({"dtype": torch.int32}, ValueError, "average_dtype must be a real floating-point dtype"),
        ({"dtype": "float32"}, ValueError, "average_dtype must be a real floating-point dtype"),
        ({"dtype": torch.complex64}, ValueError, "average_dtype must be a real floating-point"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], error: Any, message: str) -> None:
    _, optimizer = trained()
    before = snapshot(optimizer)
    with pytest.raises(error, match=message):
        CarriedAverage(optimizer, **options)
    assert snapshot(optimizer) == before
    assert optimizer.added_transforms == ()


@pytest.mark.parametrize("make", [optim.LBFGS, torch.optim.SGD])
def test_optimizers_without_a_rule_are_refused(make: Any) -> None:
    with pytest.raises(TypeError, match="has no rule that an average can be folded into"):
        CarriedAverage(make([nn.Parameter(torch.ones(1))], lr=0.1))


def test_a_checkpoint_of_options_out_of_range_is_refused() -> None:
    params, optimizer = trained()
    CarriedAverage(optimizer)
    train(params, optimizer, 0, 2)
    for key, wrong in (("average_decay", 2.0), ("average_every", 0), ("average_dtype", "half")):
        saved = optimizer.state_dict()
        saved["param_groups"][0][key] = wrong
        before = snapshot(optimizer)
        with pytest.raises(ValueError, match=key):
            optimizer.load_state_dict(saved)
        assert snapshot(optimizer) == before


def test_names_that_are_taken() -> None:
    @thalweg.optimizer(lr=0.1, states={"average": 0.0})
    def Polyak(p, g, s, h):
        s.average = lerp(s.average, p, 0.5)
        return p - h.lr * g

    @thalweg.optimizer(lr=0.1, average_decay=0.5)
    def Decaying(p, g, s, h):
        return p - h.lr * g * h.average_decay

    for made, message in (
        (
            Polyak,
            "averaged needs the state 'average' for itself, which the rule Polyak has",
        ),
        (Decaying, "averaged brings the option 'average_decay', which Decaying has already"),
    ):
        optimizer = made([nn.Parameter(torch.ones(1))])
        with pytest.raises(ValueError, match=message):
            CarriedAverage(optimizer)
        assert optimizer.added_transforms == ()
