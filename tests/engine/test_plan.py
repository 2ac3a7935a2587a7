"""Plans: whatever happens to parameters, gradients and states, the step does what eager does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import Parameter

import thalweg
import thalweg.optim as optim
from tests.engine.running import Twins, class_of, give, optimizer_of
from thalweg.engine.backends.cpu import addresses as native
from thalweg.optim.optimizer import MODES
from thalweg.rule import Rule

Change = Callable[[list[Parameter], Any], None]


@pytest.fixture(params=[True, False], ids=["native", "python"])
def _native(request, monkeypatch) -> None:
    """Tensors are looked at through torch's C functions, or from Python."""
    if not request.param:
        monkeypatch.setattr(native, "library", lambda: None)
    elif native.library() is None:
        pytest.skip("this torch does not export the functions")


pytestmark = pytest.mark.usefixtures("_native")


def values() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(s, generator=generator) for s in [(4, 3), (5,), (2, 3, 4, 5), ()]]


def adam(params, **options):
    return optim.Adam(params, lr=0.05, **options)


def sgd(params, **options):
    return optim.SGD(params, lr=0.05, momentum=0.9, dampening=0.5, **options)


def nadam(params, **options):
    return optim.NAdam(params, lr=0.05, **options)


def noise(like: torch.Tensor, seed: int = 0, dtype: torch.dtype | None = None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(like.shape, generator=generator, dtype=dtype or like.dtype)


def moved_data(params, optimizer) -> None:
    params[0].data = noise(params[0])


def moved_gradient(params, optimizer) -> None:
    params[1].grad.data = noise(params[1], 5)


def to_double(params, optimizer) -> None:
    for p in params:
        p.data = p.data.double()
        p.grad = p.grad.double()


def to_half_and_back(params, optimizer) -> None:
    for dtype in (torch.bfloat16, torch.float32):
        for p in params:
            p.data = p.data.to(dtype)
            p.grad = p.grad.to(dtype)


def channels_last(params, optimizer) -> None:
    params[2].data = params[2].data.to(memory_format=torch.channels_last)


def transposed_in_place(params, optimizer) -> None:
    """The same memory read in another order: no address moves."""
    shape, p = params[0].shape, params[0].data
    params[0].data = p.as_strided(shape, (1, shape[0]))
    assert params[0].data_ptr() == p.data_ptr()


def set_storage(params, optimizer) -> None:
    with torch.no_grad():
        params[1].set_(noise(params[1], 3))


def swapped(params, optimizer) -> None:
    gradient = params[0].grad.clone()
    params[0].grad = None
    torch.utils.swap_tensors(params[0], Parameter(noise(params[0], 4)))
    params[0].grad = gradient


def replaced_state(params, optimizer) -> None:
    state = optimizer.state[params[0]]
    name = "exp_avg" if "exp_avg" in state else "momentum_buffer"
    state[name] = noise(params[0], 9)


def moved_state(params, optimizer) -> None:
    for name, tensor in optimizer.state[params[1]].items():
        if tensor.dim():
            tensor.data = noise(tensor, 2).abs()
            assert optimizer.state[params[1]][name] is tensor


def written_state(params, optimizer) -> None:
    for tensor in optimizer.state[params[1]].values():
        tensor.mul_(2)


def wider_state(params, optimizer) -> None:
    state = optimizer.state[params[1]]
    for name, tensor in list(state.items()):
        if tensor.dim():
            state[name] = tensor.double()


def deleted_state(params, optimizer) -> None:
    del optimizer.state[params[0]]


def cleared_state(params, optimizer) -> None:
    optimizer.state.clear()


def emptied_entry(params, optimizer) -> None:
    optimizer.state[params[0]].clear()


def popped_entry(params, optimizer) -> None:
    state = optimizer.state[params[0]]
    state.pop("exp_avg_sq" if "exp_avg_sq" in state else "momentum_buffer")


def state_of_plain_dicts(params, optimizer) -> None:
    optimizer.state = {p: {k: v.clone() for k, v in s.items()} for p, s in optimizer.state.items()}


def reloaded(params, optimizer) -> None:
    optimizer.load_state_dict(optimizer.state_dict())


def set_step(params, optimizer) -> None:
    if "step" in optimizer.state[params[0]]:
        optimizer.state[params[0]]["step"].fill_(40)
        optimizer.state[params[1]]["step"] = torch.tensor(7.0)


def appended(params, optimizer) -> None:
    params.append(Parameter(noise(params[0], 6)))
    params[-1].grad = noise(params[-1], 8)
    optimizer.param_groups[0]["params"].append(params[-1])


def removed(params, optimizer) -> None:
    optimizer.param_groups[0]["params"] = [p for p in params if p is not params[1]]


def reordered(params, optimizer) -> None:
    optimizer.param_groups[0]["params"].reverse()


def added_group(params, optimizer) -> None:
    params.append(Parameter(noise(params[0], 6)))
    params[-1].grad = noise(params[-1], 8)
    optimizer.add_param_group({"params": [params[-1]], "lr": 0.5})


def replaced_group(params, optimizer) -> None:
    optimizer.param_groups[0] = {**optimizer.param_groups[0], "lr": 0.3}


def split_groups(params, optimizer) -> None:
    (group,) = optimizer.param_groups
    optimizer.param_groups.append({**group, "params": group["params"][2:], "lr": 0.2})
    group["params"] = group["params"][:2]


def changed_options(params, optimizer) -> None:
    optimizer.param_groups[0].update(lr=0.001, weight_decay=0.1)


def flipped_switch(params, optimizer) -> None:
    group = optimizer.param_groups[0]
    group["maximize"] = True
    if "amsgrad" in group:
        group["amsgrad"] = True


def tensor_lr(params, optimizer) -> None:
    optimizer.param_groups[0]["lr"] = torch.tensor(0.02)


def frozen(params, optimizer) -> None:
    params[0].grad = None
    params[0].requires_grad_(False)


def narrow_gradient(params, optimizer) -> None:
    give(params[1], params[1].grad.to(torch.bfloat16))


def strided_gradient(params, optimizer) -> None:
    params[0].grad = params[0].grad.t().contiguous().t()
    params[2].grad = params[2].grad.to(memory_format=torch.channels_last)


def expanded_gradient(params, optimizer) -> None:
    params[0].grad = torch.full((), 0.25).expand(params[0].shape)


def explained(params, optimizer) -> None:
    thalweg.explain(optimizer)
    assert optimizer.step_count >= 1


CHANGES: list[Change] = [
    moved_data, moved_gradient, to_double, to_half_and_back, channels_last, transposed_in_place,
    set_storage, swapped, replaced_state, moved_state, written_state, wider_state, deleted_state,
    cleared_state, emptied_entry, popped_entry, state_of_plain_dicts, reloaded, set_step, appended,
    removed, reordered, added_group, replaced_group, split_groups, changed_options, flipped_switch,
    tensor_lr, frozen, narrow_gradient, strided_gradient, expanded_gradient, explained,
]  # fmt: skip


@pytest.mark.parametrize("make", [adam, sgd, nadam])
@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_the_step_follows(change: Change, make) -> None:
    twins = Twins(values(), make)
    for _ in range(2):
        twins.gradients()
        twins.step()
    twins.gradients()
    for params, optimizer in twins.each():
        change(params, optimizer)
    twins.step()
    twins.gradients(keep=True)
    twins.step()
    for params in twins.params:
        for p in params:
            p.requires_grad_(True)  # thawed again
            if p.dtype is not getattr(p, "grad_dtype", p.dtype):
                p.grad = None
                p.grad_dtype = p.dtype
    twins.gradients()
    twins.step()


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "replaced"])
def test_gradients_kept_or_replaced(keep: bool) -> None:
    twins = Twins(values(), adam)
    for _ in range(5):
        twins.gradients(keep=keep)
        twins.step()


