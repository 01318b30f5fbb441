# make demo   sets everything up and dubs the embedded speaker with the embedded speech
# make test   sets everything up and runs the tests
# make test-long   the tests that take minutes
# make lint   sets everything up and checks style and types
#
# Needs Python 3.11 or 3.12 with venv, and make; everything else comes from wheels into .venv, where
# later runs find it. Variables:
#   PYTHON=python3.12   the interpreter to build .venv with
#   TORCH_INDEX=https://download.pytorch.org/whl/cpu
#                       take torch from this index: the one above saves gigabytes of CUDA
#                       libraries on a machine without an NVIDIA GPU
#   WORKERS=2           processes that run tests at the same time

PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null \
	&& echo $$p && break; done)
VENV ?= .venv
TORCH_INDEX ?=
WORKERS ?= 2
OUTPUT ?= out/demo

BIN := $(VENV)/bin
READY := $(VENV)/ready

# mediapipe asks for the OpenCV build with windows, which needs libGL and X11 of the system. Where
# they are absent, the same version without windows is put in its place: same folder, same API.
HEADLESS = $(BIN)/python -m pip install --no-deps --force-reinstall \
	"opencv-contrib-python-headless==$$($(BIN)/python -c \
	'from importlib.metadata import version; print(version("opencv-contrib-python"))')"

.PHONY: setup demo test test-long lint clean

setup: $(READY)

# with TORCH_INDEX torch comes first and alone: that index is asked for nothing else
$(READY): pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or 3.12 found (set PYTHON=...)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	test -z "$(TORCH_INDEX)" || \
	  $(BIN)/python -m pip install --index-url "$(TORCH_INDEX)" 'torch>=2.9,<2.14'
	$(BIN)/python -m pip install -e '.[dev]'
	$(BIN)/python -c 'import cv2' 2>/dev/null || $(HEADLESS)
	@touch $@

demo: $(READY)
	$(BIN)/dub demo --output $(OUTPUT)

# one thread per worker: more of them only fight over the cores
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

# what takes minutes: films of ten minutes, sound of an hour, thousands of damaged files
test-long: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist load -m long

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
