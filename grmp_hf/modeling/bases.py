"""The base that an adapter belongs to: known by its anchors and by a fingerprint of its weights."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig
from torch import Tensor, nn
from transformers.utils import cached_file

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import adapter_weights
from grmp_hf.modeling.configuration_grmp import EMBEDDED, match_views, model_place
from grmp_hf.modeling.image_processing_grmp import GRMPImageProcessor
from grmp_hf.modeling.known_heads import describe
from grmp_hf.modeling.side import SIDE_SETTINGS
from grmp_hf.record import CONFIG_FILE, RECORD, Record, read_settings

__all__ = [
    "RecordedConfig",
    "base_beside",
    "base_fingerprint",
    "check_base",
    "check_loaded",
    "check_recorded",
    "find_record",
    "meet_base",
    "side_fingerprint",
    "side_of",
]

_BESIDE = ("head.", "side.")  # what a base may have that is no part of the CLIP


def check_base(config: Any, model: Any) -> Record:
    """The record of the PEFT config of an adapter, which from now on holds what its base says of itself.

    Raises:
        GRMPError: as :func:`check_recorded`.
    """
    found = check_recorded(Record.of(config), model)
    found.attach(config)
    return found


def meet_base(config: Any, model: Any) -> Record:
    """:func:`check_base`, for methods whose config is given to PEFT: the model then takes the views of the record.

    Raises:
        GRMPError: as :func:`check_recorded`, or views that the base does not take.
    """
    found = check_base(config, model)
    if found.preprocessing is not None:
        match_views(model.config, GRMPImageProcessor(**found.preprocessing))
    return found


def check_recorded(record: Record, model: Any) -> Record:
    """A record with what its base says of itself; weights that an adapter is merged into say nothing.

    Raises:
        GRMPError: the record says other anchors, or weights of other values or sizes.
    """
    anchors = base_anchors(model)
    unknown = any(w.is_meta for w in model.parameters()) or any(getattr(m, "merged", False) for m in model.modules())
    fingerprint = record.fingerprint if unknown else base_fingerprint(model)
    if record.head is not None:
        _check_head(record.head, model)
        _refuse_other("anchors", record.head["anchors"], anchors, record.base)
    if record.fingerprint is not None:
        _refuse_other("base_fingerprint", record.fingerprint, fingerprint, record.base)
    if record.side is not None and not unknown:
        found = side_of(model)
        _refuse_other("side network", record.side["fingerprint"], found and found["fingerprint"], record.base)
    return dataclasses.replace(record, head={"anchors": anchors, **describe(model.head)}, fingerprint=fingerprint)


def find_record(place: str | os.PathLike[str], **options: Any) -> Record:
    """The record of an adapter in a folder or on the Hub.

    Args:
        place: folder or Hub id.
        options: where the Hub's files are, as transformers' and PEFT's own loaders take it.

    Raises:
        GRMPError: a file is damaged.
    """
    known = ("subfolder", "revision", "cache_dir", "token", "local_files_only", "force_download")
    wanted = {name: options[name] for name in known if name in options}
    cached_file(place, RECORD, **wanted, _raise_exceptions_for_missing_entries=False)
    return Record.load(Path(cached_file(place, CONFIG_FILE, **wanted)).parent)


def base_beside(name: Any) -> str | None:
    """The base of an adapter's folder where more belongs to it than transformers would load; None of anything else.

    Raises:
        GRMPError: damaged settings.
    """
    folder = Path(model_place(name))
    if not (folder / CONFIG_FILE).is_file():
        return None
    base = read_settings(folder, folder.name).get("base_model_name_or_path")
    return base if base == EMBEDDED or (base and (Path(base) / SIDE_SETTINGS).is_file()) else None


@dataclass
class RecordedConfig(PeftConfig):
    """Settings of a method of ours: read and written with the record beside them."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str, subfolder: str | None = None, **kwargs: Any) -> Any:
        """As PEFT's own, with the record beside it."""
        found = super().from_pretrained(pretrained_model_name_or_path, subfolder, **kwargs)
        find_record(pretrained_model_name_or_path, subfolder=subfolder, **kwargs).attach(found)
        return found

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None:
        """As PEFT's own, with the record beside it."""
        super().save_pretrained(save_directory, **kwargs)
        Record.of(self).save(save_directory)