def test_late_gradients_have_their_own_bias_correction() -> None:
    twins = Twins(values(), adam)
    for missing in [(0, 1, 2, 3), (0, 2), (0,), (), (1,), ()]:
        twins.gradients(missing=missing)
        twins.step()
    params, optimizer = twins.each()[0]
    assert [optimizer.state[p]["step"].item() for p in params] == [3, 4, 4, 5]
    assert optimizer.step_count == 5


def test_a_late_gradient_is_a_first_step_on_its_own() -> None:
    a, b = Parameter(torch.ones(3)), Parameter(torch.ones(3))
    together = optim.Adam([a, b], lr=0.1)
    a.grad = torch.ones(3)
    for _ in range(5):
        together.step()
    b.grad = torch.ones(3)
    together.step()
    c = Parameter(torch.ones(3))
    c.grad = torch.ones(3)
    optim.Adam([c], lr=0.1).step()
    assert torch.equal(b, c)


def test_many_changes_one_after_another() -> None:
    """No plan is left over from a change before."""
    twins = Twins(values(), adam)
    for change in CHANGES:
        if change in (frozen, swapped, narrow_gradient, set_storage):
            continue
        twins.gradients()
        for params, optimizer in twins.each():
            if any(p not in optimizer.state for p in params):
                optimizer.step()  # what was removed stays away, what is new has a state
            if change is not split_groups or len(optimizer.param_groups) == 1:
                change(params, optimizer)
        twins.step()


