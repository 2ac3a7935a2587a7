"""All parts of a run come back, or none; every misfit is told."""

import re
import signal
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.checkpoint.same import same
from thalweg import optim
from thalweg.checkpoint import CheckpointError, load, read, save
from thalweg.checkpoint.container import opened
from thalweg.engine.copying import deep_copy
from thalweg.optim import lr_scheduler, swa_utils


def network(*sizes: int) -> nn.Sequential:
    a, b, c = sizes or (3, 4, 2)
    return nn.Sequential(
        OrderedDict(fc=nn.Linear(a, b), norm=nn.BatchNorm1d(b), head=nn.Linear(b, c))
    )


def run(seed: int, steps: int = 3) -> dict[str, Any]:
    """A run with a part of each kind, after some steps."""
    torch.manual_seed(seed)
    model, other = network(), network()
    optimizer = optim.AdamW(model.named_parameters(), lr=0.1)
    theirs = torch.optim.Adam(other.parameters(), lr=0.1)
    parts = {
        "model": model,
        "optimizer": optimizer,
        "scheduler": lr_scheduler.CosineAnnealingLR(optimizer, 10),
        "average": swa_utils.AveragedModel(model),
        "other": other,
        "theirs": theirs,
        "one_cycle": torch.optim.lr_scheduler.OneCycleLR(theirs, 0.1, total_steps=20),
        "generator": torch.Generator().manual_seed(seed),
    }
    for _ in range(steps):
        x = torch.randn(5, 3)
        for net, opt, sched in (
            (model, optimizer, parts["scheduler"]),
            (other, theirs, parts["one_cycle"]),
        ):
            opt.zero_grad()
            net(x).square().mean().backward()
            opt.step()
            sched.step()
        parts["average"].update_parameters(model)
        torch.rand(2, generator=parts["generator"])
    return parts


def states(parts: dict[str, Any]) -> dict[str, Any]:
    """Copies of what the parts hold."""
    held = {
        name: part.get_state() if isinstance(part, torch.Generator) else part.state_dict()
        for name, part in parts.items()
    }
    for each in held.values():
        if isinstance(each, dict) and "param_groups" in each:  # whose options have no order
            each["param_groups"] = [dict(sorted(group.items())) for group in each["param_groups"]]
    found: dict[str, Any] = deep_copy(held)
    return found


def mappings(path: Path) -> list[str]:
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if str(path) in line]


def test_a_run_comes_back(tmp_path: Path) -> None:
    here, there = run(1), run(2, steps=1)
    path = save(tmp_path / "a.safetensors", **here, step=3, best={"loss": (0.5, torch.ones(2))})
    found = load(path, **there)
    assert same(states(there), states(here))
    assert same(dict(found), {"step": 3, "best": {"loss": (0.5, torch.ones(2))}})
    assert list(found.reports) == ["model", "optimizer", "average", "other", "theirs"]
    assert all(report.complete for report in found.reports.values())
    assert found.path == path
    assert not mappings(path), "nothing that was loaded may hang on the file"


def test_into_a_fresh_run(tmp_path: Path) -> None:
    here, there = run(1), run(2, steps=0)
    load(save(tmp_path / "a", **here), **there)
    # Averages and torch's optimizers get their states from the file alone.
    assert same(states(there), states(here))


