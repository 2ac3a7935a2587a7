"""Schedules from text, as the command line takes them: ``warmup(100) >> cosine(900)``."""

import ast
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from thalweg.names import nearest
from thalweg.schedules.base import Schedule
from thalweg.schedules.compose import Join, Product, Sum, as_schedule
from thalweg.schedules.cycles import CosineRestarts, Cyclic, OneCycle
from thalweg.schedules.ramps import Cosine, Linear, Polynomial, Rex
from thalweg.schedules.shapes import Constant, Exponential, MultiStep, Step, Table
from thalweg.schedules.transforms import Clamped, Repeated, Shifted
from thalweg.schedules.warmup import InverseSqrt, Warmup, WarmupStableDecay

CLASSES: tuple[type[Schedule], ...] = (
    *(Clamped, Constant, Cosine, CosineRestarts, Cyclic, Exponential, InverseSqrt, Join, Linear),
    *(MultiStep, OneCycle, Polynomial, Product, Repeated, Rex, Shifted, Step, Sum, Table, Warmup),
    WarmupStableDecay,
)
SHOWN = 90  # characters of an expression in a message
METHODS = ("then", "shifted", "repeated", "clamped")

# With one number by position these are factors between 0 and 1: the argument that the number is,
# and the values of the others. OneCycle begins and ends where torch's OneCycleLR does.
SHORT: Mapping[type[Schedule], tuple[str, Mapping[str, float]]] = {
    Linear: ("steps", {"start": 1, "end": 0}),
    Cosine: ("steps", {"start": 1, "end": 0}),
    Polynomial: ("steps", {"start": 1, "end": 0}),
    Rex: ("steps", {"start": 1, "end": 0}),
    CosineRestarts: ("period", {"start": 1, "end": 0}),
    Cyclic: ("up", {"start": 0, "peak": 1}),
    OneCycle: ("steps", {"initial": 1 / 25, "peak": 1, "final": 1 / 25e4}),
}


def parse(text: str) -> Schedule:
    """The schedule that an expression describes.

    An expression is made of

    - schedules by name, in any case and with or without underscores, with their arguments:
      ``warmup(100)``, ``Cosine(1, 0.1, steps=900)``, ``cosine_restarts(1, 0, period=50)``;
    - a short form, a factor between 0 and 1: ``cosine(900)``, ``linear(900)``, ``polynomial(900)``
      and ``rex(900)`` fall from 1 to 0 in so many steps, ``cosine_restarts(50)`` in each period;
      ``cyclic(50)`` rises from 0 to 1 in so many and falls back; ``one_cycle(900)`` goes from 1/25
      to 1 and down to 4e-6. The other values can be given by name: ``cosine(900, end=0.1)``;
    - ``f >> g``, which is ``f.then(g)``; ``f * g`` and ``f + g``, where one may be a number;
    - the methods ``then``, ``shifted``, ``repeated`` and ``clamped``;
    - numbers and ``-``, ``+``, ``*``, ``/`` between them.

    ``>>`` binds less than ``*``: in ``0.1 * warmup(9) >> cosine(90)`` the factor is the warmup's
    alone; write ``0.1 * (warmup(9) >> cosine(90))``. Nothing else is evaluated: no other names,
    attributes or calls, and no :class:`Function`.

    Args:
        text: the expression.

    Raises:
        TypeError: it is no string.
        ValueError: it is not an expression of this kind, or a schedule refuses its arguments; the
            message points at the place.

    >>> parse("0.1 * (warmup(2) >> cosine(4))").values(7) == (
    ...     0.1 * Warmup(2).then(Cosine(1, 0, steps=4))).values(7)
    True
    >>> parse("cosin(4)")
    Traceback (most recent call last):
    ValueError: schedule: unknown name 'cosin'; did you mean cosine?
      cosin(4)
      ^^^^^
    """
    if not isinstance(text, str):
        raise TypeError(
            f"schedule: the expression must be a string, got {type(text).__name__} {text!r}"
        )
    return _Reader(text).schedule()


def names() -> list[str]:
    """The names of schedules in an expression, as :func:`parse` shows them."""
    return sorted(_shown(cls) for cls in CLASSES)


