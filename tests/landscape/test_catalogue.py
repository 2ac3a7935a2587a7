"""Surfaces and scenes by name."""

from __future__ import annotations

from typing import Any

import pytest

from thalweg.landscape import SCENES, SURFACES, scene, surface


@pytest.mark.parametrize("name", sorted(SURFACES))
def test_a_name_is_found_in_any_spelling(name: str) -> None:
    for spelling in (name, name.upper(), name.replace("_", " "), name.replace("_", "-").title()):
        assert surface(spelling).name == SURFACES[name]().name


def test_names_differ() -> None:
    assert len({make().name for make in SURFACES.values()}) == len(SURFACES)


def test_an_unknown_name_brings_the_nearest_and_all_others() -> None:
    with pytest.raises(ValueError, match=r"^surface: unknown name 'himelblau'; did you mean himm"):
        surface("himelblau")
    with pytest.raises(ValueError, match=f"'zzzz'. There are: {', '.join(SURFACES)}.$"):
        surface("zzzz")


@pytest.mark.parametrize("name", [None, 3, ("bowl",)])
def test_a_name_is_a_string(name: Any) -> None:
    with pytest.raises(TypeError, match=r"^surface: name must be a string"):
        surface(name)


def test_scenes_are_found_alike() -> None:
    assert [scene(name.upper()).name for name in SCENES] == [
        make().name for make in SCENES.values()
    ]
    with pytest.raises(ValueError, match=r"^scene: unknown name 'ravin'; did you mean ravine"):
        scene("ravin")