def base_anchors(model: Any) -> dict[str, Any]:
    """Anchors, levels and token ids of a base, as an adapter records them."""
    anchors = {
        name: [list(row) if isinstance(row, list | tuple) else row for row in getattr(model.config, name)]
        for name in ("quality_anchors", "quality_levels", "quality_input_ids")
    }
    if model.config.quality_axes is not None:
        anchors["quality_axes"] = [[name, list(values)] for name, values in model.config.quality_axes]
    return anchors


def base_fingerprint(model: nn.Module) -> str:
    """Short hash of a base's weights: of the first numbers of each tensor, in bfloat16.

    Of weights that were rounded while they were loaded, it is that of the weights before. The head, an adapter's own
    tensors and the copies of ``modules_to_save`` are left out.
    """
    found = _fingerprint(_base_weights(model))
    known: dict[str, str] = getattr(model, "_before_rounding", {})
    return known.get(found, found)


def side_of(model: Any) -> dict[str, Any] | None:
    """The side network of a base, as a record holds it; None where it has none."""
    weights = side_fingerprint(model)
    return None if weights is None else {"settings": dict(model.config.side), "fingerprint": weights}


def side_fingerprint(model: Any) -> str | None:
    """Short hash of the side network's weights; None of a model without one."""
    side = getattr(model, "side", None)
    return None if side is None else _fingerprint(side.named_parameters())


def _fingerprint(weights: Iterable[tuple[str, Tensor]]) -> str:
    digest = hashlib.sha256()
    for name, weight in sorted(weights):
        head = weight.detach().flatten()[:64].to("cpu", torch.bfloat16)
        digest.update(f"{name}{tuple(weight.shape)}".encode() + head.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]


def _base_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    added = adapter_weights(model)
    for name, weight in model.named_parameters():
        plain = name.removeprefix("base_model.model.")
        if id(weight) not in added and ".modules_to_save." not in plain and not plain.startswith(_BESIDE):
            yield plain.replace(".base_layer", "").replace(".original_module", ""), weight


def _check_head(recorded: Mapping[str, Any], model: Any) -> None:
    """Raise where an adapter brings a head that is not the model's: PEFT alone cannot make it."""
    wanted, found = recorded.get("name"), describe(model.head)["name"]
    if wanted not in (None, found):
        raise GRMPError(
            f"Expected a model for an adapter that brings the head {wanted!r}, got one with {found!r}. Load it with "
            "grmp_hf.load(adapter=...), with head=... if it is one of your own, or set model.head before."
        )


def _refuse_other(name: str, recorded: Any, found: Any, base: str | None) -> None:
    if recorded != found:
        raise GRMPError(
            f"Expected the base that this adapter was made for ({base or 'the base it was trained on'}), got one with "
            f"other {name}: {recorded} recorded, {found} found. Load it with that base, and without another --side "
            "(side=)."
        )


def check_loaded(info: dict[str, Any], what: str) -> None:
    """Raise if transformers reports weights that are missing, left over or of other sizes."""
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
    wrong = {kind: sorted(map(_describe_key, info[kind])) for kind in kinds if info.get(kind)}
    if wrong:
        raise GRMPError(
            f"Expected exactly the weights of {what}, got "
            + "; ".join(f"{kind.replace('_', ' ')}: {', '.join(names)}" for kind, names in wrong.items())
            + ". Check that the folder is complete and that its sizes are those of its configuration."
        )


def _describe_key(key: Any) -> str:
    """A weight's name, or its name, size in the file and size in the model."""
    return key if isinstance(key, str) else f"{key[0]} {tuple(key[1])} instead of {tuple(key[2])}"
