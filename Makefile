# make demo | test | serve | bench | lint | clean        (make help)
VENV  ?= .venv
# The torch that is installed: `cpu`, or `cuda` for a machine with an NVIDIA GPU (several GB).
TORCH ?= cpu
PYTHON ?= python3
PY    := $(VENV)/bin/python
PIP   := $(PY) -m pip --disable-pip-version-check
TORCH_VERSION := 2.13.0
CSRC  := $(shell find csrc -type f)

help: ## say what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

demo: $(VENV)/.installed ## forge the iguana: a real server, a real photo, out/iguana.png
	$(PY) examples/demo.py

serve: $(VENV)/.installed ## run the server with its default configuration
	$(VENV)/bin/iguana-server serve

test: lint ## everything that must hold: lint, types, protos, C++ and CUDA gates, the tests
	$(PY) build.py extension
	$(PY) -m pytest $(PYTEST)

lint: $(VENV)/.tested ## formatting, lint, types, protos
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy server clients/python/iguana tests benchmarks examples build.py
	$(VENV)/bin/buf lint proto
	@tag=$$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null); \
	if [ -n "$$tag" ]; then $(VENV)/bin/buf breaking proto --against ".git#tag=$$tag,subdir=proto"; \
	else echo "buf breaking: no release tag yet"; fi
	$(PY) build.py stubs --check

bench: $(VENV)/.tested ## the benchmarks, as tables
	$(PY) benchmarks/kernels.py

clean: ## remove what was made, the environment too
	rm -rf $(VENV) build out dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf server/iguana_server/_C.so server/*.egg-info clients/python/*.egg-info

# The CPU build of torch lies in PyTorch's own index, not in PyPI: a mirror that is
# configured on this machine is asked first.
$(VENV)/.torch: Makefile
	$(PYTHON) -m venv $(VENV)
ifeq ($(TORCH),cuda)
	$(PIP) install -q torch==$(TORCH_VERSION)
else
	$(PIP) install -q -c requirements/constraints.txt torch==$(TORCH_VERSION)+cpu || \
	$(PIP) install -q -c requirements/constraints.txt --index-url https://download.pytorch.org/whl/cpu torch==$(TORCH_VERSION)+cpu
endif
	$(PIP) install -q -c requirements/constraints.txt setuptools
	@touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml clients/python/pyproject.toml requirements/constraints.txt build.py $(CSRC)
	$(PIP) install -q -c requirements/constraints.txt --no-build-isolation -e clients/python -e .
	@touch $@

$(VENV)/.tested: $(VENV)/.installed requirements/tests.txt requirements/oracles.txt
	$(PIP) install -q -c requirements/constraints.txt -r requirements/tests.txt
	$(PIP) install -q --no-deps -r requirements/oracles.txt
	@touch $@

.PHONY: help demo serve test lint bench clean
