import pytest

from thalweg.race import PRESETS, RACERS, TASKS, find_all, settings


@pytest.mark.parametrize("name", PRESETS)
def test_presets_name_what_there_is(name: str) -> None:
    preset = settings(name)
    assert preset == PRESETS[name]
    assert preset.preset == name
    assert set(preset.tasks) <= set(TASKS)
    assert find_all(preset.optimizers) == RACERS


def test_the_full_preset_runs_every_task() -> None:
    assert set(PRESETS["full"].tasks) == set(TASKS)


def test_overrides_replace_and_none_does_not() -> None:
    asked = settings("full", tasks=["digits"], seeds=7, seed=None, length=2)
    assert (asked.tasks, asked.seeds, asked.seed, asked.length) == (("digits",), 7, 0, 2.0)
    assert asked.optimizers == PRESETS["full"].optimizers


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"learning_rates": 0}, ValueError, r"learning_rates must be a finite number >= 1, got 0"),
        ({"learning_rates": 2.5}, TypeError, "learning_rates must be an integer, got float 2.5"),
        ({"seeds": 0}, ValueError, "seeds must be .* got 0"),
        ({"seeds": True}, TypeError, "seeds must be an integer"),
        ({"seed": -1}, ValueError, "seed must be .* got -1"),
        ({"length": 0.0}, ValueError, "length must be .* > 0, got 0.0"),
        ({"length": float("nan")}, ValueError, "length must be .* got nan"),
        ({"length": "long"}, TypeError, "length must be a number"),
        ({"tasks": []}, ValueError, "tasks is empty; name at least one"),
        ({"optimizers": ()}, ValueError, "optimizers is empty"),
        ({"optimizers": "adam"}, TypeError, "optimizers must be a list of strings, got 'adam'"),
        ({"optimizers": [1]}, TypeError, "optimizers must be a list of strings"),
        ({"lenght": 1}, TypeError, "unknown setting 'lenght'; did you mean length"),
    ],
)
def test_wrong_settings_are_explained(wrong, error, message) -> None:
    with pytest.raises(error, match=f"^race: {message}"):
        settings("small", **wrong)


def test_unknown_preset() -> None:
    with pytest.raises(
        ValueError, match=r"unknown preset 'smal'; did you mean small\? There are: "
    ):
        settings("smal")
