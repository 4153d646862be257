"""train.py, of which every rank but the first has another configuration."""

import os

import train
from ddpm_lightning.run import compose
from ddpm_lightning.run.cli import Job, run_command
from ddpm_lightning.run.directory import Start

_start = compose.resumed_start


def resumed_start(given: str, job: Job) -> Start:
    start = _start(given, job)
    start.config["optimizer"]["lr"] = 0.5
    return start


if __name__ == "__main__":
    if os.environ.get("LOCAL_RANK", "0") != "0":
        compose.resumed_start = resumed_start
    run_command(train.main, "config")
