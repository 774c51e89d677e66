"""``Record``: what scoring with an adapter needs beside its weights, whatever its method.

Adapters of the prompt method hold it in their own settings, those of PEFT's own methods beside them in ``record.json``.
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grmp_hf.errors import GRMPError

__all__ = ["RECORD", "SPLIT_FILE", "WEIGHTS_FILE", "Record", "in_settings", "origin_of"]

WEIGHTS_FILE = "adapter_model.safetensors"
"""Of an adapter."""

SPLIT_FILE = "split.json"
"""Which pictures have taught an adapter or a baked scorer, and which test it."""

RECORD = "record.json"

_CONFIG = "adapter_config.json"
# How the settings of the prompt method call the same.
_IN_SETTINGS = {
    "base": "base_model_name_or_path",
    "revision": "revision",
    "fingerprint": "base_fingerprint",
    "head": "anchors",
    "preprocessing": "preprocessing",
    "scale": "rating_scale",
    "provenance": "provenance",
}


@dataclass(frozen=True)
class Record:
    """Of an adapter, as JSON takes it; None where something is not known.

    Attributes:
        base: folder or Hub id of the base.
        revision: its commit, if it came from the Hub.
        fingerprint: of the base's weights.
        head: what the quality is read from: ``anchors`` of the base with their levels and token ids, and ``name`` and
            ``settings`` of the head (:func:`~grmp_hf.modeling.heads.describe`).
        preprocessing: settings of the image processor.
        scale: the user's scale (low, high, higher_is_better, unit).
        provenance: what has taught it, and how.
    """

    base: str | None = None
    revision: str | None = None
    fingerprint: str | None = None
    head: dict[str, Any] | None = None
    preprocessing: dict[str, Any] | None = None
    scale: dict[str, Any] | None = None
    provenance: dict[str, Any] | None = None

    @classmethod
    def of(cls, config: Any) -> Record:
        """What the PEFT config of an adapter holds, or has been given by :meth:`attach`."""
        kept = getattr(config, "record", None)
        if isinstance(kept, cls):
            return dataclasses.replace(kept, base=config.base_model_name_or_path, revision=config.revision)
        return cls(**{name: getattr(config, field, None) for name, field in _IN_SETTINGS.items()})

    def attach(self, config: Any) -> None:
        """Let the PEFT config of an adapter hold it as long as the model lives."""
        config.base_model_name_or_path, config.revision = self.base, self.revision
        if in_settings(config):
            for name, field in _IN_SETTINGS.items():
                setattr(config, field, getattr(self, name))
        else:
            config.record = self

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Record:
        """Of the adapter in a folder: of its ``record.json``, else of its settings. The base is what PEFT says it is.

        Raises:
            GRMPError: a file is damaged.
        """
        settings, own = _read(Path(folder) / _CONFIG), _read(Path(folder) / RECORD)
        said = {name: settings.get(field) for name, field in _IN_SETTINGS.items()}
        known = {name: own[name] for name in said if name in own}
        return cls(**{**said, **known, **{name: said[name] for name in ("base", "revision") if said[name]}})

    def save(self, folder: str | Path) -> None:
        """Write ``record.json`` into the folder of an adapter."""
        (Path(folder) / RECORD).write_text(self.text(), encoding="utf-8")

    def text(self) -> str:
        """The content of ``record.json``."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True) + "\n"


def in_settings(config: Any) -> bool:
    """Whether the PEFT config of an adapter, or the configuration of a model, holds the record itself."""
    return hasattr(config, "rating_scale")


def origin_of(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What an adapter, or a model that holds one, says of what has taught it; empty where it says nothing."""
    try:
        return dict(Record.load(folder).provenance or _read(Path(folder) / "config.json").get("provenance") or {})
    except (GRMPError, TypeError, ValueError):
        return {}


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        raise GRMPError(f"Expected what an adapter records in {str(path)!r}, got {error}. Copy it again.") from error