TORCHS = torch.optim.lr_scheduler
SCHEDULERS = {
    "LambdaLR": lambda o: TORCHS.LambdaLR(o, lambda t: 0.9**t),
    "MultiplicativeLR": lambda o: TORCHS.MultiplicativeLR(o, lambda t: 0.9),
    "StepLR": lambda o: TORCHS.StepLR(o, 2),
    "MultiStepLR": lambda o: TORCHS.MultiStepLR(o, [2, 3, 3]),
    "ConstantLR": lambda o: TORCHS.ConstantLR(o),
    "LinearLR": lambda o: TORCHS.LinearLR(o),
    "ExponentialLR": lambda o: TORCHS.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: TORCHS.PolynomialLR(o),
    "CosineAnnealingLR": lambda o: TORCHS.CosineAnnealingLR(o, 5),
    "CosineAnnealingWarmRestarts": lambda o: TORCHS.CosineAnnealingWarmRestarts(o, 5),
    "CyclicLR": lambda o: TORCHS.CyclicLR(o, 0.01, 0.1),
    "OneCycleLR": lambda o: TORCHS.OneCycleLR(o, 0.1, total_steps=20),
    "ReduceLROnPlateau": lambda o: TORCHS.ReduceLROnPlateau(o),
    "SequentialLR": lambda o: TORCHS.SequentialLR(
        o, [TORCHS.ConstantLR(o), TORCHS.StepLR(o, 2)], milestones=[2]
    ),
    "ChainedScheduler": lambda o: TORCHS.ChainedScheduler([TORCHS.ConstantLR(o)]),
    "SWALR": lambda o: torch.optim.swa_utils.SWALR(o, 0.05),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_torchs_schedulers_come_back(tmp_path: Path, name: str) -> None:
    made = []
    for steps in (3, 0):
        optimizer = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1, momentum=0.9)
        made.append(SCHEDULERS[name](optimizer))
        for _ in range(steps):
            optimizer.step()
            made[-1].step(*[1.0] * (name == "ReduceLROnPlateau"))
    here, there = made
    path = save(tmp_path / "a", scheduler=here)
    load(path, scheduler=there)
    assert same(states({"s": there}), states({"s": here}))


def test_gradient_scalers_come_back(tmp_path: Path) -> None:
    here, there = (torch.amp.GradScaler("cpu", init_scale=scale) for scale in (4.0, 8.0))
    load(save(tmp_path / "a", scaler=here), scaler=there)
    assert there.get_scale() == 4.0


def test_tied_weights_are_written_once(tmp_path: Path) -> None:
    def tied() -> nn.Sequential:
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        model[1].weight = model[0].weight
        return model

    here, there = tied(), tied()
    path = save(tmp_path / "a", model=here, rng=False)
    load(path, model=there)
    assert same(states({"m": there}), states({"m": here}))
    with opened(path) as file:
        assert file is not None
        assert list(file.entries) == ["model/0.weight", "model/0.bias", "model/1.bias"]


def test_read_gives_state_dicts(tmp_path: Path) -> None:
    parts = run(1)
    path = save(tmp_path / "a", **parts, step=3, rng=False)
    found = read(path)
    assert list(found) == [*parts, "step"]
    held = states(parts)
    for name in ("model", "average", "other", "scheduler", "one_cycle", "generator"):
        assert same(found[name], held[name])
    names = [name for name, _ in parts["model"].named_parameters()]
    assert found["optimizer"]["param_groups"][0]["params"] == names
    moment = found["optimizer"]["state"]["fc.weight"]["exp_avg"]
    assert same(moment, held["optimizer"]["state"][0]["exp_avg"])
    assert mappings(path)


# ---- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", [optim, torch.optim], ids=["thalweg", "torch"])
def test_an_optimizer_without_names_gets_its_models(tmp_path: Path, library: Any) -> None:
    def made(*, backwards: bool) -> tuple[nn.Module, Any]:
        model = network()
        params = list(model.parameters())
        return model, library.Adam(params[::-1] if backwards else params)

    model, optimizer = made(backwards=False)
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    path = save(tmp_path / "a", first=nn.Linear(1, 1), model=model, optimizer=optimizer)
    there, reversed_ = made(backwards=True)
    report = load(path, model=there, optimizer=reversed_).reports["optimizer"]
    assert report.loaded[0] == "head.bias"
    for p, q in zip(model.parameters(), there.parameters(), strict=True):
        moments = optimizer.state[p]["exp_avg"], reversed_.state[q]["exp_avg"]
        assert torch.equal(*moments)
    with pytest.raises(ValueError, match=r"part 'optimizer': Adam: the state dict does not fit"):
        load(path, optimizer=reversed_)  # by order, without a model that names its parameters


