# Two commands from a fresh machine to a result: `make demo` and `make test`.
# Everything runs in .venv, which envs/bootstrap.py makes from the hashed lock in envs/locks/.
PY ?= python3
# A PY given by hand is the interpreter to build on; the default only starts the search for one.
CHOSEN := $(if $(filter file,$(origin PY)),,--python $(PY))
VENV := .venv/bin
ARGS ?=
FORMATTED := bevrepro model tests envs docker

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-slow test-ops test-openmmlab test-container lint format docs lock lock-check gpu-check clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo '  Pass more words with ARGS, e.g. make test ARGS="-k mount"; another interpreter with PY=python3.12.'

venv:  ## Make .venv, or reuse it when it is up to date
	@$(PY) envs/bootstrap.py $(CHOSEN)

demo: venv  ## From nothing to a report with pictures (minutes, no GPU needed)
	@$(VENV)/bevrepro demo $(ARGS)

# A file's tests share what they set up, so they stay in one process. Files go by their names: the other order is
# by the number of tests, and ends with files of one long test. What the tests' children import is compiled once.
test test-slow: export PYTHONDONTWRITEBYTECODE =
test: venv  ## Run the default tests, on up to four cores
	@$(VENV)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

test-slow: venv  ## Run the slow tests: a demo that has to learn, the real keyframe, full sizes (minutes)
	@$(VENV)/python -m pytest -m slow -n 2 --dist loadfile $(if $(ARGS),$(ARGS),tests/data tests/drive tests/model)

# Here the GPU operators run too: in Triton's interpreter, and its compiler makes code for GPUs that are not there.
test-ops: venv  ## Test the operators in an environment with Triton, .venv-ops (minutes, no GPU needed)
	@$(VENV)/bevrepro env build --target cpu-triton --prefix .venv-ops > /dev/null
	@.venv-ops/bin/python -m pytest -m "not gpu" -n logical --maxprocesses 4 --dist loadfile $(if $(ARGS),$(ARGS),tests/model/ops)

# CI takes one of the two: make test-openmmlab ARGS="--target cpu-openmmlab-torch2"
test-openmmlab: venv  ## Build the CPU targets with mmcv and mmdet3d 1.x, test inside them (45 minutes, 10 GB)
	@$(VENV)/python tests/openmmlab/tier.py $(ARGS)

lint: venv  ## Check style (ruff) and types (mypy)
	$(VENV)/ruff check .
	$(VENV)/ruff format --check $(FORMATTED)
	$(VENV)/mypy

format: venv  ## Rewrite the code in the agreed format
	$(VENV)/ruff check --fix .
	$(VENV)/ruff format $(FORMATTED)

docs: venv  ## Write docs/checks.md from the doctor's checks, and the tables of docs/performance.md
	@$(VENV)/bevrepro doctor --list --format markdown > docs/checks.md.new && mv docs/checks.md.new docs/checks.md
	@$(VENV)/python benchmarks/performance_page.py

test-container: venv  ## Build the CPU image twice and look inside (root, buildah, debootstrap; five minutes)
	@$(VENV)/python -m pytest -m container $(if $(ARGS),$(ARGS),tests/container)

lock: venv  ## Resolve envs/targets/*.toml again into envs/locks/
	@$(VENV)/bevrepro env lock $(ARGS)
	@$(VENV)/python docker/control.py

lock-check: venv  ## Say whether the locks still match the targets (ARGS=--resolve asks the package index too)
	@$(VENV)/bevrepro env lock --check $(ARGS)

gpu-check:  ## Check the numbers and measure on a GPU, in nine minutes (PY: a Python with torch and Triton)
	@PYTHONPATH=model$${PYTHONPATH:+:$$PYTHONPATH} $(PY) -m bevformer.gpu_check $(ARGS)

clean:  ## Remove .venv, .venv-ops and .openmmlab, caches and built files (results in demo_out and work_dirs stay)
	rm -rf .venv .venv-ops .venv-ops.builds .openmmlab build dist .pytest_cache .mypy_cache .ruff_cache
	find bevrepro model tests envs -name __pycache__ -type d -prune -exec rm -rf {} +
