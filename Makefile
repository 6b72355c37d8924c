# Every target sets up what it needs, in .venv inside this clone.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
export HF_HUB_OFFLINE = 1

.PHONY: demo test lint wheel clean

demo: .venv/installed
	mkdir -p out
	$(BIN)/unialign-gen showcase --out out/demo.png

test: .venv/installed
	$(BIN)/python -m pytest

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/types && mkdir -p build/types/unialign_gen  # one tree as installed, so that types are seen across folders
	ln -s $(CURDIR)/unialign_gen/* $(CURDIR)/pipelines $(CURDIR)/eval $(CURDIR)/checkpoints build/types/unialign_gen/
	cd build/types && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml -p unialign_gen

wheel: .venv/installed
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir out .

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch torchvision
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf .venv out build *.egg-info
