"""Blind image quality assessment from very few ratings: soft prompts on a pre-trained CLIP.

Names are imported when they are first used. Importing the package registers the model with transformers' Auto classes
and the prompts as a PEFT method; a library that is not imported yet is told as soon as it is.
"""

import importlib
from typing import TYPE_CHECKING, Any

from grmp_hf._registration import register_when_imported

if TYPE_CHECKING:
    from grmp_hf.data import read_ratings
    from grmp_hf.data.builders import load_iqa_dataset
    from grmp_hf.evaluation.metrics import krcc, plcc, srcc
    from grmp_hf.hub import load
    from grmp_hf.learning import adapt
    from grmp_hf.modeling.configuration_grmp import GRMPConfig
    from grmp_hf.modeling.image_processing_grmp import GRMPImageProcessor
    from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
    from grmp_hf.modeling.peft_prompts import GRMPPromptConfig, GRMPPromptModel
    from grmp_hf.scoring import Scorer
    from grmp_hf.training.arguments import GRMPTrainingArguments
    from grmp_hf.training.recipes import FewShotRecipe
    from grmp_hf.training.trainer import GRMPTrainer

__version__ = "0.1.0"

_HOMES = {
    "FewShotRecipe": "training.recipes",
    "GRMPConfig": "modeling.configuration_grmp",
    "GRMPForImageQualityAssessment": "modeling.modeling_grmp",
    "GRMPImageProcessor": "modeling.image_processing_grmp",
    "GRMPPromptConfig": "modeling.peft_prompts",
    "GRMPPromptModel": "modeling.peft_prompts",
    "GRMPTrainer": "training.trainer",
    "GRMPTrainingArguments": "training.arguments",
    "Scorer": "scoring",
    "adapt": "learning",
    "krcc": "evaluation.metrics",
    "load": "hub",
    "load_iqa_dataset": "data.builders",
    "plcc": "evaluation.metrics",
    "read_ratings": "data",
    "srcc": "evaluation.metrics",
}

__all__ = [
    "FewShotRecipe",
    "GRMPConfig",
    "GRMPForImageQualityAssessment",
    "GRMPImageProcessor",
    "GRMPPromptConfig",
    "GRMPPromptModel",
    "GRMPTrainer",
    "GRMPTrainingArguments",
    "Scorer",
    "__version__",
    "adapt",
    "krcc",
    "load",
    "load_iqa_dataset",
    "plcc",
    "read_ratings",
    "srcc",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_when_imported()
