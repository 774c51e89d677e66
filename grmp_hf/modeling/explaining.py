"""Which distortion and which scene a picture shows, in probabilities, from what its scoring has computed anyway.

Letters in shapes: B pictures, F features of a side network, A values of an axis, D joint width.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from grmp_hf.embedded import embedded_folder
from grmp_hf.errors import GRMPError
from grmp_hf.modeling.baked_experts import GRMPBakedExperts
from grmp_hf.modeling.configuration_grmp import axis_sizes
from grmp_hf.modeling.functional import anchor_logits, axis_logits
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
from grmp_hf.modeling.side import EmbeddedSide, Side
from grmp_hf.modeling.templates import AXES, DISTORTION, SCENE, sentences

__all__ = ["EXPLAINED", "EXPLAINER", "NONE", "Explainer", "Probe", "explainer_of", "read_probes", "standardised"]

EXPLAINED = (DISTORTION, SCENE)
"""The axes that explain a score."""
EXPLAINER = "explainer.safetensors"
"""What has been learnt of the embedded side network's features, in the folder of the embedded base."""

NONE = "none"
"""What the embedded side network calls a picture in which it sees no distortion."""
_LARGEST = 5.0

OWN, LEARNT, ZERO_SHOT = "the model's own anchors", "a linear map of the side network's features", "zero-shot"


class Probe(NamedTuple):
    """Logistic regression of one axis on groups of a side network's features.

    Attributes:
        values: A names.
        groups: of features, in their order.
        weight: ``(A, F')``, of standardised features.
        bias: ``(A,)``.
    """

    values: tuple[str, ...]
    groups: tuple[str, ...]
    weight: Tensor
    bias: Tensor

    def logits(self, features: Tensor, side: Side) -> Tensor:
        """``(B, A)`` of features ``(B, F)``, standardised by what the side network knows of photographs."""
        phi = standardised(features, side, self.groups)
        return phi @ self.weight.to(phi).T + self.bias.to(phi)


def standardised(features: Tensor, side: Side, groups: Sequence[str]) -> Tensor:
    """Groups of a side network's features ``(B, F)``, standardised by what it knows of photographs and held to +-5."""
    known, parts = side.known(), torch.split(features.float(), list(side.groups.values()), 1)
    by_group = dict(zip(side.groups, parts, strict=True))
    seen = [(by_group[name] - known[name][0].float()) / known[name][1].float() for name in groups]
    return torch.cat(seen, 1).clamp(-_LARGEST, _LARGEST)


@functools.cache
def read_probes(path: Path) -> dict[str, Probe]:
    """Probes by axis, from the file that `modeling/build_explainer.py` writes; none where there is no such file."""
    if not path.is_file():
        return {}
    with safe_open(path, "pt") as file:
        axes = json.loads(file.metadata()["axes"])
        return {
            name: Probe(
                tuple(said["values"]),
                tuple(said["groups"]),
                *(file.get_tensor(f"{name}.{part}").float() for part in ("weight", "bias")),
            )
            for name, said in axes.items()
        }


@dataclass(frozen=True)
class Explainer:
    """From a model's output to the probabilities of its pictures' distortion and scene.

    Attributes:
        values: axis -> A names.
        sources: axis -> where its probabilities come from, in words.
        needs_side: whether the output has to hold ``side``: ask the model for it with ``output_side``.
        logits: axis -> function from the output to ``(B, A)``.
    """

    values: Mapping[str, Sequence[str]]
    sources: Mapping[str, str]
    needs_side: bool
    logits: Mapping[str, Callable[[Any], Tensor]]

    def __call__(self, output: Any) -> dict[str, Tensor]:
        """Axis -> ``(B, A)``, rows summing to 1."""
        return {name: logits(output).float().softmax(-1) for name, logits in self.logits.items()}


