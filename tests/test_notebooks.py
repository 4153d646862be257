"""The notebooks of docs/ run, and read well where nobody runs them.

Their outputs are made by Jupyter: jupyter nbconvert --to notebook --execute --inplace FILE. Here
their code is executed cell by cell, which needs neither a kernel nor what comes with one.
"""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib import pyplot

FILES = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))
SHORT = {"num_steps": 3}  # in the place of what a cell with the tag parameters says
LARGEST = 100_000  # bytes of a picture

every_notebook = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def code_cells(file: Path) -> list[dict[str, Any]]:
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "file",
    [
        pytest.param(file, marks=pytest.mark.long if file.stem == "library" else ())
        for file in FILES
    ],
    ids=lambda file: file.stem,
)
def test_notebook_runs(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyplot, "show", lambda: pyplot.close("all"))
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(code_cells(file), start=1):
        source = "".join(cell["source"])
        exec(compile(source, f"{file.name}, code cell {number}", "exec"), namespace)
        if "parameters" in cell["metadata"].get("tags", ()):
            namespace |= {**SHORT, "folder": str(tmp_path)}


@every_notebook
def test_notebook_shows_what_it_did_in_order_without_errors_and_in_small_pictures(
    file: Path,
) -> None:
    cells = code_cells(file)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not any(output.get("name") == "stderr" or "ename" in output for output in outputs)
    pictures = [output["data"]["image/png"] for output in outputs if "data" in output]
    assert pictures
    assert max(len(base64.b64decode("".join(picture))) for picture in pictures) < LARGEST
