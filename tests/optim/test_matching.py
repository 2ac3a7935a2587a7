"""Which entry of a state dict goes to which parameter, and what is said where that is not clear."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import thalweg.optim as optim
from tests.optim.problems import assert_refused, bits, snapshot
from tests.optim.through import through_a_file
from thalweg.optim.state_dict import LoadReport, Misshaped, named, names_in, packed, prepare


def tensors(*names: str, size: int = 2) -> dict[str, Tensor]:
    return {n: torch.full((size,), float(i), requires_grad=True) for i, n in enumerate(names)}


def stepped(optimizer: Any, steps: int = 2) -> Any:
    """After some steps; each parameter's gradient is its number, so that states tell them apart."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for _ in range(steps):
        for i, p in enumerate(dict.fromkeys(params)):
            p.grad = torch.full_like(p, 1.0 + i)
        optimizer.step()
    return optimizer


def saved_from(optimizer: Any) -> Any:
    return through_a_file(stepped(optimizer).state_dict())


def averages(optimizer: Any) -> dict[str, float]:
    """exp_avg of each parameter by name; NaN where it has none."""
    return {
        name: float(optimizer.state[p]["exp_avg"].flatten()[0])
        if optimizer.state.get(p)
        else float("nan")
        for group in optimizer.param_groups
        for name, p in zip(group["param_names"], group["params"], strict=True)
    }


# ------------------------------------------------------------------------------ options of groups


def grouped(*groups: dict[str, Any]) -> Any:
    return optim.Adam(
        [{**group, "params": list(tensors(*group["params"]).items())} for group in groups]
    )


def test_a_group_takes_the_options_of_where_its_parameters_come_from() -> None:
    source = grouped({"params": "ab", "lr": 0.1}, {"params": "cd", "lr": 0.2, "eps": 1e-3})
    saved = saved_from(source)
    target = grouped({"params": "d"}, {"params": "c"}, {"params": "ba", "lr": 9.0})
    assert target.load_state_dict(saved).complete
    assert [group["lr"] for group in target.param_groups] == [0.2, 0.2, 0.1]
    assert [group["eps"] for group in target.param_groups] == [1e-3, 1e-3, 1e-8]
    assert [group["param_names"] for group in target.param_groups] == [["d"], ["c"], ["b", "a"]]
    theirs = averages(source)
    assert averages(target) == {name: theirs[name] for name in "dcba"}


def test_groups_that_agree_can_be_one() -> None:
    saved = saved_from(grouped({"params": "ab", "lr": 0.1}, {"params": "c", "lr": 0.1}))
    target = grouped({"params": "cba", "lr": 5.0})
    assert target.load_state_dict(saved).complete
    assert target.param_groups[0]["lr"] == 0.1


def test_groups_that_disagree_cannot_be_one_without_being_told() -> None:
    saved = saved_from(
        grouped({"params": "a", "lr": 0.1, "initial_lr": 1.0}, {"params": "b", "lr": 0.2})
    )
    target = grouped({"params": "ab", "lr": 5.0, "weight_decay": 0.5})
    assert_refused(target, saved, ("lr of group 0 (0.1 and 0.2)", "initial_lr", "1.0 and none"))
    report = target.load_state_dict(saved, strict=False)
    assert report.kept == ("lr of group 0 (0.1 and 0.2)", "initial_lr of group 0 (1.0 and none)")
    assert report.loaded == ("a", "b")
    assert "options with several values" in str(report)
    group = target.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (5.0, 0)  # its own; and what they agree on
    assert "initial_lr" not in group


def test_a_group_of_new_parameters_keeps_its_options() -> None:
    saved = saved_from(grouped({"params": "a", "lr": 0.1}))
    target = grouped({"params": "a"}, {"params": "b", "lr": 3.0, "amsgrad": True})
    assert target.load_state_dict(saved, strict=False).missing == ("b",)
    assert [(g["lr"], g["amsgrad"]) for g in target.param_groups] == [(0.1, False), (3.0, True)]


def test_rates_that_are_tensors_are_compared_and_copied() -> None:
    rate = torch.tensor(0.1)
    saved = saved_from(grouped({"params": "a", "lr": rate}, {"params": "b", "lr": rate.clone()}))
    target = grouped({"params": "ba"})
    assert target.load_state_dict(saved).complete
    loaded = target.param_groups[0]["lr"]
    assert torch.equal(loaded, rate)
    loaded.fill_(7.0)
    assert [float(group["lr"]) for group in saved["param_groups"]] == pytest.approx([0.1, 0.1])


# --------------------------------------------------------------------------------------- renaming


