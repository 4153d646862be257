"""Which signals end a run, and that they are noted, not obeyed at once."""

import os
import signal
from collections.abc import Iterator

import pytest

from ddpm_lightning.training.signals import (
    SignalWatch,
    Stopped,
    stopped_by_signals,
    watched_signals,
)

ENDS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGXCPU]


@pytest.fixture(autouse=True)
def own_handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As a shell starts a process in its foreground."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    before = {number: signal.getsignal(number) for number in (*ENDS, signal.SIGUSR1)}
    for number in ENDS:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDS)
def test_what_ends_a_run_is_noted(number: signal.Signals) -> None:
    watch = SignalWatch()
    watch.install()
    os.kill(os.getpid(), number)
    assert watch.received == number
    watch.restore()
    assert signal.getsignal(number) is signal.SIG_DFL
    with pytest.raises(Stopped), stopped_by_signals("told"):
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGXCPU])
def test_what_is_ignored_stays_ignored(number: signal.Signals) -> None:
    """As nohup does it for SIGHUP."""
    signal.signal(number, signal.SIG_IGN)
    watch = SignalWatch()
    watch.install()
    with stopped_by_signals("told"):
        os.kill(os.getpid(), number)
    assert watch.received is None
    watch.restore()


def test_slurm_adds_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert watched_signals() == ENDS
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    assert set(watched_signals()) == {*ENDS, signal.SIGUSR1}
