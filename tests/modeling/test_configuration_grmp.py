from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, CLIPConfig, CLIPTokenizer

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.configuration_grmp import GRMPConfig, anchor_length, match_views
from grmp_hf.modeling.image_processing_grmp import GRMPImageProcessor


def test_the_default_is_clip_b16_with_the_reference_anchors_in_clips_own_ids() -> None:
    config = GRMPConfig()
    vision, text = config.clip_config.vision_config, config.clip_config.text_config
    assert (vision.hidden_size, vision.patch_size, vision.image_size, vision.num_hidden_layers) == (768, 16, 224, 12)
    assert (text.hidden_size, text.vocab_size, text.max_position_embeddings) == (512, 49408, 77)
    assert config.quality_anchors == ["X X X X high quality.", "X X X X low quality."]
    assert config.quality_levels == [1.0, 0.0]
    # CLIP's tokenisation: start, "x</w>" four times, the words, "." and the end.
    assert config.quality_input_ids == [
        [49406, 343, 343, 343, 343, 1400, 3027, 269, 49407],
        [49406, 343, 343, 343, 343, 1042, 3027, 269, 49407],
    ]
    assert config.semantic_anchors[7] == "a photo of a still_life" and len(config.semantic_input_ids) == 9
    assert all(row[:5] == [49406, 320, 1125, 539, 320] and row[-1] == 49407 for row in config.semantic_input_ids)


def test_defaults_are_not_shared_between_configs() -> None:
    GRMPConfig().quality_input_ids[0].append(1)
    assert GRMPConfig().quality_input_ids[0][-1] == 49407


def test_round_trip(make_scorer: Callable[..., Any], tmp_path: Path) -> None:
    config = make_scorer(view_weights=(0.25, 0.75), quality_levels=(0.0, 1.0)).config
    config.save_pretrained(tmp_path)
    again = GRMPConfig.from_pretrained(tmp_path)
    assert again.to_dict() == {**config.to_dict(), "transformers_version": again.to_dict()["transformers_version"]}
    assert isinstance(again.clip_config, CLIPConfig) and again.view_weights == [0.25, 0.75]
    assert type(AutoConfig.from_pretrained(tmp_path)) is GRMPConfig
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "grmp"


@pytest.mark.parametrize(
    ("ids", "eos", "length"),
    [
        ([5, 9, 9, 9], 9, 2),
        ([5, 9, 0, 0], 9, 2),
        # Old converted checkpoints say 2: there the tower pools at the largest id.
        ([5, 9, 0, 0], 2, 2),
        ([2, 9, 2], 2, 2),
    ],
)
def test_end_of_an_anchor(ids: list[int], eos: int, length: int) -> None:
    assert anchor_length(ids, eos) == length