def test_rename_by_a_dict_and_by_a_function() -> None:
    saved = saved_from(optim.Adam(tensors("encoder.a", "encoder.b", "head").items()))
    for rename in (
        {"encoder.a": "body.a", "encoder.b": "body.b"},
        lambda name: name.replace("encoder", "body"),
    ):
        target = optim.Adam(tensors("head", "body.a", "body.b").items())
        assert target.load_state_dict(saved, rename=rename).complete


def test_rename_may_exchange_names() -> None:
    source = optim.Adam(tensors("a", "b").items())
    saved = saved_from(source)
    target = optim.Adam(tensors("a", "b").items())
    target.load_state_dict(saved, rename={"a": "b", "b": "a"})
    theirs = averages(source)
    assert averages(target) == {"a": theirs["b"], "b": theirs["a"]}


@pytest.mark.parametrize(
    ("rename", "error", "words"),
    [
        ({"encoder.aa": "x"}, ValueError, "encoder.aa.*did you mean encoder.a"),
        ({"encoder.a": "encoder.b"}, ValueError, "same name.*encoder.b"),
        ({"encoder.a": 3}, TypeError, "3.*encoder.a"),
        (lambda name: None, TypeError, "None"),
        ("encoder", TypeError, "dict.*function"),
    ],
)
def test_a_wrong_rename_is_refused(rename: Any, error: type[Exception], words: str) -> None:
    names = ("encoder.a", "encoder.b")
    saved = saved_from(optim.Adam(tensors(*names).items()))
    target = stepped(optim.Adam(tensors(*names).items()), 1)
    before = snapshot(target)
    with pytest.raises(error, match=words):
        target.load_state_dict(saved, rename=rename)
    assert snapshot(target) == before


def test_rename_needs_names_on_both_sides() -> None:
    plain, with_names = tensors("a").values(), tensors("a").items()
    for source, target, lacking in (
        (plain, with_names, "the state dict has none"),
        (with_names, plain, "the optimizer has none"),
    ):
        saved = saved_from(optim.Adam(source))
        with pytest.raises(ValueError, match=lacking):
            optim.Adam(target).load_state_dict(saved, rename={"a": "b"})


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_a_common_prefix_is_pointed_out_and_the_hint_works(prefix: str) -> None:
    names = ("a.weight", "b.weight")
    wrapped = tuple(prefix + name for name in names)
    for source, target in ((wrapped, names), (names, wrapped)):
        saved = saved_from(optim.Adam(tensors(*source).items()))
        optimizer = optim.Adam(tensors(*target).items())
        with pytest.raises(ValueError, match="rename=") as caught:
            optimizer.load_state_dict(saved)
        hint = str(caught.value).partition("rename=")[2]
        assert optimizer.load_state_dict(saved, rename=eval(hint)).complete


# ------------------------------------------------------------------------ names that are not clear


def test_one_name_for_two_parameters_goes_by_order_only_where_all_is_the_same() -> None:
    """Two models in one optimizer may both have a "weight"; with torch that goes by order."""

    def two_models(reverse: bool = False) -> Any:
        pairs = [[("weight", torch.ones(2, requires_grad=True))] for _ in range(2)]
        pairs[1].append(("bias", torch.ones(2, requires_grad=True)))
        return optim.Adam([{"params": p} for p in (reversed(pairs) if reverse else pairs)])

    saved = saved_from(two_models())
    target = two_models()
    assert target.load_state_dict(saved).complete
    assert_refused(two_models(reverse=True), saved, ("same name", "weight"))
    other = optim.Adam(tensors("weight", "bias").items())
    assert_refused(other, saved, ("same name", "weight"))


def test_a_parameter_that_is_in_a_group_twice_has_one_name() -> None:
    p, q = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    with pytest.warns(UserWarning, match="duplicate"):
        source = optim.Adam([("p", p), ("q", q), ("p", p)])
    saved = saved_from(source)
    target = optim.Adam(tensors("q", "p").items())
    assert target.load_state_dict(saved).complete
    assert averages(target)["p"] == averages(source)["p"]


@pytest.mark.parametrize("names", [["a"], ["a", 3], "ab", None])
def test_names_that_do_not_fit_the_parameters_are_refused(names: Any) -> None:
    saved = saved_from(optim.Adam(tensors("a", "b").items()))
    saved["param_groups"][0]["param_names"] = names
    assert_refused(optim.Adam(tensors("a", "b").items()), saved, ("param_names", "2 parameters"))


def test_without_names_here_those_of_the_state_dict_are_taken_over_as_in_torch() -> None:
    saved = saved_from(optim.Adam(tensors("a", "b").items()))
    ours, theirs = (m.Adam(list(tensors("x", "y").values())) for m in (optim, torch.optim))
    for optimizer in (ours, theirs):
        optimizer.load_state_dict(saved)
        assert optimizer.param_groups[0]["param_names"] == ["a", "b"]


