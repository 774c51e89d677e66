"""A small byte-level BPE in CLIP's own form, trained on the captions of the recipe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

BOS, EOS, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"
# Words that must be whole tokens although they are rare in the captions: the trainer sees each often.
WHOLE_WORDS = "x high low quality photo of a the good bad poor fair perfect "
WHOLE_WORDS += "animal cityscape human indoor landscape night plant still life others"
WHOLE_WORD_REPEATS = 200


def learn_merges(texts: Sequence[str], vocabulary_size: int) -> list[tuple[str, str]]:
    """BPE merges learnt on ``texts`` after CLIP's own normalisation and word splitting, most frequent pair first."""
    reference = CLIPTokenizer().backend_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix=WORD_END,
        show_progress=False,
    )
    learner = Tokenizer(models.BPE(end_of_word_suffix=WORD_END))
    learner.normalizer, learner.pre_tokenizer = reference.normalizer, reference.pre_tokenizer
    learner.train_from_iterator([*texts, *[WHOLE_WORDS] * WHOLE_WORD_REPEATS], trainer)
    return [(left, right) for left, right in json.loads(learner.to_str())["model"]["merges"]]


def build_tokenizer(texts: Sequence[str], vocabulary_size: int = 1300, context_length: int = 16) -> CLIPTokenizer:
    """A ``CLIPTokenizer`` of at most ``vocabulary_size`` tokens.

    The vocabulary starts with all 256 byte symbols, alone and at the end of a word, so any text can be written; the two
    special tokens come last, so the end token has the largest id, by which CLIP's text tower finds it.
    """
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    base = [*symbols, *(symbol + WORD_END for symbol in symbols)]
    room = vocabulary_size - len(base) - 2
    if room < 0:
        raise ValueError(f"expected a vocabulary of at least {len(base) + 2} tokens, got {vocabulary_size}")
    merges = learn_merges(texts, vocabulary_size)[:room]
    tokens = list(dict.fromkeys([*base, *(left + right for left, right in merges), BOS, EOS]))
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=context_length)


def save_tokenizer(tokenizer: CLIPTokenizer, directory: Path) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json``."""
    tokenizer.save_pretrained(directory)
