"""Printed kernels: their text, which users' caches are named after, and what formats add to it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from tests.engine.formats.samples import STOCHASTIC, blockwise
from thalweg import optim
from thalweg.engine.backends.cpu.printer import SEEDS, print_stage
from thalweg.engine.formats import FORMATS, Format
from thalweg.rule import Rule, mean, norm, sqrt, where

FP64, FP32, BF16, FP16 = (
    FORMATS[d] for d in (torch.float64, torch.float32, torch.bfloat16, torch.float16)
)
OPTIONS: dict[str, dict[str, Any]] = {"SGD": {"momentum": 0.9}, "RMSprop": {"momentum": 0.9}}


def short_sum(p, g, s, h):
    return p - g / mean(g * g)


def long_sum(p, g, s, h):
    s.buf = 0.9 * s.buf + g
    x = sqrt(s.buf * s.buf + 1) * s.buf / (2 + s.buf * s.buf)
    return p - h.lr * x / norm(x) - where(h.lr > 0, g, p)


# Of the text without the rules' line numbers. A change here has every user compile anew: change the
# digests only for a printer (or a rule) that is meant to print something else.
DIGESTS: dict[str, tuple[str, ...]] = {
    "SGD": ("e5b5aa74", "cde51594", "596b219c", "f1e6485c"),
    "Adam": ("99a54c0f", "415ecf4b", "88edf55b", "0e864787"),
    "AdamW": ("99a54c0f", "415ecf4b", "88edf55b", "0e864787"),
    "Adamax": ("430c952c", "d9127df0", "3d30fd35", "ded6bb5c"),
    "NAdam": ("8958f20c", "7b0c47c4", "7e6ffe27", "c706f2e7"),
    "RAdam": ("8f5f249f", "db123cf9", "f2226f0d", "88c2323a"),
    "Adagrad": ("c8ad6110", "473a9c2b", "1fcd08a0", "12356878"),
    "Adadelta": ("a0632317", "8919dcaa", "79e80fb2", "5b0cf651"),
    "RMSprop": ("2d07aa81", "d7101bfc", "0aac38ff", "ab158afd"),
    "Rprop": ("461a0810", "14a65646", "baad8203", "1b6a5ea0"),
    "ASGD": ("30906dfd", "a2909a38", "1409f85a", "4507e833"),
    "short_sum": ("76a37e09", "effb83bb", "a2c86d11", "72622b64"),
    "long_sum": ("67096226", "025b140f", "ac5e0284", "86d1f503"),
}


def digest(rule: Rule, options: Mapping[str, Any], p: Format, g: Format, state: Format) -> str:
    program = rule.program(options, [9.0, *(1.0 for _ in rule.scalar_states)])
    formats = {"p": p, "g": g, **dict.fromkeys(program.states, state)}
    stages = range(len(program.stages))
    texts = [print_stage(program, k, formats, optional="g")[2] for k in stages]
    text = re.sub(r"  # \S+:\d+$", "", "".join(texts), flags=re.MULTILINE)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def digests(rule: Rule, options: Mapping[str, Any]) -> tuple[str, ...]:
    kinds = [(FP32,) * 3, (BF16,) * 3, (FP64,) * 3, (BF16, FP16, FP32)]
    return tuple(digest(rule, options, *kind) for kind in kinds)


def optimizers() -> dict[str, tuple[Rule, Mapping[str, Any]]]:
    found = {}
    for name in DIGESTS:
        cls = getattr(optim, name, None)
        if cls is not None:
            made = cls([torch.zeros(1)], lr=0.1, **OPTIONS.get(name, {}))
            found[name] = cls.rule, made.param_groups[0]
    return found


def test_kernels_are_printed_as_ever() -> None:
    rules = optimizers()
    for update in (short_sum, long_sum):
        rules[update.__name__] = Rule(update, {"buf": 0.0}), {"lr": 0.1}
    assert {name: digests(*rule) for name, rule in rules.items()} == DIGESTS


def adam() -> Any:
    return optim.Adam.rule.program(optim.Adam([torch.zeros(1)]).param_groups[0], [1.0])


def printed(**formats: Format) -> str:
    program = adam()
    formats = dict.fromkeys(program.operands, FP32) | formats
    return print_stage(program, 0, formats, optional="g")[2]


def test_plain_kernels_import_nothing_more_and_read_no_seeds() -> None:
    text = printed(exp_avg=BF16)
    assert text.startswith("def work(arguments):")
    assert f"a[{SEEDS}]" not in text


def test_only_operands_whose_format_draws_numbers_have_a_seed() -> None:
    text = printed(exp_avg=STOCHASTIC)
    assert f"seed_exp_avg = int64_pointer(a[{SEEDS}])[t]" in text
    assert "seed_p" not in text
    assert "seed_exp_avg_sq" not in text


def test_a_later_chunk_of_every_buffer_is_fetched_and_none_beyond_the_last() -> None:
    text = printed(exp_avg=blockwise(64), exp_avg_sq=BF16)
    fetched = re.findall(r"prefetch\(addresses\[(\d) \* tensors \+ later\] \+ .*, (\d+)\)", text)
    # p, g, the codes of exp_avg and their scale, exp_avg_sq: 64 elements of each.
    assert sorted(fetched) == [("0", "256"), ("1", "256"), ("2", "64"), ("3", "128"), ("4", "4")]
    (ahead,) = re.findall(r"ahead = (.*)", text)
    chunks = [eval(ahead, {"chunk": chunk, "chunk_count": 10}) for chunk in range(10)]
    assert chunks == [3, 4, 5, 6, 7, 8, 9, 7, 8, 9]
    assert "chunk_count = spans[span_count]\n" in text


def test_formats_import_what_they_use() -> None:
    first, second, *_ = printed(exp_avg=blockwise(64), p=STOCHASTIC).splitlines()
    assert first == "from numba import int8, uint16, uint32"
    assert second == (
        "from thalweg.engine.backends.cpu.intrinsics import "
        "bits_of_float32, int8_pointer, larger_of"
    )


def test_a_block_that_crosses_partial_sums_is_refused() -> None:
    with pytest.raises(ValueError, match=r"format q8x96 stores 96 elements together; .* 4096"):
        printed(exp_avg=blockwise(96))