def test_keys_that_are_names_are_not_taken_over_by_an_optimizer_without() -> None:
    saved = packed(stepped(optim.Adam(tensors("a", "b").items())))
    target = optim.Adam(list(tensors("x", "y").values()))
    assert target.load_state_dict(saved).loaded == (
        "parameter a (0 of group 0)",
        "parameter b (1 of group 0)",
    )
    assert "param_names" not in target.param_groups[0]


def test_a_hook_may_write_into_what_it_is_given() -> None:
    saved = saved_from(optim.Adam(tensors("a").items()))
    target = optim.Adam(tensors("a").items())

    def add_a_state(optimizer: Any, state_dict: dict[str, Any]) -> None:
        state_dict["state"] = {}

    target.register_load_state_dict_pre_hook(add_a_state)
    target.load_state_dict(saved)
    assert not target.state
    assert saved["state"]


def test_names_here_stay_where_the_state_dict_has_none() -> None:
    saved = saved_from(optim.Adam(tensors("a", "b").values()))
    target = optim.Adam(tensors("x", "y").items())
    assert target.load_state_dict(saved).loaded == (
        "parameter 0 (0 of group 0) 'x'",
        "parameter 1 (1 of group 0) 'y'",
    )
    assert target.param_groups[0]["param_names"] == ["x", "y"]


@pytest.mark.parametrize("strict", [True, False])
def test_by_order_everything_must_fit(strict: bool) -> None:
    saved = saved_from(optim.Adam(tensors("a", "b").values()))
    for target in (
        optim.Adam(tensors("a").values()),
        optim.Adam([*tensors("a").values(), *tensors("b", size=3).values()]),
    ):
        before = snapshot(target)
        with pytest.raises(ValueError, match="Adam: the state dict"):
            target.load_state_dict(saved, strict=strict)
        assert snapshot(target) == before


def test_everything_that_does_not_fit_is_told_at_once() -> None:
    saved = saved_from(optim.Adam(tensors("same", "gone", "wide", "lost").items()))
    del saved["state"][3]["step"]
    target = optim.Adam([*tensors("same", "new", "lost").items(), *tensors("wide", size=3).items()])
    told = ("new", "gone", "wide: exp_avg is (2,) in it, (3,) here", "exp_avg_sq", "lost", "'step'")
    assert_refused(target, saved, told)
    # A state that lacks a part is none of this optimizer, whatever is asked for.
    with pytest.raises(ValueError, match="lacks the state 'step'"):
        target.load_state_dict(saved, strict=False)


def test_a_parameter_of_another_shape_starts_fresh() -> None:
    saved = saved_from(optim.Adam(tensors("a", "b").items()))
    target = optim.Adam([*tensors("b").items(), *tensors("a", size=5).items()])
    report = target.load_state_dict(saved, strict=False)
    assert report.misshaped == (
        Misshaped("a", "exp_avg", (2,), (5,)),
        Misshaped("a", "exp_avg_sq", (2,), (5,)),
    )
    assert report.loaded == ("b",)
    stepped(target, 1)
    steps = [float(target.state[p]["step"]) for p in target.param_groups[0]["params"]]
    assert steps == [3.0, 1.0]


# ------------------------------------------------------------------------------ names given later


def test_names_given_later() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    source = optim.Adam(model.parameters())
    source.name_parameters(model.named_parameters())
    saved = saved_from(source)
    assert saved["param_groups"][0]["param_names"] == ["0.weight", "0.bias", "1.weight", "1.bias"]
    target = optim.Adam(reversed(list(model.parameters())))
    target.name_parameters(iter(model.named_parameters()))
    assert target.load_state_dict(saved).complete
    assert averages(target) == averages(source)
    assert torch.optim.Adam(model.named_parameters()).load_state_dict(saved) is None


def test_names_given_later_must_be_there_for_each_and_differ() -> None:
    p, q = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    optimizer = optim.Adam([{"params": [p]}, {"params": [q]}])
    before = snapshot(optimizer)
    with pytest.raises(ValueError, match=r"no name to parameter 0 of group 1, shape \(3,\)"):
        optimizer.name_parameters([("p", p)])
    with pytest.raises(ValueError, match=r"same name to two parameters: w"):
        optimizer.name_parameters([("w", p), ("w", q)])
    assert snapshot(optimizer) == before


# ------------------------------------------------------------------------ the form for checkpoints


