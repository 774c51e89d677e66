"""A diffusion scorer teaches a scorer of ours, from the first picture to the saved student."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import grmp_hf
from grmp_hf.diffusion.scorer import DiffusionScorer, as_scorer, diffusion_processor
from grmp_hf.teaching import rated_pictures
from grmp_hf.training.distilling import StudentRecipe, adapt_student, as_taught
from grmp_hf.training.shots import look

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "diffusion.md"


@pytest.fixture
def folder(photos: list[Path]) -> Path:
    lines = ["image,mos", *(f"{path.name},{1 + at % 5}" for at, path in enumerate(photos))]
    (photos[0].parent / "labels.csv").write_text("\n".join(lines) + "\n")
    return photos[0].parent


@torch.no_grad()
def misses(model: Any, pictures: Any, taught: dict[str, torch.Tensor]) -> dict[str, float]:
    rows = [pictures[at] for at in range(len(pictures))]
    batch = {name: torch.stack([row[name] for row in rows]) for name in ("pixel_values", "labels")}
    batch |= {"taught_quality": taught["quality"], "taught_map": taught["quality_map"]}
    found = as_taught(lambda inputs: model(**inputs), lambda inputs: None, batch)
    return {name: float(term.mean) for name, term in found.items()}


def test_a_student_learns_what_the_teacher_says(
    make_diffusion: Callable[..., DiffusionScorer], clip_folder: Path, folder: Path, tmp_path: Path
) -> None:
    table, base = grmp_hf.read_ratings(folder, scale=(1, 5)), grmp_hf.load(clip_folder)
    teacher = as_scorer(make_diffusion(), diffusion_processor(64))
    shown = rated_pictures(teacher, table.rows)
    taught = look(teacher.model, shown, ["quality", "quality_map"])
    assert taught["quality"].shape == (12,) and taught["quality_map"].shape == (12, 4, 8, 8)
    seen = as_scorer_of_one_view(base)
    pictures = rated_pictures(seen, table.rows)
    recipe = StudentRecipe(rated=0.0, epochs=20, batch_size=6, learning_rate=0.01)
    begun, learnt = (
        adapt_student(base.model, pictures, taught, recipe=r, output_dir=tmp_path / "run")
        for r in (StudentRecipe(epochs=1, learning_rate=0.0), recipe)
    )
    first, last = misses(begun, pictures, taught), misses(learnt, pictures, taught)
    assert last["map"] < 0.5 * first["map"] and last["score"] < 0.5 * first["score"]


def as_scorer_of_one_view(base: Any) -> Any:
    import dataclasses

    return dataclasses.replace(base, processor=grmp_hf.GRMPImageProcessor(base.processor.size, ("whole",)))


def test_the_document_runs(
    diffusion_folder: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """On the small diffusion model, at its size."""
    (example,) = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    shutil.copytree(diffusion_folder, tmp_path / "stable-diffusion")
    assert folder == tmp_path / "photos"
    monkeypatch.chdir(tmp_path)
    exec(compile(example.replace("512", "64"), DOCUMENT.name, "exec"), {"__name__": "document"})
    scores = [float(line.strip("[]")) for line in capsys.readouterr().out.splitlines() if line.startswith("[")]
    assert len(scores) == 2 and all(1 <= score <= 5 for score in scores)
    assert not (tmp_path / "teacher-run" / "fit").exists()
