"""Learn from data sets whose scales differ, by pairs within each: python examples/pairs.py OUTPUT RATINGS RATINGS..."""

import dataclasses
import sys

import torch
from peft import LNTuningConfig, get_peft_model

import grmp_hf
from grmp_hf.modeling.adapters import copy_base
from grmp_hf.modeling.linear_heads import MeanSigma
from grmp_hf.training import calibration, objectives, sampling

output, (first, *others) = sys.argv[1], [grmp_hf.read_ratings(source) for source in sys.argv[2:]]
scorer = grmp_hf.load()
rows = [(row, number) for number, table in enumerate([first, *others]) for row in table.rows]
views = [scorer.prepare(scorer.views(row)) for row, _ in rows]
items = [{"pixel_values": v, "labels": row.quality, "dataset": n} for v, (row, n) in zip(views, rows, strict=True)]
base = copy_base(scorer.model)
base.head = MeanSigma(base.config.clip_config.projection_dim)
model = get_peft_model(base, LNTuningConfig(target_modules=["layer_norm1"], modules_to_save=["head"]))
arguments = grmp_hf.GRMPTrainingArguments(output, max_steps=4, learning_rate=1e-2, save_strategy="no")
plan = sampling.within([number for _, number in rows], 8, 2)  # a step: two groups of 8 pictures of one data set
objective = objectives.pairwise(base.config.quality_levels, sigma="joint")
grmp_hf.GRMPTrainer(model, arguments, objective=objective, plan=plan, train_dataset=items).train()
learnt = dataclasses.replace(scorer, model=model.eval(), scale=first.scale)
means = learnt.outputs(torch.stack([learnt.views(row) for row in first.rows])).mean
base.head.modules_to_save["default"].place(*calibration.place_means(means, torch.from_numpy(first.quality)))
learnt.save(output)  # scores are on the scale of the first data set
print(grmp_hf.load(adapter=output).compare(first.rows[0].image, first.rows[1].image))
