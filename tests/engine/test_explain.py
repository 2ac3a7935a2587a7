"""explain and show_config: what they say, and that they change nothing."""

from __future__ import annotations

import pytest
import torch
from torch.nn import Parameter

import thalweg
import thalweg.optim as optim
from tests.engine.running import optimizer_of
from thalweg.engine.backends.cpu import cache
from thalweg.rule import Rule, State, norm


def parameter(*shape: int, dtype: torch.dtype = torch.float32, grad: bool = True) -> Parameter:
    p = Parameter(torch.ones(shape, dtype=dtype))
    p.grad = torch.ones_like(p) if grad else None
    return p


def test_adamw() -> None:
    text = thalweg.explain(optim.AdamW([parameter(10), parameter(5)]))
    assert text.splitlines()[:3] == [
        "AdamW: 2 parameters, 15 elements",
        "",
        "2 parameters, torch.float32, 15 elements",
    ]
    for expected in (
        "exp_avg'    = exp_avg + (1 - beta1) * (g - exp_avg)",
        "states     exp_avg fp32, exp_avg_sq fp32, step (a number)",
        "memory     28 bytes per element: reads p, g, exp_avg, exp_avg_sq; writes p, exp_avg, ",
        "arithmetic float32; what depends on options and step alone is computed in float64",
        "back end   cpu: a kernel for every operand",
    ):
        assert expected in text
    assert repr(text) == str(text)


def test_switches_show_in_the_equations() -> None:
    def lines(**options) -> str:
        return thalweg.explain(optim.SGD([parameter(3)], lr=0.1, **options))

    assert "p' = p - lr * g" in lines()
    assert "momentum_buffer" not in lines()
    assert "weight_decay * p" in lines(weight_decay=0.1)
    assert "-g" in lines(maximize=True)
    assert "where(step == 1, g," in lines(momentum=0.9)
    assert "states     none" in lines()
    assert "12 bytes per element" in lines()


def test_kinds_of_parameters_apart() -> None:
    a, b, c = parameter(4), parameter(6, dtype=torch.bfloat16), parameter(2)
    optimizer = optim.Adam(
        [{"params": [a, b]}, {"params": [c], "fused": False, "amsgrad": True}], lr=0.1
    )
    text = thalweg.explain(optimizer)
    assert text.startswith("Adam: 3 parameters, 12 elements")
    assert "1 parameter, torch.float32, 4 elements" in text
    assert "1 parameter, torch.bfloat16, 6 elements" in text
    assert "14 bytes per element" in text
    assert "exp_avg bf16" in text
    assert "max_exp_avg_sq' = maximum(max_exp_avg_sq, exp_avg_sq')" in text
    assert "back end   eager: fused=False" in text
    assert "arithmetic float32" in text


@pytest.mark.parametrize(
    ("make", "backend", "reason"),
    [
        (lambda: torch.ones(4, 4)[:, ::2], "eager", "p has strides (4, 2) and is not dense"),
        (lambda: torch.ones(2, device="meta"), "foreach", "p is on meta, and kernels run on cpu"),
        (lambda: torch.ones(2, dtype=torch.float8_e5m2), "eager", "there is no format"),
    ],
)
def test_why_there_is_no_kernel(make, backend: str, reason: str) -> None:
    text = thalweg.explain(optim.SGD([Parameter(make())], lr=0.1))
    assert f"back end   {backend}: " in text
    assert reason in text


def test_scalar_states_and_stages() -> None:
    def update(p, g, s, h):
        s.mu = s.mu * 0.5
        return p - s.mu * g / norm(g)

    _, optimizer = optimizer_of(
        Rule(update, {"mu": State(1.0, scalar=True)}), [torch.ones(3)], [torch.ones(3)]
    )
    text = thalweg.explain(optimizer)
    assert "mu' = mu * 0.5" in text
    assert "states     step (a number), mu (a number)" in text
    assert "reads g, p, g; writes p" in text


def test_nothing_is_changed() -> None:
    for fused in (None, False):
        p, untouched = parameter(3), parameter(3, grad=False)
        optimizer = optim.Adam([p, untouched], fused=fused)
        thalweg.explain(optimizer, source=True)
        assert dict(optimizer.state) == {}
        assert (p == 1).all()
        optimizer.step()
        state = {name: value.clone() for name, value in optimizer.state[p].items()}
        before = p.detach().clone()
        thalweg.explain(optimizer, source=True)
        assert torch.equal(p, before)
        assert list(optimizer.state) == [p]
        assert all(torch.equal(optimizer.state[p][k], v) for k, v in state.items())
        optimizer.step()
        assert optimizer.state[p]["step"].item() == 2


def test_the_source_on_request() -> None:
    optimizer = optim.SGD([parameter(3)], lr=0.1)
    assert "run step() once" in thalweg.explain(optimizer, source=True)
    optimizer.step()
    text = thalweg.explain(optimizer, source=True)
    assert "def work(arguments):" in text
    assert "# sgd.py:" in text
    assert str(cache.folder()) in text
    assert "def work" not in thalweg.explain(optimizer)


def test_only_optimizers_with_a_rule_can_be_explained() -> None:
    with pytest.raises(TypeError, match="explain: got SGD, which has no rule to explain"):
        thalweg.explain(torch.optim.SGD([parameter(2)], lr=0.1))


def test_show_config(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("THALWEG_CACHE", str(tmp_path))
    (tmp_path / "adam_fp32_0.py").write_text("")
    text = thalweg.show_config()
    rows = dict(line.split(maxsplit=1) for line in text.splitlines() if not line.startswith("back"))
    assert rows["thalweg"] == thalweg.__version__
    assert rows["torch"] == torch.__version__
    assert f"{tmp_path} (1 kernel kept)" in rows["kernels"]
    assert rows["threads"].startswith(f"{torch.get_num_threads()} (torch.set_num_threads)")
    assert repr(text) == str(text)
