"""Statements and expressions of a source, translated for LLVM."""

import ast
import builtins
import functools
import inspect
import linecache
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

from llvmlite import ir

from thalweg.engine.backends.cpu.compiler import operators
from thalweg.engine.backends.cpu.compiler.kinds import Intrinsic, Kind, Value, boolean, int64
from thalweg.engine.backends.cpu.compiler.operators import CompileError

# What may be computed whether it is needed or not: it reads no memory and calls nothing.
_SIMPLE = (
    *(ast.Name, ast.Constant, ast.Attribute, ast.UnaryOp, ast.BinOp, ast.Compare, ast.BoolOp),
    *(ast.IfExp, ast.expr_context, ast.operator, ast.unaryop, ast.cmpop, ast.boolop),
)
_ABSENT = object()
# What a call does not simply run: generators, coroutines, and functions of any number of arguments.
_NOT_PLAIN = inspect.CO_GENERATOR | inspect.CO_VARARGS | inspect.CO_VARKEYWORDS


@dataclass
class _Loop:
    """A loop around a statement.

    Attributes:
        again: where ``continue`` leads.
        after: where ``break`` leads.
        known_again: for each way that leads there, the variables that have a value.
        known_after: the same of ``after``.
    """

    again: Any
    after: Any
    known_again: list[set[str]] = field(default_factory=list)
    known_after: list[set[str]] = field(default_factory=list)


@dataclass
class _Call:
    """A function that is being translated, in its place.

    Attributes:
        function: the function.
        end: the block that follows it.
        variables: by name, their kinds and where they lie.
        known: the names of those that have a value, whichever way led to the statement.
        loops: those around the statement, the innermost last.
        returned: once a ``return`` was met, the kind of its value, a tuple of kinds, or None.
        results: where the results lie.
    """

    function: FunctionType
    end: Any
    variables: dict[str, tuple[Kind, Any]] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    loops: list[_Loop] = field(default_factory=list)
    returned: Any = _ABSENT
    results: list[Any] = field(default_factory=list)

    def has_variable(self, name: str) -> bool:
        """Whether the name is the function's own: then it is none of the module's, anywhere."""
        return name in self.function.__code__.co_varnames


