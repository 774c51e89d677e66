"""Inject local features into the vision tower and learn from all ratings (LoDa): python examples/loda.py RATINGS OUTPUT

As published, on a GPU: --recipe paper --model openai/clip-vit-base-patch16 --side microsoft/resnet-50
"""

import argparse
import dataclasses

import grmp_hf
from grmp_hf.teaching import cropped_pictures, rated_pictures
from grmp_hf.training.local_features import LoDaRecipe, adapt_locally

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("ratings")
parser.add_argument("output")
parser.add_argument("--model", default="default", help="base, a CLIP")
parser.add_argument("--side", help="backbone beside it (default: the base's own)")
parser.add_argument("--recipe", default="default", help="default (small), paper, or a file of YAML")
parser.add_argument("--steps", type=int, default=4, help="where no epochs are counted: 4 to be quick, default has 24")
args = parser.parse_args()
recipe = dataclasses.replace(LoDaRecipe.named(args.recipe), steps=args.steps)
table, base = grmp_hf.read_ratings(args.ratings), grmp_hf.load(args.model, side=args.side)
scorer = dataclasses.replace(base.without_tiles(), scale=table.scale)  # the network sees the tower's own views
crops, views = cropped_pictures(scorer, table.rows), rated_pictures(scorer, table.rows)
model = adapt_locally(base.model, crops, views=views, recipe=recipe, output_dir=f"{args.output}-run")
dataclasses.replace(scorer, model=model).save(args.output)
print(grmp_hf.load(adapter=args.output).score(table.rows[0].image).score)
