"""Run scripts in forked processes, in which other libraries are there but nothing of ours.

A request is a line of JSON: threads, the script, its arguments. The answer is its exit code; what it has printed goes
to `out.txt` and `errors.txt` of the working folder.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import sys
import traceback

import accelerate
import datasets
import matplotlib.pyplot
import peft
import torch
import transformers.pipelines
from transformers import CLIPModel, Trainer

LIBRARIES = (accelerate, datasets, matplotlib.pyplot, peft, transformers.pipelines, CLIPModel, Trainer)


def run(threads: int, script: str, *arguments: str) -> int:
    for name, number in (("out.txt", 1), ("errors.txt", 2)):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    torch.set_num_threads(threads)
    sys.argv, sys.path[0] = [script, *arguments], os.path.dirname(script)
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    gc.freeze()  # a Trainer looks for garbage when it ends
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = run(*json.loads(line))
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()
