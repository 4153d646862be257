"""What a command imports, each in a new interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ROOT

COMMANDS = {
    "sample": ["checkpoint=last", "num_samples=1", "sampler.num_evaluations=2"],
    "evaluate": ["checkpoint=last"],
    "export": ["checkpoint=last"],
    "inspect_data": ["data=gif_folder", "data.path=gifs", "data.size=8", "num_samples=2"],
    "show": ["score", "log_snrs=[0]"],
}

HEAVY = ("lightning", "wandb", "diffusers", "huggingface_hub")


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "sample",
        *(pytest.param(c, marks=pytest.mark.long) for c in ("evaluate", "export", "inspect_data")),
    ],
)
def test_only_training_imports_lightning_and_wandb(
    command: str, trained: Path, tmp_path: Path
) -> None:
    program = (
        f"import runpy, sys; runpy.run_path({str(ROOT / command)!r} + '.py', None, '__main__');"
        f"print(*sorted({{'torch', *{HEAVY}}} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, *COMMANDS[command]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "torch"