class Translator:
    """Fills a function of LLVM's.

    Args:
        target: the function, ``void(int64)``, still without a body.
    """

    def __init__(self, target: Any) -> None:
        # Variables are made where a function begins: one in a loop would be made again and again.
        self._entry = ir.IRBuilder(target.append_basic_block("entry"))
        self._target = target
        self._builder = ir.IRBuilder(target.append_basic_block("start"))
        self._calls: list[_Call] = []

    def translate(self, function: FunctionType) -> None:
        """Translate a function of one integer.

        Raises:
            CompileError: see :mod:`thalweg.engine.backends.cpu.compiler`.
        """
        start = self._builder.block
        found = self._inlined(function, [Value(int64, self._target.args[0])])
        if found is not None:
            raise CompileError(f"{function.__name__} is to return nothing, and returns a value")
        self._builder.ret_void()
        self._entry.position_at_end(self._entry.block)
        self._entry.branch(start)

    # ---- functions -------------------------------------------------------------------------

    def _inlined(self, function: FunctionType, arguments: Sequence[Any]) -> Any:
        """The results of a function that is put here: a value, a tuple of values, or None."""
        if any(call.function is function for call in self._calls):
            raise CompileError(f"{function.__name__} calls itself, which no kernel can")
        definition, code = _definition(function), function.__code__
        names = code.co_varnames[: code.co_argcount]
        if code.co_flags & _NOT_PLAIN or code.co_kwonlyargcount:
            raise CompileError(f"{function.__name__} must be plain, of positional arguments")
        if len(names) != len(arguments):
            raise CompileError(
                f"{function.__name__} takes {len(names)} arguments, and got {len(arguments)}"
            )
        call = _Call(function, self._builder.append_basic_block("end"))
        self._calls.append(call)
        for name, value in zip(names, arguments, strict=True):
            self._set(name, value)
        self._block(definition.body)
        if not self._builder.block.is_terminated:
            if call.returned not in (_ABSENT, None):
                raise CompileError(f"{function.__name__} ends without a result in one of its ways")
            self._builder.branch(call.end)
        self._builder.position_at_end(call.end)
        self._calls.pop()
        found = [self._builder.load(at) for at in call.results]
        if isinstance(call.returned, tuple):
            return tuple(map(Value, call.returned, found))
        return Value(call.returned, *found) if found else None

    @property
    def _call(self) -> _Call:
        return self._calls[-1]

    # ---- statements ------------------------------------------------------------------------

    def _block(self, statements: Sequence[ast.stmt]) -> None:
        for statement in statements:
            if self._builder.block.is_terminated:
                return  # nothing leads here
            with self._at(statement):
                translate = _STATEMENTS.get(type(statement))
                if translate is None:
                    raise CompileError(f"got {type(statement).__name__}, which no kernel can hold")
                translate(self, statement)

    @contextmanager
    def _at(self, statement: ast.stmt) -> Iterator[None]:
        """Say of an error where it is."""
        code, line = self._call.function.__code__, statement.lineno
        try:
            yield
        except CompileError as error:
            if error.args[0].startswith("File "):
                raise  # of a function that is called
            raise CompileError(
                f'File "{code.co_filename}", line {line}: {error.args[0]}\n'
                f"    {ast.unparse(statement).splitlines()[0]}"
            ) from None

    def _expression_statement(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # a docstring
            self._evaluated(node.value)

    def _pass(self, node: ast.Pass) -> None:
        pass

    def _assignment(self, node: ast.Assign) -> None:
        if len(node.targets) != 1:
            raise CompileError("got several targets; assign to one after another")
        self._assign(node.targets[0], self._evaluated(node.value))

    def _assign(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Tuple):
            if not isinstance(value, tuple) or len(value) != len(target.elts):
                raise CompileError(f"got a value for {len(target.elts)} targets")
            for one, of_it in zip(target.elts, value, strict=True):
                self._assign(one, of_it)
        elif isinstance(target, ast.Name):
            self._set(target.id, value)
        elif isinstance(target, ast.Subscript):
            self._store(self._place(target), value)
        else:
            raise CompileError(f"got {type(target).__name__} as a target")

    def _augmented(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            old = self._value(ast.Name(node.target.id, ast.Load()))
            new = operators.binary(self._builder, type(node.op), old, self._value(node.value))
            self._set(node.target.id, new)
        elif isinstance(node.target, ast.Subscript):
            place = self._place(node.target)
            old = Value(place[0], self._builder.load(place[1]))
            new = operators.binary(self._builder, type(node.op), old, self._value(node.value))
            self._store(place, new)
        else:
            raise CompileError(f"got {type(node.target).__name__} as a target")

    def _set(self, name: str, value: Any) -> None:
        """Give a variable a value."""
        if not isinstance(value, Value):
            raise CompileError(f"{name} must be one value, and got {_described(value)}")
        if name not in self._call.variables:
            self._call.variables[name] = value.kind, self._entry.alloca(value.kind.type)
        kind, at = self._call.variables[name]
        if kind != value.kind:
            raise CompileError(
                f"{name} was {kind.name}, and got {value.kind.name}; a variable keeps its kind"
            )
        self._builder.store(value.code, at)
        self._call.known.add(name)

    def _place(self, node: ast.Subscript) -> tuple[Kind, Any]:
        """An element's kind and where it lies."""
        pointer, index = self._value(node.value), self._value(node.slice)
        if pointer.kind.element is None or not index.kind.is_integer:
            raise CompileError(f"got {pointer.kind.name}[{index.kind.name}]")
        at = self._builder.gep(pointer.code, [operators.widened(self._builder, index).code])
        return pointer.kind.element, at

    def _store(self, place: tuple[Kind, Any], value: Any) -> None:
        kind, at = place
        if not isinstance(value, Value) or value.kind != kind:
            raise CompileError(f"an element is {kind.name}, and got {_described(value)}")
        self._builder.store(value.code, at)

    def _if(self, node: ast.If) -> None:
        builder, before, ways = self._builder, self._call.known, []
        condition = self._condition(node.test)
        blocks = [builder.append_basic_block(name) for name in ("if", "else", "after")]
        after = blocks.pop()
        builder.cbranch(condition, *blocks)
        for block, statements in zip(blocks, (node.body, node.orelse), strict=True):
            self._go_on(block, [before])
            self._block(statements)
            if not builder.block.is_terminated:
                builder.branch(after)
                ways.append(self._call.known)
        self._go_on(after, ways)

    def _go_on(self, block: Any, ways: Sequence[set[str]]) -> None:
        """Translate what follows into a block.

        Args:
            block: the block.
            ways: for each way that leads there, the variables that have a value.
        """
        self._builder.position_at_end(block)
        if ways:
            self._call.known = set.intersection(*ways)
        else:
            self._builder.unreachable()

    def _while(self, node: ast.While) -> None:
        builder, before = self._builder, self._call.known
        test, body, after = (builder.append_basic_block(name) for name in ("while", "do", "after"))
        builder.branch(test)
        builder.position_at_end(test)
        for_ever = isinstance(node.test, ast.Constant) and node.test.value is True
        if for_ever:
            builder.branch(body)
        else:
            builder.cbranch(self._condition(node.test), body, after)
        self._go_on(body, [before])
        loop = self._loop(node, test, after)
        self._go_on(after, loop.known_after if for_ever else [before])

    def _loop(self, node: ast.For | ast.While, again: Any, after: Any) -> _Loop:
        """Translate a loop's statements, from where the builder is."""
        if node.orelse:
            raise CompileError("got a loop with else")
        loop = _Loop(again, after)
        self._call.loops.append(loop)
        self._block(node.body)
        if not self._builder.block.is_terminated:
            self._builder.branch(again)
            loop.known_again.append(self._call.known)
        self._call.loops.pop()
        return loop

    def _for(self, node: ast.For) -> None:
        if isinstance(node.iter, ast.Tuple):
            self._unrolled(node, node.iter)
            return
        if not (isinstance(node.iter, ast.Call) and self._named(node.iter.func) is range):
            raise CompileError("a loop goes over range(...) or a tuple that is written out")
        bounds = [self._integer(bound) for bound in node.iter.args]
        if not 1 <= len(bounds) <= 3 or node.iter.keywords:
            raise CompileError("a range has one to three bounds, by place")
        zero, one = (operators.constant(n) for n in (0, 1))
        assert zero is not None
        assert one is not None
        start = bounds[0] if len(bounds) > 1 else zero
        stop = bounds[1] if len(bounds) > 1 else bounds[0]
        step = bounds[2] if len(bounds) > 2 else one
        if step.literal is None or step.literal <= 0:
            raise CompileError("the step of a range must be an integer above 0 in the source")
        builder, before = self._builder, self._call.known
        counter = self._entry.alloca(int64.type)
        builder.store(start.code, counter)
        test, body, again, after = (
            builder.append_basic_block(name) for name in ("for", "do", "again", "after")
        )
        builder.branch(test)
        builder.position_at_end(test)
        inside = builder.icmp_signed("<", builder.load(counter), stop.code)
        builder.cbranch(inside, body, after)
        builder.position_at_end(again)
        builder.store(builder.add(builder.load(counter), step.code, flags=("nsw",)), counter)
        builder.branch(test)
        self._go_on(body, [before])
        self._assign(node.target, Value(int64, builder.load(counter)))
        self._loop(node, again, after)
        self._go_on(after, [before])

    def _unrolled(self, node: ast.For, values: ast.Tuple) -> None:
        after, ways = self._builder.append_basic_block("after"), []
        # All of them before the loop, as in Python: it may change what they are made of.
        for value in [self._evaluated(element) for element in values.elts]:
            if self._builder.block.is_terminated:
                break  # the loop was left for good
            self._assign(node.target, value)
            following = self._builder.append_basic_block("next")
            loop = self._loop(node, following, after)
            ways += loop.known_after
            self._go_on(following, loop.known_again)
        if not self._builder.block.is_terminated:
            self._builder.branch(after)
            ways.append(self._call.known)
        self._go_on(after, ways)

    def _leave_loop(self, node: ast.Continue | ast.Break) -> None:
        loop, known = self._call.loops[-1], self._call.known
        if isinstance(node, ast.Break):
            self._builder.branch(loop.after)
            loop.known_after.append(known)
        else:
            self._builder.branch(loop.again)
            loop.known_again.append(known)

    def _return(self, node: ast.Return) -> None:
        call, name = self._call, self._call.function.__name__
        found = None if node.value is None else self._evaluated(node.value)
        if found is None and node.value is not None:
            raise CompileError(f"{name} must return a value, and got nothing")
        values = found if isinstance(found, tuple) else () if found is None else (found,)
        kinds = tuple(value.kind for value in values)
        returned = kinds if isinstance(found, tuple) else kinds[0] if kinds else None
        if call.returned is _ABSENT:
            call.returned = returned
            call.results = [self._entry.alloca(kind.type) for kind in kinds]
        if call.returned != returned:
            raise CompileError(
                f"{name} returned {_names_of(call.returned)} before, and now {_names_of(returned)}"
            )
        for value, at in zip(values, call.results, strict=True):
            self._builder.store(value.code, at)
        self._builder.branch(call.end)

    # ---- expressions -----------------------------------------------------------------------

    def _evaluated(self, node: ast.expr) -> Any:
        """A value, a tuple of values, or None of a call without a result."""
        translate = _EXPRESSIONS.get(type(node))
        if translate is None:
            raise CompileError(f"got {type(node).__name__}, which no kernel can hold")
        return translate(self, node)

    def _value(self, node: ast.expr) -> Value:
        found = self._evaluated(node)
        if not isinstance(found, Value):
            raise CompileError(f"{ast.unparse(node)} must be one value: it is {_described(found)}")
        return found

    def _integer(self, node: ast.expr) -> Value:
        found = self._value(node)
        if not found.kind.is_integer:
            raise CompileError(f"{ast.unparse(node)} must be an integer: it is {found.kind.name}")
        return operators.widened(self._builder, found)

    def _condition(self, node: ast.expr) -> Any:
        return operators.truth(self._builder, self._value(node)).code

    def _named(self, node: ast.expr) -> Any:
        """What a name of the source's surroundings stands for."""
        if isinstance(node, ast.Name):
            if self._call.has_variable(node.id):
                raise CompileError(f"{node.id} is a variable here, and must be of the module")
            names = self._call.function.__globals__
            found = names.get(node.id, getattr(builtins, node.id, _ABSENT))
        elif isinstance(node, ast.Attribute):
            found = getattr(self._named(node.value), node.attr, _ABSENT)
        else:
            found = _ABSENT
        if found is _ABSENT:
            raise CompileError(f"{ast.unparse(node)} is not known")
        return found

    def _name(self, node: ast.Name | ast.Attribute) -> Value:
        if isinstance(node, ast.Name) and self._call.has_variable(node.id):
            if node.id not in self._call.known:
                raise CompileError(f"{node.id} has no value yet, in one of the ways that lead here")
            kind, at = self._call.variables[node.id]
            return Value(kind, self._builder.load(at))
        found = operators.constant(self._named(node))
        if found is None:
            raise CompileError(f"{ast.unparse(node)} is no number that a kernel can hold")
        return found

    def _constant(self, node: ast.Constant) -> Value:
        found = operators.constant(node.value)
        if found is None:
            raise CompileError(f"got {node.value!r}, which no kernel can hold")
        return found

    def _tuple(self, node: ast.Tuple) -> tuple[Value, ...]:
        return tuple(self._value(element) for element in node.elts)

    def _subscript(self, node: ast.Subscript) -> Value:
        kind, at = self._place(node)
        return Value(kind, self._builder.load(at))

    def _binary(self, node: ast.BinOp) -> Value:
        a, b = self._value(node.left), self._value(node.right)
        return operators.binary(self._builder, type(node.op), a, b)

    def _unary(self, node: ast.UnaryOp) -> Value:
        # -2^63 is an integer of 64 bits, and 2^63 is none.
        match node:
            case ast.UnaryOp(ast.USub(), ast.Constant(int(n))) if not isinstance(n, bool):
                return self._constant(ast.Constant(-n))
        x = self._value(node.operand)
        if isinstance(node.op, ast.USub):
            return operators.negative(self._builder, x)
        if isinstance(node.op, ast.Not):
            return Value(boolean, self._builder.not_(operators.truth(self._builder, x).code))
        raise CompileError(f"got the operator {type(node.op).__name__}")

    def _compare(self, node: ast.Compare) -> Value:
        if not all(map(_is_simple, node.comparators[1:])):
            raise CompileError(
                "a chain of comparisons computes all of its parts: write it with and"
            )
        left, found = self._value(node.left), None
        for op, comparator in zip(node.ops, node.comparators, strict=True):
            right = self._value(comparator)
            one = operators.compared(self._builder, type(op), left, right)
            found = (
                one if found is None else Value(boolean, self._builder.and_(found.code, one.code))
            )
            left = right
        assert found is not None
        return found

    def _and_or(self, node: ast.BoolOp) -> Value:
        builder, is_and = self._builder, isinstance(node.op, ast.And)
        first, *rest = node.values
        found = self._condition(first)
        for operand in rest:
            if _is_simple(operand):
                join = builder.and_ if is_and else builder.or_
                found = join(found, self._condition(operand))
                continue
            more, after = builder.append_basic_block("more"), builder.append_basic_block("after")
            known = builder.block
            builder.cbranch(found, *((more, after) if is_and else (after, more)))
            builder.position_at_end(more)
            asked = self._condition(operand)
            last = builder.block
            builder.branch(after)
            builder.position_at_end(after)
            joined = builder.phi(boolean.type)
            joined.add_incoming(ir.Constant(boolean.type, int(not is_and)), known)
            joined.add_incoming(asked, last)
            found = joined
        return Value(boolean, found)

    def _conditional(self, node: ast.IfExp) -> Value:
        builder = self._builder
        condition = self._condition(node.test)
        if _is_simple(node.body) and _is_simple(node.orelse):
            yes, no = self._value(node.body), self._value(node.orelse)
            self._check_alike(yes, no)
            return Value(yes.kind, builder.select(condition, yes.code, no.code))
        blocks = [builder.append_basic_block(name) for name in ("yes", "no")]
        after = builder.append_basic_block("after")
        builder.cbranch(condition, *blocks)
        found = []
        for block, branch in zip(blocks, (node.body, node.orelse), strict=True):
            builder.position_at_end(block)
            found.append((self._value(branch), builder.block))
            builder.branch(after)
        builder.position_at_end(after)
        (yes, _), (no, _) = found
        self._check_alike(yes, no)
        joined = builder.phi(yes.kind.type)
        for value, block in found:
            joined.add_incoming(value.code, block)
        return Value(yes.kind, joined)

    @staticmethod
    def _check_alike(yes: Value, no: Value) -> None:
        if yes.kind != no.kind:
            raise CompileError(
                f"got {yes.kind.name} if the condition holds and {no.kind.name} if not; both must "
                "be of one kind"
            )

    def _called(self, node: ast.Call) -> Any:
        if node.keywords:
            raise CompileError("got arguments by name; kernels have them by place alone")
        called = self._named(node.func)
        arguments = [self._value(argument) for argument in node.args]
        if isinstance(called, Kind):
            if len(arguments) != 1:
                raise CompileError(f"{called.name} casts one value")
            return operators.cast(self._builder, called, arguments[0])
        if isinstance(called, Intrinsic):
            return operators.operation(self._builder, called, arguments)
        if isinstance(called, FunctionType):
            return self._inlined(called, arguments)
        found = operators.function(self._builder, called, arguments)
        if found is None:
            raise CompileError(f"{ast.unparse(node.func)} is no function that a kernel can call")
        return found


_STATEMENTS: dict[type, Callable[[Translator, Any], None]] = {
    ast.Expr: Translator._expression_statement,
    ast.Pass: Translator._pass,
    ast.Assign: Translator._assignment,
    ast.AugAssign: Translator._augmented,
    ast.If: Translator._if,
    ast.While: Translator._while,
    ast.For: Translator._for,
    ast.Continue: Translator._leave_loop,
    ast.Break: Translator._leave_loop,
    ast.Return: Translator._return,
}
_EXPRESSIONS: dict[type, Callable[[Translator, Any], Any]] = {
    ast.Name: Translator._name,
    ast.Attribute: Translator._name,
    ast.Constant: Translator._constant,
    ast.Tuple: Translator._tuple,
    ast.Subscript: Translator._subscript,
    ast.BinOp: Translator._binary,
    ast.UnaryOp: Translator._unary,
    ast.Compare: Translator._compare,
    ast.BoolOp: Translator._and_or,
    ast.IfExp: Translator._conditional,
    ast.Call: Translator._called,
}


def _is_simple(node: ast.expr) -> bool:
    return all(
        isinstance(part, _SIMPLE)
        and not (isinstance(part, ast.BinOp) and isinstance(part.op, ast.FloorDiv | ast.Mod))
        for part in ast.walk(node)
    )


def _described(value: Any) -> str:
    if value is None:
        return "nothing"
    return value.kind.name if isinstance(value, Value) else f"{len(value)} values"


def _names_of(kinds: Any) -> str:
    """What a function returned, for messages."""
    if kinds is None:
        return "nothing"
    return f"({', '.join(k.name for k in kinds)})" if isinstance(kinds, tuple) else str(kinds.name)


def _definition(function: FunctionType) -> ast.FunctionDef:
    """A function's source, as a tree."""
    code = function.__code__
    found = _definitions(code.co_filename, "".join(linecache.getlines(code.co_filename)))
    # By its line: a name may be given twice, or to what a decorator has made.
    definition = found.get(code.co_firstlineno)
    if definition is None or definition.name != code.co_name:
        raise CompileError(
            f"the source of {function.__name__} is not in {code.co_filename}; a kernel calls "
            "functions of modules that have no decorators"
        )
    return definition


@functools.lru_cache(maxsize=8)
def _definitions(name: str, source: str) -> dict[int, ast.FunctionDef]:
    """The functions that a source defines, by their first lines."""
    statements = ast.parse(source, name).body
    return {s.lineno: s for s in statements if isinstance(s, ast.FunctionDef)}