@pytest.mark.parametrize("kind", ["dict", "function"])
def test_renaming_reaches_models_and_optimizers(tmp_path: Path, kind: str) -> None:
    def made(name: str) -> dict[str, Any]:
        model = nn.Sequential(OrderedDict([(name, nn.Linear(2, 2)), ("norm", nn.BatchNorm1d(2))]))
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        model(torch.randn(4, 2)).square().sum().backward()
        optimizer.step()
        return {"model": model, "optimizer": optimizer}

    here, there = made("old"), made("new")
    path = save(tmp_path / "a", **here, plain=nn.Linear(1, 1).state_dict())
    before = states(there)
    with pytest.raises(RuntimeError, match=r"(?s)missing.*new\.weight.*unexpected.*old\.weight"):
        load(path, **there)
    assert same(states(there), before)
    pairs = {"old.weight": "new.weight", "old.bias": "new.bias"}
    rename = pairs if kind == "dict" else lambda name: name.replace("old", "new")
    found = load(path, rename=rename, **there)
    assert found.reports["optimizer"].loaded[0] == "new.weight"
    assert same(
        list(there["model"].state_dict().values()), list(here["model"].state_dict().values())
    )
    with pytest.raises(
        ValueError, match=r"rename has 'old\.wait', which no part of .* did you mean"
    ):
        load(path, rename={"old.wait": "x"}, **there)
    with pytest.raises(ValueError, match=r"rename gives several entries the name x"):
        load(path, rename={"old.weight": "x", "old.bias": "x"}, **there)
    with pytest.raises(TypeError, match=r"part 'model': .*rename must give names, got None for"):
        load(path, rename=lambda name: None, **there)
    with pytest.raises(TypeError, match="rename must be a dict from old to new names or a fun"):
        load(path, rename=3, **there)  # type: ignore[arg-type]


def test_a_common_prefix_is_hinted_at(tmp_path: Path) -> None:
    path = save(tmp_path / "a", model=nn.Sequential(OrderedDict(module=network())))
    with pytest.raises(RuntimeError, match=r"removeprefix\('module\.'\)"):
        load(path, model=network())


def test_not_strict_takes_what_fits(tmp_path: Path) -> None:
    def made(*sizes: int) -> dict[str, Any]:
        model = network(*sizes)
        optimizer = optim.Adam(model.named_parameters())
        model(torch.randn(4, sizes[0])).square().sum().backward()
        optimizer.step()
        return {"model": model, "optimizer": optimizer}

    here, there = made(3, 4, 2), made(3, 4, 5)
    there["model"].add_module("more", nn.Linear(1, 1))
    here["model"].add_module("less", nn.Linear(1, 1))
    path = save(tmp_path / "a", **here)
    own = there["model"].head.weight.clone()
    found = load(path, strict=False, **there)
    report = found.reports["model"]
    assert report.missing == ("more.weight", "more.bias")
    assert report.unexpected == ("less.weight", "less.bias")
    assert [str(each) for each in report.misshaped] == [
        "head.weight is (2, 4) in it, (5, 4) here", "head.bias is (2,) in it, (5,) here",
    ]  # fmt: skip
    assert torch.equal(there["model"].fc.weight, here["model"].fc.weight)
    assert torch.equal(there["model"].head.weight, own)
    assert {each.name for each in found.reports["optimizer"].misshaped} == {
        "head.weight", "head.bias",
    }  # fmt: skip
    assert "misshaped" in str(found) or "head.weight is (2, 4)" in str(found)


# ---- all or nothing -----------------------------------------------------------------------------

Change = Any


def drop(key: str) -> Change:
    return lambda data: data.pop(key)


def put(key: str, value: Any) -> Change:
    return lambda data: data.__setitem__(key, value)


