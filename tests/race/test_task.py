import sys

import pytest
import torch

from thalweg.race import Task, digits


@pytest.fixture(scope="module")
def task() -> Task:
    return digits()


def test_every_digit_is_in_exactly_one_set(task: Task) -> None:
    assert len(task.x) + len(task.test_x) == 1797
    assert len(task.test_x) == 449
    whole = torch.cat([task.x, task.test_x])
    # Standardising is one affine map per pixel, so two images stay equal or distinct.
    assert len(torch.unique(whole, dim=0)) == 1797


def test_training_pixels_are_standardised(task: Task) -> None:
    deviation, mean = torch.std_mean(task.x, dim=0)
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-5, rtol=0)
    constant = deviation == 0
    assert constant.any()  # the corners are never inked: the case that must not divide by zero
    torch.testing.assert_close(deviation[~constant], torch.ones_like(deviation[~constant]))
    assert torch.isfinite(task.test_x).all()


def test_seed_decides_split_weights_and_batches() -> None:
    first, again, other = digits(1), digits(1), digits(2)
    assert torch.equal(first.x, again.x)
    assert not torch.equal(first.y, other.y)
    for p, q in zip(first.network().parameters(), again.network().parameters(), strict=True):
        assert torch.equal(p, q)
    assert not torch.equal(first.network()[0].weight, other.network()[0].weight)
    for (x, y), (x2, y2) in zip(first.batches(2), again.batches(2), strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)


def test_network_leaves_the_global_random_state_alone(task: Task) -> None:
    before = torch.get_rng_state()
    task.network()
    assert torch.equal(torch.get_rng_state(), before)


def test_an_epoch_holds_every_row_once_and_the_next_is_reshuffled(task: Task) -> None:
    batches = list(task.batches(2))
    half = len(batches) // 2
    assert sum(len(y) for _, y in batches[:half]) == len(task.y)
    first = torch.cat([x for x, _ in batches[:half]])
    second = torch.cat([x for x, _ in batches[half:]])
    assert not torch.equal(first, second)
    # Sums over rows do not depend on the order; float64 leaves no rounding to argue about.
    torch.testing.assert_close(first.double().sum(0), second.double().sum(0))
    torch.testing.assert_close(first.double().sum(0), task.x.double().sum(0))


def test_accuracy_counts_right_answers() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0], [3.0, 0.0]])
    task = Task("t", x, torch.tensor([0, 1, 0, 1]), x, torch.tensor([0, 1, 0, 1]), layers=(2,))
    assert task.accuracy(torch.nn.Identity()) == 0.75


def test_missing_scikit_learn_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ModuleNotFoundError) as error:
        digits()
    assert str(error.value) == (
        'the digits need scikit-learn; install it with: pip install "thalweg[race]"'
    )
