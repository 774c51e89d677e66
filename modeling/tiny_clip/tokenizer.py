"""A small byte-level BPE in CLIP's own form, trained on the captions of the recipe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer

BOS, EOS, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"
# Words that must be whole tokens although they are rare in the captions: counted as if each were seen often.
WHOLE_WORDS = "x high low quality photo of a the good bad poor fair perfect "
WHOLE_WORDS += "animal cityscape human indoor landscape night plant still life others"
WHOLE_WORD_REPEATS = 200

Pair = tuple[str, str]
Symbols = tuple[str, ...]


def count_words(texts: Sequence[str]) -> Counter[Symbols]:
    """Words after CLIP's own normalisation and splitting, as byte symbols of which the last ends the word."""
    reference = CLIPTokenizer().backend_tokenizer
    words: Counter[Symbols] = Counter()
    for text in texts:
        for word, _ in reference.pre_tokenizer.pre_tokenize_str(reference.normalizer.normalize_str(text)):
            words[(*word[:-1], word[-1] + WORD_END)] += 1
    return words


def merge_pair(word: Symbols, pair: Pair) -> Symbols:
    """The word with every occurrence of the pair, from the left, as one symbol.

    >>> merge_pair(("a", "b", "a", "b</w>"), ("a", "b"))
    ('ab', 'a', 'b</w>')
    """
    merged: list[str] = []
    for symbol in word:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return tuple(merged)


def learn_merges(texts: Sequence[str], count: int) -> list[Pair]:
    """At most ``count`` byte-pair merges, most frequent first; equally frequent pairs in the order of their text.

    The tokenizers library breaks such ties at random, and the ids of a trained model must not depend on that.
    """
    words = count_words(texts)
    for word, frequency in count_words([WHOLE_WORDS]).items():
        words[word] += WHOLE_WORD_REPEATS * frequency
    pairs: Counter[Pair] = Counter()
    for word, frequency in words.items():
        count_pairs(word, frequency, pairs)
    merges: list[Pair] = []
    while len(merges) < count and pairs:
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for word in [word for word in words if best[0] in word and best in pairwise(word)]:
            frequency = words.pop(word)
            merged = merge_pair(word, best)
            words[merged] += frequency
            count_pairs(word, -frequency, pairs)
            count_pairs(merged, frequency, pairs)
        pairs = +pairs  # without those that are gone
    return merges


def count_pairs(word: Symbols, frequency: int, pairs: Counter[Pair]) -> None:
    """Add the word's neighbouring symbols to ``pairs``."""
    for pair in pairwise(word):
        pairs[pair] += frequency


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
    merges = learn_merges(texts, room)
    tokens = list(dict.fromkeys([*base, *(left + right for left, right in merges), BOS, EOS]))
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=context_length)
