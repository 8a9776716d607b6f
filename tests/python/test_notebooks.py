"""The notebooks: stored without outputs, and every cell runs. None asserts how fast something is."""

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from conftest import REPOSITORY

FOLDER = REPOSITORY / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
CELL_TIMEOUT_S = 240


def stored_results(notebook: dict[str, Any]) -> list[str]:
    """Ids of cells that hold what a run left: outputs, counts, or when it was."""
    return [
        cell["id"]
        for cell in notebook["cells"]
        if cell.get("outputs") or cell.get("execution_count") or cell["metadata"]
    ]


def executed(notebook: Any, folder: Path) -> Any:
    """The notebook after all its cells ran in ``folder``; raises `CellExecutionError`."""
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT_S,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    return client.execute()


def test_there_are_three() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["01_parity", "02_regression", "03_how_the_gate_decides"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path: Path) -> None:
    notebook = json.loads(path.read_text())
    nbformat.validate(notebook)
    assert stored_results(notebook) == []


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    done = executed(notebook, FOLDER)
    code = [cell for cell in done.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    shown = [output for cell in code for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in shown), "a notebook without a plot"
    assert [output.text for output in shown if output.get("name") == "stderr"] == []


def notebook_of(source: str) -> Any:
    cell: Any = nbformat.v4.new_code_cell(source)  # type: ignore[no-untyped-call]
    return nbformat.v4.new_notebook(cells=[cell])  # type: ignore[no-untyped-call]


@pytest.mark.filterwarnings("default")
def test_outputs_and_errors_would_be_found(tmp_path: Path) -> None:
    notebook = notebook_of("1 + 1")
    assert stored_results(notebook) == []
    done = executed(notebook, tmp_path)
    assert stored_results(done) == [done.cells[0].id]
    with pytest.raises(CellExecutionError, match="AssertionError"):
        executed(notebook_of("assert 1 == 2"), tmp_path)
