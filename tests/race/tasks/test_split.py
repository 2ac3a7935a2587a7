import pytest
import torch

from thalweg.race.tasks.split import accuracy, split_rows


def split(batch_size: int = 4, **more):
    generator = torch.Generator().manual_seed(5)
    x = 3 * torch.randn(30, 3, generator=generator) + 7
    x[:, 1] = 2.0  # never varies: the case that must not divide by zero
    return split_rows(x, torch.arange(30.0), test_share=0.3, batch_size=batch_size, **more)


def test_every_row_is_in_exactly_one_set() -> None:
    rows = split()
    assert sorted([*rows.y.tolist(), *rows.test_y.tolist()]) == list(range(30))
    assert len(rows.test_y) == len(rows.test_x) == 9


def test_training_inputs_are_standardised() -> None:
    rows = split()
    deviation, mean = torch.std_mean(rows.x, dim=0)
    torch.testing.assert_close(mean, torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(deviation, torch.tensor([1.0, 0.0, 1.0]))
    assert (rows.test_x[:, 1] == 0).all()
    targets = split(standardise_targets=True)
    assert targets.y.mean().item() == pytest.approx(0, abs=1e-6)
    assert targets.y.std().item() == pytest.approx(1)


def test_a_pass_holds_every_row_at_most_once_in_whole_batches() -> None:
    rows = split()
    batches = list(rows.batches("train", torch.Generator().manual_seed(0)))
    assert [len(y) for _, y in batches] == [4] * 5  # of 21 rows
    seen = torch.cat([y for _, y in batches])
    assert len(set(seen.tolist())) == 20
    for x, y in batches:
        for row, target in zip(x, y, strict=True):
            assert torch.equal(row, rows.x[rows.y == target][0])


def test_the_generator_decides_the_order() -> None:
    rows = split()

    def order(seed: int) -> list[float]:
        made = rows.batches("train", torch.Generator().manual_seed(seed))
        return torch.cat([y for _, y in made]).tolist()

    assert order(0) == order(0) != order(1)


def test_full_batches_and_test_batches_are_whole() -> None:
    rows = split(batch_size=100)
    ((x, y),) = rows.batches("train", torch.Generator())
    assert x is rows.x
    assert y is rows.y
    ((x, y),) = rows.batches("test", torch.Generator())
    assert x is rows.test_x
    assert y is rows.test_y


def test_accuracy_counts_right_answers() -> None:
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0], [3.0, 0.0]])
    assert accuracy(logits, torch.tensor([0, 1, 0, 1])) == 0.75
