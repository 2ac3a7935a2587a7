"""AveragedModel beside torch's: values, calls, state dicts; whatever happens to the models."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.optim.swa_utils as theirs
from torch import Tensor, nn

import thalweg.optim.swa_utils as ours
from tests.optim.problems import bits, largest, ulp
from thalweg.engine.backends.cpu import addresses as native
from thalweg.engine.backends.cpu.unit import KernelUnit

UPDATES = 20


class Net(nn.Module):
    """Parameters and buffers of every layout."""

    def __init__(self, dtype: torch.dtype = torch.float32, integers: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5, track_running_stats=True)
        self.tied = nn.Linear(6, 6, bias=False)
        self.again = self.tied
        self.scalar = nn.Parameter(torch.tensor(0.5))
        self.empty = nn.Parameter(torch.empty(0, 3))
        self.frozen = nn.Parameter(torch.randn(7), requires_grad=False)
        self.columns = nn.Parameter(torch.randn(4, 3).t())
        self.sliced = nn.Parameter(torch.randn(12)[::2])
        self.bulk = nn.Parameter(torch.randn(1501))
        self.register_parameter("absent", None)
        self.register_buffer("buffer", torch.randn(3, 2))
        self.register_buffer("hidden", torch.randn(2), persistent=False)
        if not integers:
            self.norm.num_batches_tracked = None
        self.to(dtype)
        self.conv.to(memory_format=torch.channels_last)


def tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


@torch.no_grad()
def move(model: nn.Module, step: int) -> None:
    """Give every tensor new values, as training would."""
    generator = torch.Generator().manual_seed(step)
    for tensor in tensors(model).values():
        if tensor.is_floating_point() or tensor.is_complex():
            tensor.add_(torch.randn(tensor.shape, generator=generator).to(tensor.dtype) * 0.5)
        else:
            tensor.add_(1)


Make = Callable[[Any], dict[str, Any]]
# How to ask for an average, of our functions or of torch's, and its decay.
KINDS: dict[str, tuple[Make, float | None]] = {
    "default": (lambda m: {}, None),
    "swa": (lambda m: {"avg_fn": m.get_swa_avg_fn()}, None),
    "swa-multi": (lambda m: {"multi_avg_fn": m.get_swa_multi_avg_fn()}, None),
    **{
        f"ema-{decay}": (lambda m, d=decay: {"avg_fn": m.get_ema_avg_fn(d)}, decay)
        for decay in (0.0, 0.9)
    },
    **{
        f"ema-multi-{decay}": (
            lambda m, d=decay: {"multi_avg_fn": m.get_ema_multi_avg_fn(d)},
            decay,
        )
        for decay in (0.0, 0.3, 0.5, 0.9, 0.999, 1.0)
    },
}


def weight(decay: float | None, n: int) -> float:
    if n == 0:
        return 1.0
    return 1 / (n + 1) if decay is None else 1 - decay


def largest_error(
    module: nn.Module, exact: dict[str, Tensor], magnitudes: dict[str, float]
) -> float:
    """In units in the last place of the largest magnitude that each tensor has had."""
    errors = [
        largest(tensor.double() - exact[name]) / ulp(magnitudes[name], tensor.dtype)
        for name, tensor in tensors(module).items()
        if tensor.numel()
    ]
    return max(errors)


@pytest.mark.parametrize("use_buffers", [False, True], ids=["parameters", "buffers"])
@pytest.mark.parametrize("device", [None, "cpu"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str
)
def test_as_exact_as_torchs(
    dtype: torch.dtype, kind: str, device: str | None, use_buffers: bool
) -> None:
    make, decay = KINDS[kind]
    model = Net(dtype, integers=False)
    averages = [
        m.AveragedModel(model, device=device, use_buffers=use_buffers, **make(m))
        for m in (ours, theirs)
    ]
    exact = {name: tensor.detach().double() for name, tensor in tensors(model).items()}
    buffers, magnitudes = dict(model.named_buffers()), dict.fromkeys(exact, 0.0)
    for step in range(UPDATES):
        move(model, step)
        for name, tensor in tensors(model).items():
            w = 1.0 if name in buffers and not use_buffers else weight(decay, step)
            exact[name] = exact[name] + w * (tensor.detach().double() - exact[name])
            magnitudes[name] = max(magnitudes[name], largest(exact[name]))
        for average in averages:
            average.update_parameters(model)
        mine, other = (largest_error(average.module, exact, magnitudes) for average in averages)
        assert mine <= 1.5 * other + 4, f"step {step}: {mine:.3g} ulp, torch's {other:.3g}"
    assert [int(average.n_averaged) for average in averages] == [UPDATES, UPDATES]


@pytest.mark.parametrize("kind", KINDS)
def test_an_average_is_one_pass_for_parameters_and_one_for_buffers(kind: str) -> None:
    model = Net()
    model.sliced = nn.Parameter(torch.randn(6))  # the one tensor that no kernel takes
    average = ours.AveragedModel(model, **KINDS[kind][0](ours))
    for step in range(4):
        move(model, step)
        average.update_parameters(model)
        units = average._model_average._engine.units
        assert {type(unit) for unit in units} == {KernelUnit}
        assert len(units) <= 2
    average = ours.AveragedModel(model, use_buffers=True, **KINDS[kind][0](ours))
    for _ in range(4):
        average.update_parameters(model)
        assert [type(unit) for unit in average._model_average._engine.units] == [KernelUnit]


def approximately_equal(mine: nn.Module, other: nn.Module, tolerance: float = 1e-5) -> None:
    found, expected = tensors(mine), tensors(other)
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].stride() == tensor.stride()
        torch.testing.assert_close(found[name], tensor, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("kind", [k for k in KINDS if k != "default"])
def test_functions_and_models_of_either_go_together(kind: str, use_buffers: bool) -> None:
    make, _ = KINDS[kind]
    model = Net(integers=False)
    options = {"use_buffers": use_buffers}
    crossed = [
        ours.AveragedModel(model, **make(theirs), **options),
        theirs.AveragedModel(model, **make(ours), **options),
        theirs.AveragedModel(model, **make(theirs), **options),
    ]
    for step in range(5):
        move(model, step)
        for average in crossed:
            average.update_parameters(model)
    for average in crossed[:2]:
        approximately_equal(average, crossed[2])


class Recorder:
    """A user's function that notes how it is called."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def one(self, average: Tensor, value: Tensor, n: Any) -> Tensor:
        self.calls.append((bits(average), bits(value), bits(n), value.requires_grad))
        return average * 0.5 + value

    def many(self, averages: Any, values: Any, n: Any) -> None:
        self.calls.append((bits(list(averages)), bits(list(values)), bits(n)))
        for average, value in zip(averages, values, strict=True):
            average.copy_(average * 0.5 + value)


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("which", ["avg_fn", "multi_avg_fn"])
def test_own_functions_are_called_as_by_torch(which: str, use_buffers: bool) -> None:
    model = Net()
    model.narrow = nn.Parameter(torch.randn(3).half())
    model.wide = nn.Parameter(torch.randn(3).double())
    found = []
    for m in (ours, theirs):
        recorder = Recorder()
        function = recorder.one if which == "avg_fn" else recorder.many
        options: dict[str, Any] = {which: function, "use_buffers": use_buffers}
        changed = copy.deepcopy(model)
        average = m.AveragedModel(changed, **options)
        for step in range(3):
            move(changed, step)
            average.update_parameters(changed)
        # torch's order of dtypes is that of a hash table.
        found.append((sorted(recorder.calls, key=repr), bits(dict(tensors(average)))))
    assert found[0] == found[1]
    assert found[0][0]


