"""An ingest beside a training run: a process of its own, which ends when the run does."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from ddpm_lightning.data.decode import Recipe
from ddpm_lightning.data.gif_blocks import Limits
from ddpm_lightning.data.ingest.driver import run
from ddpm_lightning.data.ingest.fetch_limits import FetchLimits
from ddpm_lightning.data.ingest.urls import UrlList
from ddpm_lightning.data.store import ClipStore

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_BETWEEN_WORDS = 10
LOG = "ingest.log"

log = logging.getLogger(__name__)


class Background:
    """Ingests the whole list as one part, from now on until it is done or stopped.

    Where another process does so already, this one takes over when that ends.
    """

    def __init__(self, urls: UrlList, limits: FetchLimits) -> None:
        self._urls = urls
        log.info("%s", urls.report.describe())
        settings = {
            "address": urls.address,
            "splits": urls.splits,
            "recipe": asdict(urls.recipe),
            "cache_path": str(urls.cache_path),
            "limits": asdict(limits),
        }
        urls.directory.mkdir(parents=True, exist_ok=True)
        self._log = urls.directory / LOG
        self._ended = False
        with self._log.open("ab") as file:
            self._log_start = file.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, json.dumps(settings)],
                stdin=subprocess.PIPE,  # it ends when this end of the pipe is gone
                stdout=file,
                stderr=file,
            )

    def first_clips(self, min_clips: int) -> ClipStore:
        """Return the store, as soon as it holds so many clips, or all there are.

        Raises ValueError, in one line, when the ingest ends without any.
        """
        log.info("ingesting %s; training starts with %d clips", self._urls.address, min_clips)
        store: ClipStore | None = None
        next_word = time.monotonic() + SECONDS_BETWEEN_WORDS
        while True:
            ended = self._process.poll() is not None
            store = self._look(store)
            if store is not None and (len(store) >= min_clips or (ended and len(store))):
                self.check()
                return store
            if ended:
                reason = store.summary() if store is not None else self._reason()
                raise ValueError(f"ingesting {self._urls.address} gave no clip: {reason}")
            if time.monotonic() >= next_word:
                log.info("%d of %d clips are in", len(store) if store else 0, min_clips)
                next_word += SECONDS_BETWEEN_WORDS
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def check(self) -> None:
        """Log, once, that the ingest has ended, and why."""
        status = self._process.poll()
        if status is None or self._ended:
            return
        self._ended = True
        if status:
            log.warning(
                "the ingest beside this run ended too early: %s; training goes on with what is "
                "there, and python ingest.py fetches the rest",
                self._reason(),
            )
        else:
            log.info("the ingest beside this run has ended")

    def _look(self, store: ClipStore | None) -> ClipStore | None:
        """Return the store as it is by now; None while there is none, or while it is mended."""
        if store is not None:
            with suppress(ValueError, OSError):  # a look later
                store.refresh()
        elif self._urls.parts():
            try:
                return self._urls.store()
            except ValueError:
                if self._process.poll() is not None:
                    raise
        return store

    def stop(self) -> None:
        """Stop the ingest; what is stored stays, and the next ingest resumes there."""
        self._process.terminate()
        self._process.wait()

    def _reason(self) -> str:
        status = self._process.returncode
        if status < 0:
            return f"killed by signal {-status}"
        with self._log.open("rb") as file:
            file.seek(self._log_start)
            lines = file.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit status {status}"


def main(settings: str) -> None:
    """Ingest, in a process of its own, until it is done or its input is closed."""
    received = json.loads(settings)
    recipe = Recipe(**received["recipe"] | {"limits": Limits(**received["recipe"]["limits"])})
    urls = UrlList(received["address"], received["splits"], recipe, Path(received["cache_path"]))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    limits = FetchLimits(**received["limits"])
    try:
        run(urls.job(0, 1, limits, None), "none", wait=True, on_news=lambda news: None)
    except (ValueError, OSError) as error:
        sys.exit(str(error))


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # returns at the end of the file
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
