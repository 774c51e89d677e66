"""The card of an adapter: what it is, how good it was found to be on what, how to use it. No figure is invented."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grmp_hf.errors import GRMPError

__all__ = ["REPOSITORY", "write_adapter_card"]

REPOSITORY = "OWNER/NAME"
"""What cards call the repository that they will lie in; a push puts its name in this place."""

_METHODS = {"adapted": "this adapter", "zero_shot": "zero-shot (base alone)", "ridge": "ridge on the frozen embedding"}
_FIGURES = {"srcc": "SRCC", "krcc": "KRCC", "plcc": "PLCC", "plcc_logistic": "PLCC after fit", "rmse": "RMSE after fit"}


def write_adapter_card(folder: str | os.PathLike[str], figures: Mapping[str, Any] | None = None) -> None:
    """Write ``README.md`` into the folder of a saved adapter (PEFT overwrites it on each save: call this last).

    Args:
        folder: holds ``adapter_config.json``, which says scale, preprocessing and provenance.
        figures: the content of ``metrics.json``: figures of the adapter, ``n_test``, ``protocol``, ``baselines``, or
            the judgements of held-out tasks; without it the card says that nothing was measured.

    Raises:
        GRMPError: no adapter there.
    """
    target = Path(folder)
    try:
        config = json.loads((target / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GRMPError(f"Expected an adapter in {str(folder)!r}: {error}. Save it before its card.") from error
    limits = [] if _is_start(config) else [_LIMITS]
    parts = (
        _header(config),
        _summary(config),
        _usage(target.resolve().name, config),
        _results(figures),
        _details(config),
        *limits,
    )
    (target / "README.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _is_start(config: Mapping[str, Any]) -> bool:
    return (config.get("provenance") or {}).get("stage") == "pre-trained"


def _header(config: Mapping[str, Any]) -> str:
    base = config.get("base_model_name_or_path") or ""
    lines = ["library_name: peft", "tags:", "- image-quality-assessment", "- grmp_hf", "- few-shot"]
    if base.count("/") == 1 and not base.startswith(("/", ".", "grmp_hf/")):
        lines.insert(0, f"base_model: {base}")
    return "\n".join(["---", *lines, "---"])


def _summary(config: Mapping[str, Any]) -> str:
    provenance = config.get("provenance") or {}
    base = provenance.get("base") or Path(config.get("base_model_name_or_path") or "unknown").name
    if _is_start(config):
        return (
            "# Start for image quality adapters\n\n"
            f"Soft prompts for `{base}`, learnt from {len(provenance['tasks'])} tasks so that a few rated pictures are "
            "enough to adapt them. They have learnt no taste of their own yet."
        )
    shots = provenance.get("shots")
    taught = f"learnt from {shots} rated pictures" if shots else "with learned prompts"
    return (
        "# Image quality adapter\n\n"
        f"Soft prompts for `{base}` that score photographs without a reference, {taught}. "
        f"Scores are given on the scale of those ratings: {_scale(config.get('rating_scale'))}."
    )


def _scale(scale: Mapping[str, Any] | None) -> str:
    if scale is None:
        return "0 (worst) to 1 (best)"
    low, high = ("worst", "best") if scale["higher_is_better"] else ("best", "worst")
    return f"{scale['low']:g} ({low}) to {scale['high']:g} ({high}) {scale['unit']}".rstrip()


def _usage(name: str, config: Mapping[str, Any]) -> str:
    if _is_start(config):
        return f"## Use\n\n```sh\ngrmp-iqa adapt --data ratings.csv --shots 50 --start {name} --output my-adapter\n```"
    return (
        "## Use\n\n"
        f"```sh\ngrmp-iqa score photos/ --adapter {name} --output scores.csv\n```\n\n"
        f'```python\nimport grmp_hf\n\nscorer = grmp_hf.load(adapter="{name}")\n'
        'print(scorer.score(["a.jpg", "b.jpg"]).score)\n```\n\n'
        "`import grmp_hf` comes first where peft or transformers are to load it: it makes the method known to them."
    )


def _results(figures: Mapping[str, Any] | None) -> str:
    if figures and "held_out_after" in figures:
        return _judgement(figures)
    if not figures or not figures.get("n_test"):
        return "## Results\n\nNot measured: no rated pictures were left to test on."
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
    rows = {**(config.get("provenance") or {}), "preprocessing": config.get("preprocessing")}
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
