"""The hint at the nearest name."""

import pytest

from thalweg.names import nearest, slip_for, unknown


@pytest.mark.parametrize(
    ("name", "hint"),
    [("Adm", "; did you mean Adam?"), ("ADAM", "; did you mean Adam?"), ("zzz", ""), ("", "")],
)
def test_nearest_is_looked_for_in_any_case(name: str, hint: str) -> None:
    assert nearest(name, ["SGD", "Adam"]) == hint


def test_a_higher_cutoff_asks_for_more() -> None:
    assert nearest("lrs", ["lr"], cutoff=0.75) == "; did you mean lr?"
    assert nearest("larch", ["lr"], cutoff=0.75) == ""


def test_unknown_lists_what_there_is() -> None:
    assert str(unknown("x", "thing", "zzz", iter(["a", "B"]))) == (
        "x: unknown thing 'zzz'. There are: a, B."
    )


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        *[("momentm", "momentum"), ("momentuum", "momentum"), ("momentun", "momentum")],
        *[("mometnum", "momentum"), ("beta", "betas"), ("lrs", "lr"), ("xlr", "lr"), ("rl", "lr")],
        *[("lr_mult", None), ("l2", None), ("moment", None), ("larch", None), ("", None)],
        *[("weight_decay_mult", None), ("LR", "lr"), ("sabet", None)],
    ],
)
def test_a_slip_is_one_letter(key: str, meant: str | None) -> None:
    assert slip_for(key, ["lr", "momentum", "betas", "weight_decay"]) == meant
