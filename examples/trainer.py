"""Train prompts with PEFT and a Trainer: python examples/trainer.py RATINGS OUTPUT"""

import sys

from peft import get_peft_model

import grmp_hf
from grmp_hf.data import decode_row, read_ratings

ratings, output = sys.argv[1:]
table = read_ratings(ratings)
base = grmp_hf.load()
items = [
    {"pixel_values": base.processor(decode_row(row))["pixel_values"][0], "labels": row.quality} for row in table.rows
]
config = grmp_hf.GRMPPromptConfig(text_prompts=4, visual_prompts=2)
model = get_peft_model(base.model, config)
model.print_trainable_parameters()
arguments = grmp_hf.GRMPTrainingArguments(output, max_steps=4, per_device_train_batch_size=4, learning_rate=1e-3)
trainer = grmp_hf.GRMPTrainer(model, arguments, train_dataset=items, processing_class=base.processor)
trainer.train()
trainer.save_model()
print(grmp_hf.load(adapter=output).identity["adapter_sha256"])