# ------------------------------------------------------------------------- integers, NaN, complex


class Counters(nn.Module):
    """Buffers that are no floats."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("byte", torch.zeros(2, dtype=torch.uint8))
        self.register_buffer("flag", torch.tensor([False, True]))
        self.register_buffer("large", torch.tensor(2**62 + 1))


@pytest.mark.parametrize("kind", KINDS)
def test_integers_are_rounded_to_the_nearest(kind: str) -> None:
    make, decay = KINDS[kind]
    model = Counters()
    average = ours.AveragedModel(model, use_buffers=True, **make(ours))
    exact = 0.0
    for n in range(UPDATES):
        model.count.fill_(3 * (n + 1))
        model.byte.fill_(200 - 10 * n)  # falls: a difference of bytes would wrap
        model.flag.logical_not_()
        average.update_parameters(model)
        before = exact
        exact += weight(decay, n) * (3 * (n + 1) - exact)
        if decay is None or decay < 0.9:
            assert abs(average.module.count.item() - exact) <= 1.5, (n, before)
        low, high = 200 - 10 * n, 200
        assert all(low <= b <= high for b in average.module.byte.tolist())
        assert torch.equal(average.module.flag, model.flag)
        assert average.module.large.item() == 2**62 + 1
    if decay is None:
        assert average.module.count.item() == round(exact)  # torch's is 22 here


@pytest.mark.parametrize("use_buffers", [False, True])
def test_integers_that_do_not_change_stay(use_buffers: bool) -> None:
    model = Counters()
    model.count.fill_(7)
    average = ours.AveragedModel(
        model, multi_avg_fn=ours.get_ema_multi_avg_fn(0.9), use_buffers=use_buffers
    )
    for _ in range(5):
        average.update_parameters(model)
        assert average.module.count.item() == 7


def test_buffers_are_copied_where_they_are_not_averaged() -> None:
    model = Net()
    average = ours.AveragedModel(model)
    for step in range(4):
        move(model, step)
        average.update_parameters(model)
        for name, buffer in model.named_buffers():
            assert bits(dict(average.module.named_buffers())[name]) == bits(buffer)


def numbers(module: nn.Module) -> Any:
    """Exact to the bit, whatever the layout."""
    return bits({name: tensor.contiguous() for name, tensor in tensors(module).items()})


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_value_is_an_exact_copy(kind: str) -> None:
    model = Net()
    average = ours.AveragedModel(model, use_buffers=True, **KINDS[kind][0](ours))
    with torch.no_grad():
        for p in average.module.parameters():
            p.fill_(float("nan"))
        model.scalar.fill_(float("inf"))
    move(model, 0)
    average.update_parameters(model)
    assert numbers(average.module) == numbers(model)
    average.n_averaged.zero_()  # begin anew: the old average does not count
    with torch.no_grad():
        average.module.bulk.fill_(float("inf"))
    average.update_parameters(model)
    assert numbers(average.module) == numbers(model)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_complex_parameters(kind: str, dtype: torch.dtype) -> None:
    model = nn.Module()
    model.weight = nn.Parameter(torch.randn(4, 3, dtype=dtype))
    model.conjugated = nn.Parameter(torch.randn(3, dtype=dtype).conj())
    averages = [m.AveragedModel(model, **KINDS[kind][0](m)) for m in (ours, theirs)]
    for step in range(5):
        move(model, step)
        for average in averages:
            average.update_parameters(model)
    for name, tensor in tensors(averages[1]).items():
        torch.testing.assert_close(tensors(averages[0])[name], tensor, rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------------------ copies, state dicts


def through_pickle(average: nn.Module) -> Any:
    return pickle.loads(pickle.dumps(average))


def through_a_file(average: nn.Module) -> Any:
    buffer = io.BytesIO()
    torch.save(average, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def through_a_state_dict(average: Any) -> Any:
    fresh = ours.AveragedModel(
        Net(), multi_avg_fn=average.multi_avg_fn, use_buffers=average.use_buffers
    )
    fresh.load_state_dict(average.state_dict())
    return fresh


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize(
    "again", [copy.deepcopy, through_pickle, through_a_file, through_a_state_dict]
)
@pytest.mark.parametrize("kind", ["default", "ema-multi-0.9"])
def test_a_copy_continues_bit_for_bit(
    kind: str, again: Callable[[Any], Any], use_buffers: bool
) -> None:
    model = Net()
    average = ours.AveragedModel(model, use_buffers=use_buffers, **KINDS[kind][0](ours))
    for step in range(3):
        move(model, step)
        average.update_parameters(model)
    other = again(average)
    assert "_model_average" not in vars(other)
    move(model, 3)
    before = bits(tensors(average))
    other.update_parameters(model)
    assert bits(tensors(average)) == before, "the copy shares tensors with the original"
    average.update_parameters(model)
    kept = average.state_dict().keys() | dict(average.named_parameters()).keys()
    for name, tensor in tensors(average).items():
        if name in kept:
            assert bits(tensors(other)[name]) == bits(tensor), name


@pytest.mark.parametrize("kind", ["default", "ema-multi-0.9"])
@pytest.mark.parametrize("first", [ours, theirs], ids=["to torch", "from torch"])
def test_state_dicts_fit_both_ways(first: Any, kind: str) -> None:
    second = theirs if first is ours else ours
    model = Net(integers=False)
    whole = theirs.AveragedModel(model, **KINDS[kind][0](theirs))
    before = first.AveragedModel(model, **KINDS[kind][0](first))
    after = second.AveragedModel(model, **KINDS[kind][0](second))
    for step in range(6):
        if step == 3:
            after.load_state_dict(before.state_dict())
        move(model, step)
        for average in (whole, before if step < 3 else after):
            average.update_parameters(model)
    assert list(before.state_dict()) == list(after.state_dict()) == list(whole.state_dict())
    approximately_equal(after, whole)


def test_it_is_one_of_torchs_and_runs_its_module() -> None:
    model = nn.Linear(3, 2)
    average = ours.AveragedModel(model)
    assert isinstance(average, theirs.AveragedModel)
    x = torch.randn(4, 3)
    assert torch.equal(average(x), model(x))
    assert average.n_averaged.dtype is torch.long
    assert average.module is not model


# ----------------------------------------------------------------------- whatever happens to models


def new_parameter(model: Any) -> None:
    model.bulk = nn.Parameter(torch.randn(1501))


def new_data(model: Any) -> None:
    model.bulk.data = torch.randn(1501)


def swapped_tensors(model: Any) -> None:
    torch.utils.swap_tensors(model.bulk, nn.Parameter(torch.randn(1501)))


def exchanged_with_each_other(model: Any) -> None:
    torch.utils.swap_tensors(model.conv.bias, model.norm.weight)


def new_submodule(model: Any) -> None:
    model.conv = nn.Conv2d(3, 5, 3)


def new_dict(model: Any) -> None:
    model._parameters = {
        name: None if p is None else nn.Parameter(p.detach() + 1)
        for name, p in model._parameters.items()
    }


def another_layout(model: Any) -> None:
    model.conv.weight.data = model.conv.weight.data.contiguous()


def negated_view(model: Any) -> None:
    model.norm.weight.data = torch._neg_view(torch.randn(5))


def wider(model: Any) -> None:
    model.double()


def narrower(model: Any) -> None:
    model.bfloat16()


def listed_by_itself(model: Any) -> None:
    found = list(model.named_parameters())
    found[0] = (found[0][0], nn.Parameter(torch.randn_like(found[0][1])))
    model.named_parameters = lambda *args, **kwargs: iter(found)


def parameter_made_a_buffer(model: Any) -> None:
    frozen = model.frozen.detach().clone()
    del model.frozen
    model.register_buffer("frozen", frozen)


CHANGES = [
    new_parameter, new_data, swapped_tensors, exchanged_with_each_other, new_submodule, new_dict,
    another_layout, negated_view, wider, narrower, listed_by_itself, parameter_made_a_buffer,
]  # fmt: skip


@pytest.fixture(params=[True, False], ids=["native", "python"])
def _native(request: Any, monkeypatch: Any) -> None:
    """Tensors are looked at through torch's C functions, or from Python."""
    if not request.param:
        monkeypatch.setattr(native, "library", lambda: None)
    elif native.library() is None:
        pytest.skip("this torch does not export the functions")


