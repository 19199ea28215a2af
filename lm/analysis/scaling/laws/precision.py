"""Loss over bits of precision: Kumar et al. 2024, "Scaling Laws for Precision"."""

from __future__ import annotations

from typing import Any

import numpy as np

from lm.analysis.scaling.law import Columns, Law, positive
from lm.analysis.scaling.laws.chinchilla import Chinchilla

ENOUGH = 12  # bits: with more, no gamma within its range of starts takes anything from the size


class Precision(Law):
    """L = E + A / N_eff^alpha + B / D^beta, with N_eff = N prod_i (1 - exp(-P_i / gamma_i)): fewer bits in training
    are fewer parameters. P: bits of weights, activations and keys and values, columns weight_bits, activation_bits,
    cache_bits."""

    name = "precision"
    source = "Kumar et al. 2024"
    columns = ("params", "tokens", "weight_bits", "activation_bits", "cache_bits")
    parameters = (
        *Chinchilla.parameters,
        positive("gamma_weight", 0.5, 6),
        positive("gamma_activation", 0.5, 6),
        positive("gamma_cache", 0.5, 6),
    )

    def predict(self, p: Any, x: Columns) -> np.ndarray:
        size = np.log(x["params"])
        for what in ("weight", "activation", "cache"):
            size = size + np.log(-np.expm1(-x[f"{what}_bits"] / getattr(p, f"gamma_{what}")))
        return p.E + p.A * np.exp(-p.alpha * size) + p.B * np.exp(-p.beta * np.log(x["tokens"]))

    def caution(self, x: Columns) -> list[str]:
        found = []
        for what in ("weight", "activation", "cache"):
            bits = x[f"{what}_bits"]
            if bits.min() >= ENOUGH:
                found.append(f"No run has fewer than {bits.min():g} {what}_bits: gamma_{what} is a guess; fix it.")
            elif len(np.unique(bits)) < 2:
                found.append(f"All runs have {bits[0]:g} {what}_bits: gamma_{what} and A can't be told apart; fix one.")
        return found


class PostTraining(Law):
    """What quantising weights to P bits after training adds to the loss: C D^gamma_D / N^gamma_N exp(-P / gamma).

    Columns params, tokens and bits; target added_loss, in nats a token. It grows with the tokens: a model trained for
    longer has more to lose.
    """

    name = "post_training"
    source = "Kumar et al. 2024"
    columns = ("params", "tokens", "bits")
    target = "added_loss"
    parameters = (
        positive("C", 1e-4, 1e4, linear=True),
        positive("gamma_D", 0.1, 1.5),
        positive("gamma_N", 0.1, 1.5),
        positive("gamma", 0.1, 3),
    )

    def predict(self, p: Any, x: Columns) -> np.ndarray:
        power = p.gamma_D * np.log(x["tokens"]) - p.gamma_N * np.log(x["params"]) - x["bits"] / p.gamma
        return p.C * np.exp(power)