SMALL = {"text_config": {"vocab_size": 64, "eos_token_id": 63, "max_position_embeddings": 12}}
IDS = [[62, 7, 11, 63], [62, 7, 12, 63]]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"quality_levels": [1.0, 0.5, 0.0]}, "one level and one list of ids for each of the 2 quality anchors"),
        ({"quality_levels": [1.0, 1.0]}, "distinct quality_levels from 0"),
        ({"quality_levels": [0.9, 0.0]}, "distinct quality_levels from 0"),
        ({"quality_anchors": ["a", "b"]}, "Expected quality_input_ids beside quality_anchors"),
        ({"semantic_anchors": ["a"]}, "Expected semantic_input_ids beside semantic_anchors"),
        ({"semantic_anchors": ["a", "b"], "semantic_input_ids": [[1, 49407]]}, "each of the 2 semantic anchors"),
        ({"view_weights": [0.5, 0.6]}, "sum to 1, got [0.5, 0.6]"),
        ({"view_weights": [1.5, -0.5]}, "non-negative view_weights"),
        ({"view_weights": [0.5, float("nan")]}, "non-negative view_weights"),
        ({"quality_input_ids": [[1, 2], [1, 2]]}, "Expected the end token 49407"),
        ({"clip_config": SMALL}, "a vocabulary of 64 tokens"),
        ({"clip_config": SMALL, "quality_input_ids": IDS, "semantic_input_ids": [[64, 63]] * 9}, "ids below 64"),
        ({"clip_config": SMALL, "quality_input_ids": IDS, "semantic_input_ids": [[1] * 12 + [63]] * 9}, "at most 12"),
    ],
)
def test_what_does_not_fit_together(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(GRMPError, match=re.escape(message)):
        GRMPConfig(**fields)


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    """CLIP's kind of tokenizer with whole words: ids of letters and of the words that the anchors need."""
    letters = [chr(code) for code in [*range(97, 123), 46, 95]]
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), "hi", "hig", "high</w>", "gh</w>", "hi gh"]
    ids = {token: index for index, token in enumerate([*vocabulary, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=ids, merges=[("h", "i"), ("g", "h</w>"), ("hi", "gh</w>")])


def test_anchors_are_tokenised_by_the_clips_own_tokenizer(tokenizer: CLIPTokenizer) -> None:
    size = len(tokenizer)
    clip = CLIPConfig(text_config={"vocab_size": size, "eos_token_id": size - 1, "max_position_embeddings": 40})
    config = GRMPConfig.from_clip(clip, tokenizer, quality_anchors=["X X high", "X X low"], view_weights=[1.0])
    words = [tokenizer.convert_ids_to_tokens(row) for row in config.quality_input_ids]
    assert words[0] == ["<|startoftext|>", "x</w>", "x</w>", "high</w>", "<|endoftext|>"]
    assert words[1] == ["<|startoftext|>", "x</w>", "x</w>", "l", "o", "w</w>", "<|endoftext|>"]
    assert tokenizer.convert_ids_to_tokens(config.placeholder_token_id) == "x</w>"
    assert len(config.semantic_input_ids) == 9 and config.view_weights == [1.0]


def test_a_tokenizer_that_splits_the_placeholder_is_refused() -> None:
    def split(texts: list[str]) -> dict[str, list[list[int]]]:
        return {"input_ids": [[62, 1, 2, 63] for _ in texts]}

    with pytest.raises(GRMPError, match=r"'X' to be one token between start and end, got ids \[62, 1, 2, 63\]"):
        GRMPConfig.from_clip(CLIPConfig(**SMALL), split)


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(GRMPError, match=r"a CLIP or a GRMP model at .* got model_type 'vit'"):
        GRMPConfig.from_pretrained(tmp_path)


def test_anchors_given_while_loading_are_tokenised_and_change_the_scores() -> None:
    import grmp_hf

    texts, levels = ["X a photo of high quality.", "X a photo.", "X a photo of low quality."], [1.0, 0.5, 0.0]
    plain = grmp_hf.GRMPForImageQualityAssessment.from_pretrained("grmp_hf/tiny").eval()
    own = grmp_hf.GRMPForImageQualityAssessment.from_pretrained(
        "grmp_hf/tiny", quality_anchors=texts, quality_levels=levels
    ).eval()
    assert own.config.quality_anchors == texts and len(own.config.quality_input_ids) == 3
    assert own.config.quality_input_ids != plain.config.quality_input_ids
    embeds = torch.nn.functional.normalize(torch.randn(4, 128), dim=-1)
    with torch.inference_mode():
        assert own(image_embeds=embeds).quality_logits.shape == (4, 3)
        assert not torch.allclose(own(image_embeds=embeds).quality, plain(image_embeds=embeds).quality)
    weighted = grmp_hf.GRMPForImageQualityAssessment.from_pretrained("grmp_hf/tiny", view_weights=[0.5, 0.5])
    assert weighted.config.view_weights == [0.5, 0.5]
    assert weighted.config.quality_input_ids == plain.config.quality_input_ids


def test_anchors_that_cannot_be_tokenised_or_do_not_fit_are_refused(
    make_scorer: Callable[..., Any], tmp_path: Path
) -> None:
    model = make_scorer()
    model.save_pretrained(tmp_path)
    with pytest.raises(GRMPError, match=r"tokenizer.*quality_input_ids"):
        type(model).from_pretrained(tmp_path, quality_anchors=["X fine", "X bad"])
    with pytest.raises(GRMPError, match="Expected quality_input_ids beside quality_anchors: scores come from the ids"):
        AutoConfig.from_pretrained(tmp_path, quality_anchors=["X fine", "X bad"])
    model.config.quality_anchors = ["a", "b", "c"]
    with pytest.raises(GRMPError, match="each of the 3 quality anchors, got 2 levels and 2 lists"):
        type(model)(model.config)


def test_views_count_what_their_processor_says(make_scorer: Callable[..., Any]) -> None:
    config = make_scorer(view_weights=[0.5, 0.3, 0.2]).config
    match_views(config, GRMPImageProcessor(16, ("center", "whole"), (0.75, 0.25)))
    assert config.view_weights == [0.75, 0.25]
    match_views(config, GRMPImageProcessor(16, ("center", "whole")))
    assert config.view_weights is None
    with pytest.raises(GRMPError, match="Expected preprocessing to the model's 16 pixels, got 32"):
        match_views(config, GRMPImageProcessor(32))
