"""Instruction selection: a stage's element nodes become as few operations of torch as they can.

A sum is taken as a base and terms that are added to it. A term is a product of constants and of at
most two tensors, or a quotient, and is added by one operation (``add`` with ``alpha``, ``addcmul``,
``addcdiv``). Constants are collected in front of products, so they cost nothing in a term.
"""

from collections import Counter
from collections.abc import Mapping

from thalweg.engine.backends.lowering.decisions import Decisions
from thalweg.engine.backends.lowering.product import Product
from thalweg.engine.backends.lowering.torch_names import (
    COMPARISONS,
    LIMITS,
    LOGICAL,
    TURNED,
    UNARY,
)
from thalweg.engine.backends.lowering.values import ONE, Maker, Scalar, Selection, Value
from thalweg.rule import Stage
from thalweg.rule.symbols import Level, Symbol


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
        self._nodes = Decisions(truths)
        self._stores = [(name, self._nodes.known(node)) for name, node in stage.stores]
        self._sums = [self._nodes.known(r.args[0]) for r in stage.reductions]
        self._of_units = [r.detail == "unit" for r in stage.reductions]
        reduced = [c for c in stage.constants if c.level is Level.REDUCED]
        self._reduced = {c: str(k) for k, c in enumerate(reduced)}
        self._targets = {node: name for name, node in reversed(self._stores)}
        self._loads = {name: Value("load", detail=name) for name in stage.loads}
        self._values: dict[Symbol, Value] = {}
        self._uses = self._count_uses()

    def selection(self) -> Selection:
        stores = [(name, self._value_or_scalar(node)) for name, node in self._stores]
        sums = []
        for node, of_units in zip(self._sums, self._of_units, strict=True):
            kind, value = self._sum_of(node)
            sums.append((f"unit_{kind}" if of_units else kind, value))
        return Selection(stores, sums)

    # ---- nodes --------------------------------------------------------------------------------

    def _count_uses(self) -> Counter[Symbol]:
        results = [node for _, node in self._stores] + self._sums
        uses: Counter[Symbol] = Counter(results)
        seen = set(results)
        stack = list(seen)
        while stack:
            node = stack.pop()
            if node.level is not Level.ELEMENT:
                continue
            for arg in self._nodes.args(node):
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
            return self._loads[node.detail]
        if node.op in ("add", "subtract"):
            if (lerp := self._lerp(node)) is not None:
                start, end, weight = lerp
                made = Maker(target, node.line)
                return made("lerp", self._value(start, target), self._value(end), weight)
            return self._total(node, target)
        if node.op in ("multiply", "divide", "negative"):
            return self._alone(self._product(node, root=True), target, node.line)
        return self._other(node, target)

    def _other(self, node: Symbol, target: str | None) -> Value:
        """An operation that is none of arithmetic's."""
        op, args = node.op, self._nodes.args(node)
        made = Maker(target, node.line)
        if op in UNARY:
            return made(UNARY[op], self._value(args[0], target))
        if op == "where":
            if (truth := self._nodes.truth(args[0])) is not None:  # see Decisions.args
                like = next(iter(self._loads.values()))
                return made(
                    "full_like", like, self._scalar(self._nodes.known(args[1 if truth else 2]))
                )
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

    def _where(self, args: list[Symbol], made: Maker) -> Value:
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
        args = self._nodes.args(node)
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
        made = Maker(target, line)
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

    def _lerp(self, node: Symbol) -> tuple[Symbol, Symbol, Scalar] | None:
        """Start, end and weight of a node that is a lerp by a constant.

        Either of its two forms: a + w * (b - a), or b - (b - a) * k from the far end.
        """
        if node.op not in ("add", "subtract"):
            return None
        a, term = self._nodes.args(node)
        found = self._scaled_difference(term)
        if found is None:
            return None
        weight, end, start = found
        if node.op == "add" and start is a:
            return start, end, weight
        if node.op == "subtract" and end is a:
            return start, end, Scalar(over=(f"(1.0 - {weight.text})",))
        return None

    def _scaled_difference(self, node: Symbol) -> tuple[Scalar, Symbol, Symbol] | None:
        """k, x and y of a node that is k * (x - y) or (x - y) * k."""
        if node.op != "multiply":
            return None
        for k, difference in (self._nodes.args(node), self._nodes.args(node)[::-1]):
            if k.level is Level.SCALAR and difference.op == "subtract":
                x, y = self._nodes.args(difference)
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
            value = self._plus(value, term, Maker(target, node.line))
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
        merged = root or (self._is_inner(node) and self._lerp(node) is None)
        if node.op not in ("add", "subtract") or not merged:
            return [self._product(node)]
        left, right = self._nodes.args(node)
        added = self._distributed(right) or [self._product(right)]
        return self._terms(left) + [-x if node.op == "subtract" else x for x in added]

    def _distributed(self, node: Symbol) -> list[Product] | None:
        """(k * x + l * y) / d as k * x / d + l * y / d: two operations instead of three."""
        if node.op != "divide" or not self._is_inner(node):
            return None
        above, below = self._nodes.args(node)
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

    def _plus(self, value: Value, term: Product, made: Maker) -> Value:
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
        made: Maker,
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
            a, b = self._nodes.args(node)
            if a is b:
                return "squares", self._value(a)
        return "sum", self._value(node)