def test_names_in_place_of_numbers() -> None:
    source = stepped(grouped({"params": "ab"}, {"params": "c", "lr": 0.5}))
    form = named(source.state_dict())
    assert list(form["state"]) == ["a", "b", "c"]
    assert [group["params"] for group in form["param_groups"]] == [["a", "b"], ["c"]]
    assert "param_names" not in form["param_groups"][0]
    target = grouped({"params": "c"}, {"params": "ba"})
    assert target.load_state_dict(form).complete
    assert averages(target) == {name: averages(source)[name] for name in "cba"}


@pytest.mark.parametrize("names", [None, ["a", "a"]])
def test_names_in_place_of_numbers_must_be_there_and_differ(names: Any) -> None:
    optimizer = stepped(optim.Adam(tensors("a", "b").values()))
    with pytest.raises(ValueError, match=r"have no names|same name: a"):
        named(optimizer.state_dict(), names)


def test_shapes_are_told_and_compared_also_where_there_is_no_state() -> None:
    """Plain SGD keeps nothing that could show that a layer is another one."""
    saved = packed(optim.SGD(tensors("a", "b").items()))
    assert (saved["class"], saved["shapes"]) == ("SGD", [(2,), (2,)])
    target = optim.SGD([*tensors("a").items(), *tensors("b", size=3).items()])
    assert_refused(target, saved, ("b is (2,) in it, (3,) here",))
    report = target.load_state_dict(saved, strict=False)
    assert report.misshaped == (Misshaped("b", "", (2,), (3,)),)


@pytest.mark.parametrize("shapes", [3, [[2]], [[2], "x"], [[2], [2.0]], [[2], [True]]])
def test_shapes_of_another_form_are_refused(shapes: Any) -> None:
    saved = packed(optim.SGD(tensors("a", "b").items())) | {"shapes": shapes}
    assert_refused(optim.SGD(tensors("a", "b").items()), saved, ("shapes", "2 parameters"))


def test_names_of_a_module() -> None:
    model = nn.Linear(2, 2)
    assert names_in(model, torch.optim.SGD(model.parameters())) == ["weight", "bias"]
    other = [model.weight, torch.ones(2, requires_grad=True)]
    assert names_in(model, torch.optim.SGD(other)) is None


# ------------------------------------------------------------------------ torch's own optimizers


def test_torchs_optimizer_goes_by_name_too() -> None:
    source = stepped(torch.optim.Adam(tensors("a", "b", "c").items(), lr=0.5))
    saved = through_a_file(source.state_dict())
    pairs = list(tensors("c", "new", "a").items())
    target = torch.optim.Adam([{"params": pairs[:1]}, {"params": pairs[1:], "lr": 0.25}])
    with pytest.raises(ValueError, match=r"missing.*new\n.*unexpected.*b"):
        prepare(target, saved)
    pending = prepare(target, saved, strict=False)
    assert not target.state
    pending.commit()
    assert (pending.report.missing, pending.report.unexpected) == (("new",), ("b",))
    theirs = averages(source)
    found = averages(target)
    assert (found["a"], found["c"]) == (theirs["a"], theirs["c"])
    assert found["new"] != found["new"]
    assert [group["lr"] for group in target.param_groups] == [0.5, 0.5]
    stepped(target)


def test_torchs_optimizer_is_checked_for_shapes_by_order_and_by_given_names() -> None:
    source = stepped(torch.optim.Adam(tensors("a", "b").values()))
    target = torch.optim.Adam([*tensors("a").values(), *tensors("b", size=3).values()])
    with pytest.raises(ValueError, match=r"parameter 1 .*exp_avg is \(2,\) in it, \(3,\) here"):
        prepare(target, source.state_dict())
    with pytest.raises(ValueError, match=r"b is \(2,\) in it, \(3,\) here"):
        prepare(target, packed(source, ["a", "b"]), names=["a", "b"])
    assert not target.state


# ------------------------------------------------------------------------------------- the report


def test_report() -> None:
    report = LoadReport(
        loaded=("a", "b"),
        unexpected=("c",),
        misshaped=(Misshaped("d", "sum", (1,), (2, 2)), Misshaped("e", "", (), (2,))),
    )
    assert str(report).splitlines() == [
        "loaded: a, b",
        "unexpected (in it, not here): c",
        "of another shape: d: sum is (1,) in it, (2, 2) here; e is () in it, (2,) here",
    ]
    assert not report.complete
    assert LoadReport(loaded=("a",)).complete
    assert str(LoadReport()) == "loaded: nothing"


def test_the_dict_that_is_loaded_stays_as_it_is() -> None:
    saved = saved_from(optim.Adam(tensors("a", "b").items()))
    before = bits(saved)
    target = optim.Adam(tensors("b", "a").items())
    target.load_state_dict(saved)
    stepped(target)
    assert bits(saved) == before
