# `make demo` and `make test` do all the set-up on a fresh machine (Python 3.11 or later, pip).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
TORCH ?= torch==2.13.0
EXAMPLE ?= cnn
TARGET ?= nvidia-h100-sxm
BATCH ?= 256

.PHONY: demo test test-slow lint format types bench clean

demo: $(VENV)/base
	$(BIN)/eopt compile examples/$(EXAMPLE)/model.onnx --passes simplify,fuse,quant \
	  --data examples/$(EXAMPLE)/calibration.npz --eval-data examples/$(EXAMPLE)/heldout.npz \
	  --metric top1 --max-loss 0.01 --target $(TARGET) --batch $(BATCH) --out out

test: $(VENV)/test
	$(BIN)/python -m pytest -n 2 tests

test-slow: $(VENV)/slow
	$(BIN)/python -m pytest tests -m "slow or not slow"

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) types

# The folders at the root are the packages eopt.*; mypy wants to see them below one folder of that name.
types: $(VENV)/dev
	rm -rf build/types && mkdir -p build/types/eopt
	ln -s $(CURDIR)/eopt/* $(addprefix $(CURDIR)/,ir passes costmodel backends tools) build/types/eopt/
	cd build/types && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml -p eopt

format: $(VENV)/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/test
	$(BIN)/python benchmarks/main_job.py

$(VENV)/base: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

$(VENV)/test: $(VENV)/base
	$(PIP) -e .[test]
	touch $@

$(VENV)/train: $(VENV)/test
	$(PIP) "$(TORCH)"
	$(PIP) -e .[train]
	touch $@

$(VENV)/slow: $(VENV)/test
	$(PIP) "$(TORCH)"
	$(PIP) -e .[test,examples,hf,minilm,tvm,meters]
	touch $@

$(VENV)/dev: $(VENV)/test
	$(PIP) -e .[dev]
	touch $@

clean:
	rm -rf $(VENV) build out *.egg-info
