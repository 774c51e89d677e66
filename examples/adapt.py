"""Adapt the embedded model to a few ratings and save what was learnt: python examples/adapt.py RATINGS SHOTS OUTPUT"""

import dataclasses
import sys
import tempfile

import torch

import grmp_hf
from grmp_hf.data import read_ratings, split_rows
from grmp_hf.hub import save
from grmp_hf.training.few_shot import adapt

ratings, shots, output = sys.argv[1:]
table = read_ratings(ratings)
taught, tested = split_rows(table, shots=int(shots), seed=0).select(table)
base = grmp_hf.load()
views = torch.stack([base.views(row) for row in taught])
quality = torch.tensor([row.quality for row in taught])
mean, std = base.processor.image_mean, base.processor.image_std
with tempfile.TemporaryDirectory() as work:
    model = adapt(base.model, views, quality, mean=mean, std=std, output_dir=work)
scorer = dataclasses.replace(base, model=model, scale=table.scale)
scores = scorer.score(row.image for row in tested).score
print("SRCC", grmp_hf.srcc(scores, [row.mos for row in tested]))
save(scorer, output)