@pytest.mark.parametrize("fused", [None, False], ids=["kernel", "eager"])
def test_backward_through_a_stale_graph_is_refused(fused) -> None:
    p = Parameter(torch.ones(3))
    loss = (p * p).sum()
    loss.backward(retain_graph=True)
    optimizer = optim.Adam([p], fused=fused)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_versions_count_writes_and_only_those() -> None:
    def update(p, g, s, h):
        s.written = g
        return p - s.read

    rule = Rule(update, {"written": 0.0, "read": 1.0})
    (p,), optimizer = optimizer_of(rule, [torch.ones(2)], [torch.ones(2)], fused=True)
    optimizer.step()
    state = optimizer.state[p]
    before = [t._version for t in (p, p.grad, state["written"], state["read"])]
    optimizer.step()
    after = [t._version for t in (p, p.grad, state["written"], state["read"])]
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 0, 1, 0]


class Wrapped(torch.Tensor):
    """A tensor that has no memory of its own, as AsyncCollectiveTensor and DTensor have none."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Wrapped:
        self = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, device=inner.device, strides=inner.stride()
        )
        self.inner = inner
        return self

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        def bare(x):
            return x.inner if isinstance(x, Wrapped) else x

        tree_map = torch.utils._pytree.tree_map
        return function(*tree_map(bare, args), **tree_map(bare, kwargs or {}))


def test_a_gradient_without_memory_of_its_own_runs_eagerly() -> None:
    p = Parameter(torch.ones(4))
    optimizer = optim.SGD([p], lr=0.25)
    p.grad = torch.ones(4)
    optimizer.step()
    p.grad = Wrapped(torch.ones(4))
    optimizer.step()
    assert p.tolist() == [0.5] * 4
    assert optimizer._engine.choices[0].reason == "g is a Wrapped"
    p.grad = torch.ones(4)
    optimizer.step()
    assert p.tolist() == [0.25] * 4


def test_tensors_of_a_subclass_run_eagerly() -> None:
    class Own(torch.Tensor):
        pass

    p = torch.ones(3).as_subclass(Own).requires_grad_()
    p.grad = torch.ones(3).as_subclass(Own)
    optimizer = optim.SGD([p], lr=0.5)
    optimizer.step()
    assert p.tolist() == [0.5] * 3
    assert optimizer._engine.choices[0].reason == "p is a Own"


@pytest.mark.parametrize("operator", ["neg", "conj"])
def test_lazily_negated_and_conjugated_gradients(operator: str) -> None:
    z = torch.randn(5, dtype=torch.complex64)
    g = torch.randn(5, dtype=torch.complex64)
    found = []
    for fused in (None, False):
        p = Parameter(z.clone() if operator == "conj" else z.real.contiguous())
        lazy = g.conj() if operator == "conj" else torch._neg_view(g.real.contiguous())
        assert lazy.is_conj() or lazy.is_neg()
        optimizer = optim.Adam([p], lr=0.1, fused=fused)
        for gradient in (lazy.resolve_conj().resolve_neg(), lazy):
            p.grad = gradient
            optimizer.step()
        found.append(p.detach())
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-7)


def test_an_option_may_become_none_and_a_number_again() -> None:
    def update(p, g, s, h):
        return p - g if h.limit is None else p - h.limit * g

    rule = Rule(update, name="limited")
    for fused in (None, False):
        (p,), optimizer = optimizer_of(
            rule, [torch.zeros(2)], [torch.ones(2)], fused=fused, limit=0.5
        )
        for limit in (0.5, None, 0.25):
            optimizer.param_groups[0]["limit"] = limit
            optimizer.step()
        assert p.tolist() == [-1.75] * 2
        assert len(rule._programs) == 2


def test_what_was_done_to_states_while_a_gradient_was_absent_stays_done() -> None:
    a, b = Parameter(torch.ones(2)), Parameter(torch.ones(2, dtype=torch.float64))
    optimizer = optim.SGD([a, b], lr=0.1, momentum=0.9)
    a.grad, b.grad = torch.ones(2), torch.ones(2, dtype=torch.float64)
    optimizer.step()
    b.grad = None
    optimizer.add_param_group({"params": [Parameter(torch.ones(2))]})
    optimizer.step()  # by a new plan, in which b's unit has nothing to do
    optimizer.state[b].clear()
    b.grad = torch.ones(2, dtype=torch.float64)
    optimizer.step()
    assert optimizer.state[b]["momentum_buffer"].tolist() == [1.0, 1.0], "it begins anew"


def test_a_state_set_under_differentiable_is_used_whatever_its_id() -> None:
    p = torch.ones(3)
    p.grad = torch.ones(3)
    optimizer = optim.SGD([p], lr=0.1, momentum=0.9, differentiable=True)
    first = torch.zeros(3)
    optimizer.state[p]["momentum_buffer"] = first
    gone = id(first)
    del first
    optimizer.step()  # puts another in its place
    optimizer.step()
    others = []
    while not others or (id(others[-1]) != gone and len(others) < 10_000):
        others.append(torch.full((3,), 100.0))
    before = p.clone()
    optimizer.state[p]["momentum_buffer"] = others[-1]
    optimizer.step()
    assert (before - p).tolist() == pytest.approx([9.1] * 3)


def test_a_parameter_without_a_gradient_may_get_another_shape() -> None:
    a, b = Parameter(torch.ones(2)), Parameter(torch.ones(2))
    optimizer = optim.Adam([a, b], lr=0.1)
    a.grad, b.grad = torch.ones(2), torch.ones(2)
    optimizer.step()
    a.grad, a.data = None, torch.ones(5)
    optimizer.step()
    assert b.tolist() == pytest.approx([0.8, 0.8])
    a.grad = torch.ones(5)
    with pytest.raises(RuntimeError, match=r"state 'exp_avg' of parameter 0.*has shape \(2,\)"):
        optimizer.step()


@pytest.mark.parametrize("fused", [None, False])
def test_a_state_on_another_device_is_refused_by_its_name(fused: bool | None) -> None:
    ps = [Parameter(torch.ones(2)), Parameter(torch.ones(3))]
    optimizer = optim.Adam(ps, lr=0.1, fused=fused)
    for p in ps:
        p.grad = torch.ones_like(p)
    optimizer.step()
    optimizer.state[ps[1]]["exp_avg"] = torch.zeros(3, device="meta")
    with pytest.raises(RuntimeError, match=r"state 'exp_avg' of parameter 1.*is on meta.*on cpu"):
        optimizer.step()
    assert optimizer.state[ps[0]]["step"] == 1
    assert ps[0].tolist() == pytest.approx([0.9, 0.9])


def test_states_begun_in_inference_mode_are_ordinary_tensors() -> None:
    p = Parameter(torch.ones(2))
    p.grad = torch.ones(2)
    optimizer = optim.Adam([p], lr=0.1)
    with torch.inference_mode():
        optimizer.step()
    assert not any(tensor.is_inference() for tensor in optimizer.state[p].values())
    optimizer.step()
    assert p.tolist() == pytest.approx([0.8, 0.8])


def test_scalar_states_begin_at_their_initial_values() -> None:
    from thalweg.rule import State

    def update(p, g, s, h):
        s.mu = s.mu * 0.5
        return p - s.mu * g

    for counted in (True, False):
        rule = Rule(update, {"mu": State(1.0, scalar=True)}, counted=counted)
        (p,), optimizer = optimizer_of(rule, [torch.ones(2)], [torch.ones(2)])
        assert optimizer.state[p] == {}  # a look at it makes an empty entry, as torch's does
        optimizer.step()
        optimizer.step()
        assert p.tolist() == [0.25] * 2
        assert optimizer.state[p]["mu"].item() == 0.25


def test_a_refused_gradient_leaves_everything_as_it_was() -> None:
    a, b = Parameter(torch.ones(2)), Parameter(torch.ones(3, 3))
    a.grad, b.grad = torch.ones(2), torch.ones(3, 3).to_sparse()
    optimizer = class_of(Rule(lambda p, g, s, h: p - g, name="r"))([a, b], {**MODES})
    with pytest.raises(RuntimeError, match="does not support sparse gradients"):
        optimizer.step()
    assert a.tolist() == [1.0, 1.0]
    assert optimizer.step_count == 0


@pytest.mark.parametrize("fused", [None, False], ids=["kernel", "eager"])
@pytest.mark.parametrize("what", ["the gradient of", "state 'exp_avg' of"])
def test_real_numbers_do_not_stand_for_complex_ones(what: str, fused) -> None:
    p = Parameter(torch.ones(4, dtype=torch.complex64))
    p.grad = torch.ones_like(p)
    optimizer = optim.Adam([p], fused=fused)
    memory = torch.zeros(64)
    if what.startswith("state"):
        optimizer.state[p] = {"exp_avg": memory[8:12]}
    else:
        p.grad_dtype = None
        p.grad = memory[8:12]
    with pytest.raises(RuntimeError, match=f"{what} parameter 0.*both must be complex"):
        optimizer.step()
    assert (p == 1).all()
    assert not memory.any(), "nothing is written beside four real numbers"


@pytest.mark.parametrize("fused", [None, True, False])
def test_a_state_of_integers_is_refused(fused: bool | None) -> None:
    p = Parameter(torch.ones(4))
    p.grad = torch.ones_like(p)
    optimizer = optim.Adam([p], fused=fused)
    optimizer.state[p] = {"exp_avg": torch.ones(4).int()}
    with pytest.raises(RuntimeError, match=r"state 'exp_avg'.*torch.int32"):
        optimizer.step()
    assert (p == 1).all()


def test_fused_true_without_a_kernel_warns_and_is_right() -> None:
    p, twin = (Parameter(torch.ones(4, 4)[:, ::2]) for _ in range(2))
    p.grad, twin.grad = torch.ones_like(p), torch.ones_like(twin)
    optimizers = optim.Adam([p], fused=True), optim.Adam([twin], fused=False)
    with pytest.warns(UserWarning, match=r"fused=True, but there is no kernel where"):
        optimizers[0].step()
    optimizers[1].step()
    assert torch.equal(p, twin)
    assert (p < 1).all()


def test_fused_true_is_refused_where_torch_refuses_it() -> None:
    p = Parameter(torch.ones(4, device="meta"))
    p.grad = torch.ones_like(p)
    for library in (optim, torch.optim):
        with pytest.raises(RuntimeError, match="fused=True"):
            library.Adam([p], fused=True).step()


def test_share_memory_keeps_going() -> None:
    twins = Twins(values(), adam)
    twins.gradients()
    twins.step()
    for optimizer in twins.optimizers:
        optimizer._engine.share_memory()
    twins.gradients()
    twins.step()
    fast, params = twins.optimizers[0], twins.params[0]
    assert all(t.is_shared() for p in params for t in fast.state[p].values())
    assert [fast.state[p]["step"].item() for p in params] == [2.0] * 4


def test_a_parameter_that_becomes_an_inference_tensor_is_refused_as_torch_does() -> None:
    """Its version cannot be counted, which torch's own function answers by ending the process."""
    p = Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    optimizer = optim.SGD([p], lr=0.1)
    optimizer.step()
    with torch.inference_mode():
        other = Parameter(torch.full((3,), 5.0))
    p.grad = None
    torch.utils.swap_tensors(p, other)
    p.grad = torch.ones(3)
    with pytest.raises(RuntimeError, match="inference tensor"):
        optimizer.step()
    assert p.tolist() == [5.0] * 3
