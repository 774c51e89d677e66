"""Where an adapter lies, or several with a gate: folders on this machine, or files of the Hub."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from peft import PeftConfig
from safetensors import SafetensorError

from grmp_hf.embedded import EMBEDDED
from grmp_hf.errors import GRMPError
from grmp_hf.modeling import peft_injection, peft_prompts  # noqa: F401 (makes PEFT know them, imported first or not)
from grmp_hf.modeling.configuration_grmp import model_place
from grmp_hf.modeling.gating import GATE_FILE
from grmp_hf.places import cached_only, check_place, hub_errors, spelling
from grmp_hf.record import (
    CONFIG_FILE,
    EXPERTS,
    EXPERTS_FILE,
    RECORD,
    SPLIT_FILE,
    WEIGHTS_FILE,
    Record,
    read_experts,
    read_settings,
)

__all__ = [
    "HUB_ERRORS",
    "UNREADABLE",
    "AdapterFiles",
    "adapter_config",
    "base_of",
    "choose_adapter",
    "folder_of_split",
    "recorded_base",
    "recorded_side",
]

_METHODS = ("GRMP", "LN_TUNING", "LODA", "LORA")
HUB_ERRORS: tuple[type[Exception], ...] = (*hub_errors(), SafetensorError)
"""What the Hub's client and the libraries raise for files that are not there or damaged."""
UNREADABLE: tuple[type[Exception], ...] = (*HUB_ERRORS, AttributeError, LookupError, TypeError)
"""The same, and what comes of settings whose JSON is of another form."""


class AdapterFiles(NamedTuple):
    """An adapter on this machine, or several with a gate.

    Attributes:
        folder: where it lies.
        name: how to call it.
        revision: its commit if it came from the Hub.
    """

    folder: Path
    name: str
    revision: str | None

    @property
    def experts(self) -> dict[str, AdapterFiles]:
        """Name -> adapter of each expert, in their order; empty for an adapter alone."""
        names = (read_experts(self.folder) or {}).get("experts", ())
        return {n: AdapterFiles(self.folder / EXPERTS / n, f"{self.name}, {n}", self.revision) for n in names}


def choose_adapter(
    model: str, adapter: str | os.PathLike[str] | None, revision: str | None, offline: bool
) -> AdapterFiles | None:
    """The adapter that was asked for, or the one that a model's name stands for; None for a base alone.

    Raises:
        GRMPError: there is none, or it cannot be reached.
    """
    if adapter is None:
        return None if model in ("default", EMBEDDED) else _find_adapter(model, revision, offline)
    name = os.fspath(adapter)
    check_place(name, "adapter")
    found = _find_adapter(name, revision, offline)
    if found is None:
        raise GRMPError(
            f"Expected an adapter ({CONFIG_FILE}, {WEIGHTS_FILE}) at {name!r}, found none or could not reach it. "
            f"{spelling(name)} Without a network it has to be a folder or in the cache."
        )
    return found


def _find_adapter(name: str, revision: str | None, offline: bool) -> AdapterFiles | None:
    """The adapter of that name, or None where there is none or it cannot be reached."""
    if os.path.isdir(name):
        folder = Path(name)
        if read_experts(folder) is not None:
            return AdapterFiles(folder, folder.resolve().name, None)
        if not (folder / CONFIG_FILE).is_file():
            return None
        if not (folder / WEIGHTS_FILE).is_file():
            raise GRMPError(
                f"Expected {WEIGHTS_FILE} beside {CONFIG_FILE} in {name!r}, found none. Save it again as safetensors."
            )
        return AdapterFiles(folder, folder.resolve().name, None)
    try:
        offline = cached_only(name, revision, offline=offline)
        try:
            path = Path(hf_hub_download(name, CONFIG_FILE, revision=revision, local_files_only=offline))
            commit = path.parent.name
            hf_hub_download(name, WEIGHTS_FILE, revision=commit, local_files_only=offline)
        except EntryNotFoundError:
            path = Path(hf_hub_download(name, EXPERTS_FILE, revision=revision, local_files_only=offline))
            commit = path.parent.name
            _fetch_experts(name, path.parent, offline)
        with suppress(EntryNotFoundError):  # earlier versions kept the same in the settings
            hf_hub_download(name, RECORD, revision=commit, local_files_only=offline)
    except HUB_ERRORS:
        return None
    with suppress(*HUB_ERRORS):  # not every adapter has one
        hf_hub_download(name, SPLIT_FILE, revision=commit, local_files_only=offline)
    return AdapterFiles(path.parent, name, commit)


