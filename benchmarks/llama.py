"""The model that everybody has, beside which generation is measured: a Llama of the same shape with its KV cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from meloformer.settings import ModelSettings
from meloformer.tokens.vocabulary import Vocabulary

NAME = "Llama (transformers), KV cache"


def llama(settings: ModelSettings, vocabulary: Vocabulary) -> Any:
    """One of the same width, depth, heads and feed-forward networks, with random weights; ``None`` where transformers
    is not installed."""
    try:
        from transformers import LlamaConfig, LlamaForCausalLM  # type: ignore[import-not-found]
    except ImportError:
        return None
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=settings.dim,
        intermediate_size=settings.ffn_dim,
        num_hidden_layers=settings.num_layers,
        num_attention_heads=settings.num_heads,
        num_key_value_heads=settings.num_kv_heads,
        max_position_embeddings=32_768,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


def llama_turn(model: Any, ids: np.ndarray, context: int, num_tokens: int) -> Callable[[], object]:
    """Some tokens by it, the likeliest one each time; the past is read in pieces of 1,024 tokens."""
    from transformers import DynamicCache  # type: ignore[import-not-found]

    cache = DynamicCache(config=model.config)
    given = torch.from_numpy(ids[: context + num_tokens].astype(np.int64))[None]
    with torch.inference_mode():
        for start in range(0, context, 1024):
            model.model(given[:, start : min(start + 1024, context)], cache=cache, use_cache=True)

    @torch.inference_mode()
    def turn() -> None:
        for at in range(context, context + num_tokens):
            model(given[:, at : at + 1], cache=cache, use_cache=True).logits[0, -1].argmax()

    return turn
