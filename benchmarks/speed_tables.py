"""Tables of `bench_scoring_speed.py` and `bench_pretraining.py`: what takes how long."""

from __future__ import annotations

from typing import Any

__all__ = ["experts", "files", "loader", "steps", "towers"]

_TOWERS = {
    "clip_vision_tower": "transformers' CLIP vision tower",
    "prompted": "scorer with the paper's prompts",
    "baked": "the same, baked",
}
_WAYS = {"base": "embedded default, zero-shot", "adapter": "adapted with 50 ratings"}


def towers(result: dict[str, Any]) -> list[list[str]]:
    """Cost of prompts."""
    found = result["towers"]
    rows = [["ViT-B/16, random weights, batch 8, CPU, fp32", "seconds", "ratio", "bound"]]
    for name, title in _TOWERS.items():
        ratio = found["ratio"].get(name)
        cells = ["1", ""] if ratio is None else [f"{ratio:.3f}", f"{found['bound']:.2f}"]
        rows.append([title, f"{found['seconds'][name]:.3f}", *cells])
    return rows


def files(result: dict[str, Any]) -> list[list[str]]:
    """Pictures a second from files, beside an earlier version in turns with it, and seconds of adapting."""
    rates, taken = result["files"]["pictures_per_second"], result["files"]["adapt"]
    rows = [[f"`grmp-iqa score`, {result['files']['pictures']} photographs of 512 x 512", "pictures a second"]]
    if "before" in rates:
        rows[0] += ["five views, no side network", "ratio"]
    for way, title in _WAYS.items():
        medians = [found[way]["median"] for found in rates.values()]
        ratio = [f"{medians[0] / medians[1]:.2f}"] if "before" in rates else []
        rows.append([title, *(f"{value:.1f}" for value in medians), *ratio])
    said = f"`grmp_hf.adapt`, {taken['ratings']} ratings: {taken['seconds']:.1f} s"
    rows.append(
        [
            f"{said}, of which {taken['beyond_looking']:.1f} s are not spent on looking at them",
            *[""] * (len(rows[0]) - 1),
        ]
    )
    return rows


def steps(result: dict[str, Any]) -> list[list[str]]:
    """Cost of a step of pre-training."""
    head = ["ViT-B/16, a step of 2 tasks, 4 + 4 pictures each, CPU, fp32", "inner steps", "seconds", "peak memory, MiB"]
    found = result["vit_b_16"]["algorithms"].items()
    return [head, *([n, str(f["inner_steps"]), f"{f['seconds']:.1f}", f"{f['peak_memory_mib']:.0f}"] for n, f in found)]


def loader(result: dict[str, Any]) -> list[list[str]]:
    """The loading process of pre-training beside its training step."""
    found = result["loader"]
    rates = found["episodes_per_second"]
    return [
        ["embedded default, default recipe, one loading process", "episodes a second"],
        ["loading alone", f"{rates['loader']}"],
        ["the training step", f"{rates['training_step']}"],
        [f"ratio (bound {found['bound']}; load of the machine {found['load_of_the_machine'][0]})", f"{found['ratio']}"],
    ]


def experts(result: dict[str, Any]) -> list[list[str]]:
    """Time of scorers of several experts."""
    rows = [["a pass of the embedded default, without decoding", "milliseconds a picture", "ratio"]]
    return rows + [[row["scorer"], f"{row['milliseconds']:.1f}", f"{row['ratio']:.2f}"] for row in result["rows"]]
