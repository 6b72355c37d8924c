"""The notebooks run from the first cell to the last, and are kept without outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parent.parent / "docs" / "examples" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_it_runs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    done = NotebookClient(
        notebook, timeout=200, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [out for cell in done.cells for out in cell.get("outputs", ())]
    if path.stem == "draw-and-mix":
        assert sum("image/png" in out.get("data", {}) for out in outputs) == 4
    else:
        recalls = next(
            eval(out.data["text/plain"]) for out in outputs if "unialign" in out.get("data", {}).get("text/plain", "")
        )
        assert min(recalls.values()) > 0.5
    assert list(tmp_path.iterdir()) == []


def test_there_are_two():
    assert len(NOTEBOOKS) == 2
