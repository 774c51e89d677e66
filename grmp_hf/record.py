"""``Record``: what scoring with an adapter needs beside its weights, whatever its method."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grmp_hf.errors import GRMPError

__all__ = [
    "ADAPTER_FILES",
    "CONFIG_FILE",
    "EXPERTS",
    "EXPERTS_FILE",
    "EXPERT_NAME",
    "RECORD",
    "SPLIT_FILE",
    "WEIGHTS_FILE",
    "Record",
    "experts_text",
    "origin_of",
    "read_experts",
    "read_settings",
]

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
"""Of an adapter, as PEFT calls them."""

SPLIT_FILE = "split.json"
"""Which pictures have taught an adapter or a baked scorer, and which test it."""

RECORD = "record.json"

EXPERTS_FILE, EXPERTS = "experts.json", "experts"
"""Of several adapters with a gate: their names in order, scale and origin; and the folder of their folders."""

EXPERT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What an expert may be called, since its folder is called so."""

_EXPERTS = "grmp_hf.experts/1"

ADAPTER_FILES = (CONFIG_FILE, WEIGHTS_FILE, RECORD, "README.md")

_NAMED = {"base": "base_model_name_or_path", "revision": "revision"}  # as PEFT calls them
_RECORDED = ("GRMP", "LODA")  # methods of ours, never written without a record
_EARLIER = ("anchors", "base_fingerprint", "preprocessing", "rating_scale", "provenance")

_TYPES: dict[str, type] = {  # what holds others before them
    **dict.fromkeys(("base", "revision", "fingerprint"), str),
    **dict.fromkeys(("head", "preprocessing", "scale", "provenance", "side"), dict),
    **{"head.anchors": dict, "head.name": str, "head.settings": dict, "provenance.data": str},
    **{"provenance.baked_from": dict, "provenance.baked_from.model": str, "provenance.baked_from.adapter": str},
    **{"scale.low": float, "scale.high": float, "scale.higher_is_better": bool, "scale.unit": str},
    **{"side.settings": dict, "side.settings.source": str, "side.fingerprint": str},
}
_NEEDED = frozenset({"head.anchors", "side.settings", "side.fingerprint", *(n for n in _TYPES if n[:6] == "scale.")})
_WORDS = {str: "text", dict: "a mapping", float: "a number", bool: "true or false"}
_SETTINGS = {"base_model_name_or_path": str, "revision": str, "auto_mapping": dict}


@dataclass(frozen=True)
class Record:
    """Of an adapter, as JSON takes it; None where something is not known.

    Attributes:
        base: folder or Hub id of the base.
        revision: its commit, if it came from the Hub.
        fingerprint: of the base's weights.
        head: what the quality is read from: ``anchors`` of the base with their levels and token ids, and ``name`` and
            ``settings`` of the head (:func:`~grmp_hf.modeling.known_heads.describe`).
        preprocessing: settings of the image processor.
        scale: the user's scale (low, high, higher_is_better, unit).
        provenance: what has taught it, and how.
        side: of the side network that it reads, ``settings`` and ``fingerprint``.
    """

    base: str | None = None
    revision: str | None = None
    fingerprint: str | None = None
    head: dict[str, Any] | None = None
    preprocessing: dict[str, Any] | None = None
    scale: dict[str, Any] | None = None
    provenance: dict[str, Any] | None = None
    side: dict[str, Any] | None = None

    @classmethod
    def of(cls, config: Any) -> Record:
        """What the PEFT config of an adapter has been given, or the configuration of a baked scorer holds."""
        kept = getattr(config, "record", None) or cls()
        return dataclasses.replace(kept, **{name: getattr(config, field, None) for name, field in _NAMED.items()})

    def attach(self, config: Any) -> None:
        """Let the PEFT config of an adapter hold it as long as the model lives."""
        config.base_model_name_or_path, config.revision, config.record = self.base, self.revision, self

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Record:
        """Of the adapter in a folder, where earlier versions left it in the settings. The base is what PEFT says it is.

        Raises:
            GRMPError: a file is damaged or holds fields of other types, or an adapter was saved with a record that is
                gone; PEFT alone saves without.
        """
        settings, own = _read(Path(folder) / CONFIG_FILE), _read(Path(folder) / RECORD)
        _check_types(settings, _SETTINGS, str(Path(folder) / CONFIG_FILE))
        if not own and _belongs(settings):
            raise GRMPError(
                f"Expected {RECORD} beside {CONFIG_FILE} in {str(folder)!r}, with scale and preprocessing of this "
                "adapter, got none. Copy the whole folder again."
            )
        found = vars(cls.earlier(*map(settings.get, _EARLIER)))
        known = {name: own[name] for name in found if name in own}
        named = {name: settings[field] for name, field in _NAMED.items() if settings.get(field)}
        return cls(**{**found, **known, **named}).checked(str(folder))

    def checked(self, where: str) -> Record:
        """The same; ``where`` its fields come from, for the message.

        Raises:
            GRMPError: a field is of another type than this package writes.
        """
        _check_types(vars(self), _TYPES, where)
        return self

    @classmethod
    def earlier(cls, anchors: Any, fingerprint: Any, preprocessing: Any, scale: Any, provenance: Any) -> Record:
        """What earlier versions kept in the settings of prompts."""
        head = None if anchors is None else {"anchors": anchors}
        return cls(None, None, fingerprint, head, preprocessing, scale, provenance)

    def save(self, folder: str | Path, *, named: bool = False) -> None:
        """Write ``record.json`` into the folder of an adapter.

        Args:
            folder: of the adapter.
            named: let its settings say that a record belongs to it; no other process may write there.
        """
        (Path(folder) / RECORD).write_text(self.text(), encoding="utf-8")
        settings = _read(Path(folder) / CONFIG_FILE) if named else {}
        if settings.get("auto_mapping"):  # where PEFT keeps what is not its own, and asks no questions
            settings["auto_mapping"]["record"] = RECORD
            text = json.dumps(settings, indent=2, sort_keys=True)  # as PEFT writes it
            (Path(folder) / CONFIG_FILE).write_text(text, encoding="utf-8")

    def text(self) -> str:
        """The content of ``record.json``."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True) + "\n"


def origin_of(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What an adapter, or a model that holds one, says of what has taught it; empty where it says nothing."""
    try:
        gathered = read_experts(folder)
        if gathered is not None:
            return dict(gathered.get("provenance") or {})
        return dict(Record.load(folder).provenance or _read(Path(folder) / "config.json").get("provenance") or {})
    except (GRMPError, TypeError, ValueError):
        return {}


