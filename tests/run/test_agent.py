"""An agent ends all ranks with one of them, and says why: real processes, which train nothing."""

import json
import os
import re
import signal
import sys
import threading
from pathlib import Path

import pytest

from ddpm_lightning.run.config.job import JobError
from ddpm_lightning.run.directory.start import read_status
from ddpm_lightning.run.fitting import agent
from ddpm_lightning.run.fitting.agent import launch

SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path
def end(code):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(code))
    Path(f"ready-{rank}").touch()
    time.sleep(600)
def fail(message, code, seconds=0):
    more = {"py_callstack": message, "timestamp": str(int(time.time()) + seconds)}
    error = {"message": {"message": message, "extraInfo": more}}
    Path(os.environ["TORCHELASTIC_ERROR_FILE"]).write_text(json.dumps(error))
    sys.exit(code)
def effect():
    while not Path("ready-1").exists():
        time.sleep(0.01)
    time.sleep(0.05)
    fail("another rank has ended", 1, 60)
def abort():
    while not Path("ready-1").exists():
        time.sleep(0.01)
    time.sleep(0.05)
    os.abort()
rank = int(os.environ["RANK"])
run = Path(os.environ["DDPM_LIGHTNING_RUN"])
if rank == 0:
    run.with_suffix(".new").write_text("run")
    run.with_suffix(".new").rename(run)
while not run.exists():
    time.sleep(0.01)
"""


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a run, in the current one."""
    monkeypatch.chdir(tmp_path)
    status = tmp_path / "run" / "status.json"
    status.parent.mkdir()
    status.write_text(json.dumps({"status": "failed", "seconds": 7.0, "error": "by rank 0"}))
    return status.parent


def command(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Make it what this process was started with."""
    Path("command.py").write_text(SCRIPT + code)
    monkeypatch.setattr(sys, "argv", ["command.py", "${word}", "$$"])


@pytest.mark.slow
def test_ranks_that_end_well_get_the_words_and_environment_of_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    facts = "[sys.argv[1:], os.environ['WORLD_SIZE'], os.environ['LOCAL_RANK']]"
    command(monkeypatch, f"Path(f'facts-{{rank}}').write_text(json.dumps({facts}))")
    launch(3)
    for rank in range(3):
        assert json.loads(Path(f"facts-{rank}").read_text()) == [["${word}", "$$"], "3", str(rank)]


READY = "Path(f'ready-{rank}').touch()"
KILLED = f"({READY}, os.kill(os.getpid(), signal.SIGKILL))"
STOPPED = "os.kill(os.getpid(), signal.SIGSTOP)"
EFFECT = "effect()"
FAULTS = {
    "killed": (
        f"{KILLED} if rank else {EFFECT}",
        1,
        r"rank 1 \(process \d+\): killed by signal 9; .*",
    ),
    "rank 0 killed": (f"end(1) if rank else {KILLED}", 1, r"rank 0 \(process \d+\): killed by .*"),
    "killed under NCCL": (f"{KILLED} if rank else abort()", 1, r"rank 1 .* killed by signal 9; .*"),
    "stopped": (f"{STOPPED} if rank else end(143)", 1, r"rank 1 .* killed by signal 9; .*"),
    "failed": (f"({READY}, fail('no', 1)) if rank else {EFFECT}", 1, r"rank 1 \(process \d+\): no"),
    "refused": ("sys.exit(2) if rank else fail('data: no', 2)", 2, "data: no"),
    "silent": ("sys.exit(3) if rank == 1 else end(0)", 3, ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_the_rank_that_failed_first_is_named_and_its_exit_code_returned(
    name: str, run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code, expected, cause = FAULTS[name]
    monkeypatch.setattr(agent, "_STOPPED_SECONDS", 1)
    command(monkeypatch, code)
    with pytest.raises(JobError) as error:
        launch(2)
    assert error.value.code == expected
    message = capfd.readouterr().err.strip()
    assert re.fullmatch(cause and f"error: {cause}", message)
    recorded = message[7:] if cause.startswith("rank") else "by rank 0"  # which has failed itself
    assert read_status(run) == {"status": "failed", "seconds": 7.0, "error": recorded}


@pytest.mark.slow
def test_signals_are_passed_on_and_ranks_take_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    command(monkeypatch, "end(0 if rank else 143)")

    def interrupt() -> None:
        if Path("ready-0").exists() and Path("ready-1").exists():
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            threading.Timer(0.05, interrupt).start()

    interrupt()
    with pytest.raises(JobError) as error:
        launch(2)
    assert error.value.code == 143
