"""Loading: everything is read and checked first, then all parts are taken over, or none."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thalweg.checkpoint import parts as of_parts
from thalweg.checkpoint.foreign import USUAL, Foreign, Source, opened_any
from thalweg.checkpoint.header import DATA, RANDOM_STATE, CheckpointError
from thalweg.checkpoint.parts import Rename, kind_of, known_names
from thalweg.checkpoint.pending import commit_all
from thalweg.checkpoint.random_state import RandomState
from thalweg.checkpoint.save import check_names
from thalweg.engine.copying import deep_copy
from thalweg.names import nearest, printable
from thalweg.optim.state_dict import LoadReport, Pending
from thalweg.optim.state_dict.matching import check_rename
from thalweg.ranges import flag

_ERRORS = (TypeError, RuntimeError, ValueError)


@dataclass(frozen=True)
class Loaded(Mapping[str, Any]):
    """What a file held: a mapping from the names of its plain parts to their values.

    Attributes:
        path: of the file.
        reports: part: what of it fitted, for modules and optimizers.
        random_state: whether the shared generators of random numbers were set.
    """

    path: Path
    reports: dict[str, LoadReport]
    random_state: bool
    _values: dict[str, Any] = field(repr=False)

    def __getitem__(self, name: str) -> Any:
        if name not in self._values:
            raise KeyError(
                f"{self.path} has no plain part {name!r}{nearest(str(name), self._values)} It has: "
                f"{', '.join(self._values) or 'none'}"
            )
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __str__(self) -> str:
        lines = [f"{self.path}: {', '.join(self._values) or 'no plain parts'}"]
        for name, report in self.reports.items():
            lines += [f"{name}:", *(f"  {line}" for line in str(report).splitlines())]
        return "\n".join(map(printable, lines))


def load(
    path: str | os.PathLike[str],
    /,
    *,
    strict: bool = True,
    rename: Rename | None = None,
    rng: bool = True,
    **parts: Any,
) -> Loaded:
    """Load what :func:`save` saved into models, optimizers and so on: all of it, or nothing.

    First the file is read and every digest in it checked, then whether each part fits. Only then
    all are taken over, and Ctrl-C waits for that. If anything is wrong, all parts are as they were.

    Optimizers' states go by the names of their parameters, in any order and any grouping; see
    :meth:`thalweg.optim.Optimizer.load_state_dict`. Parts of the file that are not asked for are
    left.

    Files of ``torch.save`` are read too, without running code: a dict that has parts under these
    names or the usual ones (``model_state_dict``, ``global_step``, ...), or a state dict alone. So
    are other safetensors files, as a module's state dict. Neither has digests; those of
    ``torch.save`` have weaker sums, which are checked.

    Args:
        path: of the file.
        strict: raise where something in it does not fit, naming all that does not; False: take what
            fits. :attr:`Loaded.reports` tells.
        rename: from names in the file to names here, of modules' entries and optimizers'
            parameters: a dict, or a function.
        rng: also set the generators that programs share, if the file has their states.
        parts: the parts that take something over, by name.

    Returns:
        The values of the file's plain parts, and reports.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is no checkpoint, or it is damaged.
        ValueError: the file lacks a part, or it does not fit an optimizer or a generator.
        RuntimeError: it does not fit a module, as torch has it.
        TypeError: a part is plain data, or of another kind in the file.

    >>> import tempfile, torch
    >>> from thalweg import checkpoint
    >>> a, b = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    >>> path = checkpoint.save(tempfile.mkdtemp() + "/a.safetensors", model=a, epoch=3)
    >>> print(checkpoint.load(path, model=b))
    /...a.safetensors: epoch
    model:
      loaded: weight, bias
    """
    flag("load", "strict", strict)
    flag("load", "rng", rng)
    check_names("load", parts)
    for name, part in parts.items():
        if kind_of(part) == DATA:
            raise TypeError(
                f"load: {name} must have load_state_dict, got {type(part).__name__}; leave it out: "
                f"plain values come back, load(...)[{name!r}]"
            )
    check_rename("load", rename)
    with opened_any(path) as source:
        found = _found(source, parts)
        data = {name: source.part(there) for name, there in found.items()}
        _check_rename(source, rename, data)
        pending = {
            name: _prepared(source, name, parts, data[name], strict, rename) for name in parts
        }
        values = _plain_values(source, set(found.values()))
        state = _random_state(source) if rng else None
        ready = list(pending.values())
        if state is not None:
            ready.append(Pending(state.commit))
        commit_all(ready)
    return Loaded(
        path=source.path,
        reports={name: p.report for name, p in pending.items() if p.report is not None},
        random_state=state is not None,
        _values=values,
    )


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """All parts of a file as nested plain data: state dicts, numbers, tensors.

    Every digest is checked first. Tensors are views of the file: they take no memory until they are
    used, and what is written to them does not go into the file. :func:`save` may replace the file
    meanwhile; a program that cuts it short in place ends this one (SIGBUS). The states of the
    shared generators stand under ``_random_state``.

    Args:
        path: of a file that :func:`load` can load.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is no checkpoint, or it is damaged.

    >>> import tempfile, torch
    >>> from thalweg import checkpoint
    >>> path = tempfile.mkdtemp() + "/a.safetensors"
    >>> _ = checkpoint.save(path, weights=torch.ones(2), lr=0.1, rng=False)
    >>> checkpoint.read(path)
    {'weights': tensor([1., 1.]), 'lr': 0.1}
    """
    with opened_any(path) as source:
        return {name: source.part(name) for name in source.kinds}


def _found(source: Source, parts: Mapping[str, Any]) -> dict[str, str]:
    """Where the file has each part; ValueError if it lacks one."""
    found = {name: name for name in parts if name in source.kinds}
    if isinstance(source, Foreign):
        for name in (name for name in parts if name not in found):
            others = next((names for names in USUAL if name in names), ())
            # A state dict that is alone in its file has no name of its own.
            there = others if len(source.kinds) > 1 else tuple(source.kinds)
            free = [each for each in there if each in source.kinds and each not in found.values()]
            if free:
                found[name] = free[0]
    if lacking := [name for name in parts if name not in found]:
        here = [name for name in source.kinds if name != RANDOM_STATE]
        raise ValueError(
            f"checkpoint: {_place(source)}: it has no part {', '.join(map(repr, lacking))}"
            f"{nearest(lacking[0], here)} It has: {', '.join(map(repr, here)) or 'none'}; leave "
            "out what is not in it"
        )
    for name, place in found.items():
        own, saved = kind_of(parts[name]), source.kinds[place]
        if saved not in (own, DATA):
            raise TypeError(
                f"checkpoint: {_place(source)}: part {place!r} is the state of a {saved}; it "
                f"cannot be loaded into a {own}, {type(parts[name]).__name__}"
            )
    return found


def _check_rename(source: Source, rename: Rename | None, data: Mapping[str, Any]) -> None:
    if isinstance(rename, Mapping):
        known = set().union(*map(known_names, data.values()))
        for old in rename:
            if old not in known:
                raise ValueError(
                    f"load: rename has {old!r}, which no part of {_place(source)} knows"
                    f"{nearest(str(old), known)}"
                )


def _place(source: Source) -> str:
    return printable(str(source.path))


def _prepared(
    source: Source,
    name: str,
    parts: Mapping[str, Any],
    data: Any,
    strict: bool,
    rename: Rename | None,
) -> Pending:
    """A part made ready; errors tell the file and the part, those of taking it over too."""
    with _told(source, name):
        pending = of_parts.prepare(parts[name], data, parts, strict, rename)
    commit = pending.commit

    def told() -> Any:
        with _told(source, name):
            return commit()

    pending.commit = told
    return pending


@contextmanager
def _told(source: Source, name: str) -> Iterator[None]:
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # whatever the code of others makes of what it is given
        kind = next((each for each in _ERRORS if isinstance(error, each)), None)
        reason = str(error) if kind else repr(error)
        message = printable(f"checkpoint: {source.path}: part {name!r}: {reason}", keep="\n")
        raise (kind or ValueError)(message) from error


def _plain_values(source: Source, taken: set[str]) -> dict[str, Any]:
    """The values of plain parts that nobody took, apart from the file."""
    values = {
        name: deep_copy(source.part(name))
        for name, kind in source.kinds.items()
        if kind == DATA and name not in taken and name != RANDOM_STATE
    }
    if isinstance(source, Foreign):
        for usual, *others in USUAL:
            for each in others:
                if each in values:
                    values.setdefault(usual, values[each])
    return values


def _random_state(source: Source) -> RandomState | None:
    if RANDOM_STATE not in source.kinds or isinstance(source, Foreign):
        return None
    try:
        return RandomState(source.part(RANDOM_STATE))
    except CheckpointError:
        raise
    except ValueError as error:
        raise ValueError(f"checkpoint: {_place(source)}: {error}") from error
