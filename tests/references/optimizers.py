"""The update rules in float64 numpy, written from the papers.

Each function makes one update of one parameter: ``p`` parameter, ``g`` gradient, ``s`` its state
(a dict, empty before the first update), ``t`` the 1-based number of this update, ``h`` the options
of its group. It returns the new parameter and leaves the new state in ``s``. Nothing here is shared
with the library, and nothing is optimised: these are what the library is compared with.

Where PyTorch departs from the paper, PyTorch's reading is the contract and the comment says so.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
State = dict[str, Array | float]
Rule = Callable[[Array, Array, State, int, SimpleNamespace], Array]


def sgd(p: Array, g: Array, s: State, t: int, h: SimpleNamespace) -> Array:
    """Polyak 1964 (heavy ball); Sutskever, Martens, Dahl & Hinton, ICML 2013, eq. 1-4 (Nesterov).

    Departure: the velocity is not multiplied by lr, and the first one is the undamped gradient.
    """
    g = g + h.weight_decay * p
    if h.momentum == 0:
        return p - h.lr * g
    b = g if t == 1 else h.momentum * s["momentum_buffer"] + (1 - h.dampening) * g
    s["momentum_buffer"] = b
    return p - h.lr * (g + h.momentum * b if h.nesterov else b)


def adam(p: Array, g: Array, s: State, t: int, h: SimpleNamespace) -> Array:
    """Kingma & Ba, ICLR 2015, algorithm 1; amsgrad: Reddi, Kale & Kumar, ICLR 2018, algorithm 2.

    Departure: amsgrad takes the maximum before the bias correction, which the paper leaves out.
    """
    beta1, beta2 = h.betas
    if not h.decoupled_weight_decay:
        g = g + h.weight_decay * p
    m = s["exp_avg"] = beta1 * s.get("exp_avg", 0.0) + (1 - beta1) * g
    v = s["exp_avg_sq"] = beta2 * s.get("exp_avg_sq", 0.0) + (1 - beta2) * g**2
    if h.amsgrad:
        v = s["max_exp_avg_sq"] = np.maximum(s.get("max_exp_avg_sq", 0.0), v)
    m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
    step = h.lr * m_hat / (np.sqrt(v_hat) + h.eps)
    # Loshchilov & Hutter, ICLR 2019, algorithm 2, line 12 (AdamW).
    return p - step - (h.lr * h.weight_decay * p if h.decoupled_weight_decay else 0.0)


def sparse_adam(p: Array, g: Array, s: State, t: int, h: SimpleNamespace) -> Array:
    """Kingma & Ba, ICLR 2015, the closing form of section 2 (eps on the uncorrected root).

    Given the touched rows only; ``t`` counts the updates of the whole tensor.
    """
    beta1, beta2 = h.betas
    m = s["exp_avg"] = beta1 * s.get("exp_avg", 0.0) + (1 - beta1) * g
    v = s["exp_avg_sq"] = beta2 * s.get("exp_avg_sq", 0.0) + (1 - beta2) * g**2
    return p - h.lr * np.sqrt(1 - beta2**t) / (1 - beta1**t) * m / (np.sqrt(v) + h.eps)


def adamax(p: Array, g: Array, s: State, t: int, h: SimpleNamespace) -> Array:
    """Kingma & Ba, ICLR 2015, algorithm 2. Departure: eps is added to ``|g|``."""
    beta1, beta2 = h.betas
    g = g + h.weight_decay * p
    m = s["exp_avg"] = beta1 * s.get("exp_avg", 0.0) + (1 - beta1) * g
    u = s["exp_inf"] = np.maximum(beta2 * s.get("exp_inf", 0.0), np.abs(g) + h.eps)
    return p - h.lr / (1 - beta1**t) * m / u


def nadam(p: Array, g: Array, s: State, t: int, h: SimpleNamespace) -> Array:
    """Dozat, ICLR 2016 workshop, algorithm 2 with the warming momentum schedule of section 3."""
    beta1, beta2 = h.betas
    decay = h.weight_decay * p
    if h.decoupled_weight_decay:
        p = p - h.lr * decay
    else:
        g = g + decay
    mu = beta1 * (1 - 0.5 * 0.96 ** (t * h.momentum_decay))
    mu_next = beta1 * (1 - 0.5 * 0.96 ** ((t + 1) * h.momentum_decay))
    product = s["mu_product"] = s.get("mu_product", 1.0) * mu
    m = s["exp_avg"] = beta1 * s.get("exp_avg", 0.0) + (1 - beta1) * g
    v = s["exp_avg_sq"] = beta2 * s.get("exp_avg_sq", 0.0) + (1 - beta2) * g**2
    m_bar = (1 - mu) * g / (1 - product) + mu_next * m / (1 - product * mu_next)
    return p - h.lr * m_bar / (np.sqrt(v / (1 - beta2**t)) + h.eps)


def radam(p: Array, g: Array, s: State, t: int, h: SimpleNamespace) -> Array:
    """Liu, Jiang, He, Chen, Liu, Gao & Han, ICLR 2020, algorithm 2.

    Departure: rectification begins at a length above 5 (the authors' code), not 4, and eps is added
    to the uncorrected root.
    """
    beta1, beta2 = h.betas
    decay = h.weight_decay * p
    if h.decoupled_weight_decay:
        p = p - h.lr * decay
    else:
        g = g + decay
    m = s["exp_avg"] = beta1 * s.get("exp_avg", 0.0) + (1 - beta1) * g
    v = s["exp_avg_sq"] = beta2 * s.get("exp_avg_sq", 0.0) + (1 - beta2) * g**2
    m_hat = m / (1 - beta1**t)
    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * t * beta2**t / (1 - beta2**t)
    if rho <= 5:
        return p - h.lr * m_hat
    r = np.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
    return p - h.lr * m_hat * r * np.sqrt(1 - beta2**t) / (np.sqrt(v) + h.eps)


def adagrad(p: Array, g: Array, s: State, t: int, h: SimpleNamespace) -> Array:
    """Duchi, Hazan & Singer, JMLR 12 (2011), the diagonal case of figure 1."""
    g = g + h.weight_decay * p
    total = s["sum"] = s.get("sum", h.initial_accumulator_value) + g**2
    return p - h.lr / (1 + (t - 1) * h.lr_decay) * g / (np.sqrt(total) + h.eps)


def adadelta(p: Array, g: Array, s: State, t: int, h: SimpleNamespace) -> Array:
    """Zeiler, arXiv:1212.5701 (2012), algorithm 1; lr scales its step."""
    g = g + h.weight_decay * p
    square = s["square_avg"] = h.rho * s.get("square_avg", 0.0) + (1 - h.rho) * g**2
    before = s.get("acc_delta", 0.0)
    delta = np.sqrt(before + h.eps) / np.sqrt(square + h.eps) * g
    s["acc_delta"] = h.rho * before + (1 - h.rho) * delta**2
    return p - h.lr * delta


def rmsprop(p: Array, g: Array, s: State, t: int, h: SimpleNamespace) -> Array:
    """Tieleman & Hinton 2012, lecture 6.5; centred: Graves, arXiv:1308.0850 (2013), eq. 38-41.

    Departure: eps is added to the root, and lr multiplies the momentum buffer, not the gradient.
    A variance is at least 0, whatever rounding makes of it.
    """
    g = g + h.weight_decay * p
    v = s["square_avg"] = h.alpha * s.get("square_avg", 0.0) + (1 - h.alpha) * g**2
    if h.centered:
        mean = s["grad_avg"] = h.alpha * s.get("grad_avg", 0.0) + (1 - h.alpha) * g
        v = np.maximum(v - mean**2, 0.0)
    step = g / (np.sqrt(v) + h.eps)
    if h.momentum:
        step = s["momentum_buffer"] = h.momentum * s.get("momentum_buffer", 0.0) + step
    return p - h.lr * step


def rprop(p: Array, g: Array, s: State, t: int, h: SimpleNamespace) -> Array:
    """Riedmiller & Braun, ICNN 1993, in the form without weight backtracking:
    Igel & Huesken, NC 2000, "iRprop-" (a gradient that changed sign is forgotten).
    """  # fmt: skip
    (shrink, grow), (smallest, largest) = h.etas, h.step_sizes
    agreement = np.sign(g * s.get("prev", 0.0))
    factor = np.select([agreement > 0, agreement < 0], [grow, shrink], 1.0)
    size = np.clip(s.get("step_size", np.full_like(p, h.lr)) * factor, smallest, largest)
    g = np.where(agreement < 0, 0.0, g)
    s["step_size"], s["prev"] = size, g
    return p - np.sign(g) * size


def asgd(p: Array, g: Array, s: State, t: int, h: SimpleNamespace) -> Array:
    """Polyak & Juditsky, SIAM J. Control Optim. 30 (1992), eq. 2; step size: Xu, arXiv:1107.2490.

    Departure: the step size and the weight of the average used in update t + 1 are those computed
    at the end of update t, so a new lr arrives one update late.
    """
    g = g + h.weight_decay * p
    eta, mu = s.get("eta", h.lr), s.get("mu", 1.0)
    p = p * (1 - h.lambd * eta) - eta * g
    mean = s.get("ax", 0.0)
    s["ax"] = mean + mu * (p - mean)
    s["eta"] = h.lr / (1 + h.lambd * h.lr * t) ** h.alpha
    s["mu"] = 1 / max(1.0, t - h.t0)
    return p


def nadamw(p: Array, g: Array, s: State, t: int, h: SimpleNamespace) -> Array:
    """Choi et al. 2019, table 1 (NADAM); decay: Loshchilov & Hutter, ICLR 2019, algorithm 2."""
    beta1, beta2 = h.betas
    m = s["exp_avg"] = beta1 * s.get("exp_avg", 0.0) + (1 - beta1) * g
    v = s["exp_avg_sq"] = beta2 * s.get("exp_avg_sq", 0.0) + (1 - beta2) * g**2
    numerator = (beta1 * m + (1 - beta1) * g) / (1 - beta1**t)
    step = numerator / (np.sqrt(v / (1 - beta2**t)) + h.eps)
    return p - h.lr * (step + h.weight_decay * p)


def lion(p: Array, g: Array, s: State, t: int, h: SimpleNamespace) -> Array:
    """Chen et al., NeurIPS 2023, algorithm 2."""
    beta1, beta2 = h.betas
    m = s.get("exp_avg", 0.0)
    s["exp_avg"] = beta2 * m + (1 - beta2) * g
    return p - h.lr * (np.sign(beta1 * m + (1 - beta1) * g) + h.weight_decay * p)


def signum(p: Array, g: Array, s: State, t: int, h: SimpleNamespace) -> Array:
    """Bernstein et al., ICML 2018, algorithm 2; the decay decoupled."""
    m = h.momentum * s.get("momentum_buffer", 0.0) + (1 - h.momentum) * g
    s["momentum_buffer"] = m
    return p - h.lr * (np.sign(m) + h.weight_decay * p)


def ademamix(p: Array, g: Array, s: State, t: int, h: SimpleNamespace) -> Array:
    """Pagliardini, Ablin & Grangier 2024, algorithm 1; schedules: section 3, appendix A.1."""
    beta1, beta2, beta3 = h.betas
    alpha = h.alpha
    if h.alpha_warmup:
        alpha = min(t * alpha / h.alpha_warmup, alpha)
    if h.beta3_warmup:
        # min(exp(ln(b1) ln(b3) / ((1 - t/T) ln(b3) + (t/T) ln(b1))), b3)
        share, low, high = t / h.beta3_warmup, np.log(beta1), np.log(beta3)
        if share < 1:
            beta3 = min(np.exp(low * high / ((1 - share) * high + share * low)), beta3)
    fast = s["exp_avg_fast"] = beta1 * s.get("exp_avg_fast", 0.0) + (1 - beta1) * g
    slow = s["exp_avg_slow"] = beta3 * s.get("exp_avg_slow", 0.0) + (1 - beta3) * g
    v = s["exp_avg_sq"] = beta2 * s.get("exp_avg_sq", 0.0) + (1 - beta2) * g**2
    step = (fast / (1 - beta1**t) + alpha * slow) / (np.sqrt(v / (1 - beta2**t)) + h.eps)
    return p - h.lr * (step + h.weight_decay * p)


def adopt(p: Array, g: Array, s: State, t: int, h: SimpleNamespace) -> Array:
    """Taniguchi et al., NeurIPS 2024, algorithm 2 with the clipping of section 4.

    The second moment begins with the square of the first gradient, which moves nothing.
    """
    beta1, beta2 = h.betas
    if not h.decoupled_weight_decay:
        g = g + h.weight_decay * p
    if t == 1:
        s["exp_avg"], s["exp_avg_sq"] = np.zeros_like(g), g**2
        return p
    normed = g / np.maximum(np.sqrt(s["exp_avg_sq"]), h.eps)
    m = beta1 * s["exp_avg"] + (1 - beta1) * np.clip(normed, -((t - 1) ** 0.25), (t - 1) ** 0.25)
    s["exp_avg"], s["exp_avg_sq"] = m, beta2 * s["exp_avg_sq"] + (1 - beta2) * g**2
    decay = h.weight_decay if h.decoupled_weight_decay else 0.0
    return p - h.lr * (m + decay * p)


def laprop(p: Array, g: Array, s: State, t: int, h: SimpleNamespace) -> Array:
    """Ziyin, Wang & Ueda 2020, algorithm 1; the decay decoupled."""
    mu, nu = h.betas
    n = s["exp_avg_sq"] = nu * s.get("exp_avg_sq", 0.0) + (1 - nu) * g**2
    m = mu * s.get("exp_avg", 0.0) + (1 - mu) * g / (np.sqrt(n / (1 - nu**t)) + h.eps)
    s["exp_avg"] = m
    return p - h.lr * (m / (1 - mu**t) + h.weight_decay * p)


def adan(p: Array, g: Array, s: State, t: int, h: SimpleNamespace) -> Array:
    """Xie et al. 2022, algorithm 1, whose betas are 1 minus these; bias corrections: their code."""
    beta1, beta2, beta3 = h.betas
    change = g - s["previous_grad"] if t > 1 else np.zeros_like(g)
    m = s["exp_avg"] = beta1 * s.get("exp_avg", 0.0) + (1 - beta1) * g
    v = s["exp_avg_diff"] = beta2 * s.get("exp_avg_diff", 0.0) + (1 - beta2) * change
    n = beta3 * s.get("exp_avg_sq", 0.0) + (1 - beta3) * (g + beta2 * change) ** 2
    s["exp_avg_sq"], s["previous_grad"] = n, g
    eta = h.lr / (np.sqrt(n / (1 - beta3**t)) + h.eps)
    p = p - eta * (m / (1 - beta1**t) + beta2 * v / (1 - beta2**t))
    return p / (1 + h.lr * h.weight_decay)


def lamb(p: Array, g: Array, s: State, t: int, h: SimpleNamespace) -> Array:
    """You et al., ICLR 2020, algorithm 2, with phi(z) = z."""
    beta1, beta2 = h.betas
    m = s["exp_avg"] = beta1 * s.get("exp_avg", 0.0) + (1 - beta1) * g
    v = s["exp_avg_sq"] = beta2 * s.get("exp_avg_sq", 0.0) + (1 - beta2) * g**2
    if h.amsgrad:
        v = s["max_exp_avg_sq"] = np.maximum(s.get("max_exp_avg_sq", 0.0), v)
    r = m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + h.eps) + h.weight_decay * p
    weight, step = np.linalg.norm(p), np.linalg.norm(r)
    ratio = weight / step if h.trust_ratio and weight > 0 and step > 0 else 1.0
    return p - h.lr * ratio * r


RULES: dict[str, Rule] = {
    "SGD": sgd,
    "Adam": adam,
    "AdamW": adam,
    "SparseAdam": sparse_adam,
    "Adamax": adamax,
    "NAdam": nadam,
    "RAdam": radam,
    "Adagrad": adagrad,
    "Adadelta": adadelta,
    "RMSprop": rmsprop,
    "Rprop": rprop,
    "ASGD": asgd,
    "NAdamW": nadamw,
    "Lion": lion,
    "Signum": signum,
    "AdEMAMix": ademamix,
    "ADOPT": adopt,
    "LaProp": laprop,
    "Adan": adan,
    "LAMB": lamb,
}
