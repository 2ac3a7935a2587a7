import math
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from thalweg import optim
from thalweg.race import RACERS, Racer, find, find_all, grid, split_specs

PROBLEMS = "tests.race.problems"


def test_every_optimizer_races() -> None:
    classes = {
        f"thalweg.optim.{name}"
        for name in optim.__all__
        if name not in ("Optimizer", "Groups") and isinstance(getattr(optim, name), type)
    }
    assert {racer.optimizer for racer in RACERS} == classes
    assert len({racer.name for racer in RACERS}) == len(RACERS)


@pytest.mark.parametrize("racer", RACERS, ids=lambda racer: racer.name)
def test_make_builds_that_class_of_either_library(racer: Racer) -> None:
    for each, library in ((racer, optim), (racer.torch_twin, torch.optim)):
        if each is None:
            assert not hasattr(torch.optim, racer.class_name)
            continue
        made = each.make([torch.nn.Parameter(torch.ones(2))], 0.5)
        assert type(made) is getattr(library, racer.optimizer.rpartition(".")[2])
        assert made.param_groups[0]["lr"] == 0.5
        for option, value in racer.options.items():
            assert made.param_groups[0][option] == value


@pytest.mark.parametrize("racer", RACERS, ids=lambda racer: racer.name)
def test_every_name_finds_its_racer_in_any_case(racer: Racer) -> None:
    for spec in (racer.name, racer.name.upper(), f"  {racer.name.lower()} ", f"{racer.name}()"):
        assert find(spec) is racer


def test_options_in_parentheses() -> None:
    racer = find("SGD(momentum=0.5, nesterov=True)")
    assert racer.options == {"momentum": 0.5, "nesterov": True}
    assert racer.name == "SGD(momentum=0.5, nesterov=True)"
    assert find("adam(betas=(0.8, 0.9))").options == {"betas": (0.8, 0.9)}
    assert find("lbfgs(line_search_fn=None)").options["line_search_fn"] is None
    assert find("sgd+momentum(nesterov=True)").options == {"momentum": 0.9, "nesterov": True}


def test_the_same_options_are_the_same_racer() -> None:
    assert find("sgd(momentum=0.9)") is find("sgd+momentum")
    assert find("thalweg.optim.Adam") is find("adam")
    assert find("thalweg.optim.SGD(momentum=0.9)") is find("sgd+momentum")


def test_lr_is_the_centre_of_the_grid() -> None:
    racer = find("sgd(momentum=0.9, lr=2)")
    assert (racer.centre, racer.options, racer.name) == (2.0, {"momentum": 0.9}, "SGD+momentum")


def test_torchs_class_gets_our_centre_and_a_name_of_its_own() -> None:
    racer = find("torch.optim.SGD(momentum=0.9)")
    assert racer.name == "SGD(momentum=0.9) (torch)"
    assert (racer.optimizer, racer.centre) == ("torch.optim.SGD", find("sgd+momentum").centre)
    assert racer.torch_twin is None
    assert find("torch.optim.Adam").centre == find("adam").centre
    only_torch = find("torch.optim.Adafactor")
    assert (only_torch.name, only_torch.centre) == ("Adafactor", 0.01)


def test_any_importable_class() -> None:
    by_colon, dotted = find(f"{PROBLEMS}:NoClosure"), find(f"{PROBLEMS}.NoClosure")
    assert by_colon == dotted
    assert (by_colon.name, by_colon.centre) == ("NoClosure", 0.5)  # the default of its lr
    assert by_colon.torch_twin is None


def test_a_class_in_a_file_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_own_lion.py").write_text(
        "import thalweg\n"
        "from thalweg.rule import sign\n"
        "@thalweg.optimizer(lr=3e-4)\n"
        "def Signs(p, g, s, h):\n"
        "    return p - h.lr * sign(g)\n"
    )
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    racer = find("my_own_lion:Signs")
    assert sys.path == before
    assert (racer.name, racer.centre) == ("Signs", 3e-4)
    p = torch.nn.Parameter(torch.ones(2))
    p.grad = torch.tensor([2.0, -2.0])
    racer.make([p], 0.25).step()
    assert p.tolist() == [0.75, 1.25]
    monkeypatch.delitem(sys.modules, "my_own_lion")


def test_equal_names_are_told_apart() -> None:
    specs = ["adam(lr=1)", "adam", "torch.optim.Adam", "adam(lr=2)", f"{PROBLEMS}:NoClosure"]
    names = [racer.name for racer in find_all(specs)]
    assert names == ["Adam (lr 1)", "Adam", "Adam (torch)", "Adam (lr 2)", "NoClosure"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nadem", r"unknown optimizer 'nadem'; did you mean NAdam\? There are: SGD, .*LBFGS.*\."),
        ("RMSporp", "did you mean RMSprop"),
        ("zzz", r"unknown optimizer 'zzz'\. There are: SGD, "),
        ("torch.optim.Adm", "torch.optim has no 'Adm' for 'torch.optim.Adm'; did you mean Adam"),
        ("no_such_module:A", "there is no module 'no_such_module'"),
        ("torch.optim.lr_scheduler", "is no optimizer class but <module"),
        ("sgd(0.1)", "options must be name=value"),
        ("sgd(**x)", "options must be name=value"),
        ("sgd(momentum=0.9", "is no optimizer; write a name"),
        ("sgd(momentum=)", "are no Python"),
        ("sgd(momentum=)(x=1)", "are no Python"),
        (
            "sgd(momentum=open('x'))",
            r"option momentum .* must be a number, a string, .*open\('x'\)",
        ),
        ("sgd(momentum=1e999)", "option momentum"),
        ("sgd(lr=0)", "lr must be a number > 0, got 0"),
        ("sgd(lr='a')", "lr must be a number > 0, got 'a'"),
        ("", "is no optimizer"),
    ],
)
def test_what_cannot_be_found_is_explained(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^race: .*{message}"):
        find(spec)


def test_a_race_needs_optimizers_and_each_once() -> None:
    with pytest.raises(ValueError, match="optimizers is empty"):
        find_all([])
    with pytest.raises(ValueError, match="optimizers name Adam twice"):
        find_all(["adam", "sgd", "thalweg.optim.Adam"])


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        ("adam", ["adam"]),
        ("sgd(momentum=0.9),adam", ["sgd(momentum=0.9)", "adam"]),
        (" a(b=(1, 2), c=[3, 4]) , b,", ["a(b=(1, 2), c=[3, 4])", "b"]),
    ],
)
def test_commas_outside_parentheses_separate(text: str, parts: list[str]) -> None:
    assert split_specs(text) == parts


@pytest.mark.parametrize("text", ["sgd(a=1", "sgd)a=1(", "a),b"])
def test_parentheses_must_match(text: str) -> None:
    with pytest.raises(ValueError, match=r"the parentheses in .* do not match"):
        split_specs(text)


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_grid_is_centred_and_even_in_the_logarithm(count: int) -> None:
    rates = grid(0.02, count)
    assert len(rates) == count
    assert math.prod(rates) ** (1 / count) == pytest.approx(0.02)
    for low, high in pairwise(rates):
        assert high / low == pytest.approx(10**0.5)


def test_grid_needs_a_count() -> None:
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        grid(0.1, 0)