@pytest.mark.usefixtures("_native")
@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("whose", ["the model's", "the average's", "of both"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_tensors_is_noticed(
    change: Callable[[Any], None], whose: str, use_buffers: bool
) -> None:
    if change is parameter_made_a_buffer and (whose != "of both" or not use_buffers):
        pytest.skip("the modules would not match")
    if change is listed_by_itself and whose != "the model's":
        pytest.skip("torch lists the average's parameters without asking the module")
    model = Net(integers=False)
    kwargs = {"use_buffers": use_buffers}
    averages = [
        m.AveragedModel(model, multi_avg_fn=m.get_ema_multi_avg_fn(0.5), **kwargs)
        for m in (ours, theirs)
    ]
    for step in range(3):
        move(model, step)
        for average in averages:
            average.update_parameters(model)
    changed = [model] if whose != "the average's" else []
    changed += [average.module for average in averages] if whose != "the model's" else []
    for module in changed:
        torch.manual_seed(1)
        change(module)
    if change is negated_view or (change in (wider, narrower) and whose != "of both"):
        # torch refuses lists of these, and averages them one by one.
        averages[1].multi_avg_fn, averages[1].avg_fn = None, theirs.get_ema_avg_fn(0.5)
    for step in range(3, 6):
        move(model, step)
        for average in averages:
            average.update_parameters(model)
    mine, other = tensors(averages[0]), tensors(averages[1])
    assert list(mine) == list(other)
    for name, tensor in other.items():
        rough = change is narrower
        torch.testing.assert_close(
            mine[name], tensor, rtol=2e-2 if rough else 1e-5, atol=2e-2 if rough else 1e-5
        )


def test_two_models_in_turn() -> None:
    models = [Net(integers=False), Net(integers=False)]
    averages = [m.AveragedModel(models[0]) for m in (ours, theirs)]
    for step in range(6):
        move(models[step % 2], step)
        for average in averages:
            average.update_parameters(models[step % 2])
    approximately_equal(*averages)


def test_a_model_may_be_averaged_into_several() -> None:
    model = Net()
    decays = (0.5, 0.9)
    averages = [
        ours.AveragedModel(model, multi_avg_fn=ours.get_ema_multi_avg_fn(d)) for d in decays
    ]
    exact = [0.0, 0.0]
    for step in range(4):
        with torch.no_grad():
            model.scalar.fill_(step)
        for k, average in enumerate(averages):
            average.update_parameters(model)
            exact[k] += weight(decays[k], step) * (step - exact[k])
            assert average.module.scalar.item() == pytest.approx(exact[k])


def test_the_options_may_be_changed_later() -> None:
    model = Net(integers=False)
    averages = [m.AveragedModel(model) for m in (ours, theirs)]
    for step in range(6):
        if step == 3:
            for m, average in zip((ours, theirs), averages, strict=True):
                average.use_buffers = True
                average.multi_avg_fn = m.get_ema_multi_avg_fn(0.5)
        move(model, step)
        for average in averages:
            average.update_parameters(model)
    approximately_equal(*averages)


def test_autograd_is_told_of_the_change() -> None:
    model = nn.Linear(2, 2)
    average = ours.AveragedModel(model)
    for _ in range(3):
        loss = (average.module.weight**2).sum()
        average.update_parameters(model)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


@pytest.mark.parametrize("kind", ["default", "ema-multi-0.9"])
def test_the_models_tensors_are_not_kept_alive(kind: str) -> None:
    model = Net()
    average = ours.AveragedModel(model, **KINDS[kind][0](ours))
    for _ in range(3):
        average.update_parameters(model)
    gone = [weakref.ref(t) for t in tensors(model).values()]
    gc.collect()
    gc.disable()
    try:
        del model
        assert not any(reference() is not None for reference in gone)
        other = Net()
        average.update_parameters(other)  # it still works
        kept = [weakref.ref(t) for t in tensors(average).values()]
        del average
        assert not any(reference() is not None for reference in kept)
    finally:
        gc.enable()


# ------------------------------------------------------------------------------------- bad input


def larger(model: Any) -> None:
    model.tied.weight = nn.Parameter(torch.randn(6, 7))


def one_more(model: Any) -> None:
    model.extra = nn.Parameter(torch.ones(1))


def last_missing(model: Any) -> None:
    del model.tied, model.again


def one_less(model: Any) -> None:
    del model.bulk


def buffer_of_another_shape(model: Any) -> None:
    model.buffer = torch.ones(2, 3)


def larger_data(model: Any) -> None:
    model.tied.weight.data = torch.randn(6, 7)


def made_complex(model: Any) -> None:
    model.bulk = nn.Parameter(torch.randn(1501, dtype=torch.complex64))


MISMATCHES: dict[Callable[[Any], None], str] = {
    larger: r"the model's parameter 10 \('tied.weight'\) is of shape \(6, 7\)",
    larger_data: r"the model's parameter 10 \('tied.weight'\) is of shape \(6, 7\)",
    one_more: r"the model's parameter 6 \('extra'\) .* the average's parameter 6 \('conv.weight'\)",
    last_missing: r"parameter 10 is missing, the average's parameter 10 \('tied.weight'\)",
    one_less: r"the model's parameter 5 \('conv.weight'\) is of shape .*'bulk'",
    buffer_of_another_shape: r"buffer 0 \('buffer'\) is of shape \(2, 3\)",
    made_complex: r"parameter 5 \('bulk'\) is of shape \(1501,\), torch.complex64",
}


@pytest.mark.usefixtures("_native")
@pytest.mark.parametrize("function", [None, "built-in", "own"])
@pytest.mark.parametrize("change", MISMATCHES)
def test_models_that_do_not_match_are_refused_whole(
    change: Callable[[Any], None], function: str | None
) -> None:
    model = Net()
    functions = {"built-in": ours.get_ema_avg_fn(0.5), "own": lambda a, v, n: a + v}
    average = ours.AveragedModel(model, avg_fn=functions.get(function or ""))
    for step in range(3):
        move(model, step)
        average.update_parameters(model)
    right = copy.deepcopy(model)
    change(model)
    before = bits(tensors(average))
    for _ in range(2):
        with pytest.raises(ValueError, match=MISMATCHES[change]):
            average.update_parameters(model)
    assert bits(tensors(average)) == before
    average.update_parameters(right)
    assert int(average.n_averaged) == 4


@pytest.mark.parametrize("get", [ours.get_ema_avg_fn, ours.get_ema_multi_avg_fn])
@pytest.mark.parametrize("decay", [-0.1, 1.1, float("nan"), float("inf"), torch.ones(2)])
def test_a_decay_out_of_range(get: Callable[..., Any], decay: Any) -> None:
    with pytest.raises(ValueError, match="decay must be"):
        get(decay)


@pytest.mark.parametrize("get", [ours.get_ema_avg_fn, ours.get_ema_multi_avg_fn])
def test_a_decay_that_is_no_number(get: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="decay must be a number, got str 'half'"):
        get("half")
    assert get(torch.tensor(0.5)) == get(0.5)


def test_both_functions_are_refused_as_by_torch() -> None:
    for m in (ours, theirs):
        with pytest.raises(AssertionError, match="avg_fn and multi_avg_fn"):
            m.AveragedModel(
                nn.Linear(1, 1), avg_fn=m.get_swa_avg_fn(), multi_avg_fn=m.get_swa_multi_avg_fn()
            )


def test_averages_without_values_are_refused_as_by_torch() -> None:
    errors = []
    for m in (ours, theirs):
        average = m.AveragedModel(nn.Linear(2, 2), device="meta")
        assert average.module.weight.is_meta
        with pytest.raises((RuntimeError, NotImplementedError)) as error:
            average.update_parameters(nn.Linear(2, 2))
        errors.append(error.type)
    assert errors[0] is errors[1]


def test_models_without_values_are_refused_as_by_torch() -> None:
    errors = []
    for m in (ours, theirs):
        average = m.AveragedModel(nn.Linear(2, 2))
        before = bits(tensors(average))
        with pytest.raises((RuntimeError, NotImplementedError)) as error:
            average.update_parameters(nn.Linear(2, 2, device="meta"))
        errors.append(error.type)
        assert bits(tensors(average)) == before
    assert errors[0] is errors[1]


# --------------------------------------------------------------------------------------- update_bn


class Normed(nn.Module):
    """Three normalizations of different momenta, one in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.BatchNorm1d(3, momentum=0.3)
        self.second = nn.BatchNorm1d(3, momentum=None)
        self.inner = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        self.inner.eval()

    def forward(self, x: Tensor) -> Any:
        return self.inner(self.second(self.first(x)))


def batches(kind: str) -> list[Any]:
    x = list(torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0)))
    return {
        "tensors": x,
        "tuples": [(b, None) for b in x],
        "lists": [[b, "label"] for b in x],
    }[kind]


@pytest.mark.parametrize("device", [None, "cpu"])
@pytest.mark.parametrize("kind", ["tensors", "tuples", "lists"])
def test_statistics_are_those_of_torch(kind: str, device: str | None) -> None:
    model = Normed()
    models = [ours.AveragedModel(model), theirs.AveragedModel(model)]
    for m, average in zip((ours, theirs), models, strict=True):
        m.update_bn(batches(kind), average, device=device)
    assert bits(tensors(models[0])) == bits(tensors(models[1]))
    assert int(models[0].module.first.num_batches_tracked) == 4


class Broken(Exception):
    """What the loader raises."""


def breaking() -> Iterator[Tensor]:
    yield torch.randn(5, 3)
    raise Broken


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_momenta_and_flags_are_put_back(training: bool, fails: bool) -> None:
    model = Normed().train(training)
    model.inner.eval()
    flags = [module.training for module in model.modules()]
    if fails:
        with pytest.raises(Broken):
            ours.update_bn(breaking(), model)
    else:
        ours.update_bn(batches("tensors"), model)
    assert (model.first.momentum, model.second.momentum) == (0.3, None)
    assert [module.training for module in model.modules()] == flags


def test_a_model_without_normalization_is_left_alone() -> None:
    assert ours.update_bn(breaking(), nn.Linear(3, 3)) is None
