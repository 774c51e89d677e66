from __future__ import annotations

import subprocess
import sys

from grmp_hf.measuring import peak_memory_mib

WITHOUT = """
import psutil
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in ("resource", "fcntl", "termios", "pwd", "grp"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import importlib.util
spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "resource" else spec(name, *more)
import grmp_hf.cli.main, grmp_hf.measuring
print(grmp_hf.measuring.peak_memory_mib())
"""


def test_the_peak_is_that_of_this_process() -> None:
    assert 10 < peak_memory_mib() < 10**6


def test_modules_that_windows_lacks_are_not_needed() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 10 < float(done.stdout) < 10**6
