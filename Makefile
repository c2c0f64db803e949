# Everything starts from Python 3.11+ and make; the rest is installed into .venv once.
#
#   make demo     train, keep, gate, promote and roll back a sentiment classifier (about two minutes)
#   make test     check, then every test
#   make check    style, types, and which room may import which
#   make bench    time and memory against plain Keras and the raw disk
#   make fuzz     a minute of made-up files for each reader
#   make exactness   trainings killed and gone on with, compared to the bit; writes the table in the docs
#   make docs     write the generated pages and pictures anew
#   make clean    remove what was installed and built

PYTHON ?= python3
VENV ?= .venv
# The oldest Keras whose files and API are tested against.
OLDEST_KERAS := 3.6.0

BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed-$(shell cat pyproject.toml constraints.txt | cksum | cut -d ' ' -f 1)
OLDEST := $(VENV)/keras-$(OLDEST_KERAS)
COLD_COVERAGE := 95
# Two at a time: a file's tests stay together, for what they share.
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export TF_CPP_MIN_LOG_LEVEL := 3
export CUDA_VISIBLE_DEVICES :=
export JAX_PLATFORMS := cpu
export MODELKEEP_OLDEST_KERAS := $(abspath $(OLDEST))

.DEFAULT_GOAL := help
.PHONY: help setup demo test check test-cold test-live test-backends coverage bench exactness fuzz docs clean

help:
	@sed -n 's/^#   //p' Makefile

setup: $(INSTALLED) $(OLDEST)

$(INSTALLED):
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "modelkeep needs Python 3.11 or later: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev --editable '.[tensorflow,jax,torch,sklearn,tokenizers,tensorboard,files,savedmodel,archives,onnx,litert,openvino,signing,sbom]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps tf-keras # it asks for a second TensorFlow beside the one for CPUs
	rm -f $(VENV)/installed-*
	touch $@

$(OLDEST): | $(INSTALLED)
	$(BIN)/python -m pip install --quiet --no-deps --target $@.part keras==$(OLDEST_KERAS)
	mv $@.part $@

demo: $(INSTALLED)
	KERAS_BACKEND=tensorflow $(BIN)/python demo/demo.py

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Cold tests first: they tell most, soonest.
test: setup check
	rm -f .coverage .coverage.*
	$(MAKE) --no-print-directory test-cold
	$(MAKE) --no-print-directory test-live
	$(MAKE) --no-print-directory coverage
	$(MAKE) --no-print-directory test-backends

test-cold:
	COVERAGE_FILE=.coverage.cold $(PYTEST) -m 'not keras' --cov --cov-report=

test-live:
	COVERAGE_FILE=.coverage.live KERAS_BACKEND=tensorflow $(PYTEST) -m keras --cov --cov-report=

# What differs by backend once more under the other two.
test-backends:
	KERAS_BACKEND=jax $(PYTEST) -m backends
	KERAS_BACKEND=torch $(PYTEST) -m backends

# Without what runs only in processes that are not allowed to write down what they ran.
coverage:
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --omit 'src/modelkeep/live/*,src/modelkeep/safety/confinement.py' --skip-covered --fail-under $(COLD_COVERAGE)

bench: $(INSTALLED)
	for script in bench/*.py; do $(BIN)/python $$script || exit 1; done

# About an hour and a half on two cores: every kind of training, killed ten times under each backend.
exactness: $(INSTALLED)
	$(BIN)/python tests/exactness.py

# What was found is kept in the corpus, for the next run to begin with.
fuzz: $(INSTALLED)
	$(BIN)/python -m pip install --quiet 'atheris>=2.3'
	for form in $(notdir $(wildcard fuzz/corpus/*)); do mkdir -p $(VENV)/fuzz/$$form && \
	  $(BIN)/python fuzz/fuzz.py $$form -max_total_time=60 -timeout=10 -rss_limit_mb=2048 -max_len=65536 \
	  $(VENV)/fuzz/$$form fuzz/corpus/$$form || exit 1; done

docs: $(INSTALLED)
	$(BIN)/python -m modelkeep.cli.reference > $(VENV)/cli.md
	mv $(VENV)/cli.md docs/cli.md
	$(BIN)/python tests/test_rules.py
	KERAS_BACKEND=tensorflow $(BIN)/python tests/test_silent_failures.py
	KERAS_BACKEND=tensorflow $(BIN)/python tests/test_legacy_table.py
	KERAS_BACKEND=tensorflow $(BIN)/python demo/picture.py docs/images/demo.svg

clean:
	rm -rf $(VENV) build dist htmlcov .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
