from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor

from grmp_hf import GRMPPromptConfig
from grmp_hf.errors import GRMPError
from grmp_hf.modeling import conversion
from grmp_hf.modeling.conversion import (
    from_authors_state_dict,
    load_authors_file,
    to_authors_name,
    to_authors_state_dict,
)

State = dict[str, Tensor]
PIXELS = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def model(make_adapted: Callable[..., PeftModel]) -> PeftModel:
    return make_adapted()


@pytest.fixture
def ids(model: PeftModel) -> dict[str, Any]:
    config = model.get_base_model().config
    return {
        "quality_input_ids": config.quality_input_ids,
        "semantic_input_ids": [*config.semantic_input_ids] * 3,
        "placeholder_token_id": 7,
        "vision_heads": 4,
        "text_heads": 4,
    }


@pytest.mark.parametrize("prefix", ["", "module."])
@torch.no_grad()
def test_there_and_back(model: PeftModel, ids: dict[str, Any], prefix: str) -> None:
    state = to_authors_state_dict(model)
    again = from_authors_state_dict({prefix + name: weight for name, weight in state.items()}, **ids)
    back = to_authors_state_dict(again)
    assert back.keys() == state.keys() and all(torch.equal(back[name], state[name]) for name in state)
    assert not again.training
    torch.testing.assert_close(again(PIXELS).quality, model(PIXELS).quality, atol=1e-6, rtol=0)


@torch.no_grad()
def test_trained_copies_take_the_place_of_the_bases_own(
    make_adapted: Callable[..., PeftModel], ids: dict[str, Any]
) -> None:
    model = make_adapted(modules_to_save=["layers.1", "final_layer_norm"])
    for name, parameter in model.named_parameters():
        if ".modules_to_save." in name:
            parameter.add_(0.1 * torch.randn_like(parameter))
    again = from_authors_state_dict(to_authors_state_dict(model), **ids)
    torch.testing.assert_close(again(PIXELS).quality, model(PIXELS).quality, atol=1e-6, rtol=0)


def test_copies_of_another_adapter_do_not_count(make_adapted: Callable[..., PeftModel]) -> None:
    model = make_adapted()
    expected = to_authors_state_dict(model)
    model.add_adapter("other", GRMPPromptConfig(text_prompts=4, visual_prompts=3, modules_to_save=["layers.1"]))
    model.set_adapter("default")
    found = to_authors_state_dict(model)
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"anchor_residuals": True}, "text and visual prompts, as the reference"),
        ({"visual_prompts": 0}, "got one without"),
    ],
)
def test_what_the_reference_does_not_have_is_not_converted(
    make_adapted: Callable[..., PeftModel], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(GRMPError, match=message):
        to_authors_state_dict(make_adapted(**options))


def test_every_parameter_has_a_name_of_theirs(make_adapted: Callable[..., PeftModel]) -> None:
    model = make_adapted(modules_to_save=["layers.1", "post_layernorm"])
    names = {to_authors_name(name) for name, _ in model.named_parameters()}
    redundant = {"prompt_learner2.token_prefix", "prompt_learner2.token_suffix"}
    assert names | redundant == set(to_authors_state_dict(model))
    with pytest.raises(KeyError):
        to_authors_name("clip.vision_model.head.weight")


def lose(state: State) -> None:
    del state["image_encoder.ln_post.bias"]


def add(state: State) -> None:
    state["image_encoder.head.weight"] = torch.zeros(2)


def contradict_prefix(state: State) -> None:
    state["prompt_learner2.token_prefix"] += 1


def contradict_suffix(state: State) -> None:
    state["prompt_learner2.token_suffix"][1, 1] += 1


def only_prompts(state: State) -> None:
    for name in [name for name in state if ".transformer." in name]:
        del state[name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lose, "missing: ['image_encoder.ln_post.bias'], unused: none"),
        (add, "missing: none, unused: ['image_encoder.head.weight']"),
        (contradict_prefix, "Expected prompt_learner2.token_prefix to be rows of the token embedding"),
        (contradict_suffix, "got other values for anchor 1"),
        (only_prompts, "A checkpoint of prompts alone lacks the towers"),
        (dict.clear, "A checkpoint of prompts alone lacks the towers"),
    ],
)
def test_a_state_dict_that_is_not_theirs(
    model: PeftModel, ids: dict[str, Any], change: Callable[[State], None], message: str
) -> None:
    state = {name: weight.clone() for name, weight in to_authors_state_dict(model).items()}
    change(state)
    with pytest.raises(GRMPError, match=re.escape(message)):
        from_authors_state_dict(state, **ids)


class Touch:
    """A pickle that would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("wrapped", [False, True])
def test_files_with_tensors_alone_are_read(model: PeftModel, tmp_path: Path, wrapped: bool) -> None:
    state = to_authors_state_dict(model)
    torch.save({"state_dict": state} if wrapped else state, tmp_path / "a.pt")
    assert load_authors_file(tmp_path / "a.pt").keys() == state.keys()


def test_files_that_are_refused(tmp_path: Path) -> None:
    torch.save({"x": Touch(tmp_path / "made")}, tmp_path / "unsafe.pt")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(Touch(tmp_path / "made")))
    (tmp_path / "text.pt").write_text("no checkpoint")
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    torch.save({"epoch": 3}, tmp_path / "numbers.pt")
    messages = {
        "none.pt": "found nothing there",
        "unsafe.pt": "cannot be read safely",
        "pickle.pt": "cannot be read safely",
        "text.pt": "cannot be read safely",
        "list.pt": r"Expected a state dict .* got list",
        "numbers.pt": "Expected a state dict",
    }
    for name, message in messages.items():
        with pytest.raises(GRMPError, match=message):
            load_authors_file(tmp_path / name)
    assert not (tmp_path / "made").exists()


def test_q_k_and_v_are_packed_by_their_names(model: PeftModel, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = to_authors_state_dict(model)
    named = list(model.named_parameters())
    monkeypatch.setattr(model, "named_parameters", lambda: reversed(named))
    found = to_authors_state_dict(model)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_prompts_that_find_no_place_are_an_error(
    model: PeftModel, ids: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed = {**conversion._PROMPTS, "prompt_learner2.ctx": "text_model.embeddings.elsewhere.context"}
    state = to_authors_state_dict(model)
    monkeypatch.setattr(conversion, "_PROMPTS", renamed)
    with pytest.raises(GRMPError, match=r"Expected the prompts .*grmp_text.*elsewhere"):
        from_authors_state_dict(state, **ids)
