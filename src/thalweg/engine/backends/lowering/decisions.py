"""What is known of a stage's nodes before it runs: some conditions, and what they choose."""

from collections.abc import Mapping

from thalweg.engine.backends.lowering.torch_names import LOGICAL
from thalweg.rule import Stage
from thalweg.rule.symbols import Level, Symbol


def decided(stage: Stage) -> list[Symbol]:
    """The SCALAR conditions that a stage's values are chosen by."""
    return [c for c in stage.constants if c.is_condition and c.level is Level.SCALAR]


class Decisions:
    """Nodes as they are where some conditions are known.

    Args:
        truths: the conditions among the SCALAR constants, as they are at this step.
    """

    def __init__(self, truths: Mapping[Symbol, bool]) -> None:
        self._truths = truths

    def known(self, node: Symbol) -> Symbol:
        """The node that stands for this one, where a condition in it is decided beforehand."""
        while node.level is Level.ELEMENT:
            if node.op == "held":
                node = node.args[0]
            elif node.op == "where" and (truth := self.truth(node.args[0])) is not None:
                node = node.args[1] if truth else node.args[2]
            elif node.op in LOGICAL and (undecided := self._undecided(node)) is not None:
                node = undecided
            else:
                break
        return node

    def truth(self, node: Symbol) -> bool | None:
        """Whether a condition holds; None if that differs from element to element."""
        if node in self._truths:
            return self._truths[node]
        if node.op in LOGICAL:
            sides = [self.truth(a) for a in node.args]
            decisive = node.op == "or"
            if decisive in sides:
                return decisive
            return None if None in sides else not decisive
        if node.op == "not":
            truth = self.truth(node.args[0])
            return None if truth is None else not truth
        return None

    def _undecided(self, node: Symbol) -> Symbol | None:
        """The side of an ``and`` or ``or`` that decides it, where the other is known not to."""
        a, b = node.args
        sides = [x for x in (a, b) if self.truth(x) is None]
        return sides[0] if len(sides) == 1 else None

    def args(self, node: Symbol) -> list[Symbol]:
        """A node's arguments, at least one of which has elements if the node has."""
        found = [self.known(a) for a in node.args]
        numbers = all(a.level is Level.SCALAR for a in found)
        if found and numbers and node.level is Level.ELEMENT:
            k = next(k for k, a in enumerate(node.args) if a.level is Level.ELEMENT)
            found[k] = self._choice(node.args[k])
        return found

    def _choice(self, node: Symbol) -> Symbol:
        """The ``where`` by which a node is decided to be a number."""
        while node.op != "where":
            node = node.args[0]
        chosen = node.args[1 if self.truth(node.args[0]) else 2]
        return node if chosen.level is Level.SCALAR else self._choice(chosen)
