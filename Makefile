# Every target sets up what it needs, in .venv inside this clone.
# TORCH_INDEX: another index for PyTorch, such as that of its builds without CUDA.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
export HF_HUB_OFFLINE = 1

.PHONY: demo test lint wheel docs clean

demo: .venv/installed
	mkdir -p out
	$(BIN)/unialign-gen showcase --out out/demo.png

test: .venv/installed  # two processes, each with whole files; more need 4 GB each
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: .venv/installed build/types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd build/types && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml -p unialign_gen

wheel: .venv/installed  # the package, and what its wheel has no room for
	rm -rf build/lib checkpoints/build
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir out . ./checkpoints

docs: .venv/installed build/types
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

build/types: FORCE  # one tree as installed, so that types and docstrings are seen across folders
	rm -rf $@ && mkdir -p $@/unialign_gen
	ln -s $(CURDIR)/unialign_gen/* $(CURDIR)/pipelines $(CURDIR)/eval $(CURDIR)/checkpoints $@/unialign_gen/

FORCE:

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch torchvision $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf .venv out build *.egg-info checkpoints/build checkpoints/*.egg-info