def _fetch_experts(name: str, folder: Path, offline: bool) -> None:
    """All files of the experts that a file in the cache names."""
    experts = (read_experts(folder) or {}).get("experts", ())
    files = [f"{EXPERTS}/{expert}/{file}" for expert in experts for file in (CONFIG_FILE, WEIGHTS_FILE, RECORD)]
    for file in (GATE_FILE, *files):
        hf_hub_download(name, file, revision=folder.name, local_files_only=offline)


def adapter_config(adapter: AdapterFiles) -> PeftConfig:
    """The settings of an adapter alone, holding its record.

    Raises:
        GRMPError: damaged ones, or those of another method.
    """
    kind = read_settings(adapter.folder, adapter.name).get("peft_type")
    if kind not in _METHODS:
        raise GRMPError(
            f"Expected an adapter of a method out of {', '.join(_METHODS)}, got {kind!r} in {adapter.name!r}. Load it "
            "with peft itself."
        )
    record = Record.load(adapter.folder)
    try:
        config: PeftConfig = PeftConfig.from_pretrained(str(adapter.folder))
    except GRMPError:
        raise
    except (ValueError, TypeError, AttributeError) as error:
        raise GRMPError(
            f"Expected settings in {CONFIG_FILE} of adapter {adapter.name!r}, got {error}. Copy it again."
        ) from error
    record.attach(config)
    return config


def folder_of_split(name: str, commit: str | None, offline: bool) -> Path:
    """The folder of a baked scorer, with the split beside it where there is one."""
    if commit is None:
        return Path(model_place(name))
    with suppress(*HUB_ERRORS):
        offline = cached_only(name, commit, offline=offline)
        return Path(hf_hub_download(name, SPLIT_FILE, revision=commit, local_files_only=offline)).parent
    return Path(name)


def base_of(adapter: AdapterFiles, config: PeftConfig) -> str:
    """The base that an adapter records, as it can be loaded from here."""
    recorded = config.base_model_name_or_path or EMBEDDED
    inside = adapter.folder / recorded
    return str(inside) if recorded != EMBEDDED and inside.is_dir() else str(recorded)


def recorded_base(adapter: AdapterFiles, config: PeftConfig) -> str:
    """:func:`base_of`, where it is a place that can be asked for.

    Raises:
        GRMPError: it is none, such as a folder of another machine.
    """
    recorded = base_of(adapter, config)
    _check_recorded(
        recorded, f"the base of adapter {adapter.name!r}", "the base beside the adapter (--model, or model=)"
    )
    return recorded


def recorded_side(adapter: AdapterFiles, config: PeftConfig) -> str | None:
    """Where the side network comes from that an adapter was learnt with; None where its base has it.

    Raises:
        GRMPError: a place that cannot be asked for, such as a folder of another machine.
    """
    source: str | None = ((Record.of(config).side or {}).get("settings") or {}).get("source")
    if source is not None:
        _check_recorded(
            source, f"the side network of adapter {adapter.name!r}", "it beside the adapter (--side, or side=)"
        )
    return source


def _check_recorded(place: str, what: str, remedy: str) -> None:
    try:
        check_place(place, what)
    except GRMPError as error:
        raise GRMPError(f"{error} Name {remedy}.") from error
