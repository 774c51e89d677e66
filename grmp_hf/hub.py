"""Scorers from anywhere: ``load`` a base with an adapter; ``save`` and ``push`` are at hand too."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import hf_hub_download
from peft import PeftConfig, PeftModel
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedConfig
from transformers.utils import IMAGE_PROCESSOR_NAME

from grmp_hf.adapter_files import (
    UNREADABLE,
    AdapterFiles,
    adapter_config,
    base_of,
    choose_adapter,
    folder_of_split,
    recorded_base,
    recorded_side,
)
from grmp_hf.data.scales import RatingScale
from grmp_hf.data.splits import Split
from grmp_hf.data.text import describe_stand_in
from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import check_whole, copy_base
from grmp_hf.modeling.baked import Baked, GRMPBakedConfig, GRMPBakedScorer
from grmp_hf.modeling.baked_experts import GRMPBakedExperts, GRMPBakedExpertsConfig
from grmp_hf.modeling.bases import base_fingerprint, check_base, side_fingerprint
from grmp_hf.modeling.brought_heads import keep_head
from grmp_hf.modeling.configuration_grmp import EMBEDDED, image_size, match_views, model_place
from grmp_hf.modeling.experts import Experts
from grmp_hf.modeling.gating import KMeansGate
from grmp_hf.modeling.image_processing_grmp import TILES, GRMPImageProcessor
from grmp_hf.modeling.known_heads import HAND_IN, rebuild
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
from grmp_hf.modeling.side import backbone_side
from grmp_hf.outputs import check_source
from grmp_hf.places import cached_only, check_place, spelling
from grmp_hf.pushing import push
from grmp_hf.record import WEIGHTS_FILE, Record, read_experts
from grmp_hf.saving import adapter_sha256, package_versions, recorded_name, save
from grmp_hf.scoring import Scorer

__all__ = [
    "EMBEDDED",
    "adapter_sha256",
    "attach",
    "gather",
    "load",
    "package_versions",
    "preprocessing_beside",
    "push",
    "recorded_name",
    "save",
]

_BAKED: dict[str, type[Baked]] = {
    GRMPBakedConfig.model_type: GRMPBakedScorer,
    GRMPBakedExpertsConfig.model_type: GRMPBakedExperts,
}
_ALONE = "Experts have heads of this package: leave it out, and score with it alone."
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def load(
    model: str | os.PathLike[str] | None = "default",
    *,
    adapter: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    adapter_revision: str | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    local_files_only: bool | None = None,
    torch_dtype: str | torch.dtype | None = None,
    head: nn.Module | None = None,
    side: str | None = None,
) -> Scorer:
    """Load a scorer.

    Args:
        model: folder or Hub id of a plain CLIP, a GRMP model, a baked scorer or an adapter (its base is the one
            recorded with it); "default" or None is the base inside the package or, with ``adapter``, the one
            recorded there.
        adapter: folder or Hub id of an adapter, or of several with a gate (:class:`~grmp_hf.modeling.experts.Experts`).
        revision: branch, tag or commit of ``model``.
        adapter_revision: likewise of ``adapter``.
        device: "cuda" where there is one, else "cpu", if None.
        dtype: "fp32" (if None), "bf16", "fp16" or a ``torch.dtype``. Only fp32 gives the same score to 1e-5 whatever
            the batch.
        local_files_only: never ask the network; if None the environment decides (``HF_HUB_OFFLINE``).
        torch_dtype: the older name of ``dtype``, which transformers takes too.
        side: folder or Hub id of a backbone of transformers' to put beside the base: what it says of details, adapters
            may learn from. None for the one that the base brings along, if any, or that the adapter was learnt with.
        head: where the adapter was learnt with a head of one's own, such a head; its weights are the adapter's.

    Raises:
        GRMPError: there is no such model or adapter, it cannot be reached, or the two do not belong together.

    >>> scorer = load()
    >>> scorer.identity["model"], str(scorer.unit)
    ('grmp_hf/tiny', '0 (worst) to 1 (best)')
    """
    name = "default" if model is None else os.fspath(model)
    wanted, offline = _as_dtype(torch_dtype if dtype is None else dtype), bool(local_files_only)
    check_place(name, "model")
    place = _as_device(device)
    for source in (adapter, None if name == "default" else name):
        check_source(source)
    at = adapter_revision or (revision if adapter is None else None)
    found = choose_adapter(name, adapter, at, offline)
    if found is not None and adapter is None:
        name, revision = "default", None
    parts = [] if found is None else [*found.experts.values()] or [found]
    configs = [adapter_config(part) for part in parts]
    if configs and name == "default":
        name, revision = recorded_base(parts[0], configs[0]), revision or configs[0].revision
    name = EMBEDDED if name == "default" else name  # never a folder here
    needed = not configs or any(Record.of(config).preprocessing is None for config in configs)
    base, processor = _load_base(name, revision, wanted, offline, needed)
    wanted_side = side or next(filter(None, map(recorded_side, parts, configs)), None)
    if wanted_side is not None:
        processor = _put_side(base, processor, wanted_side, offline)
    fingerprint = base_fingerprint(base)
    commit = _commit(name, revision)
    network, scale = base.to(place), None
    if baked := isinstance(base, Baked):
        if found is not None:
            raise GRMPError(
                f"Expected a base for adapter {found.name!r}, got the baked scorer {name!r}, which has its own. Leave "
                f"the adapter out, or name its base, {base_of(parts[0], configs[0])!r}."
            )
        scale = _scale(Record.of(base.config))
    elif found is not None:
        network = _gathered(base, found) if found.experts else attach(base, found, configs[0], head)
        record = Record.of(getattr(network, "active_peft_config", network.config))
        scale = _scale(record)
        if record.preprocessing is not None:
            processor = GRMPImageProcessor(**record.preprocessing)
    match_views(base.config, processor)
    base.preprocessing = processor.settings()
    identity = {
        "model": Path(recorded).name if os.path.isabs(recorded := recorded_name(name)) else recorded,
        "revision": commit or f"weights-{fingerprint}",
        "base_fingerprint": fingerprint,
        "side_fingerprint": side_fingerprint(base),
        "adapter": found.name if found else None,
        "adapter_revision": found.revision if found else None,
        "adapter_sha256": adapter_sha256(found.folder) if found else None,
        "preprocessing": processor.settings(),
        "dtype": str(wanted).removeprefix("torch."),
        "versions": package_versions(),
    }
    beside = found.folder if found else folder_of_split(name, commit if baked else None, offline)
    taught = Split.load_own(beside)
    return Scorer(network.eval(), processor, scale, identity, taught)


def _as_dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    if isinstance(dtype, torch.dtype) and dtype in _DTYPES.values():
        return dtype
    word = str(dtype or "fp32").removeprefix("torch.")
    found = _DTYPES.get(word) or next((kind for kind in _DTYPES.values() if str(kind) == f"torch.{word}"), None)
    if found is None:
        raise GRMPError(f"Expected a dtype out of {', '.join(_DTYPES)}, got {str(dtype)!r}.")
    return found


def _as_device(device: str | torch.device | None) -> torch.device:
    """A device of this machine, tried before anything is loaded."""
    try:
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise GRMPError(
            f"Expected a device of this machine, such as cpu, got {str(device)!r} ({_first_line(error)})."
        ) from error
    return place


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _load_base(
    name: str, revision: str | None, dtype: torch.dtype, offline: bool, needed: bool
) -> tuple[GRMPForImageQualityAssessment | Baked, GRMPImageProcessor]:
    inside = name == EMBEDDED
    offline = offline if inside else cached_only(name, revision, offline=offline)
    options = {"revision": None if inside else revision, "local_files_only": offline}
    with _clear_errors(name):
        kind = PreTrainedConfig.get_config_dict(model_place(name), **options)[0].get("model_type")
        if kind in _BAKED:
            baked = _BAKED[kind].from_pretrained(name, dtype=dtype, **options)
            size = {"size": image_size(baked.config)}
            return baked, GRMPImageProcessor(**(baked.config.record.preprocessing or size))
        base = GRMPForImageQualityAssessment.from_pretrained(name, dtype=dtype, **options)
    return base, preprocessing_beside(model_place(name), base.config, needed=needed, **options)


def preprocessing_beside(place: str, config: Any, *, needed: bool = True, **options: Any) -> GRMPImageProcessor:
    """The preprocessing beside a model; CLIP's own at the model's size beside weights that never had any.

    Args:
        place: folder or Hub id of the model; empty for one that was made in memory.
        config: of the model.
        needed: whether pictures are to be seen with it.
        options: as ``from_pretrained`` takes them.

    Raises:
        GRMPError: it is damaged, or was left behind where the model was saved.
    """
    try:
        return cast(GRMPImageProcessor, GRMPImageProcessor.from_pretrained(place, **options))
    except OSError as error:
        damaged = os.path.isfile(os.path.join(place, IMAGE_PROCESSOR_NAME))
        if place and needed and (damaged or config.view_weights is not None or config.side_size is not None):
            raise GRMPError(
                f"Expected {IMAGE_PROCESSOR_NAME} beside the model at {place!r}, whose views are not CLIP's own, got "
                f"{_first_line(error) if damaged else 'none'}. Copy it again, or save it anew: scorer.save(folder)."
            ) from error
        size = image_size(config)
        return GRMPImageProcessor(size, shortest_edge_limit=max(size, 768))


@contextmanager
def _clear_errors(name: str) -> Iterator[None]:
    try:
        yield
    except GRMPError:
        raise
    except UNREADABLE as error:
        if os.path.isdir(name):
            raise GRMPError(
                f"Expected a complete CLIP or GRMP model in the folder {name!r}, got: {_first_line(error)}. Copy the "
                "folder again."
            ) from error
        raise GRMPError(
            f"{name!r} is no folder here and could not be loaded from the Hub or its cache ({_first_line(error)}). "
            f"{spelling(name)} Without a network, name a folder of it (--model, or model=)."
        ) from error


def _commit(name: str, revision: str | None) -> str | None:
    """The commit of a model that was loaded from the Hub a moment ago; None for a folder."""
    if name == EMBEDDED or os.path.isdir(name):
        return None
    return Path(hf_hub_download(name, "config.json", revision=revision, local_files_only=True)).parent.name


def attach(
    base: Any, adapter: AdapterFiles, config: PeftConfig, head: nn.Module | None = None, remedy: str = HAND_IN
) -> PeftModel:
    """Put an adapter around its base.

    Args:
        base: model without an adapter; it gets the head of the record.
        adapter: its files.
        config: of :func:`~grmp_hf.adapter_files.adapter_config`.
        head: see :func:`load`.
        remedy: see :func:`~grmp_hf.modeling.known_heads.rebuild`.

    Raises:
        GRMPError: the two do not belong together, or a file is damaged.
    """
    kept, own = Record.of(config).head, base.head
    try:
        if kept is not None and "name" in kept:
            base.head = rebuild(kept, head, remedy)
        elif head is not None:
            base.head = head
        check_base(config, base)
        model = PeftModel.from_pretrained(base, str(adapter.folder), config=config)
        return check_whole(keep_head(model, own), adapter.folder / WEIGHTS_FILE)
    except GRMPError as error:
        raise GRMPError(f"Adapter {adapter.name!r}: {error}") from error
    except KeyError as error:  # PEFT's, of a trained copy of a module
        lacks = f"{WEIGHTS_FILE} lacks the tensor {error}"
        raise GRMPError(f"Adapter {adapter.name!r} is damaged: {lacks}. Copy it again.") from error
    except (AttributeError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
        with open(adapter.folder / WEIGHTS_FILE, "rb") as file:
            found = describe_stand_in(file.read(64)) or _first_line(error)
        raise GRMPError(
            f"Adapter {adapter.name!r} does not fit the base, or is damaged: {found}. Copy it again, or "
            "name the base that it was made for (--model, or model=)."
        ) from error


def gather(base: Any, parts: Mapping[str, AdapterFiles], gate: KMeansGate, common: Record) -> Experts:
    """Experts around copies of a base that share its weights.

    Args:
        base: model without an adapter; its view weights become those of the experts.
        parts: name -> files of an adapter.
        gate: of the same names.
        common: scale and origin of all together.

    Raises:
        GRMPError: an adapter of another base, or adapters that see pictures differently.
    """
    configs = {name: adapter_config(part) for name, part in parts.items()}
    experts = {
        name: attach(copy_base(base), parts[name], config, remedy=_ALONE).eval() for name, config in configs.items()
    }
    records = [Record.of(config) for config in configs.values()]
    if any(record.preprocessing != records[0].preprocessing for record in records):
        raise GRMPError(
            f"Expected experts that see pictures alike, got different preprocessing in {', '.join(parts)}. Adapt them "
            "again on one base with the same views."
        )
    if records[0].preprocessing is not None:
        for model in (base, *(expert.get_base_model() for expert in experts.values())):
            match_views(model.config, GRMPImageProcessor(**records[0].preprocessing))
    kept = dataclasses.replace(records[0], head=None, scale=common.scale, provenance=common.provenance)
    return Experts(base, experts, gate, kept)


def _gathered(base: Any, found: AdapterFiles) -> Experts:
    """The experts in a folder."""
    kept = read_experts(found.folder) or {}
    common = Record(scale=kept.get("scale"), provenance=kept.get("provenance"))
    return gather(base, found.experts, KMeansGate.load(found.folder, tuple(found.experts)), common)


def _put_side(base: Any, processor: GRMPImageProcessor, source: str, offline: bool) -> GRMPImageProcessor:
    """Put a backbone beside a base; the preprocessing with the picture for it."""
    if isinstance(base, Baked):
        raise GRMPError("Expected a base to put a side network beside, got a baked scorer. Name its base.")
    check_place(source, "side")
    offline = cached_only(source, None, offline=offline)
    with _clear_errors(source):
        base.put_beside(*backbone_side(source, local_files_only=offline))
    views = [*(view for view in processor.views if view != TILES), TILES]
    return GRMPImageProcessor(**{**processor.settings(), "views": views})


def _scale(record: Record) -> RatingScale | None:
    return None if record.scale is None else RatingScale.from_dict(record.scale)