def read_experts(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What several adapters with a gate have in common: ``experts``, ``scale``, ``provenance``.

    Returns:
        None where a folder holds no experts.

    Raises:
        GRMPError: a file that is damaged or holds fields of other types, or names experts that cannot be folders.
    """
    found = _read(Path(folder) / EXPERTS_FILE)
    if not found:
        return None
    names = found.get("experts")
    whole = isinstance(names, list) and all(isinstance(n, str) and EXPERT_NAME.fullmatch(n) for n in names)
    Record(scale=found.get("scale"), provenance=found.get("provenance")).checked(str(Path(folder) / EXPERTS_FILE))
    if found.get("schema") != _EXPERTS or not whole:
        raise GRMPError(
            f"Expected names of experts in {str(Path(folder) / EXPERTS_FILE)!r}, got {names!r}. Copy it again."
        )
    return found


def read_settings(folder: str | os.PathLike[str], name: str) -> dict[str, Any]:
    """The settings of the adapter of that name in a folder, as PEFT has written them.

    Raises:
        GRMPError: there are none, or damaged ones.
    """
    try:
        found = _mapping(Path(folder) / CONFIG_FILE)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise GRMPError(
            f"Expected settings in {CONFIG_FILE} of adapter {name!r}, got {error}. Copy it again."
        ) from error
    _check_types(found, _SETTINGS, str(Path(folder) / CONFIG_FILE))
    return found


def experts_text(names: Sequence[str], scale: Any, provenance: Any) -> str:
    """The content of ``experts.json``."""
    content = {"schema": _EXPERTS, "experts": list(names), "scale": scale, "provenance": provenance}
    return json.dumps(content, indent=2) + "\n"


def _belongs(settings: dict[str, Any]) -> bool:
    """Whether a record belongs to the settings of an adapter, and does not lie in them as earlier versions had it."""
    ours = settings.get("peft_type") in _RECORDED or RECORD in (settings.get("auto_mapping") or {}).values()
    return ours and all(settings.get(name) is None for name in _EARLIER)


def _read(path: Path) -> dict[str, Any]:
    try:
        return _mapping(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise GRMPError(f"Expected what an adapter records in {str(path)!r}, got {error}. Copy it again.") from error


def _mapping(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise TypeError(f"a {type(found).__name__} instead of a mapping")
    return found


def _check_types(fields: Mapping[str, Any], types: Mapping[str, type], where: str) -> None:
    """Raise for a field, or one inside of others, that is there and of another type, or is missing where it is needed.

    Args:
        fields: as JSON gives them; None where something is not known.
        types: name -> type; ``outer.inner`` after ``outer``.
        where: for the message.
    """
    for path, kind in types.items():
        holder, *rest = path.split(".")
        value = fields.get(holder)
        for name in rest:
            if value is None:
                break
            value = value.get(name)
        else:
            if not isinstance(value, int | float if kind is float else kind) and (value is not None or path in _NEEDED):
                raise GRMPError(
                    f"Expected {path} in {where!r} to be {_WORDS[kind]}, got {reprlib.repr(value)}. Copy it again."
                )
