from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import get_peft_model

import grmp_hf
from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import copy_base


def test_a_copy_shares_the_weights_and_nothing_else(make_scorer: Callable[..., Any]) -> None:
    base = make_scorer()
    copied = copy_base(base)
    theirs = dict(copied.named_parameters())
    for name, weight in base.named_parameters():
        assert weight is not theirs[name] and weight.data_ptr() == theirs[name].data_ptr()
    before = {name: (weight.clone(), weight.requires_grad) for name, weight in base.named_parameters()}
    modules = {name: (id(module), type(module)) for name, module in base.named_modules()}
    settings = base.config.to_dict()
    get_peft_model(copied, grmp_hf.GRMPPromptConfig(visual_prompts=3, modules_to_save=["post_layernorm"]))
    assert {name: (id(module), type(module)) for name, module in base.named_modules()} == modules
    assert base.config.to_dict() == settings
    for name, weight in base.named_parameters():
        assert torch.equal(weight, before[name][0]) and weight.requires_grad is before[name][1]


def test_a_model_with_an_adapter_is_no_base(make_scorer: Callable[..., Any]) -> None:
    base = make_scorer()
    get_peft_model(base, grmp_hf.GRMPPromptConfig(visual_prompts=3))
    with pytest.raises(GRMPError, match=r"without an adapter, got a model that carries one.*unload"):
        copy_base(base)
