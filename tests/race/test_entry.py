import math

import pytest

from thalweg.race import Entry, Run


def run(lr: float, loss: list[float], steps: list[int] | None = None, **more) -> Run:
    steps = steps or list(range(0, 10 * len(loss), 10))
    seconds = tuple(s / 1000 for s in steps)
    return Run(lr, 0, tuple(steps), seconds, tuple(loss[1:]), tuple(loss), **more)


def entry(search: list[Run], runs: list[Run] | None = None) -> Entry:
    return Entry("A", "thalweg.optim.Adam", {}, "", tuple(search), tuple(runs or ()), None)


def test_a_loss_reaches_its_target_from_above_and_a_score_from_below() -> None:
    falling = run(1, [3, 2, 1, 1.5])
    assert [falling.reached(t) for t in (5, 2, 1, 0.5)] == [0, 1, 2, None]
    assert [falling.holds(t) for t in (2, 1)] == [True, False]
    rising = run(1, [3, 2, 1], score=(0.1, 0.8, 0.7))
    assert rising.measured == (0.1, 0.8, 0.7)
    assert [rising.reached(t) for t in (0.05, 0.75, 0.9)] == [0, 1, None]
    assert [rising.holds(t) for t in (0.7, 0.8)] == [True, False]
    assert not run(1, [3, 2, 1], diverged_at=25).holds(2)


def test_medians_over_the_seeds_are_of_the_worse_in_the_middle() -> None:
    fast, slow, never = run(1, [3, 1, 1]), run(1, [3, 2, 1]), run(1, [3, 3, 2])
    assert entry([], [fast, slow, never]).steps_to(1) == 20
    assert entry([], [fast, slow]).steps_to(1) == 20
    assert entry([], [fast, never]).steps_to(1) == math.inf
    assert entry([], [fast, fast, never]).seconds_to(1) == 0.01
    assert entry([], [fast, never]).final == 2
    assert entry([], []).steps_to(1) == math.inf


def test_a_diverged_seed_counts_as_the_worst() -> None:
    good, lost = run(1, [3, 1, 1]), run(1, [3, 1], diverged_at=12)
    assert entry([], [good, lost, lost]).steps_to(1) == math.inf
    assert entry([], [good, good, lost]).final == 1
    assert entry([], [good, lost, lost]).final == math.inf
    scores = [run(1, [3, 1], score=(0.1, 0.9)), run(1, [3, 1], score=(0.1, 0.9), diverged_at=12)]
    assert entry([], scores).final == -math.inf
    assert entry([], [scores[0]] * 2 + scores).final == 0.9


@pytest.mark.parametrize(
    ("losses", "working"),
    [
        # after the first round, from 10.0: at least 0.9 of the best one's progress of 8
        ([9.0, 2.8, 2.0, 2.7, 9.0], [1, 2, 3]),
        ([2.8, 2.9, 2.0], [2]),
        ([2.0], [0]),
        ([2.5, 9.0, 2.0, 2.1], [2, 3]),  # not across a gap
        ([10.0, 11.0], []),
    ],
)
def test_working_rates_are_neighbours_of_the_best(losses, working) -> None:
    search = [run(i, [10.0, loss]) for i, loss in enumerate(losses)]
    longer = [run(r.lr, [10.0, r.test_loss[1], 0.0]) for r in search]
    for runs in (search, [*longer[:1], *search[1:]] if len(search) > 1 else search):
        assert [r.lr for r in entry(runs).working] == working


def test_working_leaves_out_what_diverged_and_counts_late_evaluations() -> None:
    """An optimizer with several gradients per step is evaluated at other numbers of them."""
    odd = [run(0, [10, 2], [0, 13]), run(1, [10, 2.1, 0.1], [0, 12, 27]), run(2, [10, 1], [0, 11])]
    assert entry(odd).first_round == 11
    assert [r.lr for r in entry(odd[:2]).working] == [0, 1]
    lost = run(3, [10, 0.5], diverged_at=14)
    assert lost not in entry([*odd, lost]).working
    assert entry([lost]).working == ()
    assert entry([]).first_round == 0


def test_shares_are_of_the_training_time() -> None:
    half = run(1, [3, 2, 1], optimizer_seconds=0.01)
    assert half.optimizer_share == pytest.approx(0.5)
    assert run(1, [3.0]).optimizer_share == 0
    assert entry([], [half]).optimizer_share == pytest.approx(0.5)
