"""Commands that are forked from a server do what they do in a new interpreter."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ddpm_lightning.files.checkpoints import read
from ddpm_lightning.plots.curves import read_metrics
from tests.commands import ROOT, TINY, spawn, start, write_gifs
from tests.training.test_resume import differences, kept

pytestmark = pytest.mark.slow  # all of them

PROBE = "tests/run/probe"
OF_TRITON = ("nanobind: ", " - ", "See https://nanobind")  # which it prints as Python ends
MEASURED = ("clips_per_s", "data_wait", "tflops", "mfu", "memory_gib")  # of this machine


def run_of(folder: Path, cold: bool) -> Path:
    write_gifs(folder / "gifs")
    result = spawn(folder, "train", *TINY, "logger=csv", "run_dir=out", cold=cold, draws=True)
    assert result.code == 0, result.err
    return folder / "out"


def stored(run: Path, name: str) -> Any:
    config = yaml.safe_load((run / name).read_text().replace(str(run), "out"))
    assert config.get("config", config).pop("run_id")
    return config


@pytest.mark.long
def test_a_forked_run_leaves_the_files_of_a_cold_one(tmp_path: Path) -> None:
    cold, forked = (run_of(tmp_path / name, cold=name == "cold") for name in ("cold", "forked"))
    files = [{str(p.relative_to(run)) for p in run.rglob("*")} for run in (cold, forked)]
    assert files[0] == files[1]
    for name in ("config.yaml", "composed.yaml"):
        assert stored(cold, name) == stored(forked, name)
    curves = [read_metrics(run / "metrics.csv") for run in (cold, forked)]
    assert curves[0].keys() == curves[1].keys()
    for name in curves[0]:
        if not name.endswith(MEASURED):
            assert curves[0][name] == curves[1][name], name
    for path in cold.glob("checkpoints/*.ckpt"):
        states = [kept(read(run / "checkpoints" / path.name)) for run in (cold, forked)]
        assert differences(states[0], states[1]) == []
    for path in (*cold.glob("samples/*.gif"), cold / "log_snr.png"):
        assert path.read_bytes() == (forked / path.relative_to(cold)).read_bytes()


def probed(folder: Path, cold: bool) -> tuple[dict[str, Any], int, str]:
    result = spawn(folder, PROBE, "a", "b c", cold=cold)
    return json.loads(result.out.splitlines()[0]), result.code, result.out + result.err


@pytest.mark.long
def test_a_forked_process_begins_as_a_cold_one(tmp_path: Path) -> None:
    """And ends: what is flushed, called at exit and printed of an error."""
    cold, code, printed = probed(tmp_path, cold=True)
    forked, forked_code, forked_printed = probed(tmp_path, cold=False)
    assert cold.pop("modules") <= forked.pop("modules")
    assert not set(cold.pop("random")) & set(forked.pop("random"))
    assert cold == forked
    assert cold["words"] == [str(ROOT / f"{PROBE}.py"), "a", "b c"]
    assert code == forked_code == 1
    for text in (printed, forked_printed):
        assert "at exit\n" in text
        own = [line for line in text.splitlines() if not line.startswith(OF_TRITON)]
        assert own[-1] == "ValueError: the end"


def test_its_code_and_the_signal_that_ends_it_are_known(tmp_path: Path) -> None:
    process = start(tmp_path, "train", "model=medain")
    assert process.wait(600) == 2
    assert process.poll() == 2
    process = start(tmp_path, PROBE, "sleep")
    process.terminate()
    assert process.communicate(timeout=600) == ("", "")
    assert process.returncode == -15
