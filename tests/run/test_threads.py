"""How commands share the cores."""

import os
import subprocess
import sys

import pytest

from ddpm_lightning.run.threads import yield_cores
from tests.commands import ROOT


def test_what_the_environment_says_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    yield_cores()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    yield_cores()
    assert "GOMP_SPINCOUNT" not in os.environ


def test_commands_say_it_before_torch_is_imported() -> None:
    """Its OpenMP reads the environment once, when it is loaded."""
    code = "import sys, ddpm_lightning.run.cli; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout == "False\n"
