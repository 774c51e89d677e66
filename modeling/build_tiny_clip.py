"""Make the embedded default, a tiny CLIP, from photographs alone: views, teacher features, training, export.

    python modeling/build_tiny_clip.py --photos DIR [--work runs/tiny] [--out grmp_hf/assets/tiny] [--minutes 56]

Every stage is skipped when its files are in the work folder, and training goes on from its last checkpoint. The teacher
needs the packages of ``modeling/requirements-tiny.txt``.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads would starve the neighbours of shared cores

import torch
from tiny_clip.captions import all_captions
from tiny_clip.checks import scene_agreement, window_fit
from tiny_clip.export import VIEW_WEIGHTS, VIEWS, export
from tiny_clip.sampling import ViewSampler
from tiny_clip.teacher import EfficientNetTeacher, Teacher, build_targets
from tiny_clip.tokenizer import build_tokenizer
from tiny_clip.training import Settings, load_trained, train
from tiny_clip.views import ViewKind, build_views, default_kinds, find_photos

ROOT = Path(__file__).resolve().parent.parent


def once(stage: str, work: Path, make: Callable[[], None]) -> None:
    """Run ``make`` unless the stage's mark is in the work folder; leave the mark when it is done."""
    mark = work / f"{stage}.done"
    if mark.exists():
        print(f"{stage}: already there")
        return
    print(f"{stage}: started", flush=True)
    make()
    mark.touch()


def build(
    photos: Path,
    work: Path,
    out: Path,
    settings: Settings,
    kinds: tuple[ViewKind, ...],
    teacher: Callable[[], Teacher] = EfficientNetTeacher,
) -> None:
    """All stages; ``teacher`` makes the teacher when, and only when, its features are missing."""
    work.mkdir(parents=True, exist_ok=True)
    files = find_photos(photos)
    once("views", work, lambda: build_views(files, kinds, work, settings.workers))
    once("targets", work, lambda: build_targets(kinds, work, teacher()))
    tokenizer = build_tokenizer(all_captions())
    torch.set_num_threads(1)  # before training forks
    sampler = ViewSampler(kinds, work)
    print(f"scenes: {sampler.scene_counts()}", flush=True)
    train(sampler, tokenizer, settings, work)
    model, heads, progress = load_trained(tokenizer, settings.sizes, work)
    checks = {
        "training": asdict(progress),
        "windows trained on": window_fit(model, heads, tokenizer, sampler, sampler.train_rows),
        "windows held out": window_fit(model, heads, tokenizer, sampler, sampler.held_out_rows),
        "scenes, stored views": scene_agreement(
            model, tokenizer, sampler, files, dict(zip(VIEWS, VIEW_WEIGHTS, strict=True))
        ),
        "scenes, whole": scene_agreement(model, tokenizer, sampler, files, {"whole": 1.0}),
    }
    (work / "checks.json").write_text(json.dumps(checks, indent=1) + "\n", encoding="utf-8")
    export(model, tokenizer, out)
    print(f"{json.dumps(checks, indent=1)}\nwritten to {out}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of photographs, or of the BIQ2021 excerpt")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/tiny", help="views, features and checkpoints")
    parser.add_argument("--out", type=Path, default=ROOT / "grmp_hf/assets/tiny", help="the CLIP directory to write")
    parser.add_argument("--minutes", type=float, default=Settings.minutes, help="training time")
    parser.add_argument("--workers", type=int, default=Settings.workers, help="processes, one core each")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.workers)
    settings = Settings(minutes=arguments.minutes, workers=arguments.workers)
    build(arguments.photos, arguments.work, arguments.out, settings, default_kinds())


if __name__ == "__main__":
    main()
