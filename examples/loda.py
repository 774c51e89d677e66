"""Inject local features into the vision tower and learn from all ratings (LoDa): python examples/loda.py RATINGS OUTPUT

Names of recipes: default (small), paper. For a base of one's own: grmp_hf.load("CLIP", side="BACKBONE").
"""

import dataclasses
import sys

import grmp_hf
from grmp_hf.teaching import cropped_pictures, rated_pictures
from grmp_hf.training.local_features import LoDaRecipe, adapt_locally

ratings, output = sys.argv[1:]
table = grmp_hf.read_ratings(ratings)
base = grmp_hf.load()
scorer = dataclasses.replace(base.without_tiles(), scale=table.scale)  # the network sees the tower's own views
recipe = dataclasses.replace(LoDaRecipe.named("default"), steps=4)  # of 24, to be quick
crops, views = cropped_pictures(scorer, table.rows), rated_pictures(scorer, table.rows)
model = adapt_locally(base.model, crops, views=views, recipe=recipe, output_dir=f"{output}-run")
dataclasses.replace(scorer, model=model).save(output)
print(grmp_hf.load(adapter=output).score(table.rows[0].image).score)
