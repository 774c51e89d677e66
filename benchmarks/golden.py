"""The authors' small student, whose numbers the golden files hold, as a model of ours; for benchmark and tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from torch.utils.data import Dataset

from grmp_hf import GRMPPromptConfig
from grmp_hf.modeling.conversion import from_authors_state_dict
from grmp_hf.training.arguments import GRMPTrainingArguments

Golden = Mapping[str, Tensor]
_BLOCKS = ["layers.2", "layers.3", "final_layer_norm", "post_layernorm"]


class OneBatch(Dataset[dict[str, Tensor]]):
    """The six pictures of the golden file."""

    def __init__(self, golden: Golden) -> None:
        self.pixels, self.labels = golden["in.pixel_values"], golden["in.labels"].flatten()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"pixel_values": self.pixels[index], "labels": self.labels[index]}


def student(golden: Golden) -> PeftModel:
    """The student in evaluation mode, without dropout as in the golden run."""
    model = from_authors_state_dict(
        {name.removeprefix("state."): weight for name, weight in golden.items() if name.startswith("state.")},
        quality_input_ids=golden["in.quality_input_ids"],
        semantic_input_ids=golden["in.semantic_input_ids"],
        placeholder_token_id=10,
        vision_heads=4,
        text_heads=3,
    )
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def arguments(folder: str, steps: int, rate: float, **more: Any) -> GRMPTrainingArguments:
    """The authors' settings: SGD, weight decay 1e-4, all six pictures a step; lambda is the default's, 5."""
    return GRMPTrainingArguments(
        output_dir=folder,
        max_steps=steps,
        learning_rate=rate,
        weight_decay=1e-4,
        optim="sgd",
        lr_scheduler_type="constant",
        per_device_train_batch_size=6,
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
        **more,
    )


def start(golden: Golden, *, freeze_visual_prompts: bool) -> PeftModel:
    """What the authors train, from their start: prompts, the last two blocks and the final norms."""
    made = student(golden)
    prompts = {name: weight.clone() for name, weight in made.state_dict().items() if ".grmp_" in name}
    config = GRMPPromptConfig(
        visual_prompts=5, prompt_dropout=0.0, freeze_visual_prompts=freeze_visual_prompts, modules_to_save=_BLOCKS
    )
    model = get_peft_model(made.unload(), config)
    assert not model.load_state_dict(prompts, strict=False).unexpected_keys
    return model
