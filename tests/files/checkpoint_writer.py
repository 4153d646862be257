"""Writes checkpoints until somebody kills it, each under a new and an old name; or one, refused.

checkpoint_writer.py FOLDER STEP: from that step on; prints each step that is written.
checkpoint_writer.py PATH: one, under a limit on the size of files, which refuses as a full disk
does, in the middle of the file; prints the error.
"""

import resource
import signal
import sys
from pathlib import Path

from ddpm_lightning.files.checkpoints import STEP, by_step, link, write
from tests.files.test_checkpoints import checkpoint


def endless(folder: Path, step: int) -> None:
    last = folder / "last.ckpt"
    while True:
        write(checkpoint(step), last)
        link(last, folder / STEP.format(step))
        for old in by_step(folder)[2:]:
            old.unlink()
        print(step, flush=True)
        step += 1


def refused(path: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, before[1]))
    try:
        write(checkpoint(2), path)
    except OSError as error:
        print(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)  # coverage writes files, too


if __name__ == "__main__":
    if len(sys.argv) == 3:
        endless(Path(sys.argv[1]), int(sys.argv[2]))
    refused(Path(sys.argv[1]))
