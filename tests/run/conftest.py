"""Fixtures of the command tests: a folder with GIFs in it, and commands called there."""

from pathlib import Path

import pytest

from tests.commands import TINY, Call, call_in, newest_run, write_gifs


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    """Runs a command in tmp_path, where gifs/ holds eight small GIFs."""
    write_gifs(tmp_path / "gifs")
    return call_in(tmp_path, monkeypatch, capsys)


@pytest.fixture
def trained(call: Call, tmp_path: Path) -> Path:
    """The directory of a finished run of four steps."""
    result = call("train", *TINY, "logger=csv")
    assert result.code == 0, result.err
    return newest_run(tmp_path)
