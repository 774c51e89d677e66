from __future__ import annotations

import re
from pathlib import Path

import pytest

import grmp_hf
from grmp_hf.errors import GRMPError
from grmp_hf.training.recipes import FewShotRecipe, PretrainRecipe, read_recipe


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def test_keys_are_the_attributes_and_the_others_keep_their_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, "steps: 7\nlearning_rate: 1\nfresh_optimizer: [a, b]\nsupport_batch_size: null\nbf16: true")
    expected = PretrainRecipe(steps=7, learning_rate=1, fresh_optimizer=("a", "b"), bf16=True)
    assert read_recipe(PretrainRecipe, path) == PretrainRecipe.from_yaml(path) == expected
    assert FewShotRecipe.from_yaml(write(tmp_path, "")) == FewShotRecipe()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz: 3", "got stepz"),
        ("- 3", "got [3]"),
        ("train: everything", "Expected train out of prompts, authors in"),
        ("objective: pairs", "Expected objective out of quality, fidelity in"),
        ("objective: fidelity\nvisual_prompts: 2", "a recipe for pairs that leaves the embeddings as they are"),
        ("objective: fidelity\ntrain: authors", "got one that trains the vision tower"),
        ("steps: 0", "Expected steps of at least 1 in"),
        ("a: [", "expected a recipe in YAML"),
        ("steps: many", "Expected steps of type int in"),
        ("steps: 1.5", "got 1.5"),
        ("steps: true", "got True"),
        ("bf16: 1", "Expected bf16 out of true, false, auto in"),
        ("bf16: sometimes", "got 'sometimes'"),
        ("learning_rate: 1e-3", "got '1e-3'. YAML takes 1e-3 for a text: write 0.001."),
    ],
)
def test_a_wrong_recipe_says_what_it_may_hold(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(GRMPError, match=re.escape(message)):
        FewShotRecipe.from_yaml(write(tmp_path, text))
    with pytest.raises(GRMPError, match="expected a recipe in YAML"):
        FewShotRecipe.from_yaml(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("labels: mos", "Expected labels out of gmsd, level in"),
        ("held_out_visits: 0", "Expected held_out_visits of at least 1 in"),
        ("fresh_optimizer: kadid10k", "got 'kadid10k'"),
        ("support_batch_size: a", "Expected support_batch_size of type int | None in"),
    ],
)
def test_a_wrong_recipe_of_pre_training_too(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(GRMPError, match=re.escape(message)):
        PretrainRecipe.from_yaml(write(tmp_path, text))


@pytest.mark.parametrize(
    ("name", "taker"),
    [
        ("loda_paper", "examples/loda.py, or grmp_hf.training.local_features.adapt_locally"),
        ("lpf_default", "grmp_hf.training.two_stream.adapt_streams"),
        ("low_level_paper", "training/grepq.py low"),
        ("high_level_paper", "training/grepq.py high"),
        ("student_default", "grmp_hf.training.distilling.adapt_student"),
        ("diffusion_default", "grmp_hf.diffusion.fitting.adapt_diffusion"),
        ("pretrain_paper", "grmp-iqa pretrain"),
        ("stream_distillation", "grmp-iqa stream"),
    ],
)
def test_a_recipe_of_another_stage_says_what_takes_it(name: str, taker: str) -> None:
    path = Path(grmp_hf.__path__[0]) / "recipes" / f"{name}.yaml"
    with pytest.raises(GRMPError, match=re.escape(f"They are those of {taker}: give them to that.")):
        FewShotRecipe.from_yaml(path)
    with pytest.raises(GRMPError, match=r"those of grmp-iqa adapt: give"):
        PretrainRecipe.from_yaml(path.parent / "adapt_authors.yaml")


def test_episodes_have_the_sizes_of_the_recipe() -> None:
    recipe = PretrainRecipe(support=3, query_batch_size=2, visits=5, rescale_labels=True, held_out_query=9)
    sizes = {"support": 3, "query": 24, "support_batch_size": None, "query_batch_size": 2, "visits": 5}
    assert recipe.learning_episodes == {**sizes, "rescale_labels": True}
    assert recipe.held_out_episodes == {"support": 16, "query": 9, "visits": 3, "rescale_labels": True}
