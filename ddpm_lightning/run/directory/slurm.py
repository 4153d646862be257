"""A SLURM job that is requeued resumes its run.

SLURM starts a requeued job with the same command and the same id, so both lead to the directory.
Ask for a signal before the time is up: #SBATCH --signal=USR1@90 and --requeue.
"""

import hashlib
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ddpm_lightning.files.bounded import read_small
from ddpm_lightning.run.config.errors import RunFailed, Stopped
from ddpm_lightning.run.config.job import Job
from ddpm_lightning.run.directory.start import write_text


def job_id() -> str | None:
    """Return the id of the SLURM job of this process, one of an array included."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID")


def continued(job: Job) -> Job:
    """Return the job, resuming the run that it began with these words before.

    A checkpoint that it is started with takes precedence until it is requeued: a fork goes on.
    """
    is_requeued = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
    pointer = _pointer(Path(job.cfg.outputs_dir), job.words)
    if pointer is None or not pointer.is_file() or (job.cfg.ckpt_path and not is_requeued):
        return job
    directory = Path(read_small(pointer).decode())
    if not (directory / "composed.yaml").is_file():
        return job
    cfg = job.cfg.copy()
    cfg.ckpt_path = str(directory)
    return job._replace(cfg=cfg)


@contextmanager
def requeued(directory: Path, outputs: Path, words: list[str]) -> Iterator[None]:
    """Store which run the job trains, and queue it again when SIGUSR1 has stopped it."""
    if (pointer := _pointer(outputs, words)) is not None:
        pointer.parent.mkdir(parents=True, exist_ok=True)
        write_text(pointer, str(directory.absolute()))
    try:
        yield
    except Stopped as e:
        if e.signal_number == signal.SIGUSR1:
            _requeue()
        raise
    if pointer is not None:
        pointer.unlink(missing_ok=True)


def _pointer(outputs: Path, words: list[str]) -> Path | None:
    if (name := job_id()) is None:
        return None
    command = hashlib.sha256("\0".join(words).encode()).hexdigest()
    return outputs / ".slurm" / f"{name}-{command[:16]}"


def _requeue() -> None:
    command = ["scontrol", "requeue", str(job_id())]
    try:
        subprocess.run(command, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as e:
        raise RunFailed(f"{' '.join(command)} failed ({e}); the run is saved") from e
