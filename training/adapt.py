"""Adaptation for ``accelerate launch``: a recipe, then the options of ``grmp-iqa adapt``.

accelerate launch training/adapt.py RECIPE.yaml --data ratings.csv --shots 50 --output my-adapter
"""

import sys

from grmp_hf.cli.main import main

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: accelerate launch training/adapt.py RECIPE.yaml [options of grmp-iqa adapt]")
    sys.exit(main(["adapt", "--recipe", *sys.argv[1:]]))
