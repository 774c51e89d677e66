"""How far are we from the authors' own modules? Largest deviation of each group of golden numbers, and its bound.

    python benchmarks/bench_golden.py [--golden DIR]

DIR holds `official_small.safetensors`: random weights of a small student and teacher, inputs, and what the authors'
classes and training function made of them. The tests compare the same groups tensor by tensor; this prints how much of
each bound is used.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from golden import Golden, OneBatch, arguments, start, student
from measuring import add_folder, make_parser, need_folder, write_result
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor

from grmp_hf import GRMPImageProcessor, GRMPTrainer
from grmp_hf.modeling.adapters import teacher_mode
from grmp_hf.modeling.conversion import to_authors_name, to_authors_state_dict
from grmp_hf.modeling.functional import semantic_cross_entropy, unit_length
from grmp_hf.modeling.image_processing_grmp import authors_training_view
from grmp_hf.training.gradients import Gradients, named_gradients
from grmp_hf.training.rules import turn_away


def largest(pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Largest absolute difference."""
    return max(float((ours - theirs).abs().max()) for ours, theirs in pairs)


def largest_relative(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> float:
    """Largest norm of a difference as a share of the norm that it should have."""
    return max(float((ours[name] - theirs[name]).norm() / theirs[name].norm().clamp(min=1e-12)) for name in theirs)


@torch.no_grad()
def forward_deviation(golden: Golden) -> float:
    """Every `out.*` of one forward pass of student and teacher: states, features, logits, scores, losses."""
    model, pixels = student(golden), golden["in.pixel_values"]
    clip = model.get_base_model().clip
    output = model(pixels, labels=golden["in.labels"], output_semantic=True)
    vision = clip.vision_model(pixel_values=pixels, output_hidden_states=True)
    tokens = clip.visual_projection(clip.vision_model.post_layernorm(vision.last_hidden_state))
    with teacher_mode(model):
        teacher = model(pixels, output_semantic=True)
    found = {
        "logits": output.quality_logits,
        "score": output.quality,
        "image_features": output.image_embeds,
        "semantic_logits": output.semantic_logits,
        "xe_loss": output.loss,
        "kl_loss": semantic_cross_entropy(output.semantic_logits, teacher.semantic_logits),
        "kl_loss_T2": semantic_cross_entropy(output.semantic_logits, teacher.semantic_logits, 2.0),
        "quality_text_features": model.get_base_model().get_anchor_embeds("quality"),
        "semantic_text_features": model.get_base_model().get_anchor_embeds("semantic"),
        "teacher_logits_sce": teacher.semantic_logits,
        "teacher_image_features": teacher.image_embeds,
        "visual_prompt_norm": vision.last_hidden_state,
        "dense_features": unit_length(tokens[:, 1:]).mT.reshape(golden["out.dense_features"].shape),
        **{f"visual_block{i}": vision.hidden_states[i + 1] for i in range(4)},
    }
    return largest((value, golden[f"out.{name}"]) for name, value in found.items())


def gradient_deviations(golden: Golden) -> dict[str, float]:
    """Both gradients and both regularised ones, by tensor, as a share of the tensor's norm."""
    model, pixels = student(golden).train(), golden["in.pixel_values"]
    parameters = {name: parameter.requires_grad_() for name, parameter in model.named_parameters()}
    with teacher_mode(model):
        teacher = model(pixels, output_semantic=True).semantic_logits
    output = model(pixels, labels=golden["in.labels"], output_semantic=True)
    semantic = named_gradients(semantic_cross_entropy(output.semantic_logits, teacher), parameters, retain_graph=True)
    task = named_gradients(output.loss, parameters)
    found = {"quality": task, "semantic": semantic}
    found |= {f"regularized_l{strength}": turn_away(task, semantic, strength) for strength in (1, 5)}
    return {
        kind: largest_relative(_under_their_names(gradients), _group(golden, f"grad.{kind}."))
        for kind, gradients in found.items()
    }


def _group(golden: Golden, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in golden.items() if name.startswith(prefix)}


def _under_their_names(gradients: Gradients) -> Gradients:
    """q, k and v packed as in the reference."""
    grouped: dict[str, dict[str, Tensor]] = {}
    for name, gradient in gradients.items():
        letter = next((letter for letter in "qkv" if f".{letter}_proj." in name), "")
        if gradient.ndim:  # the logit scale is frozen there
            grouped.setdefault(to_authors_name(name), {})[letter] = gradient
    packed = {name: torch.cat([parts[k] for k in ("", *"qkv") if k in parts]) for name, parts in grouped.items()}
    return packed | {"image_encoder.prompt_embeddings": packed["image_encoder.prompt_embeddings"][None]}


def trained(golden: Golden, steps: int, rate: float, *, freeze_visual_prompts: bool) -> PeftModel:
    """The student after `GRMPTrainer` with the authors' settings: SGD, weight decay 1e-4, lambda 5."""
    model = start(golden, freeze_visual_prompts=freeze_visual_prompts)
    with tempfile.TemporaryDirectory() as folder:
        settings = arguments(folder, steps, rate, logging_strategy="no")
        GRMPTrainer(model, settings, train_dataset=OneBatch(golden)).train()
    return model.eval()


@torch.no_grad()
def five_step_deviations(golden: Golden, suffix: str) -> tuple[float, float]:
    """Change of the weights as a share of its norm, and scores; `suffix` "" or "_all" (visual prompts trained too)."""
    with torch.enable_grad():
        model = trained(golden, 5, 1e-3, freeze_visual_prompts=not suffix)
    after, start = to_authors_state_dict(model), _group(golden, "state.")
    theirs = {name: weight - start[name] for name, weight in _group(golden, f"after5{suffix}.").items()}
    change = largest_relative({name: after[name] - start[name] for name in theirs}, theirs)
    return change, largest([(model(golden["in.pixel_values"]).quality, golden[f"out.score_after5{suffix}"])])


@torch.no_grad()
def thirty_step_deviation(golden: Golden) -> float:
    """Scores after thirty steps at a rate of 0.03."""
    with torch.enable_grad():
        model = trained(golden, 30, 3e-2, freeze_visual_prompts=True)
    return largest([(model(golden["in.pixel_values"]).quality, golden["out.score_after30_lr3e-2"])])


def preprocessing_deviation(golden: Golden) -> float:
    """The authors' test view and training crops."""
    stored = golden["prep.images_u8"]
    pictures = [picture.permute(1, 2, 0).numpy() for picture in stored]
    pairs = [(GRMPImageProcessor.authors(32)(pictures)["pixel_values"], golden["prep.test_pixel_values"])]
    pairs += [
        (authors_training_view(stored, epoch, 32), x) for epoch, x in enumerate(golden["prep.train_pixel_values"])
    ]
    return largest(pairs)


def measure(golden: Golden) -> list[dict[str, Any]]:
    """A row a group: what, deviation, bound."""
    gradients = gradient_deviations(golden)
    five, five_all = five_step_deviations(golden, ""), five_step_deviations(golden, "_all")
    rows: list[tuple[str, float, float]] = [
        ("forward pass: states, features, logits, scores, losses (absolute)", forward_deviation(golden), 2e-5),
        ("quality gradient, 59 tensors (share of the tensor's norm)", gradients["quality"], 5e-5),
        ("semantic gradient, 59 tensors (share)", gradients["semantic"], 5e-5),
        ("regularised gradient, lambda 1 (share)", gradients["regularized_l1"], 5e-5),
        ("regularised gradient, lambda 5 (share)", gradients["regularized_l5"], 5e-5),
        ("five steps of the Trainer, change of 53 tensors (share)", five[0], 2e-3),
        ("five steps, visual prompts trained too, change of 59 tensors (share)", five_all[0], 2e-3),
        ("scores after five steps (absolute)", max(five[1], five_all[1]), 1e-5),
        ("scores after thirty steps at rate 0.03 (absolute)", thirty_step_deviation(golden), 1e-4),
        ("the authors' preprocessing (absolute)", preprocessing_deviation(golden), 1e-6),
    ]
    return [{"what": what, "deviation": float(f"{value:.2e}"), "bound": bound} for what, value, bound in rows]


def main() -> None:
    """Command line."""
    parser = make_parser(__doc__)
    add_folder(parser, "--golden", "GRMP_HF_TEST_GOLDEN", "golden numbers from the authors' modules")
    arguments = parser.parse_args()
    folder = need_folder(parser, arguments.golden, "--golden")
    rows = measure(load_file(folder / "official_small.safetensors"))
    for row in rows:
        print(f"{row['what']:<72} {row['deviation']:.1e}  bound {row['bound']:.0e}")
    write_result("golden", {"file": "official_small.safetensors", "rows": rows})


if __name__ == "__main__":
    main()
