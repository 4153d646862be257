"""The run directory: made once, by one process, and all that a run leaves lies in it.

config.yaml             resolved, plain YAML: what the run is
composed.yaml           the same before ${...} were replaced, and the option of every group
status.json             running, finished, failed or interrupted
starts/01.json, .patch  of each start: command, code, packages, seed, machine; 00: of its sweep
train.log               what was logged, with every traceback
checkpoints/ averages/ samples/ metrics.csv tensorboard/ wandb/
"""

import copy
import json
import logging
import secrets
import signal
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from os.path import relpath
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from omegaconf import DictConfig, OmegaConf

from ddpm_lightning.files.atomic import remove_temporaries, write_file
from ddpm_lightning.files.bounded import read_json
from ddpm_lightning.files.checkpoints import LAST, read
from ddpm_lightning.files.lock import ProcessLock
from ddpm_lightning.run.config.check import Node, resolved
from ddpm_lightning.run.config.errors import RunFailed, Stopped, UserError, user_errors
from ddpm_lightning.run.config.job import Job
from ddpm_lightning.run.config.paste import path_command
from ddpm_lightning.run.config.secrets import redacted
from ddpm_lightning.run.directory.fork import discard_later, fork
from ddpm_lightning.run.directory.provenance import diff, provenance

LOG = "train.log"
CLIPS = "clips.json"
_NAMED_BY = ("model", "noise", "data")  # groups whose options name a run

log = logging.getLogger(__name__)


class Start(NamedTuple):
    """One process's part in a run: its configuration and directory, which need not exist yet.

    cfg: not resolved.   is_named: whether the user named the directory of a new run.
    checkpoint: to resume from; of another run where this one is a fork; None at the beginning.
    """

    directory: Path
    cfg: DictConfig
    config: Node
    choices: dict[str, str | None]
    checkpoint: Path | None = None
    is_new: bool = True
    is_named: bool = False

    @property
    def own_checkpoint(self) -> Path | None:
        """Return the file of this run to resume from; a fork has a copy."""
        is_fork = self.checkpoint is not None and self.is_new
        return self.directory / "checkpoints" / LAST if is_fork else self.checkpoint

    def at(self, directory: Path) -> "Start":
        """Return the run in another directory, absolute: W&B's own process lives elsewhere."""
        directory = directory.absolute()
        return self._replace(directory=directory).with_values({"run_dir": str(directory)})

    def with_values(self, values: Mapping[str, Any]) -> "Start":
        """Return the run with other values, by their keys; a resumed run keeps them."""
        if self.config and all(OmegaConf.select(self.cfg, k) == v for k, v in values.items()):
            return self
        cfg = copy.deepcopy(self.cfg)
        for key, value in values.items():
            OmegaConf.update(cfg, key, value)
        return self._replace(cfg=cfg, config=resolved(cfg))


def new_start(job: Job) -> Start:
    """Return a new run, with a name, an id and a directory unless the user chose them."""
    cfg = job.cfg.copy()
    if cfg.run_name is None:
        cfg.run_name = "-".join(str(job.choices[group]) for group in _NAMED_BY)
    if cfg.run_id is None:
        cfg.run_id = secrets.token_hex(4)
    start = Start(Path(), cfg, {}, job.choices)
    if cfg.run_dir is not None:
        return start.at(Path(cfg.run_dir))._replace(is_named=True)
    now = f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    return start.at(Path(cfg.outputs_dir) / f"{now}_{cfg.run_name}")


@contextmanager
def reserved(start: Start) -> Iterator[Start]:
    """Create the directory of a new run, and remove it if what is inside `with` refuses the run.

    No other run can take it: unless the user named it, another name is taken where a run has begun
    in the same second. Where a run waits in it already, a mistake is recorded as its end.

    Raises:
        UserError: if the directory is there already or cannot be created.
    """
    start = _create(start) if start.is_new else start
    try:
        yield start
    except BaseException as e:
        waits = read_status(start.directory)["status"] in ("waiting", "failed")
        if waits and isinstance(e, UserError):
            record_failure(start.directory, str(e))
        with suppress(OSError):  # one that holds a run stays
            start.directory.rmdir()
        raise


def _create(start: Start) -> Start:
    base, number = start.directory, 1
    with user_errors("the run directory"):
        base.parent.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                start.directory.mkdir()
                return start
            except FileExistsError:
                if not start.is_named:
                    number += 1
                    start = start.at(base.with_name(f"{base.name}_{number}"))
                elif any(base.iterdir()):  # else it was left by one that was killed
                    again = path_command("train.py", "resume", base)
                    raise UserError(
                        f"{relpath(base)} already exists; choose another run_dir, or go on with "
                        f"that run: {again}"
                    ) from None
                else:
                    return start


def write_text(path: Path, text: str) -> None:
    """Write a text whole or not at all."""
    data = text.encode()
    write_file(path, [data], len(data))