MISFITS = {
    "model lacks": ("model", drop("fc.weight"), RuntimeError, "missing.*fc.weight"),
    "model has more": ("model", put("x", torch.ones(1)), RuntimeError, "unexpected.*x"),
    "model's shape": (
        "model", put("fc.weight", torch.ones(3, 4)), RuntimeError, r"fc.weight is \(3, 4\) in it",
    ),
    "model's kind": (
        "model", put("fc.weight", torch.ones(4, 3) * 1j), RuntimeError,
        "fc.weight: is torch.complex64 in it, torch.float32 here",
    ),
    "count of fractions": (
        "model", put("norm.num_batches_tracked", torch.tensor(0.5)), RuntimeError,
        "is torch.float32 in it, torch.int64 here",
    ),
    "model's number": ("model", put("fc.weight", 3), RuntimeError, "must be a tensor, got int"),
    "average": ("average", drop("n_averaged"), RuntimeError, "AveragedModel: .*n_averaged"),
    "optimizer lacks": ("optimizer", drop("state"), ValueError, "lacks 'state'"),
    "optimizer's groups": ("optimizer", put("param_groups", []), ValueError, "AdamW: "),
    "torch's optimizer": ("theirs", drop("param_groups"), ValueError, "lacks 'param_groups'"),
    "scheduler": ("scheduler", drop("T_max"), ValueError, "lacks 'T_max'"),
    "generator": ("generator", None, ValueError, "no state of a generator on cpu"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISFITS)
def test_a_misfit_anywhere_changes_nothing(tmp_path: Path, case: str) -> None:
    name, change, kind, message = MISFITS[case]
    here, there = run(1), run(2, steps=1)
    data = read(save(tmp_path / "a", **here))
    del data["_random_state"]
    if change is None:
        data[name] = torch.zeros(3, dtype=torch.uint8)
    else:
        change(data[name])
    path = save(tmp_path / "b", **data)
    before = states(there)
    with pytest.raises(kind, match=rf"(?s){message}") as caught:
        load(path, **there)
    if name != "scheduler":
        assert str(caught.value).startswith(f"checkpoint: {path}: part '{name}': ")
    assert same(states(there), before)


class Stubborn:
    """An object that takes half of a state, and then raises."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.values, self.errors = [1, 2], [] if error is None else [error]

    def state_dict(self) -> dict[str, Any]:
        return {"values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.values[0] = state["values"][0]
        if self.errors:
            raise self.errors.pop()
        self.values = list(state["values"])


class Extra(nn.Module):
    """A module that takes extra state, and may raise after that."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.register_buffer("buffer", torch.zeros(2))
        self.note = {"text": "", "numbers": torch.zeros(1)}
        self.errors: list[Exception] = []

    def get_extra_state(self) -> Any:
        return self.note

    def set_extra_state(self, state: Any) -> None:
        self.note = state
        if self.errors:
            raise self.errors.pop()


class Renaming(nn.Linear):
    """A module that knows its weight by an old name, too."""

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        if prefix + "kernel" in state_dict:
            state_dict[prefix + "weight"] = state_dict.pop(prefix + "kernel")
        super()._load_from_state_dict(state_dict, prefix, *args)


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()], ids=repr)
def test_an_object_that_raises_half_way_puts_all_back(tmp_path: Path, error: BaseException) -> None:
    here, there = run(1), run(2, steps=1)
    path = save(tmp_path / "a", **here, extra=Extra(), last=Stubborn())
    there |= {"extra": Extra(), "last": Stubborn()}
    there["extra"].note = {"text": "own", "numbers": torch.ones(1)}
    there["last"].values = [3, 4]
    before = states(there)
    there["last"].errors.append(error)
    with pytest.raises(type(error)):
        load(path, **there)
    assert same(states(there), before)
    assert load(path, **there).reports["extra"].complete
    assert there["last"].values == [1, 2]


def test_a_module_that_raises_half_way_is_put_back(tmp_path: Path) -> None:
    here, there = Extra(), Extra()
    with torch.no_grad():
        here.weight.fill_(1)
    path = save(tmp_path / "a", last=here)
    before = states({"m": there})
    there.errors.append(RuntimeError("no"))
    with pytest.raises(RuntimeError, match="no"):
        load(path, last=there)
    assert same(states({"m": there}), before)
    load(path, last=there)
    assert same(states({"m": there}), states({"m": here}))
    assert not mappings(path)


def test_modules_that_rename_themselves(tmp_path: Path) -> None:
    plain = nn.Linear(2, 2)
    data = plain.state_dict()
    data["kernel"] = data.pop("weight")
    path = save(tmp_path / "a", model=data)
    model = Renaming(2, 2)
    assert load(path, model=model).reports["model"].complete
    assert torch.equal(model.weight, plain.weight)
    before = states({"m": model})
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        load(save(path, model={**data, "kernel": torch.ones(3, 3)}), model=model)
    with pytest.raises(RuntimeError, match="Missing key"):
        load(save(path, model={"kernel": torch.ones(2, 2)}), model=model)
    assert same(states({"m": model}), before)
    report = load(path, model=model, strict=False).reports["model"]
    assert report.missing == ("bias",)


def test_what_could_not_be_put_back_is_told(tmp_path: Path) -> None:
    class Broken(Stubborn):
        def load_state_dict(self, state: dict[str, Any]) -> None:
            raise RuntimeError("never")

    path = save(tmp_path / "a", x=Broken())
    with pytest.raises(RuntimeError, match="never") as caught:
        load(path, x=Broken())
    assert "could not be put back as it was" in caught.value.__notes__[0]


