"""From logits to one token."""

from __future__ import annotations

import numpy as np


def token_probabilities(
    logits: np.ndarray, allowed: np.ndarray, *, temperature: float, top_k: int | None, top_p: float
) -> np.ndarray:
    """What to sample from.

    Args:
        logits: (V,) of one position.
        allowed: (V,) bool, at least one True; the rest gets probability 0 before anything is cut.
        temperature: Divides the logits; 0 puts all probability on the likeliest token.
        top_k: Keep this many of the likeliest tokens; ``None`` keeps all.
        top_p: Keep the likeliest tokens up to and with the one at which they together reach this probability.
    Returns:
        (V,) float64, adds up to 1.
    """
    scores = np.where(allowed, logits.astype(np.float64), -np.inf)
    if temperature == 0:
        probabilities = np.zeros(len(scores))
        probabilities[int(scores.argmax())] = 1.0
        return probabilities
    scores = (scores - scores.max()) / temperature
    order = np.argsort(-scores, kind="stable")
    kept = np.exp(scores[order])
    if top_k is not None:
        kept[top_k:] = 0.0
    kept /= kept.sum()
    kept[np.cumsum(kept) - kept >= top_p] = 0.0
    probabilities = np.zeros(len(scores))
    probabilities[order] = kept / kept.sum()
    return probabilities


def sample(probabilities: np.ndarray, rng: np.random.Generator) -> int:
    """One token of (V,) probabilities; one random number is drawn, whatever they are."""
    cumulative = np.cumsum(probabilities)
    drawn = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
    return min(drawn, int(np.flatnonzero(probabilities)[-1]))
