# Every target works on a fresh machine: what needs the environment installs it first.
#
#   make install PYTHON=3.12                  another Python (3.10 to 3.12), or its path
#   make install MMSLAK_WHEELHOUSE=/some/dir  where the compiled mmcv is kept
#   make test TESTS=tests/ops                 some of the tests
#   make test-matrix ONLY=onedl-3.12          one combination of stack and Python
#   make test STACK=onedl                     the maintained fork of the toolboxes, in .venv-onedl
#   make lock UPGRADE=1                       pin newer versions

.DEFAULT_GOAL := help
.PHONY: help install demo demo-det test test-all test-lowest test-matrix wheel docs lint format lock clean

# Settings of the caller's shell that would leak into the environment made here.
unexport PYTHON PYTHONPATH PYTHONHOME VIRTUAL_ENV

PYTHON ?=
# Not ?=, because variables of the caller's shell must not choose what is replaced.
STACK = openmmlab
VENV = .venv$(if $(filter-out openmmlab,$(STACK)),-$(STACK))
VENV_PYTHON = $(VENV)/bin/python
# Any Python 3 runs the installer; it need not be the one that is installed with.
INSTALL = '$(or $(shell command -v python3 2>/dev/null),$(PYTHON),python3)' tools/install
# One process for each core, each of which runs whole files and computes with one thread.
PYTEST = OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -n auto --dist loadfile --no-loadscope-reorder --max-worker-restart 0

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

install: ## make .venv with everything pinned (once about 4 minutes, then nothing to do)
	@$(INSTALL) --stack '$(STACK)' --venv '$(VENV)' $(if $(PYTHON),--python '$(PYTHON)')

demo: install ## show what the package does, on sample data made on the spot
	@$(VENV_PYTHON) tools/demo.py

demo-det: install ## the same for detection: boxes and masks, two detectors, about 15 minutes
	@$(VENV_PYTHON) tools/demo_det.py

test: install ## run the tests, the longer ones left out
	@$(PYTEST) -m "not slow" $(TESTS)

test-all: install ## run all tests
	@$(PYTEST) $(TESTS)

test-lowest: ## test what needs PyTorch alone on the lowest PyTorch, with nothing else installed
	@test -x .venv-lowest/bin/python || '$(or $(shell command -v python3 2>/dev/null),python3)' -m venv .venv-lowest
	@.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/lowest.txt
	@PYTHONPATH=. .venv-lowest/bin/python -m pytest -m "not slow" tests/ops tests/sparsity tests/models/test_torch_alone.py

test-matrix: ## run the tests on both stacks, on each supported Python and on the lowest PyTorch
	@$(INSTALL) --test-matrix $(TESTS) $(if $(ONLY),--only $(ONLY))

wheel: install ## build a wheel in dist/ with the CPU kernels for x86-64
	@rm -f dist/*.whl
	@MMSLAK_PREBUILT=1 $(VENV_PYTHON) -m pip wheel --quiet --no-build-isolation --no-deps --no-index --wheel-dir dist .
	@$(dir $(VENV_PYTHON))auditwheel show dist/*.whl

docs: ## build the documentation as a website in site/
	@test -x .venv-docs/bin/python || '$(or $(shell command -v python3 2>/dev/null),python3)' -m venv .venv-docs
	@.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/docs.txt
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/python -m mkdocs build --strict
	@echo 'Open site/index.html, or, to search: python3 -m http.server --directory site'

lint: install ## check formatting, code and the direction of imports
	@$(VENV_PYTHON) -m ruff format --check .
	@$(VENV_PYTHON) -m ruff check .
	@$(VENV)/bin/lint-imports --no-cache --no-logo

format: install ## rewrite the code as `make lint` wants it
	@$(VENV_PYTHON) -m ruff format .
	@$(VENV_PYTHON) -m ruff check --fix .

lock: ## pin for each stack what setup.py asks for
	@$(INSTALL) --lock $(if $(UPGRADE),--upgrade)

clean: ## remove the environments and everything that can be made again (the wheelhouse stays)
	rm -rf .venv .venv-* .install.lock build dist site *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