def test_a_hook_that_raises_after_loading(tmp_path: Path) -> None:
    here, there = run(1), run(2)
    path = save(tmp_path / "a", **here)

    def hook(optimizer: Any) -> None:
        raise RuntimeError("from a hook")

    there["optimizer"].register_load_state_dict_post_hook(hook)
    with pytest.raises(RuntimeError, match="from a hook") as caught:
        load(path, **there)
    assert "everything was loaded" in caught.value.__notes__[0]
    assert same(states(there), states(here))


def test_ctrl_c_waits(tmp_path: Path) -> None:
    class Interrupted(Stubborn):
        def load_state_dict(self, state: dict[str, Any]) -> None:
            signal.raise_signal(signal.SIGINT)
            super().load_state_dict(state)

    here, there = run(1), run(2)
    path = save(tmp_path / "a", **here, x=Stubborn())
    with pytest.raises(KeyboardInterrupt):
        load(path, **there, x=Interrupted())
    assert same(states(there), states(here))


def test_a_damaged_file_changes_nothing(tmp_path: Path) -> None:
    here, there = run(1), run(2)
    path = save(tmp_path / "a", **here)
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 4
    path.write_bytes(raw)
    before = states(there)
    with pytest.raises(CheckpointError, match=r"a: tensor '.*' has digest .* the file is damaged"):
        load(path, **there)
    assert same(states(there), before)


# ---- modules that are special -------------------------------------------------------------------


def test_batch_norm_of_the_first_version(tmp_path: Path) -> None:
    model = network()
    data = {k: v for k, v in model.state_dict().items() if "num_batches" not in k}
    there = network()
    assert load(save(tmp_path / "a", model=data), model=there).reports["model"].complete
    assert torch.equal(there.fc.weight, model.fc.weight)


def test_kinds_that_torch_converts(tmp_path: Path) -> None:
    here, there = network().double(), network().bfloat16()
    load(save(tmp_path / "a", model=here), model=there)
    assert torch.equal(there.fc.weight, here.fc.weight.bfloat16())
    model = nn.Module()
    model.register_buffer("scale", torch.tensor(1.0))
    load(save(tmp_path / "a", model={"scale": torch.tensor([3.0])}), model=model)
    assert model.scale.item() == 3


def test_parameters_whose_elements_lie_at_one_place(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("spread", torch.zeros(1).expand(3))
    before = states({"m": model})
    path = save(tmp_path / "a", model={**model.state_dict(), "weight": torch.ones(2, 2)})
    with pytest.raises(RuntimeError, match="more than one element of the written-to tensor"):
        load(path, model=model)
    assert same(states({"m": model}), before)


def test_a_model_without_memory(tmp_path: Path) -> None:
    path = save(tmp_path / "a", model=nn.Linear(2, 2))
    with torch.device("meta"):
        model = nn.Linear(2, 2)
    with pytest.raises(RuntimeError, match=r"weight: is on the meta device here; .* to_empty\(\)"):
        load(path, model=model)


def test_versions_of_layers_that_are_none(tmp_path: Path) -> None:
    data = network().state_dict()
    data._metadata["fc"] = 3  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="the versions of the state dict's layers must be dicts"):
        load(save(tmp_path / "a", model=data), model=network())
    with pytest.raises(TypeError, match="a state dict must be a dict of names, got list"):
        load(save(tmp_path / "a", model=[1]), model=network())


# ---- files of others ----------------------------------------------------------------------------


@pytest.mark.parametrize("legacy", [False, True])
def test_files_of_torch(tmp_path: Path, legacy: bool) -> None:
    here, there = run(1), run(2, steps=0)
    path = tmp_path / "a.pt"
    torch.save(
        {
            "model_state_dict": here["model"].state_dict(),
            "optim": here["optimizer"].state_dict(),
            "average": here["average"].state_dict(),
            "lr_scheduler": here["scheduler"].state_dict(),
            "global_step": 3, "epoch": 1, "other": network().state_dict(),
        },
        path, _use_new_zipfile_serialization=not legacy,
    )  # fmt: skip
    wanted = ("model", "optimizer", "average", "scheduler")
    found = load(path, **{name: there[name] for name in wanted})
    for name in wanted:
        assert same(states(there)[name], states(here)[name])
    assert dict(found) == {"global_step": 3, "epoch": 1, "step": 3}
    assert not found.random_state
    assert list(read(path))[:2] == ["model_state_dict", "optim"]
    assert not mappings(path) or not legacy


