from __future__ import annotations

import itertools
import re
from importlib.resources import files

import numpy as np
import pytest
import torch

from thalweg.optim.catalogue import classes
from thalweg.page.colours import DASHES, PALETTE, colours_of, dashes_of, styles_of

# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision
# Deficiency", 2009: severity 1.0, on linear RGB.
SEEN_BY = {
    "all": np.eye(3),
    "protanopes": np.array(
        [[0.152286, 1.052583, -0.204868],
         [0.114503, 0.786281, 0.099216],
         [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopes": np.array(
        [[0.367322, 0.860646, -0.227968],
         [0.280085, 0.672501, 0.047413],
         [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopes": np.array(
        [[1.255528, -0.076749, -0.178779],
         [-0.078411, 0.930809, 0.147602],
         [0.004733, 0.691367, 0.303900]]
    ),
}  # fmt: skip


def linear(colour: str) -> np.ndarray:
    c = np.array(list(bytes.fromhex(colour[1:]))) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    """WCAG 2.2."""
    dark, light = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (a, b))
    return (light + 0.05) / (dark + 0.05)


def oklab(rgb: np.ndarray) -> np.ndarray:
    """B. Ottosson, "A perceptual color space for image processing", 2020."""
    lms = rgb @ np.array(
        [[0.4122214708, 0.5363325363, 0.0514459929],
         [0.2119034982, 0.6806995451, 0.1073969566],
         [0.0883024619, 0.2817188376, 0.6299787005]]
    ).T  # fmt: skip
    return np.cbrt(np.clip(lms, 0, None)) @ np.array(
        [[0.2104542553, 0.7936177850, -0.0040720468],
         [1.9779984951, -2.4285922050, 0.4505937099],
         [0.0259040371, 0.7827717662, -0.8086757660]]
    ).T  # fmt: skip


def backgrounds() -> set[str]:
    text = (files("thalweg.page") / "style.css").read_text(encoding="utf-8")
    return set(re.findall(r"--back: (#\w{6})", text))


def test_contrast_of_black_and_white_is_21() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


def test_colours_are_readable_on_every_background_of_the_page() -> None:
    assert len(backgrounds()) == 2
    for colour, back in itertools.product(PALETTE, backgrounds()):
        assert contrast(colour, back) >= 3, (colour, back)


@pytest.mark.parametrize("eyes", SEEN_BY)
def test_colours_stay_apart_for_every_eye(eyes: str) -> None:
    seen = [oklab(np.clip(linear(colour) @ SEEN_BY[eyes].T, 0, 1)) for colour in PALETTE]
    # 0.02 is about the least difference that is noticed side by side.
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 0.07


def test_known_optimizers_look_the_same_in_any_company() -> None:
    names = [n for n in classes() if hasattr(torch.optim, n)]
    names += ["SGD+momentum", "SGD+Nesterov"]
    together = styles_of(names)
    assert len(set(together.values())) == len(names) == 15
    for name in names:
        assert styles_of([name, "mine"])[name] == together[name]
        assert styles_of(["mine", name.lower()])[name.lower()] == together[name]


@pytest.mark.parametrize(
    ("name", "same"),
    [("sgd with momentum", "SGD+momentum"), ("L-BFGS", "LBFGS"), ("momentum", "SGD momentum")],
)
def test_spellings(name: str, same: str) -> None:
    assert styles_of([name])[name] == styles_of([same])[same]


@pytest.mark.parametrize("name", ["Adam (torch)", "torch Adam", "torch.optim.Adam"])
def test_torchs_class_has_the_colour_of_ours_and_another_dash(name: str) -> None:
    assert colours_of([name, "Adam"])[name] == colours_of(["Adam"])["Adam"]
    assert dashes_of([name, "AdamW", "Adam"])[name] not in ("solid", dashes_of(["AdamW"])["AdamW"])


def test_32_series_are_all_different() -> None:
    names = [f"series {i}" for i in range(32)]
    styles = styles_of([*names, names[0]])
    assert len(set(styles.values())) == 32 == len(PALETTE) * len(DASHES)
    assert list(styles) == names
