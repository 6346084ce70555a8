"""Writes every kind of folder that polyad saves, with what this version reads of it; kept for reference.

``cd tests && python -m saved.make`` fills ``saved/VERSION`` for the version that is installed; names of functions
after it make their part alone. What stands there of an older version is never written again: it is what users have.
"""

import sys

from saved import adapters, decompositions, models, unfinished
from saved.shelf import ROOT

if __name__ == "__main__":
    wanted = sys.argv[1:]
    for module in (models, decompositions, adapters, unfinished):
        for make in module.MAKE:
            if not wanted or make.__name__ in wanted:
                make()
    print(f"{sum(file.stat().st_size for file in ROOT.rglob('*') if file.is_file()):,} bytes")
