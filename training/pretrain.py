"""Pre-training for ``accelerate launch``: a recipe, then the options of ``grmp-iqa pretrain``.

accelerate launch training/pretrain.py RECIPE.yaml --photos photos --output my-start
"""

import sys

from grmp_hf.cli.main import main

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: accelerate launch training/pretrain.py RECIPE.yaml [options of grmp-iqa pretrain]")
    sys.exit(main(["pretrain", "--recipe", *sys.argv[1:]]))
