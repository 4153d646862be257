"""Makes the common or the rare mistakes of test_mistakes in one process.

told.json holds what came of each.

And which modules were imported by then, but for those that are found late.
"""

import contextlib
import io
import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.commands import Result, call_in
from tests.run.test_mistakes import is_early, names_of, words_of


class Streams:
    """Takes the place of pytest's capsys."""

    def __init__(self) -> None:
        self.out, self.err = io.StringIO(), io.StringIO()

    def readouterr(self) -> tuple[str, str]:
        return self.out.getvalue(), self.err.getvalue()


leaving: list[str] = []  # mistakes that left a run directory behind


def make(name: str) -> Result:
    streams = Streams()
    call = call_in(Path.cwd(), pytest.MonkeyPatch(), streams)
    with contextlib.redirect_stdout(streams.out), contextlib.redirect_stderr(streams.err):
        result = call("train", *words_of(name))
    if list(Path("outputs").glob("*")):
        leaving.append(name)
        shutil.rmtree("outputs")
    return result


if __name__ == "__main__":
    names = names_of(sys.argv[1])
    results = {name: make(name) for name in names if is_early(name)}
    modules = list(sys.modules)
    results |= {name: make(name) for name in names if not is_early(name)}
    Path("told.json").write_text(
        json.dumps({"results": results, "modules": modules, "leaving": leaving})
    )
