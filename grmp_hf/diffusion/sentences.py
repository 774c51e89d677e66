"""Sentences about quality, scene and distortion as the condition of a U-Net: an embedding of each.

Letters in shapes: K sentences, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.templates import sentences

__all__ = ["sentence_bank"]

_TOGETHER = 64


@torch.no_grad()
def sentence_bank(text_encoder: Any, tokenizer: Any, texts: Sequence[str] | None = None) -> Tensor:
    """Embeddings ``(K, D)`` of sentences, one vector each.

    Args:
        text_encoder: a ``CLIPTextModel``, such as that of Stable Diffusion, whose state at the end of the text is
            taken; or a whole ``CLIPModel``, whose projected embedding is taken, as the authors do with ViT-L/14.
        tokenizer: that belongs to it.
        texts: the 495 of :func:`grmp_hf.modeling.templates.sentences` if None; the authors' code names 33 distortions
            (1485 sentences) and its comments 11 (495).

    Raises:
        GRMPError: a sentence is too long for the text encoder, which would cut the quality off; or a tokenizer that
            knows no words.
    """
    texts, found = list(sentences() if texts is None else texts), []
    device = next(text_encoder.parameters()).device
    if texts and getattr(tokenizer, "unk_token_id", None) in tokenizer(texts[0])["input_ids"][1:-1]:
        raise GRMPError(
            "Expected a tokenizer that knows the words of the sentences, got unknown tokens. CLIPTokenizer comes up "
            "empty where its files are missing: put tokenizer.json, or vocab.json and merges.txt, into its folder."
        )
    for at in range(0, len(texts), _TOGETHER):
        ids = tokenizer(texts[at : at + _TOGETHER], padding=True, return_tensors="pt").to(device)
        whole = hasattr(text_encoder, "text_projection")
        encoder = text_encoder.text_model if whole else text_encoder
        if ids["input_ids"].shape[1] > encoder.config.max_position_embeddings:
            raise GRMPError(
                f"Expected sentences of at most {encoder.config.max_position_embeddings} tokens, got one of "
                f"{ids['input_ids'].shape[1]}. Make them shorter: texts=..."
            )
        said = encoder(**ids).pooler_output
        found.append((text_encoder.text_projection(said) if whole else said).float().cpu())
    return torch.cat(found)