def _shown(cls: type[Schedule]) -> str:
    """A class's name in small letters: cosine_restarts."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in cls.__name__).lstrip("_")


def _key(name: str) -> str:
    return name.replace("_", "").lower()


_BY_KEY = {_key(cls.__name__): cls for cls in CLASSES}


class _Reader:
    """Evaluates the nodes of one expression."""

    def __init__(self, text: str) -> None:
        self.text = " ".join(text.split())

    def schedule(self) -> Schedule:
        """The whole expression; a number is a constant."""
        if not self.text:
            raise ValueError(
                "schedule: the expression is empty; write for example warmup(100) >> cosine(900)"
            )
        try:
            tree = ast.parse(self.text, mode="eval")
            value = self.value(tree.body)
        except SyntaxError as error:
            place = (error.offset or 1) - 1
            raise ValueError(self._pointed(f"{error.msg}", place, place + 1)) from None
        except (RecursionError, MemoryError):
            raise ValueError("schedule: the expression is nested too deeply; shorten it") from None
        if isinstance(value, Schedule) or _is_number(value):
            made: Schedule = self._made(tree.body, as_schedule, "it", "the value", value)
            return made
        self.fail(tree.body, f"an expression must give a schedule, got {value!r}")

    def value(self, node: ast.expr) -> Any:
        """A schedule, a number, or an argument: a string, a bool, None or a tuple of numbers."""
        match node:
            case ast.Constant(value=int() | float() | str() | bool() | None as value):
                return value
            case ast.Tuple(elts=elements) | ast.List(elts=elements):
                return tuple(self.value(element) for element in elements)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=inner):
                value = self._number(inner, "a sign")
                return -value if isinstance(sign, ast.USub) else value
            case ast.BinOp():
                return self._combined(node)
            case ast.Call():
                return self._called(node)
            case ast.Name(id=name):
                self._class_named(node, name)
                self.fail(node, f"{name} needs its arguments, as in {name}(100)")
        self.fail(node, "this has no meaning in a schedule")

    def _combined(self, node: ast.BinOp) -> Any:
        left, right = self.value(node.left), self.value(node.right)
        schedules = isinstance(left, Schedule), isinstance(right, Schedule)
        for operand, value in ((node.left, left), (node.right, right)):
            if not (isinstance(value, Schedule) or _is_number(value)):
                self.fail(operand, f"only schedules and numbers can be put together, got {value!r}")
        match node.op:
            case ast.RShift():
                first = left if schedules[0] else Constant(left)
                return self._made(node, first.then, right)
            case ast.Mult():
                return self._made(node, lambda: left * right)
            case ast.Add():
                return self._made(node, lambda: left + right)
            case ast.Sub() if not any(schedules):
                return left - right
            case ast.Div() if not any(schedules):
                return self._made(node, lambda: left / right)
            case ast.Sub():
                self.fail(node, "schedules cannot be subtracted; write f + -1 * g")
            case ast.Div():
                self.fail(node, "a schedule cannot divide or be divided; multiply it by a number")
        self.fail(node, "schedules are put together by >>, * and +, and by nothing else")

    def _called(self, node: ast.Call) -> Any:
        if any(isinstance(a, ast.Starred) for a in node.args) or any(
            keyword.arg is None for keyword in node.keywords
        ):
            self.fail(node, "arguments are written one by one, without a star")
        function: Callable[..., Any]
        match node.func:
            case ast.Name(id=name):
                function = self._class_named(node.func, name)
            case ast.Attribute(value=owner, attr=name):
                schedule = self.value(owner)
                if not isinstance(schedule, Schedule):
                    self.fail(owner, f"{name} is a method of schedules, and this is {schedule!r}")
                if name not in METHODS:
                    self.fail(node.func, self._unknown("method", name, list(METHODS)))
                function = getattr(schedule, name)
            case _:
                self.fail(node.func, "only schedules and their methods can be called")
        positional = [self.value(argument) for argument in node.args]
        named = {str(k.arg): self.value(k.value) for k in node.keywords}
        if isinstance(function, type) and function in SHORT:
            main, rest = SHORT[function]
            if len(positional) + (main in named) == 1:
                named = {**rest, main: (positional or [named.get(main)])[0], **named}
                positional = []
        return self._made(node, function, *positional, **named)

    def _number(self, node: ast.expr, what: str) -> Any:
        value = self.value(node)
        if not _is_number(value):
            self.fail(node, f"{what} can stand before a number only; write -1 * f")
        return value

    def _class_named(self, node: ast.expr, name: str) -> type[Schedule]:
        if _key(name) == "function":
            self.fail(node, "Function takes a Python function, which an expression cannot hold")
        if _key(name) not in _BY_KEY:
            self.fail(node, self._unknown("name", name, names()))
        return _BY_KEY[_key(name)]

    @staticmethod
    def _unknown(kind: str, name: str, known: list[str]) -> str:
        hint = nearest(name, known) or f"; there are: {', '.join(known)}"
        return f"unknown {kind} {name!r}{hint}"

    def _made(self, node: ast.expr, make: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """What a call gives; its complaint, with the place."""
        if isinstance(make, type):
            try:
                inspect.signature(make).bind(*args, **named)
            except TypeError as error:
                name = make.__name__
                self.fail(node, f"{name}: {error}; it is {name}{_arguments(make)}")
        try:
            return make(*args, **named)
        except (TypeError, ValueError, ArithmeticError) as error:
            self.fail(node, str(error))

    def fail(self, node: ast.expr, message: str) -> NoReturn:
        # Columns of the tree count bytes.
        encoded = self.text.encode()
        begin = len(encoded[: node.col_offset].decode())
        end = len(encoded[: node.end_col_offset or 0].decode())
        raise ValueError(self._pointed(message, begin, end)) from None

    def _pointed(self, message: str, begin: int, end: int) -> str:
        first = max(0, begin - SHOWN // 2)  # of a long text, what lies around the place
        text = self.text[first : first + SHOWN]
        marks = "^" * max(1, min(end, first + SHOWN) - begin)
        return f"schedule: {message}\n  {text}\n  {' ' * (begin - first)}{marks}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _arguments(cls: type) -> str:
    """A class's parameters without annotations: (start, end, steps)."""
    parameters = inspect.signature(cls).parameters.values()
    shown = (
        p.name if p.default is inspect.Parameter.empty else f"{p.name}={p.default!r}"
        for p in parameters
    )
    return f"({', '.join(shown)})"
