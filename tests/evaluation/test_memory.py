"""Peak memory is a process's own."""

import subprocess
import sys

from polyad.evaluation import memory

CHILD = """import importlib.util, sys
spec = importlib.util.spec_from_file_location("memory", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(module.largest_resident_set())"""


def test_what_the_parent_holds_is_not_counted():
    held = b"x" * 300_000_000
    done = subprocess.run([sys.executable, "-c", CHILD, memory.__file__], capture_output=True, text=True, check=True)
    assert 1_000_000 < int(done.stdout) < len(held)
