"""What torch is imported with."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ddpm_lightning.run.config.torch_environment import prepare_torch
from tests.commands import ROOT

SAID = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "TORCHINDUCTOR_CACHE_DIR")


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SAID:
        monkeypatch.setenv(name, "")  # what the test leaves is taken back
        monkeypatch.delenv(name)


def test_what_the_environment_says_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    prepare_torch()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    prepare_torch()
    assert "GOMP_SPINCOUNT" not in os.environ


@pytest.mark.slow
def test_commands_say_it_before_torch_is_imported(tmp_path: Path) -> None:
    """Its OpenMP reads the environment once, when it is loaded."""
    code = """import os, sys
from ddpm_lightning.run.commands import command
def task(*_):
    print(os.environ["GOMP_SPINCOUNT"], os.environ["TORCHINDUCTOR_CACHE_DIR"])
    print("torch" in sys.modules)
command.run_command(task, "config")"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert result.stdout == f"2000 {tmp_path}/data/cache/compiler\nFalse\n"