def explainer_of(model: Any, tokenizer: Callable[[], Any]) -> Explainer:
    """The best that a model has for each axis: its own anchors, what is learnt of the embedded side network, or texts.

    Args:
        model: a ``PeftModel``, a ``GRMPForImageQualityAssessment``, ``Experts``, or one of these baked.
        tokenizer: makes the tokenizer of its CLIP, where texts are needed.

    Raises:
        GRMPError: it has nothing of the kind, such as a baked scorer without side network.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if isinstance(base, GRMPBakedExperts):
        base = base.base
    if not hasattr(base, "config"):
        raise GRMPError(
            f"Expected a model that can explain its scores, got {type(base).__name__}, which is none of a CLIP. Take "
            "what grmp_hf.load gives."
        )
    own = dict(base.config.quality_axes or []) if len(axis_sizes(base.config)) > 1 else {}
    learnt = read_probes(Path(embedded_folder()) / EXPLAINER) if isinstance(base.side, EmbeddedSide) else {}
    if set(learnt) - set(own) and base.config.side_size is None:
        raise GRMPError(
            "Expected preprocessing with a picture for the side network, which explains scores, got that of an adapter "
            "without one. Explain with the base alone, or adapt again."
        )
    values: dict[str, Sequence[str]] = {}
    sources: dict[str, str] = {}
    logits: dict[str, Callable[[Any], Tensor]] = {}
    for name in EXPLAINED:
        if name in own:
            values[name], sources[name] = own[name], OWN
            logits[name] = functools.partial(_own, base, name)
        elif name in learnt:
            values[name], sources[name] = learnt[name].values, LEARNT
            logits[name] = functools.partial(_learnt, learnt[name], base.side)
        elif isinstance(base, GRMPForImageQualityAssessment):
            values[name], sources[name] = AXES[name], ZERO_SHOT
            logits[name] = functools.partial(_zero_shot, base, _ids(base, tokenizer(), sentences({name: AXES[name]})))
    if not logits:
        raise GRMPError(
            "Expected a model that can explain its scores, got a baked scorer without texts and without side network. "
            "Score with the base and the adapter that it was baked from."
        )
    return Explainer(values, sources, LEARNT in sources.values(), logits)


def _ids(base: GRMPForImageQualityAssessment, tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts, each of which the text tower can take."""
    text, ids = base.config.clip_config.text_config, [list(row) for row in tokenizer(list(texts))["input_ids"]]
    unknown, longest = getattr(tokenizer, "unk_token_id", None), max(len(row) for row in ids)
    if any(unknown in row[1:-1] for row in ids):
        raise GRMPError(
            "Expected a tokenizer that knows the words of sentences about distortions and scenes, got unknown tokens. "
            "Put tokenizer.json, or vocab.json and merges.txt, beside the CLIP."
        )
    if longest > text.max_position_embeddings:
        raise GRMPError(
            f"Expected a text tower that takes {longest} tokens, as sentences about distortions have, got one of "
            f"{text.max_position_embeddings}. Use a CLIP of usual size, or the embedded base with its own side network."
        )
    return ids


def _own(base: Any, name: str, output: Any) -> Tensor:
    """The output's own logits, or those of the base where another head or experts have given it."""
    found: dict[str, Tensor] | None = output.axis_logits
    if found is None:
        clip = isinstance(base, GRMPForImageQualityAssessment)
        embeds = base.get_anchor_embeds("quality") if clip else base.quality_embeds
        logits = anchor_logits(output.image_embeds, embeds, base.clip.logit_scale if clip else base.logit_scale)
        found = axis_logits(logits, axis_sizes(base.config))
    return found[name]


def _learnt(probe: Probe, side: Side, output: Any) -> Tensor:
    return probe.logits(output.side, side)


def _zero_shot(base: GRMPForImageQualityAssessment, ids: list[list[int]], output: Any) -> Tensor:
    return anchor_logits(output.image_embeds, base.get_text_embeds(ids), base.clip.logit_scale)
