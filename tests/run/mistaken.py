"""Makes all mistakes of test_mistakes in one process; told.json holds what came of each.

And which modules were imported by then, but for those that are found late.
"""

import contextlib
import io
import json
import sys
from pathlib import Path

import pytest

from tests.commands import Result, call_in
from tests.run.test_mistakes import LATE, MISTAKES, words_of


class Streams:
    """Takes the place of pytest's capsys."""

    def __init__(self) -> None:
        self.out, self.err = io.StringIO(), io.StringIO()

    def readouterr(self) -> tuple[str, str]:
        return self.out.getvalue(), self.err.getvalue()


def make(name: str) -> Result:
    streams = Streams()
    call = call_in(Path.cwd(), pytest.MonkeyPatch(), streams)
    with contextlib.redirect_stdout(streams.out), contextlib.redirect_stderr(streams.err):
        return call("train", *words_of(name))


if __name__ == "__main__":
    results = {name: make(name) for name in MISTAKES if name not in LATE}
    modules = list(sys.modules)
    results |= {name: make(name) for name in LATE}
    Path("told.json").write_text(json.dumps({"results": results, "modules": modules}))
