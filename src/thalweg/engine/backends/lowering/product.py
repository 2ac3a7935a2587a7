"""Products of constants and tensors, and what they cost."""

from dataclasses import dataclass

from thalweg.engine.backends.lowering.values import Scalar
from thalweg.rule.symbols import Level, Symbol


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
