"""When ranks hang, and which of them: decided from where they are."""

import threading
from typing import Any

import lightning.pytorch as pl
import pytest

from ddpm_lightning.training import steps
from ddpm_lightning.training.callbacks.hang import HangGuard
from ddpm_lightning.training.steps import BACKWARD, FORWARD, UPDATE, Position, Steps, hang
from tests.training.test_callbacks import fit, module

LIMIT = 45.0
ALLREDUCE = ["torch/distributed/distributed_c10d.py:2810 in all_reduce"]
ENGINE = ["torch/autograd/graph.py:829 in _engine_run_backward"]
NETWORK = ["networks/unet.py:7 in forward", "training/module.py:9 in training_step"]


def at(
    frames: list[str],
    part: str = FORWARD,
    batch: int = 9,
    seconds: float = 46.0,
    longest: float = 1.0,
) -> Position:
    return Position(batch, 40, part, seconds, longest, frames)


def told(*positions: Position | None) -> str | None:
    return hang({f"rank {i}": position for i, position in enumerate(positions)}, LIMIT)


@pytest.mark.parametrize(
    "other",
    [
        None,  # it loads data, validates or saves
        at(NETWORK, seconds=44.0),  # it has come only now
    ],
)
def test_a_rank_may_wait_in_its_step_for_one_that_has_come_late_or_not_yet(
    other: Position | None,
) -> None:
    assert told(at(ENGINE, BACKWARD, seconds=1000.0), other) is None


def test_steps_that_take_long_are_given_longer() -> None:
    assert told(at(ENGINE, longest=5.0), at(NETWORK, longest=6.0)) is None
    slow = [at(f, longest=s, seconds=51.0) for f, s in ((ENGINE, 5.0), (NETWORK, 600.0))]
    assert told(*slow) is not None  # the longer one was a wait for rank 0


def test_the_rank_that_is_behind_hangs() -> None:
    cause = (
        "rank 1 hangs in the forward pass of step 40 for 46 s, at networks/unet.py:7 in forward < "
        "training/module.py:9 in training_step (callbacks.hang.seconds)"
    )
    for other in (at(NETWORK, BACKWARD), at(NETWORK, UPDATE), at(NETWORK, batch=10)):
        assert told(other, at(NETWORK)) == cause
    assert told(at(ALLREDUCE), at(NETWORK)) == cause


@pytest.mark.parametrize(("frames", "part"), [(ENGINE, BACKWARD), (NETWORK, UPDATE)])
def test_where_all_stand_alike_none_is_blamed(frames: list[str], part: str) -> None:
    ranks = [at(frames, part)] * 9
    cause = told(*ranks)
    assert cause is not None
    assert cause.startswith(
        "no rank gets on, and which of them hangs is not known; rank 0 stands in"
    )
    assert cause.endswith("and 5 more (callbacks.hang.seconds)")
    assert cause.count(frames[0]) == 4


class Clock:
    """Stands still but for `sleep`."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(steps, "time", clock := Clock())
    return clock


def test_the_first_steps_are_free_and_a_step_ends(clock: Clock) -> None:
    found = Steps(LIMIT)
    for step in range(7, 7 + steps._FREE_STEPS):
        found.begin(step)
        assert found.position() is None
        found.end()
    found.begin(step + 1)  # which shows how long they take, however long that is
    clock.sleep(2)
    assert found.position() is None
    found.end()
    found.begin(step + 2)
    clock.sleep(1)
    position = found.position()
    assert position is not None
    assert position[:3] == (5, step + 2, FORWARD)
    assert (position.seconds, position.longest) == (1, 2)
    found.end()
    assert found.position() is None


def test_a_stopped_process_has_spent_no_time_in_its_step(clock: Clock) -> None:
    found = Steps(LIMIT)
    for step in range(5):
        found.end()
        found.begin(step)
    clock.sleep(5)
    found.forgive()
    clock.sleep(1)
    position = found.position()
    assert position is not None
    assert position.seconds == 1


class Parts(pl.Callback):
    """Where its own process is in a step, as seen from the hooks of a callback behind the guard."""

    def __init__(self, guard: HangGuard) -> None:
        self.guard = guard
        self.seen: list[str | None] = []

    def _see(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        position = self.guard.steps.position()
        if trainer.global_step > steps._FREE_STEPS:
            self.seen.append(position and position.part)

    on_train_batch_start = on_before_backward = on_before_optimizer_step = _see
    on_train_batch_end = on_exception = _see


@pytest.mark.slow
def test_the_parts_of_a_step_are_marked_and_what_follows_is_none_of_it() -> None:
    parts = Parts(guard := HangGuard(LIMIT))
    trainer = fit(module(), callbacks=[guard, parts], max_steps=6, limit_val_batches=0)
    assert trainer.global_step == 6
    step = [FORWARD, BACKWARD, UPDATE, None]
    assert parts.seen == [
        None,
        *step,
        *step,
    ]  # the first: the end of the one before


@pytest.mark.slow
def test_a_failed_step_is_no_hang_while_its_failure_is_recorded() -> None:
    class Failing(pl.Callback):
        def on_before_optimizer_step(self, trainer: pl.Trainer, *_: Any) -> None:
            if trainer.global_step == 4:
                raise ArithmeticError

    parts = Parts(guard := HangGuard(LIMIT))
    with pytest.raises(ArithmeticError):
        fit(module(), callbacks=[guard, parts, Failing()], max_steps=6, limit_val_batches=0)
    assert parts.seen == [None, FORWARD, BACKWARD, UPDATE, None]


def test_another_thread_sees_where_the_main_one_stands() -> None:
    found = Steps(LIMIT)
    for step in range(5):
        found.end()
        found.begin(step)
    seen: list[Position | None] = []
    thread = threading.Timer(0.2, lambda: seen.append(found.position()))
    thread.start()
    while not seen:
        pass
    thread.join()
    (position,) = seen
    assert position is not None
    assert not position.waits
    assert "training/test_steps.py" in position.frames[0]
    assert len(position.frames) == 3
