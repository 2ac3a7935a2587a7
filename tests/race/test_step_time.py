import pytest
import torch
from torch import nn

from thalweg.race import Racer, find, measure_steps
from thalweg.race.step_time import Bowl
from thalweg.race.training import OptimizerError

PROBLEMS = "tests.race.problems."
SHAPES = ((4, 3), (5,))
ELEMENTS = 17


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    made = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    for p in made:
        p.grad = torch.randn(p.shape, generator=generator)
    return made


def rows() -> list[nn.Parameter]:
    """A table with a sparse gradient."""
    table = nn.Embedding(6, 2, sparse=True)
    table(torch.tensor([1, 4])).sum().backward()
    return [table.weight]


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("sgd", 0),
        ("sgd+momentum", 4),
        ("rmsprop", 4 + 8 * len(SHAPES) / ELEMENTS),  # and a float64 step count per tensor
        ("adam", 8 + 8 * len(SHAPES) / ELEMENTS),
    ],
)
def test_state_bytes_are_those_of_the_states(name: str, state: float) -> None:
    time = measure_steps(parameters, find(name), repeats=1)
    assert time.state_bytes == pytest.approx(state, rel=1e-4)


def test_lbfgs_keeps_two_rows_per_pair() -> None:
    """Ten pairs of rows and the last direction and gradient of 17 elements, and a few numbers."""
    time = measure_steps(parameters, find("lbfgs"), repeats=20)
    assert time.state_bytes == pytest.approx(4 * 22, rel=0.3)
    assert time.torch_us is not None


@pytest.mark.parametrize("name", ["adagrad", "lbfgs", "torch.optim.Adam", "torch.optim.LBFGS"])
def test_times_are_positive_and_torch_is_not_timed_against_itself(name: str) -> None:
    time = measure_steps(parameters, find(name), repeats=3)
    assert min(time.own_us, time.first_step_s) > 0
    assert (time.torch_us is None) == name.startswith("torch")
    assert time.ratio == (None if time.torch_us is None else time.torch_us / time.own_us)


def test_sparse_gradients() -> None:
    assert measure_steps(rows, find("sparseadam"), repeats=2).torch_us is not None
    with pytest.raises(OptimizerError, match="Adam does not support sparse gradients"):
        measure_steps(rows, find("adam"), repeats=2)
    with pytest.raises(OptimizerError, match="SparseAdam does not support dense gradients"):
        measure_steps(parameters, find("sparseadam"), repeats=2)


def test_a_class_of_ones_own_and_one_that_fails() -> None:
    time = measure_steps(parameters, Racer("a", PROBLEMS + "NoClosure", 0.1), repeats=2)
    assert time.torch_us is None
    with pytest.raises(OptimizerError, match="no third step"):
        measure_steps(parameters, Racer("a", PROBLEMS + "Fails", 0.1), repeats=2)


def test_only_as_many_steps_as_asked_for() -> None:
    steps = 0

    class Counting(torch.optim.SGD):
        def step(self, closure=None):
            nonlocal steps
            steps += 1
            return super().step(closure)

    import tests.race.problems as problems

    problems.Counting = Counting
    try:
        measure_steps(parameters, Racer("a", PROBLEMS + "Counting", 0.1), repeats=7)
    finally:
        del problems.Counting
    assert steps == 1 + 5 + 7  # the first, those that warm up, those that count


def test_the_bowl_has_the_given_gradient_where_a_step_begins_and_is_consistent() -> None:
    made = [nn.Parameter(p.detach().double()) for p in parameters()]
    given = [torch.randn_like(p) for p in made]
    for p, g in zip(made, given, strict=True):
        p.grad = g.clone()
    bowl = Bowl(made)
    bowl()
    for p, g in zip(made, given, strict=True):
        assert torch.equal(p.grad, g)
    with torch.no_grad():
        for p in made:
            p += 0.3
    here = float(bowl())
    gradient = made[0].grad.clone()
    with torch.no_grad():
        made[0][1, 2] += 1e-5
    assert (float(bowl()) - here) / 1e-5 == pytest.approx(float(gradient[1, 2]), rel=1e-4)
    assert bowl.calls == 3
    bowl.move()
    bowl()
    assert torch.equal(made[0].grad, given[0])
    assert bowl.calls == 1
