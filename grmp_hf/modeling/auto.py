"""Registers the model and its image processor with transformers' Auto classes when it is imported."""

from __future__ import annotations

from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.models.auto.modeling_auto import AutoModelForImageClassification

from grmp_hf.modeling.configuration_grmp import GRMPConfig
from grmp_hf.modeling.image_processing_grmp import GRMPImageProcessor
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment

AutoModelForImageClassification.register(GRMPConfig, GRMPForImageQualityAssessment, exist_ok=True)
AutoImageProcessor.register(GRMPConfig, image_processor_classes={"pil": GRMPImageProcessor}, exist_ok=True)
