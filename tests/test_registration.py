"""The model and the method are known to both libraries, whatever is imported first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECK = """
import peft
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification
assert AutoConfig.for_model("grmp").model_type == "grmp"
from grmp_hf import GRMPConfig, GRMPForImageQualityAssessment
assert AutoModelForImageClassification._model_mapping[GRMPConfig] is GRMPForImageQualityAssessment
assert "GRMP" in peft.mapping.PEFT_TYPE_TO_TUNER_MAPPING and peft.PeftType.GRMP == "GRMP"
import importlib, grmp_hf, grmp_hf._registration as registration, sys
importlib.reload(grmp_hf)
registration.register_when_imported()
finders = [finder for finder in sys.meta_path if "grmp_hf" in type(finder).__module__]
assert len(finders) == 1, finders
"""

FIRST = {
    "libraries before": "from transformers import AutoModel, Trainer\nimport peft\nimport grmp_hf",
    "peft after": "import grmp_hf\nimport peft",
    "a model of transformers after": "import grmp_hf\nimport transformers.models.clip.modeling_clip",
    "our parts one by one": "import grmp_hf.modeling.conversion\nimport grmp_hf.training.trainer",
}


@pytest.mark.parametrize("first", FIRST.values(), ids=FIRST)
def test_any_order_of_imports(first: str) -> None:
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-W", "error:::grmp_hf", "-c", first + CHECK],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_automodel_loads_scorers_too(clip_folder: Path, adapter_folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModel

    import grmp_hf
    from grmp_hf.cli.main import main

    base = grmp_hf.load(clip_folder).model
    base.save_pretrained(tmp_path / "base")  # type: ignore[operator]
    assert main(["bake", str(tmp_path / "baked"), "--model", str(adapter_folder)]) == 0
    for folder, kind in (("base", "GRMPForImageQualityAssessment"), ("baked", "GRMPBakedScorer")):
        assert type(AutoModel.from_pretrained(tmp_path / folder)).__name__ == kind
