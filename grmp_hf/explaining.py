"""What explains a score, in words: which distortion and which scene a picture shows, and how likely each is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from grmp_hf.modeling.configuration_grmp import model_place, read_tokenizer
from grmp_hf.modeling.explaining import Explainer, explainer_of
from grmp_hf.modeling.templates import DISTORTION, SCENE

__all__ = ["Explained", "explain_output", "explainer_for", "most_likely"]

LIKELY = 0.1
"""Probability from which a value is named beside the most likely one."""
MOST = 3
"""Values that are named at most."""


@dataclass(frozen=True)
class Explained:
    """Of one picture.

    Attributes:
        distortion, scene: name -> probability, the most likely first; None where the model cannot tell.
    """

    distortion: Mapping[str, float] | None
    scene: Mapping[str, float] | None

    def words(self) -> str:
        """The likely ones.

        >>> Explained({"blur": 0.71, "none": 0.17, "noise": 0.12}, {"night": 0.8, "indoor": 0.2}).words()
        'blur .71, none .17, noise .12; night .80, indoor .20'
        """
        return "; ".join(_words(said) for said in (self.distortion, self.scene) if said is not None)

    def cells(self) -> dict[str, Any]:
        """The columns that it fills in a table of scores."""
        found: dict[str, Any] = {"explanation": self.words()}
        for name, said in vars(self).items():
            if said is not None:
                found[name], probability = next(iter(said.items()))
                found[f"{name}_probability"] = round(probability, 4)
        return found


def _words(said: Mapping[str, float]) -> str:
    likely = [pair for at, pair in enumerate(said.items()) if at == 0 or (at < MOST and pair[1] >= LIKELY)]
    return ", ".join(f"{name} {f'{probability:.2f}'.removeprefix('0')}" for name, probability in likely)


def explain_output(explainer: Explainer, output: Any) -> list[Explained]:
    """What is said of each of the B pictures of a model's output."""
    with torch.inference_mode():
        columns = {name: part.cpu().tolist() for name, part in explainer(output).items()}
    found = []
    for at in range(len(output.quality)):
        said = {name: most_likely(explainer.values[name], rows[at]) for name, rows in columns.items()}
        found.append(Explained(said.get(DISTORTION), said.get(SCENE)))
    return found


def most_likely(values: Sequence[str], probabilities: Sequence[float]) -> dict[str, float]:
    """Name -> probability, the most likely first."""
    pairs = zip(values, probabilities, strict=True)
    return dict(sorted(pairs, key=lambda pair: -pair[1]))


def explainer_for(model: Any) -> Explainer:
    """What explains the scores of a model, with the tokenizer of its CLIP where texts are needed.

    Raises:
        GRMPError: there is nothing that could, or no tokenizer.
    """

    def tokenizer() -> Any:
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        return read_tokenizer(model_place(base.config._name_or_path), {})

    return explainer_of(model, tokenizer)
