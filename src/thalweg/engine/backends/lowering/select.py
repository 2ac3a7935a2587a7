"""Instruction selection: a stage's element nodes become as few operations of torch as they can.

A sum is taken as a base and terms that are added to it. A term is a product of constants and of at
most two tensors, or a quotient, and is added by one operation (``add`` with ``alpha``, ``addcmul``,
``addcdiv``). Constants are collected in front of products, so they cost nothing in a term.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from thalweg.engine.backends.lowering.values import ONE, Scalar, Selection, Value
from thalweg.rule import Stage
from thalweg.rule.symbols import Level, Symbol

# Operations that torch has under a name of its own.
UNARY = {name: name for name in ("abs", "sqrt", "exp", "log", "log1p", "expm1", "tanh", "sigmoid")}
UNARY |= {"atan": "atan", "sign": "sign", "not": "logical_not"}
COMPARISONS = {"less": "lt", "less_equal": "le", "equal": "eq", "not_equal": "ne"}
TURNED = {"lt": "gt", "le": "ge", "eq": "eq", "ne": "ne"}  # a < b as b > a
LIMITS = {"maximum": "clamp_min", "minimum": "clamp_max"}
LOGICAL = {"and": "logical_and", "or": "logical_or"}


@dataclass(frozen=True)
class Product:
    """Constants times tensors; a factor with exponent -1 divides."""

    scalar: Scalar
    factors: tuple[tuple[Symbol, int], ...] = ()

    def __neg__(self) -> "Product":
        return Product(-self.scalar, self.factors)

    def inverse(self) -> "Product":
        return Product(self.scalar.inverse(), tuple((x, -n) for x, n in self.factors))

    @property
    def alone_cost(self) -> float:
        """Operations that compute it."""
        if not self.factors:
            return float("inf")  # a number has no shape
        first, exponent = self.factors[0]
        narrow = first.level is not Level.ELEMENT and len(self.factors) == 1
        return len(self.factors) - exponent * 0.5 - 0.5 + (not self.scalar.is_one) + 0.5 * narrow

    @property
    def term_cost(self) -> float:
        """Operations that add it to something."""
        inverses = [n for _, n in self.factors] in ([-1], [-1, -1])
        return 1 + max(len(self.factors) - 2, 0) + inverses


def select(
    stage: Stage, constants: Mapping[Symbol, str], truths: Mapping[Symbol, bool]
) -> Selection:
    """Choose the operations of a stage.

    Args:
        stage: the stage.
        constants: Python for each SCALAR constant.
        truths: the conditions among the SCALAR constants, as they are at this step.
    """
    return _Selector(stage, constants, truths).selection()


class _Selector:
    def __init__(
        self, stage: Stage, constants: Mapping[Symbol, str], truths: Mapping[Symbol, bool]
    ) -> None:
        self._constants = constants
        self._truths = truths
        self._stores = [(name, self._known(node)) for name, node in stage.stores]
        self._sums = [self._known(r.args[0]) for r in stage.reductions]
        reduced = [c for c in stage.constants if c.level is Level.REDUCED]
        self._reduced = {c: str(k) for k, c in enumerate(reduced)}
        self._targets = {node: name for name, node in reversed(self._stores)}
        self._values: dict[Symbol, Value] = {}
        self._uses = self._count_uses()

    def selection(self) -> Selection:
        stores = [(name, self._value_or_scalar(node)) for name, node in self._stores]
        return Selection(stores, [self._sum_of(node) for node in self._sums])

    # ---- nodes: what is known beforehand, and how often each is used --------------------------

    def _known(self, node: Symbol) -> Symbol:
        """The node that stands for this one, where a condition in it is decided beforehand."""
        while node.level is Level.ELEMENT:
            if node.op == "held":
                node = node.args[0]
            elif node.op == "where" and (truth := self._truth(node.args[0])) is not None:
                node = node.args[1] if truth else node.args[2]
            elif node.op in LOGICAL and (undecided := self._undecided(node)) is not None:
                node = undecided
            else:
                break
        return node

    def _truth(self, node: Symbol) -> bool | None:
        """Whether a condition holds; None if that differs from element to element."""
        if node in self._truths:
            return self._truths[node]
        if node.op in LOGICAL:
            sides = [self._truth(a) for a in node.args]
            decisive = node.op == "or"
            if decisive in sides:
                return decisive
            return None if None in sides else not decisive
        if node.op == "not":
            truth = self._truth(node.args[0])
            return None if truth is None else not truth
        return None

    def _undecided(self, node: Symbol) -> Symbol | None:
        """The side of an ``and`` or ``or`` that decides it, where the other is known not to."""
        a, b = node.args
        sides = [x for x in (a, b) if self._truth(x) is None]
        return sides[0] if len(sides) == 1 else None

    def _args(self, node: Symbol) -> list[Symbol]:
        return [self._known(a) for a in node.args]

    def _count_uses(self) -> Counter[Symbol]:
        results = [node for _, node in self._stores] + self._sums
        uses: Counter[Symbol] = Counter(results)
        seen = set(results)
        stack = list(seen)
        while stack:
            node = stack.pop()
            if node.level is not Level.ELEMENT:
                continue
            for arg in self._args(node):
                uses[arg] += 1
                if arg not in seen:
                    seen.add(arg)
                    stack.append(arg)
        return uses

    def _is_inner(self, node: Symbol) -> bool:
        """Whether nothing but one operation uses it, so that it may be merged into that."""
        once = self._uses[node] == 1 and node not in self._targets
        return once and node.level is Level.ELEMENT

    # ---- values -----------------------------------------------------------------------------

    def _scalar(self, node: Symbol) -> Scalar:
        if node.op == "literal" and node.value in (1.0, -1.0):
            return ONE if node.value == 1.0 else -ONE
        return Scalar(over=(self._constants[node],))

    def _value_or_scalar(self, node: Symbol, target: str | None = None) -> Value | Scalar:
        return self._scalar(node) if node.level is Level.SCALAR else self._value(node, target)

    def _value(self, node: Symbol, target: str | None = None) -> Value:
        """The value of a node; ``target``: the operand that what is made of it goes to."""
        if node not in self._values:
            self._values[node] = self._computed(node, self._targets.get(node, target))
        return self._values[node]

    def _computed(self, node: Symbol, target: str | None) -> Value:
        if node.level is Level.REDUCED:
            return Value("reduced", detail=self._reduced[node], wide=False)
        if node.op == "load":
            return Value("load", detail=node.detail, target=target)
        if node.op in ("add", "subtract"):
            return self._lerp(node, target) or self._total(node, target)
        if node.op in ("multiply", "divide", "negative"):
            return self._alone(self._product(node, root=True), target, node.line)
        return self._other(node, target)

    def _other(self, node: Symbol, target: str | None) -> Value:
        """An operation that is none of arithmetic's."""
        op, args = node.op, self._args(node)
        made = _Maker(target, node.line)
        if op in UNARY:
            return made(UNARY[op], self._value(args[0], target))
        if op == "where":
            return self._where(args, made)
        a, b = (self._value_or_scalar(x, target) for x in args)
        if op in LOGICAL:
            return made(LOGICAL[op], a, b)
        if op in COMPARISONS:
            name = COMPARISONS[op]
            return made(name, a, b) if isinstance(a, Value) else made(TURNED[name], b, a)
        if op in LIMITS:
            if isinstance(a, Value) and isinstance(b, Value):
                return made(op, a, b)
            return made(LIMITS[op], *((a, b) if isinstance(a, Value) else (b, a)))
        assert op == "power", op
        return made("pow", a, b)

    def _where(self, args: list[Symbol], made: "_Maker") -> Value:
        condition = self._value(args[0])
        a, b = (self._value_or_scalar(x, made.target) for x in args[1:])
        if isinstance(b, Scalar) and isinstance(a, Scalar):
            b = made("full_like", condition, b)
        if isinstance(a, Scalar):
            return made("masked_fill", b, condition, a)
        return made("where", condition, a, b)

    # ---- products ---------------------------------------------------------------------------

    def _product(self, node: Symbol, root: bool = False) -> Product:
        """A node as constants times factors, in the order in which the rule multiplies them."""
        if node.level is Level.SCALAR:
            return Product(self._scalar(node))
        if node.op not in ("multiply", "divide", "negative") or not (root or self._is_inner(node)):
            return Product(ONE, ((node, 1),))
        args = self._args(node)
        left = self._product(args[0])
        if node.op == "negative":
            return -left
        right = self._product(args[1])
        if len(right.factors) > 1:
            # a * (b * c) stays so: (a * b) * c may overflow where it does not.
            right = Product(ONE, ((args[1], 1),))
        if node.op == "divide":
            right = right.inverse()
        return Product(left.scalar * right.scalar, left.factors + right.factors)

    def _alone(self, product: Product, target: str | None, line: str) -> Value:
        """A product as a value of its own."""
        made = _Maker(target, line)
        factors = list(product.factors)
        if len(factors) > 1 and factors[1][1] == 1 and factors[0][0].level is not Level.ELEMENT:
            factors[:2] = factors[1::-1]  # the result may take the place of the first
        (first, exponent), *others = factors
        value = self._value(first, target)
        if exponent < 0:
            value = made("reciprocal", value)
        scalar = product.scalar
        if scalar == -ONE:
            value = made("neg", value)
        elif len(scalar.under) == 1 and not scalar.over:
            value = made("div", value, Scalar(scalar.sign, scalar.under))
        elif not scalar.is_one:
            value = made("mul", value, scalar)
        for factor, exponent in others:
            value = made("mul" if exponent > 0 else "div", value, self._value(factor))
        return value

    # ---- sums -------------------------------------------------------------------------------

    def _lerp(self, node: Symbol, target: str | None) -> Value | None:
        """a + w * (b - a) or b - (b - a) * k, the two forms of ``lerp``, for a constant w or k."""
        a, term = self._args(node)
        found = self._scaled_difference(term)
        if found is None:
            return None
        weight, end, start = found
        text = weight.text
        made = _Maker(target, node.line)
        if node.op == "add" and start is a:
            return made("lerp", self._value(a, target), self._value(end), weight)
        if node.op == "subtract" and end is a:
            far = Scalar(over=(f"(1.0 - {text})",))
            return made("lerp", self._value(start, target), self._value(a), far)
        return None

    def _scaled_difference(self, node: Symbol) -> tuple[Scalar, Symbol, Symbol] | None:
        """k, x and y of a node that is k * (x - y) or (x - y) * k."""
        if node.op != "multiply":
            return None
        for k, difference in (self._args(node), self._args(node)[::-1]):
            if k.level is Level.SCALAR and difference.op == "subtract":
                x, y = self._args(difference)
                if x.level is y.level is Level.ELEMENT:
                    return self._scalar(k), x, y
        return None

    def _total(self, node: Symbol, target: str | None) -> Value:
        terms = self._terms(node, root=True)
        first, second = terms[:2]
        if self._base_cost(second, first, target) < self._base_cost(first, second, target):
            first, second = second, first
        value = self._alone(first, target, node.line)
        for term in (second, *terms[2:]):
            value = self._plus(value, term, _Maker(target, node.line))
        return value

    def _base_cost(self, base: Product, term: Product, target: str | None) -> float:
        """Operations for the sum of two products; one more if the result must then be copied."""
        cost = base.alone_cost + term.term_cost
        if target is not None and not self._begins_with(base, target):
            cost += self._begins_with(term, target)
        return cost

    def _begins_with(self, product: Product, operand: str) -> bool:
        if not product.factors:
            return False
        node = product.factors[0][0]
        return node.op == "load" and node.detail == operand

    def _terms(self, node: Symbol, root: bool = False) -> list[Product]:
        """The products that are added from left to right; sums on the right stay as they are."""
        merged = root or (self._is_inner(node) and self._lerp_of(node) is None)
        if node.op not in ("add", "subtract") or not merged:
            return [self._product(node)]
        left, right = self._args(node)
        added = self._distributed(right) or [self._product(right)]
        return self._terms(left) + [-x if node.op == "subtract" else x for x in added]

    def _lerp_of(self, node: Symbol) -> Symbol | None:
        """The node itself if it is a lerp."""
        if node.op not in ("add", "subtract"):
            return None
        a, term = self._args(node)
        found = self._scaled_difference(term)
        if found is None:
            return None
        return node if found[2 if node.op == "add" else 1] is a else None

    def _distributed(self, node: Symbol) -> list[Product] | None:
        """(k * x + l * y) / d as k * x / d + l * y / d: two operations instead of three."""
        if node.op != "divide" or not self._is_inner(node):
            return None
        above, below = self._args(node)
        if above.op not in ("add", "subtract") or not self._is_inner(above):
            return None
        divisor = self._product(below)
        terms = self._terms(above)
        if len(divisor.factors) != 1 or divisor.factors[0][1] != 1 or len(terms) != 2:
            return None
        if any(len(t.factors) != 1 or t.factors[0][1] != 1 or t.scalar.is_one for t in terms):
            return None
        inverse = divisor.inverse()
        return [Product(t.scalar * inverse.scalar, t.factors + inverse.factors) for t in terms]

    def _plus(self, value: Value, term: Product, made: "_Maker") -> Value:
        """A value and a product added."""
        scalar, factors = term.scalar, list(term.factors)
        if not factors:
            return made("add", value, scalar)
        if term.term_cost > 1:  # what one operation cannot add is computed first
            last = factors[1:][-1:]
            before = factors[: len(factors) - len(last)]
            first = self._alone(Product(ONE, tuple(before)), None, made.line)
            return self._plus_values(value, first, last, scalar, made)
        if factors[0][1] < 0:  # 1 / d * x
            factors.reverse()
        first = self._value(factors[0][0])
        return self._plus_values(value, first, factors[1:], scalar, made)

    def _plus_values(
        self,
        value: Value,
        first: Value,
        others: list[tuple[Symbol, int]],
        scalar: Scalar,
        made: "_Maker",
    ) -> Value:
        """A value plus a scalar times a value, times or divided by another one if any."""
        args: list[Value | Scalar] = [value, first]
        name, keyword = "add", "alpha"
        for factor, exponent in others:
            args.append(self._value(factor))
            name, keyword = ("addcmul" if exponent > 0 else "addcdiv"), "value"
        if scalar.is_one:
            return made(name, *args)
        if name == "add" and scalar == -ONE:
            return made("sub", *args)
        return made(name, *args, scalar, keyword=keyword)

    # ---- reductions -------------------------------------------------------------------------

    def _sum_of(self, node: Symbol) -> tuple[str, Value | Scalar]:
        if node.level is not Level.ELEMENT:
            return "count", self._value_or_scalar(node)
        if node.op == "multiply" and self._is_inner(node):
            a, b = self._args(node)
            if a is b:
                return "squares", self._value(a)
        return "sum", self._value(node)


class _Maker:
    """Makes the values of one node."""

    def __init__(self, target: str | None, line: str) -> None:
        self.target, self.line = target, line

    def __call__(self, op: str, *args: Value | Scalar, keyword: str = "") -> Value:
        wide = any(a.wide for a in args if isinstance(a, Value))
        return Value(op, args, keyword, wide=wide, target=self.target, line=self.line)


def decided(stage: Stage) -> list[Symbol]:
    """The SCALAR conditions that a stage's values are chosen by."""
    return [c for c in stage.constants if c.is_condition and c.level is Level.SCALAR]
