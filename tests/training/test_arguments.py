from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from transformers import HfArgumentParser

from grmp_hf.errors import GRMPError
from grmp_hf.training.arguments import GRMPTrainingArguments


def test_defaults_that_differ_from_transformers(tmp_path: Path) -> None:
    args = GRMPTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    assert (args.remove_unused_columns, args.max_grad_norm, args.report_to) == (False, 0.0, [])
    assert (args.regularization_strength, args.semantic_temperature, args.projection_unit) == (5.0, 1.0, "tensor")
    assert (args.meta_algorithm, args.inner_optimizer) == ("fomaml", "sgd")


def test_every_setting_can_be_given_on_a_command_line(tmp_path: Path) -> None:
    line = (
        f"--output_dir {tmp_path} --use_cpu true --regularization_strength 1 --projection_unit global --pull_to_start 2"
    )
    line += " --meta_algorithm reptile --inner_learning_rate 0.1 --inner_optimizer adam --inner_steps 3"
    (args,) = HfArgumentParser(GRMPTrainingArguments).parse_args_into_dataclasses(line.split())
    assert (args.regularization_strength, args.projection_unit, args.pull_to_start) == (1.0, "global", 2.0)
    inner = (args.inner_learning_rate, args.inner_optimizer, args.inner_steps)
    assert (args.meta_algorithm, *inner) == ("reptile", 0.1, "adam", 3)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("regularization_strength", -1.0, "regularization_strength of at least 0, got -1.0"),
        ("pull_to_start", -0.1, "pull_to_start of at least 0, got -0.1"),
        ("semantic_temperature", 0.0, "semantic_temperature above 0, got 0.0"),
        ("pull_to_start", math.nan, "pull_to_start of at least 0, got nan"),
        ("inner_learning_rate", math.inf, "inner_learning_rate above 0, got inf"),
        ("inner_steps", 0, "inner_steps of at least 1, got 0"),
        ("inner_learning_rate", 0.0, "inner_learning_rate above 0, got 0.0"),
        ("meta_algorithm", "protonet", "meta_algorithm 'fomaml' or 'maml' or 'reptile' or 'authors', got 'protonet'"),
        ("inner_optimizer", "lbfgs", "inner_optimizer 'sgd' or 'adam', got 'lbfgs'"),
        ("projection_unit", "layer", "projection_unit 'tensor' or 'global', got 'layer'"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, field: str, value: Any, message: str) -> None:
    with pytest.raises(GRMPError, match=re.escape(message)):
        GRMPTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **{field: value})
