#!/usr/bin/env bash
# The architectures that the suite goes through, with the oldest transformers that polyad supports, which is installed
# into a folder of its own in front of the environment's packages.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-$(pwd)/.venv/bin/python}
oldest=5.0.0
place=${OLDEST:-$(dirname "$(dirname "$python")")/oldest}
if [ ! -e "$place/.ready" ]; then
  rm -rf "$place"
  "$python" -m pip install -q --disable-pip-version-check --target "$place" \
    "transformers==$oldest" httpx 'huggingface-hub>=1.3,<2'
  rm -rf "$place"/torch "$place"/torch-* "$place"/numpy "$place"/numpy-* "$place"/numpy.libs
  touch "$place/.ready"
fi
export PYTHONPATH="$place:$(pwd)/src:$(pwd)/tests" OMP_NUM_THREADS=1
"$python" -c "import transformers; assert transformers.__version__ == '$oldest', transformers.__version__"
"$python" -m pytest -q -p no:cacheprovider tests/models/test_architectures.py -k test_jobs_end "$@"
