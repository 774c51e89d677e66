"""``GRMPConfig``: all that is needed to rebuild a scorer around a CLIP."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from transformers import CLIPConfig, CLIPTokenizer, PreTrainedConfig

from grmp_hf.embedded import EMBEDDED, embedded_folder
from grmp_hf.errors import GRMPError

__all__ = [
    "CLIP_MEAN",
    "CLIP_STD",
    "EMBEDDED",
    "IGNORED",
    "LEVEL",
    "PLACEHOLDER",
    "QUALITY_ANCHORS",
    "SCENES",
    "SEMANTIC_ANCHORS",
    "GRMPConfig",
    "anchor_length",
    "anchor_levels",
    "axis_sizes",
    "image_size",
    "match_views",
    "model_place",
    "read_tokenizer",
]

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the pixels that a CLIP sees."""

IGNORED = tuple("quality_logits semantic_logits image_embeds axis_logits deviation degrees novelty side".split())
"""What a Trainer does not gather of a model's outputs."""

PLACEHOLDER = "X"
"""The word whose tokens are where learned text prompts go."""

QUALITY_ANCHORS = ("X X X X high quality.", "X X X X low quality.")
LEVEL = "level"
"""The axis of the quality anchors that quality is read from."""
SCENES = ("animal", "cityscape", "human", "indoor", "landscape", "night", "plant", "still_life", "others")
SEMANTIC_ANCHORS = tuple(f"a photo of a {scene}" for scene in SCENES)

_CLIP_VOCABULARY = 49408
_START, _END, _X = 49406, 49407, 343
_CLIP_QUALITY_IDS = [[_START, _X, _X, _X, _X, word, 3027, 269, _END] for word in (1400, 1042)]
_CLIP_SCENE_IDS = ([4668], [40808], [2751], [9546], [5727], [930], [3912], [1170, 318, 970], [3326])
_CLIP_SEMANTIC_IDS = [[_START, 320, 1125, 539, 320, *scene, _END] for scene in _CLIP_SCENE_IDS]


def model_place(name: Any) -> Any:
    """Where a model lies: the folder inside the package for :data:`EMBEDDED`, else ``name`` itself."""
    return embedded_folder() if name == EMBEDDED else name


def anchor_length(ids: Sequence[int], eos_token_id: int) -> int:
    """Number of tokens up to and including the end token, by the rule with which CLIP's text tower pools.

    An ``eos_token_id`` of 2 is what old converted checkpoints carry: there the largest id is the end.

    >>> anchor_length([49406, 320, 49407, 49407], 49407), anchor_length([5, 9, 1, 1], 2)
    (3, 2)

    Raises:
        GRMPError: no end token.
    """
    end = max(ids) if eos_token_id == 2 else eos_token_id
    if end not in ids:
        raise GRMPError(
            f"Expected the end token {end} in every anchor, got ids {list(ids)}. Tokenise with its tokenizer."
        )
    return list(ids).index(end) + 1


def axis_sizes(config: Any) -> dict[str, int]:
    """Name and number of values of each axis of a model's quality anchors, in the order in which they combine them."""
    axes = config.quality_axes or [[LEVEL, config.quality_levels]]
    return {name: len(values) for name, values in axes}


def anchor_levels(config: Any) -> list[float]:
    """The quality in [0, 1] that each of a model's anchors stands for, whatever else it stands for."""
    sizes = axis_sizes(config)
    places = itertools.product(*(range(size) for size in sizes.values()))
    at = list(sizes).index(LEVEL)
    return [float(config.quality_levels[place[at]]) for place in places]


def image_size(config: Any) -> int:
    """Width and height of the pictures that a model takes."""
    return int(getattr(config, "clip_config", config).vision_config.image_size)


def match_views(config: Any, processor: Any) -> None:
    """Let a model average views as the image processor that makes them says.

    Raises:
        GRMPError: the model takes pictures of another size.
    """
    size = image_size(config)
    if processor.size != size:
        raise GRMPError(
            f"Expected preprocessing to the model's {size} pixels, got {processor.size}. Correct size in "
            "preprocessor_config.json or in the adapter's preprocessing."
        )
    weights, tiles = processor.view_weights, processor.has_tiles
    if weights is None and tiles:  # which are told from other views by their number
        weights = [1 / (len(processor.views) - 1)] * (len(processor.views) - 1)
    config.view_weights = None if weights is None else list(weights)
    config.side_size = processor.side_size if tiles else None
    config.image_mean, config.image_std = list(processor.image_mean), list(processor.image_std)


