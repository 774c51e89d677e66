"""The card of an adapter or model: what it is, how good it is on what, how to use it. No figure is invented."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grmp_hf.data.scales import RatingScale
from grmp_hf.errors import GRMPError
from grmp_hf.places import is_public_id
from grmp_hf.record import CONFIG_FILE, EXPERTS, EXPERTS_FILE, Record

__all__ = ["CARD", "REPOSITORY", "card_text", "write_card"]

CARD = "README.md"
REPOSITORY = "OWNER/NAME"
"""What cards call the repository that they will lie in; a push puts its name in this place."""

INSTALL = "pip install .    # in a clone of the repository of grmp_hf, which is in no package index"
"""A line that works; cards give it, since no index has the package."""

_MODEL = "config.json"
_METHODS = {"adapted": "this adapter", "zero_shot": "zero-shot (base alone)", "ridge": "ridge on the frozen embedding"}
_ADAPTERS = {
    "GRMP": "Soft prompts",
    "LODA": "Injected local features (LoDa)",
    "LORA": "A LoRA adapter",
    "LN_TUNING": "A LayerNorm adapter",
}
_FIGURES = {"srcc": "SRCC", "krcc": "KRCC", "plcc": "PLCC", "plcc_logistic": "PLCC after fit", "rmse": "RMSE after fit"}


def write_card(
    folder: str | os.PathLike[str], figures: Mapping[str, Any] | None = None, *, picture: str | None = None
) -> None:
    """Write ``README.md`` into the folder of a saved adapter or model. PEFT overwrites it at each save.

    Args:
        folder, figures, picture: see :func:`card_text`.
    """
    (Path(folder) / CARD).write_text(card_text(folder, figures, picture=picture), encoding="utf-8")


def card_text(
    folder: str | os.PathLike[str], figures: Mapping[str, Any] | None = None, *, picture: str | None = None
) -> str:
    """The card of a saved adapter or model.

    Args:
        folder: holds ``experts.json``, ``adapter_config.json`` or ``config.json``, which says scale, preprocessing and
            provenance.
        figures: the content of ``metrics.json``: figures of the adapter, ``n_test``, ``protocol``, ``baselines``, or
            the judgements of held-out tasks; without it the card says that nothing was measured.
        picture: file beside the card that shows the figures.

    Raises:
        GRMPError: neither is there.
    """
    names = (EXPERTS_FILE, CONFIG_FILE, _MODEL)
    path = next((found for name in names if (found := Path(folder) / name).is_file()), None)
    try:
        if path is None:
            raise OSError(f"found neither {CONFIG_FILE} nor {_MODEL}")
        config = dict(json.loads(path.read_text(encoding="utf-8")))
        if path.name == EXPERTS_FILE:
            record = Record.load(Path(folder) / EXPERTS / config["experts"][0])
            config |= {"rating_scale": config["scale"], "preprocessing": record.preprocessing}
            config["base_model_name_or_path"] = record.base
        elif path.name == CONFIG_FILE:
            record = Record.load(folder)
            own = {"preprocessing": record.preprocessing, "provenance": record.provenance}
            config |= {**own, "rating_scale": record.scale, "base_model_name_or_path": record.base}
        seen, scale, origin = map(config.get, ("preprocessing", "rating_scale", "provenance"))
        Record(preprocessing=seen, scale=scale, provenance=origin).checked(str(path))
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise GRMPError(
            f"Expected an adapter or model in {str(folder)!r}: {error}. Save it before its card."
        ) from error
    learnt = path.name != _MODEL or bool(config.get("rating_scale"))
    shown = [f"![scores and ratings of the test pictures]({picture})"] if picture else []
    parts = (
        _header(config, figures),
        _summary(config),
        _usage(config),
        *([_results(figures), *shown] if learnt else []),
        _details(config),
        *([_LIMITS] if learnt and not _is_start(config) else []),
    )
    return "\n\n".join(parts) + "\n"


def _is_start(config: Mapping[str, Any]) -> bool:
    return (config.get("provenance") or {}).get("stage") == "pre-trained"


def _is_adapter(config: Mapping[str, Any]) -> bool:
    return "peft_type" in config or ("experts" in config and "model_type" not in config)


def _header(config: Mapping[str, Any], figures: Mapping[str, Any] | None) -> str:
    """What the Hub reads; the licences are those of the base and of the pictures, which nobody here knows."""
    from huggingface_hub import ModelCardData

    provenance = config.get("provenance") or {}
    base = config.get("base_model_name_or_path") or provenance.get("baked_from", {}).get("model") or ""
    data = provenance.get("data") or ""
    results = _model_index(figures or {}, data)
    card = ModelCardData(
        license="other",
        license_name="see-card",
        license_link=CARD,
        library_name="peft" if "peft_type" in config else "grmp_hf",
        pipeline_tag="image-classification",
        tags=["image-quality-assessment", "grmp_hf", "few-shot"],
        base_model=base if is_public_id(base) else None,
        datasets=[data] if is_public_id(data) else None,
        model_name="adapter" if results else None,
        eval_results=results,
    )
    return f"---\n{card.to_yaml()}\n---"


def _model_index(figures: Mapping[str, Any], data: str) -> Any:
    from huggingface_hub import EvalResult

    if not figures.get("n_test"):
        return None
    place = {"dataset_type": data if is_public_id(data) else "rated-pictures", "dataset_name": data or "rated pictures"}
    task = {"task_type": "image-classification", "task_name": "Image quality assessment"}
    return [
        EvalResult(**task, **place, metric_type=name, metric_name=title, metric_value=round(figures[name], 4))
        for name, title in _FIGURES.items()
        if figures.get(name) is not None
    ] or None


def _summary(config: Mapping[str, Any]) -> str:
    provenance = config.get("provenance") or {}
    base = provenance.get("base") or Path(config.get("base_model_name_or_path") or "unknown").name
    if _is_start(config):
        return (
            "# Start for image quality adapters\n\n"
            f"Soft prompts for `{base}`, learnt from {len(provenance['tasks'])} tasks so that a few rated pictures are "
            "enough to adapt them. They have learnt no taste of their own yet."
        )
    if "experts" in config:
        return (
            f"# Image quality experts\n\n{len(config['experts'])} adapters for `{base}`, each of which has learnt from "
            f"other pictures: {', '.join(config['experts'])}. Every picture is judged by all of them, and those count "
            "most that have learnt from pictures like it. The ends of the scale are those of each expert's own "
            f"ratings: {_scale(config.get('rating_scale'))}."
        )
    shots = provenance.get("shots")
    taught = f"learnt from {shots} rated pictures" if shots else "learnt from pictures"
    scale = f"Scores are given on the scale of those ratings: {_scale(config.get('rating_scale'))}."
    if _is_adapter(config):
        what = f"{_method(config)} for `{base}`, to score photographs without a reference, {taught}."
        return f"# Image quality adapter\n\n{what} {scale}"
    if config.get("rating_scale"):
        return (
            "# Image quality scorer\n\nAn adapter folded into a standalone model that scores photographs without a "
            f"reference, {taught}. {scale}"
        )
    return (
        "# Image quality scorer, zero-shot\n\nA CLIP that scores photographs without a reference by texts for good and "
        "bad quality; it has learnt from no ratings. Scores run from 0 (worst) to 1 (best)."
    )


def _method(config: Mapping[str, Any]) -> str:
    """What an adapter is, by its PEFT config; prompts of which there are none are a head alone."""
    prompts = ("text_prompts", "visual_prompts", "anchor_residuals", "calibrate", "features")
    if config["peft_type"] == "GRMP" and config.get("modules_to_save") and not any(map(config.get, prompts)):
        return "A head on the frozen tower"
    return _ADAPTERS.get(config["peft_type"], "An adapter")


def _scale(scale: Mapping[str, Any] | None) -> str:
    if scale is None:
        return "0 (worst) to 1 (best)"
    return str(RatingScale.from_dict(scale))


def _usage(config: Mapping[str, Any]) -> str:
    lead = f"## Use\n\n```sh\n{INSTALL}\n"
    if _is_start(config):
        return (
            f"{lead}hf download {REPOSITORY} --local-dir start\n"
            "grmp-iqa adapt --data ratings.csv --shots 50 --start start --output my-adapter\n```"
        )
    option = "adapter" if _is_adapter(config) else "model"
    ours = (
        f"{lead}grmp-iqa score photos/ --{option} {REPOSITORY} --output scores.csv\n```\n\n"
        f'```python\nimport grmp_hf\n\nscorer = grmp_hf.load({option}="{REPOSITORY}")\n'
        'print(scorer.score(["a.jpg", "b.jpg"]).score)\n```'
    )
    if "experts" in config and option == "adapter":
        return ours
    return (
        f'{ours}\n\nWith transformers: `pipeline("image-quality-assessment", model="{REPOSITORY}")`. `import grmp_hf` '
        "comes first where peft or transformers are to load it: it makes the method known to them, which without it "
        "say `KeyError: 'GRMP'` or that the architecture is not recognised. In the place of the name a folder can be "
        "given."
    )


def _results(figures: Mapping[str, Any] | None) -> str:
    if figures and "held_out_after" in figures:
        return _judgement(figures)
    if not figures or not figures.get("n_test") or figures.get("srcc", 0) is None:  # of one picture there are none
        return "## Results\n\nNo figures were recorded with this folder; `grmp-iqa evaluate` makes them."
    rows = {"adapted": figures, **figures.get("baselines", {})}
    names = [name for name in _FIGURES if name in figures]
    caveats = figures.get("caveats", [])
    lines = ["| | " + " | ".join(_FIGURES[name] for name in names) + " |", "|---" * (len(names) + 1) + "|"]
    for method, row in rows.items():
        lines.append(f"| {_METHODS.get(method, method)} | " + " | ".join(_cell(row, name) for name in names) + " |")
    return (
        f"## Results\n\nOn {figures['n_test']} pictures that played no part in training; 95 % bootstrap intervals. "
        f"{figures.get('protocol', '')}\n\n" + "\n".join(lines) + "".join(f"\n\nNote: {c}." for c in caveats)
    )


def _judgement(figures: Mapping[str, Any]) -> str:
    rows = {"before": figures["held_out_before"], "after": figures["held_out_after"]}
    lines = [f"| {when} | {row['step']} | {row['loss']:.4f} | {row['srcc']:.3f} |" for when, row in rows.items()]
    return (
        f"## Results\n\nTasks that were held out ({', '.join(figures['held_out'])}), on photographs of their own, each "
        "adapted to before it was judged. Their loss chose the step; ratings by people chose nothing.\n\n"
        "| pre-training | step | loss | SRCC |\n|---|---|---|---|\n" + "\n".join(lines)
    )


def _cell(row: Mapping[str, Any], name: str) -> str:
    if row.get(name) is None:
        return "-"
    interval = row.get(f"{name}_interval")
    return f"{row[name]:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def _details(config: Mapping[str, Any]) -> str:
    anchors = config.get("quality_anchors")
    rows = {**(config.get("provenance") or {}), "preprocessing": config.get("preprocessing"), "anchors": anchors}
    lines = [f"| {key.replace('_', ' ')} | {_plain(value)} |" for key, value in rows.items() if value is not None]
    return "## Where it comes from\n\n| | |\n|---|---|\n" + "\n".join(lines)


def _plain(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text.replace("|", "\\|").replace("\n", " ")


_LIMITS = (
    "## Limits\n\n"
    "It has learnt one taste from few pictures. On pictures unlike them (subjects, distortions, sizes) "
    "nothing is known about its scores. It must not decide about people. The licences of the base and of the rated "
    "pictures apply to it."
)
