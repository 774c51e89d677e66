"""What a scorer leaves behind: its adapter or model, the record, what taught it and a card, and how they are named."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft import PeftModel

from grmp_hf.cards import write_card
from grmp_hf.embedded import EMBEDDED
from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import put_apart
from grmp_hf.modeling.baked import Baked
from grmp_hf.modeling.bases import check_base
from grmp_hf.modeling.caching import acting_adapters
from grmp_hf.modeling.experts import Experts
from grmp_hf.modeling.gating import GATE_FILE
from grmp_hf.modeling.known_heads import check_kept
from grmp_hf.places import is_hub_id
from grmp_hf.record import (
    CONFIG_FILE,
    EXPERTS,
    EXPERTS_FILE,
    SPLIT_FILE,
    WEIGHTS_FILE,
    Record,
    experts_text,
    read_experts,
)
from grmp_hf.scratch import scratch_folder
from grmp_hf.storing import digest_file, writing

if TYPE_CHECKING:
    from grmp_hf.data.splits import Split
    from grmp_hf.scoring import Scorer

__all__ = ["adapter_sha256", "package_versions", "recorded_name", "save"]


def save(scorer: Scorer, folder: str | os.PathLike[str]) -> None:
    """Write the adapter of a scorer, or the model and its preprocessing where it has none, with a card.

    What the scorer holds is written with it: :func:`grmp_hf.load` gives the same scores on the same scale. Of several
    adapters the one that the scorer was made with is written.

    Of experts, each one is written into a folder of its own, and their gate beside them.

    Raises:
        GRMPError: another adapter acts in the model than when the scorer was made, or several do, the folder cannot be
            written to, the model has a head with weights that no adapter holds, or it is none of a CLIP.
    """
    target, model = Path(folder), scorer.model
    if not hasattr(model, "config"):
        raise GRMPError(
            f"Expected a scorer around a CLIP, got {type(model).__name__}, which saves itself: model.save_pretrained."
        )
    scorer.check_adapter()
    _refuse_others(scorer, target)
    _check_alone(model)
    with writing(target), put_apart(model):
        if isinstance(model, Experts):
            for name, expert in model.experts.items():
                scale = Record.of(expert.active_peft_config).scale
                _record(dataclasses.replace(scorer, model=expert), scale)
                _write(expert, target / EXPERTS / name)
                if scorer.taught is not None:
                    _own_part(scorer.taught, f"{name}/").save(target / EXPERTS / name / SPLIT_FILE)
                write_card(target / EXPERTS / name)
            common = Record.of(model.config)
            scale = None if scorer.scale is None else scorer.scale.to_dict()
            model.gate.save(target)
            text = experts_text(model.names, scale, common.provenance)
            (target / EXPERTS_FILE).write_text(text, encoding="utf-8")
        else:
            _record(scorer, None if scorer.scale is None else scorer.scale.to_dict())
            _write(model, target, scorer.processor)
        if scorer.taught is not None:
            scorer.taught.save(target / SPLIT_FILE)
    write_card(target)


def _check_alone(model: Any) -> None:
    """Raise where more or less acts in a model with an adapter than the one that is written."""
    if not isinstance(model, PeftModel):
        return
    if any(isinstance(part, PeftModel) for part in model.modules() if part is not model):
        raise GRMPError(
            "Expected an adapter around a base, got one around a model that had an adapter already: only the outer one "
            "would be saved. Learn it anew on the base alone, grmp_hf.load(base).model."
        )
    if len(acting := acting_adapters(model)) != 1:
        raise GRMPError(
            f"Expected a model in which one adapter acts, which is saved, got {len(acting)} ({', '.join(acting)}). Let "
            "one of them act: model.set_adapter(name)."
        )


def _refuse_others(scorer: Scorer, target: Path) -> None:
    """Raise where files of another scorer would be loaded in the place of, or with, those of this one."""
    gathered, adapted = isinstance(scorer.model, Experts), isinstance(scorer.model, PeftModel)
    names = [] if gathered else [EXPERTS_FILE]
    names += [] if gathered or adapted else [CONFIG_FILE]
    names += [] if scorer.taught is not None else [SPLIT_FILE]
    theirs = [name for name in names if (target / name).exists()]
    if theirs:
        raise GRMPError(
            f"{target}: holds {' and '.join(theirs)} of another scorer, which would be loaded with this one; save it "
            "in another folder"
        )


def _own_part(taught: Split, prefix: str) -> Split:
    """Of the pictures of all experts those of one, whose names begin with its own."""
    train, test = (
        tuple(name.removeprefix(prefix) for name in part if name.startswith(prefix))
        for part in (taught.train, taught.test)
    )
    contents = {n.removeprefix(prefix): found for n, found in taught.contents.items() if n.startswith(prefix)}
    return dataclasses.replace(taught, train=train, test=test, contents=contents)


def _write(model: Any, target: Path, processor: Any = None) -> None:
    """Write an adapter, or a model without one and its preprocessing."""
    with scratch_folder() as place:
        written = place
        if isinstance(model, PeftModel):
            (name,) = model.active_adapters
            model.save_pretrained(str(place), selected_adapters=[name], save_embedding_layers=False)
            written = place if name == "default" else place / name
            Record.of(model.active_peft_config).save(written, named=True)
        else:
            model.save_pretrained(place)
            processor.save_pretrained(place)
        target.mkdir(parents=True, exist_ok=True)
        for path in written.iterdir():  # copied, so that the files may be read by whom the user's other files may
            if path.is_file():
                shutil.copyfile(path, target / path.name)


def _record(scorer: Scorer, scale: dict[str, Any] | None) -> None:
    """Write what a scorer holds beside its model into the settings that are saved, with a scale."""
    model: Any = scorer.model
    check_kept(model)
    seen: dict[str, Any] = {
        "preprocessing": scorer.processor.settings(),
        "scale": scale,
    }
    if isinstance(model, PeftModel):
        config: Any = model.active_peft_config
        if not isinstance(config.target_modules, str):  # a pattern
            config.target_modules = sorted(config.target_modules)  # a set, written in another order each time
        base = model.get_base_model()
        record = check_base(config, base)
        known = {"base": scorer.identity["model"], "revision": scorer.identity["revision"]}
        if not known["revision"].startswith("weights-"):
            seen["revision"] = known["revision"]
        seen["base"] = recorded_name(base.name_or_path or record.base)
        seen["provenance"] = {**known, "versions": package_versions(), **(record.provenance or {})}
        dataclasses.replace(record, **seen).attach(config)
    elif isinstance(model, Baked):
        model.config.preprocessing, model.config.rating_scale = seen["preprocessing"], seen["scale"]


def recorded_name(model: str | os.PathLike[str] | None) -> str:
    """The name under which an adapter records its base: stable for the embedded one, absolute for a folder.

    >>> recorded_name("default"), recorded_name("openai/clip-vit-base-patch16")
    ('grmp_hf/tiny', 'openai/clip-vit-base-patch16')
    """
    name = "default" if model is None else os.fspath(model)
    if name in ("default", EMBEDDED):
        return EMBEDDED
    return os.path.abspath(name) if os.path.isdir(name) else name


def adapter_sha256(folder: str | os.PathLike[str]) -> str:
    """SHA-256 of an adapter's weights file, in hexadecimal; of experts, of those of all of them and of their gate."""
    gathered = read_experts(folder)
    if gathered is None:
        return digest_file(Path(folder) / WEIGHTS_FILE)
    files = [GATE_FILE, *(f"{EXPERTS}/{name}/{WEIGHTS_FILE}" for name in gathered["experts"])]
    return hashlib.sha256("".join(digest_file(Path(folder) / file) for file in files).encode()).hexdigest()


def package_versions() -> dict[str, str]:
    """Versions of this package and of those that decide about its numbers."""
    own = str(sys.modules["grmp_hf"].__version__)
    return {"grmp_hf": own} | {n: importlib.metadata.version(n) for n in ("torch", "transformers", "peft", "pillow")}


def named_base(scorer: Scorer) -> str:
    """The base of an adapter or of a baked scorer, as it can be named again."""
    if isinstance(scorer.model, PeftModel):
        base = Record.of(scorer.model.active_peft_config).base
    elif isinstance(scorer.model, Experts):
        base = Record.of(scorer.model.config).base
    else:
        base = scorer.origin.get("baked_from", {}).get("model")
    if base in (None, EMBEDDED):
        return "default"
    return repr(base) if is_hub_id(base) or os.path.isdir(base) else f"the folder of {base!r}"