def test_a_state_dict_alone(tmp_path: Path) -> None:
    here, there = run(1), run(2)
    torch.save(here["model"].state_dict(), tmp_path / "model.pt")
    torch.save(here["optimizer"].state_dict(), tmp_path / "optimizer.pt")
    save_file(here["model"].state_dict(), tmp_path / "model.safetensors")
    load(tmp_path / "model.pt", net=there["model"])
    load(tmp_path / "optimizer.pt", adam=there["optimizer"])
    for name in ("model", "optimizer"):
        assert same(states(there)[name], states(here)[name])
    there = run(3)
    load(tmp_path / "model.safetensors", model=there["model"])
    assert same(states(there)["model"], states(here)["model"])
    with pytest.raises(ValueError, match="it has no part 'average'"):
        load(tmp_path / "model.pt", model=there["model"], average=there["average"])
    with pytest.raises(TypeError, match="part 'model' is the state of a module; it cannot be load"):
        load(tmp_path / "model.pt", opt=there["optimizer"])


class Harmful:
    def __reduce__(self) -> Any:
        return (print, ("code ran",))


def test_pickled_code_does_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.pt"
    torch.save({"model": Harmful()}, path)
    with pytest.raises(CheckpointError, match=r"would run code; save it again as tensors and pl"):
        load(path)
    assert "code ran" not in capsys.readouterr().out


def test_damaged_files_of_torch(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    for legacy in (False, True):
        torch.save({"a": torch.ones(9)}, path, _use_new_zipfile_serialization=not legacy)
        raw = path.read_bytes()
        for length in range(8, len(raw) - 1, 40):
            path.write_bytes(raw[:length])
            with pytest.raises(CheckpointError, match=r"what torch.save wrote there is damaged"):
                read(path)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match=r"torch.save wrote a list there, no dict of parts"):
        read(path)


# ---- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "a/b", "$x", "_x", "rng", "strict", "rename"])
def test_names_that_cannot_be_used(tmp_path: Path, name: str) -> None:
    with pytest.raises((ValueError, TypeError), match=r"a part's name must not|must be True or F"):
        save(tmp_path / "a", **{name: 3})
    assert not list(tmp_path.iterdir())


def test_parts_that_are_not_there(tmp_path: Path) -> None:
    path = save(tmp_path / "a", model=nn.Linear(1, 1), step=3)
    with pytest.raises(
        ValueError, match=r"a: it has no part 'modle'; did you mean model\? It has: 'model', 'step'"
    ):
        load(path, modle=nn.Linear(1, 1))
    found = load(path)
    with pytest.raises(KeyError, match=r"no plain part 'stap'; did you mean step\? It has: step"):
        found["stap"]
    assert len(found) == 1
    assert repr(found).startswith("Loaded(path=")
    with pytest.raises(TypeError, match=r"step must have load_state_dict, got int; leave it out"):
        load(path, step=0)
    with pytest.raises(ValueError, match="there is nothing to save"):
        save(path)
    with pytest.raises(TypeError, match="part 'model' is the state of a module; it cannot be load"):
        load(path, model=optim.SGD([nn.Parameter(torch.ones(1))]))
    with pytest.raises(TypeError, match=r"part 'step': a generator's state must be a tensor, got"):
        load(path, step=torch.Generator())


@pytest.mark.parametrize("argument", ["strict", "rng"])
def test_flags(tmp_path: Path, argument: str) -> None:
    path = save(tmp_path / "a", x=1)
    with pytest.raises(TypeError, match=f"load: {argument} must be True or False"):
        load(path, **{argument: "yes"})


def test_what_cannot_be_saved_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"^config\.loss: function cannot be saved"):
        save(tmp_path / "a", config={"loss": lambda: 0})
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "a")


def test_threads_may_save_and_load_at_once(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def work(i: int) -> None:
        try:
            for _ in range(3):
                value = np.full(1000, i)
                path = save(tmp_path / str(i), x=value, rng=False)
                assert same(load(path)["x"], value)
                save(tmp_path / "shared", x=value, rng=False)
                assert len(set(load(tmp_path / "shared")["x"])) == 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not errors
    assert not [each for each in tmp_path.iterdir() if re.search("tmp$", each.name)]