@contextmanager
def recorded(start: Start, words: list[str], first_step: int) -> Iterator[None]:
    """Record a start: its files, its log, and status.json at its beginning and end.

    Raises:
        UserError: if another process trains in the directory, or has since the checkpoint was
            chosen.   RunFailed: like `logged`.
    """
    directory = start.directory
    seconds = read_status(directory).get("seconds", 0.0)
    with user_errors("the run directory"):
        lock = ProcessLock(directory / ".lock")
    try:
        with user_errors("the run directory"):
            for folder in (directory, *filter(Path.is_dir, directory.iterdir())):
                remove_temporaries(folder)
            if start.checkpoint and start.is_new:
                fork(start.checkpoint, first_step, directory)
            if start.own_checkpoint:
                check_step(start.own_checkpoint, first_step)
                if not start.config["trainer"].get("fast_dev_run"):
                    discard_later(directory, first_step)
            earlier = [int(path.stem) for path in (directory / "starts").glob("*.json")]
            _write_start(start, words, max(earlier, default=0) + 1)
        with logged(directory), _with_status(directory, seconds):
            yield
    finally:
        lock.release()


def check_step(checkpoint: Path, step: int) -> None:
    """Raise UserError where a checkpoint is of another step than when it was chosen, unlocked."""
    if (now := int(read(checkpoint, mmap=True)["global_step"])) != step:
        raise UserError(
            f"the run was still being trained, from step {step} to {now}; start again to go on "
            "from there"
        )


@contextmanager
def _with_status(directory: Path, seconds: float) -> Iterator[None]:
    """Write status.json at the beginning and the end.

    Args:
        seconds: that earlier starts took.
    """
    started = time.monotonic() - seconds

    def record(status: str, error: str | None = None) -> None:
        _write_status(directory, status, time.monotonic() - started, error)

    record("running")
    try:
        yield
    except (Stopped, KeyboardInterrupt, SystemExit) as e:  # Lightning exits after the second
        with suppress(OSError):  # a full disk is no reason to tell another cause
            record("interrupted")
        number = e.signal_number if isinstance(e, Stopped) else signal.SIGINT
        again = path_command("train.py", "resume", directory)
        name = signal.Signals(number).name
        raise Stopped(number, f"interrupted by {name}; go on with: {again}") from e
    except Exception as e:
        with suppress(OSError):
            record("failed", _cause(e))
        raise
    record("finished")


def record_failure(directory: Path, cause: str) -> None:
    """Record why a run failed whose process has ended and could not tell.

    Where the disk is full, it is not recorded.
    """
    with suppress(OSError):
        _write_status(directory, "failed", read_status(directory).get("seconds", 0.0), cause)
    with suppress(OSError), (directory / LOG).open("a") as file:
        file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} ERROR {redacted(cause)}\n")


@contextmanager
def logged(directory: Path) -> Iterator[None]:
    """Write all that is logged to the run's log as well, and an exception with its traceback.

    Raises:
        RunFailed: for what is not the user's mistake.
    """
    path = directory / LOG
    handler = logging.FileHandler(path, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    except Exception as e:
        # The cause comes first: of a full disk's last block no more may be left.
        with suppress(OSError), path.open("a") as file:
            file.write(redacted(f"{_cause(e)}\n{traceback.format_exc()}"))
        if isinstance(e, UserError):
            raise
        raise RunFailed(f"{_cause(e)} (its traceback is in {relpath(path)})") from e
    finally:
        root.removeHandler(handler)
        handler.close()


def _cause(error: Exception) -> str:
    """Return the error in one line; a user's mistake as it is."""
    if isinstance(error, UserError):
        return str(error)
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def freeze(start: Start, words: list[str]) -> None:
    """Write a run that has not begun: its configuration, and that it waits.

    Another process begins it with `resume`, once composed.yaml is there, which is written last.
    """
    _write_status(start.directory, "waiting")
    _write_start(start, words, 0)


def _write_status(
    directory: Path, status: str, seconds: float = 0, error: str | None = None
) -> None:
    entry = {"status": status, "seconds": round(seconds, 1), "error": redacted(error)}
    write_text(directory / "status.json", json.dumps(entry, indent=2) + "\n")


def read_status(directory: Path) -> dict[str, Any]:
    """Return the content of status.json, with the seconds of all starts that were not killed.

    A run whose status is running while no process holds its lock was killed.
    """
    try:
        status = read_json(directory / "status.json")
        content: dict[str, Any] = {"status": "unknown", **status}
    except (OSError, ValueError, TypeError):
        return {"status": "unknown", "error": "status.json is missing or damaged"}
    if content["status"] == "running":
        try:
            ProcessLock(directory / ".lock").release()
        except (ValueError, OSError):
            return content
        content |= {"status": "failed", "error": "killed, or its machine stopped"}
    return content


def _write_start(start: Start, words: list[str], number: int) -> None:
    """Write what a run is and where its start came from; secrets are ${oc.env:NAME} as composed."""
    directory, starts = start.directory, start.directory / "starts"
    write_text(directory / "config.yaml", yaml.safe_dump(redacted(start.config), sort_keys=False))
    starts.mkdir(exist_ok=True)
    patch = diff()
    facts: dict[str, Any] = provenance(words, start.config, is_changed=bool(patch))
    write_text(starts / f"{number:02d}.json", json.dumps(redacted(facts), indent=2) + "\n")
    if patch:
        write_text(starts / f"{number:02d}.patch", redacted(patch))
    composed = {
        "choices": start.choices,
        "config": OmegaConf.to_container(start.cfg, resolve=False),
    }
    write_text(directory / "composed.yaml", yaml.safe_dump(composed, sort_keys=False))