class GRMPConfig(PreTrainedConfig):
    """Configuration of :class:`~grmp_hf.GRMPForImageQualityAssessment`.

    ``GRMPConfig()`` describes CLIP ViT-B/16 with the reference's anchors in CLIP's own token ids, so that a model can
    be built without a tokenizer. ``GRMPConfig.from_pretrained`` on a plain CLIP folder or Hub id nests that CLIP's
    configuration; the ids of the anchors come from its own tokenizer unless its vocabulary is CLIP's.

    Args:
        clip_config: the CLIP, as a ``CLIPConfig`` or its dictionary.
        quality_anchors: A texts; the word ``X`` marks the places of learned text prompts.
        quality_levels: the quality in [0, 1] that each anchor stands for; distinct, 0 and 1 among them.
        quality_axes: for anchors that combine several axes, pairs of a name and its values, such as
            ``[["level", ["bad", "good"]], ["scene", ["indoor", "plant"]]]``; the anchors are their combinations, the
            last axis changing fastest. One is called ``"level"``: its values are those of ``quality_levels``. None for
            anchors that differ in level alone.
        semantic_anchors: S texts of scenes.
        quality_input_ids: A lists of token ids (without padding, or padded after the end token).
        semantic_input_ids: S lists of token ids.
        placeholder_token_id: id of ``X``.
        view_weights: weights of the V views of a picture, summing to 1; None for equal weights, whatever V is.
        side, side_size: a frozen network beside the CLIP, see :func:`~grmp_hf.modeling.side.make_side`, and the side of
            the square picture that it sees; None for none.
        image_mean, image_std: with which the pixels of the views are normalised, for the side network.
    """

    model_type = "grmp"
    sub_configs = {"clip_config": CLIPConfig}

    clip_config: Any = None
    quality_anchors: Any = QUALITY_ANCHORS
    quality_levels: Any = (1.0, 0.0)
    quality_axes: Any = None
    semantic_anchors: Any = SEMANTIC_ANCHORS
    quality_input_ids: Any = None
    semantic_input_ids: Any = None
    placeholder_token_id: int = _X
    view_weights: Any = None
    side: Any = None
    side_size: int | None = None
    image_mean: Any = CLIP_MEAN
    image_std: Any = CLIP_STD
    keys_to_ignore_at_inference: Any = IGNORED

    def __post_init__(self, **kwargs: Any) -> None:
        if self.clip_config is None:
            self.clip_config = CLIPConfig(vision_config={"patch_size": 16})
        elif isinstance(self.clip_config, dict):
            self.clip_config = CLIPConfig(**{k: v for k, v in self.clip_config.items() if k != "model_type"})
        anchors = ("quality_anchors", "semantic_anchors", "quality_levels")
        for name in (*anchors, "keys_to_ignore_at_inference", "image_mean", "image_std"):
            setattr(self, name, list(getattr(self, name)))
        if self.view_weights is not None:
            self.view_weights = [float(weight) for weight in self.view_weights]
        if self.quality_input_ids is None:
            self.quality_input_ids = self._default_ids("quality", QUALITY_ANCHORS, _CLIP_QUALITY_IDS)
        if self.semantic_input_ids is None:
            self.semantic_input_ids = self._default_ids("semantic", SEMANTIC_ANCHORS, _CLIP_SEMANTIC_IDS)
        self.check()
        super().__post_init__(**kwargs)

    def _default_ids(self, kind: str, texts: Sequence[str], ids: list[list[int]]) -> list[list[int]]:
        if tuple(getattr(self, f"{kind}_anchors")) != tuple(texts):
            raise GRMPError(
                f"Expected {kind}_input_ids beside {kind}_anchors that are not the default ones. "
                "Use GRMPConfig.from_clip(clip_config, tokenizer, ...), which tokenises them."
            )
        if self.clip_config.text_config.vocab_size != _CLIP_VOCABULARY:
            raise GRMPError(
                f"Expected {kind}_input_ids for a vocabulary of {self.clip_config.text_config.vocab_size} tokens: the "
                f"default ids are those of CLIP's {_CLIP_VOCABULARY}. Use GRMPConfig.from_clip(clip_config, tokenizer)."
            )
        return [list(row) for row in ids]

    def check(self) -> None:
        """Raise unless anchors, levels, ids and weights fit together.

        Raises:
            GRMPError: names those that do not.
        """
        anchors, levels, weights = self.quality_anchors, self.quality_levels, self.view_weights
        sizes = axis_sizes(self)
        if sizes.get(LEVEL) != len(levels) or len(sizes) != len(self.quality_axes or sizes):
            raise GRMPError(
                f"Expected quality_axes of different names, one of them {LEVEL!r} with {len(levels)} values, one for "
                f"each of quality_levels, got {self.quality_axes}."
            )
        combined, what = math.prod(sizes.values()), "level" if self.quality_axes is None else "combination"
        if len(anchors) != combined or len(anchors) != len(self.quality_input_ids):
            raise GRMPError(
                f"Expected one {what} and one list of ids for each of the {len(anchors)} quality anchors, got "
                f"{combined} {what}s and {len(self.quality_input_ids)} lists."
            )
        if len(set(levels)) != len(levels) or min(levels) != 0 or max(levels) != 1:
            raise GRMPError(f"Expected distinct quality_levels from 0 (worst) to 1 (best), got {levels}.")
        if len(self.semantic_anchors) != len(self.semantic_input_ids):
            raise GRMPError(
                f"Expected one list of ids for each of the {len(self.semantic_anchors)} semantic anchors, got "
                f"{len(self.semantic_input_ids)}."
            )
        if weights is not None and not (min(weights) >= 0 and abs(sum(weights) - 1) <= 1e-6):
            raise GRMPError(f"Expected non-negative view_weights that sum to 1, got {weights}.")
        text = self.clip_config.text_config
        for ids in [*self.quality_input_ids, *self.semantic_input_ids]:
            length = anchor_length(ids, text.eos_token_id)
            if max(ids) >= text.vocab_size or length > text.max_position_embeddings:
                raise GRMPError(
                    f"Expected anchors of at most {text.max_position_embeddings} tokens with ids below "
                    f"{text.vocab_size}, got {list(ids)}. Tokenise with this CLIP's own tokenizer."
                )

    @classmethod
    def from_clip(cls, clip_config: CLIPConfig, tokenizer: Any, **kwargs: Any) -> GRMPConfig:
        """Configuration around a CLIP, its anchors tokenised by its tokenizer.

        Args:
            clip_config: the CLIP's configuration.
            tokenizer: called with a list of texts, gives ``input_ids``.
            kwargs: fields of the configuration.

        Raises:
            GRMPError: the tokenizer does not know a word, or the word ``X`` is more than one token.
        """
        texts = {kind: list(kwargs.get(f"{kind}_anchors", default)) for kind, default in _DEFAULT_ANCHORS.items()}
        ids = {f"{kind}_input_ids": [list(row) for row in tokenizer(rows)["input_ids"]] for kind, rows in texts.items()}
        unknown = getattr(tokenizer, "unk_token_id", None)
        if any(unknown in row[1:-1] for rows in ids.values() for row in rows):
            raise GRMPError(
                "Expected a tokenizer that knows the words of the anchors, got unknown tokens. CLIPTokenizer comes up "
                "empty where its files are missing: put tokenizer.json, or vocab.json and merges.txt, beside it, or "
                "give quality_input_ids and semantic_input_ids as well."
            )
        marker = list(tokenizer([PLACEHOLDER])["input_ids"][0])
        if len(marker) != 3:
            raise GRMPError(
                f"Expected {PLACEHOLDER!r} to be one token between start and end, got ids {marker}. "
                "Pass quality_input_ids and placeholder_token_id to GRMPConfig by hand."
            )
        return cls(**{"clip_config": clip_config, **ids, "placeholder_token_id": marker[1], **kwargs})

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read a configuration; a plain CLIP's is nested into one of ours."""
        pretrained_model_name_or_path = model_place(pretrained_model_name_or_path)
        names = ("cache_dir", "revision", "token", "local_files_only", "subfolder")
        hub_kwargs: dict[str, Any] = {name: kwargs[name] for name in names if name in kwargs}
        own = {name: kwargs.pop(name) for name in _OWN if name in kwargs}
        values, rest = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        kind = values.get("model_type")
        if kind == cls.model_type or not values:
            return cls._with_own(values, own, pretrained_model_name_or_path, hub_kwargs), rest
        if kind != "clip":
            raise GRMPError(
                f"Expected a CLIP or a GRMP model at {str(pretrained_model_name_or_path)!r}, got model_type {kind!r}."
            )
        clip = CLIPConfig(**{k: v for k, v in values.items() if k != "model_type"})
        seen = _views(pretrained_model_name_or_path, hub_kwargs)
        if clip.text_config.vocab_size == _CLIP_VOCABULARY:
            config = cls(clip_config=clip, **seen)
        else:
            config = cls.from_clip(clip, read_tokenizer(pretrained_model_name_or_path, hub_kwargs), **seen)
        nested = cls._with_own(config.to_dict(), own, pretrained_model_name_or_path, hub_kwargs)
        nested["_commit_hash"] = values.get("_commit_hash")
        return nested, rest

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """A configuration from its dictionary, with fields that ``kwargs`` give instead.

        Raises:
            GRMPError: other texts of anchors without their ids, which would change nothing.
        """
        own = {name: kwargs.pop(name) for name in _OWN if name in kwargs}
        for kind in _DEFAULT_ANCHORS:
            texts = own.get(f"{kind}_anchors")
            if (
                texts is not None
                and f"{kind}_input_ids" not in own
                and list(texts) != config_dict.get(f"{kind}_anchors")
            ):
                raise GRMPError(
                    f"Expected {kind}_input_ids beside {kind}_anchors: scores come from the ids. Use "
                    "GRMPConfig.from_pretrained or GRMPForImageQualityAssessment.from_pretrained, which tokenise them."
                )
        return super().from_dict({**config_dict, **own}, **kwargs)

    @classmethod
    def _with_own(
        cls, values: dict[str, Any], own: dict[str, Any], name: Any, hub_kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """Values with the fields that somebody gives; texts are tokenised where their ids are not given."""
        untold = [kind for kind in _DEFAULT_ANCHORS if f"{kind}_anchors" in own and f"{kind}_input_ids" not in own]
        if values and untold:
            texts = {f"{kind}_anchors": own[f"{kind}_anchors"] for kind in untold}
            levels = {key: own[key] for key in ("quality_levels", "quality_axes") if key in own}
            clip = CLIPConfig(**{k: v for k, v in values["clip_config"].items() if k != "model_type"})
            read = cls.from_clip(clip, read_tokenizer(name, hub_kwargs), **texts, **levels)
            own = own | {f"{kind}_input_ids": getattr(read, f"{kind}_input_ids") for kind in untold}
            own["placeholder_token_id"] = read.placeholder_token_id
        return values | own


_OWN = (
    *("quality_anchors", "quality_levels", "quality_axes", "semantic_anchors"),
    *("quality_input_ids", "semantic_input_ids", "placeholder_token_id", "view_weights"),
)
_DEFAULT_ANCHORS = {"quality": QUALITY_ANCHORS, "semantic": SEMANTIC_ANCHORS}


def read_tokenizer(name: Any, hub_kwargs: dict[str, Any]) -> Any:
    """The tokenizer beside a CLIP; it comes up empty where its files are missing."""
    try:
        return CLIPTokenizer.from_pretrained(name, **hub_kwargs)
    except (OSError, ValueError, TypeError) as error:
        raise GRMPError(
            f"Expected a tokenizer beside the CLIP at {str(name)!r}, to tokenise anchors with: {error} "
            "Add tokenizer.json, or give quality_input_ids and semantic_input_ids as well."
        ) from error


def _views(name: Any, hub_kwargs: dict[str, Any]) -> dict[str, Any]:
    """What the preprocessing beside a model says of its views."""
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        values, _ = ImageProcessingMixin.get_image_processor_dict(name, **hub_kwargs)
    except OSError:
        return {}
    weights = values.get("view_weights")
    return {"view_weights": None if weights is None else list(weights), "side_size": values.get("side_size")}
