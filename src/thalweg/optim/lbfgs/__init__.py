"""L-BFGS: the optimizer, its history, its line search and what it saves."""

from thalweg.optim.lbfgs.lbfgs import LBFGS

__all__ = ["LBFGS"]
