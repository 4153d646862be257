"""A sweep: Hydra's sweeper chooses jobs, its launcher runs them, and a table compares them.

Its directory is named by its words, so the same command finds it again: what is finished is kept,
the rest goes on.
"""

import gc
import hashlib
import json
import re
import shlex
from functools import partial
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser

from ddpm_lightning.run.commands.command import multirun
from ddpm_lightning.run.config.check import Node, check_options, resolved
from ddpm_lightning.run.config.errors import RunFailed, UserError
from ddpm_lightning.run.config.job import Job, JobError
from ddpm_lightning.run.config.paste import hydra_word
from ddpm_lightning.run.config.words import CONF, refuse_mistakes, root_of
from ddpm_lightning.training.signals import stopped_by_signals

_MAX_REQUEUED = 100  # times a SLURM job whose time is up is queued again
_HOW = ("sweep.max_parallel", "sweep.metric", "hydra/launcher", "hydra.launcher")  # not what


def run_sweep(config_name: str, words: list[str]) -> None:
    """Have Hydra run the jobs that words make, and write sweep.md, .csv and .html.

    Raises:
        RunFailed: if a job failed.   Stopped: at SIGINT and SIGTERM, after the jobs have ended.
    """
    options = _options(config_name, words)
    metric = options["sweep"]["metric"]
    directory = Path(options["outputs_dir"], "sweeps", _name(words)).absolute()
    how = list[str]()
    place = hydra_word("hydra.sweep.dir", str(directory))
    if not any(word.startswith("hydra/launcher=") for word in words):
        how.append("hydra/launcher=processes")
    if "hydra/launcher=submitit_slurm" in words:  # whose own default is never
        how.append(f"hydra.launcher.max_num_timeout={_MAX_REQUEUED}")
    gc.enable()
    code, failed = 0, list[int]()
    try:
        with stopped_by_signals("the sweep was interrupted; the same command goes on with it"):
            multirun(partial(_run_job, metric), config_name, [*how, *words, place])
    except JobError as e:
        code = e.code
    finally:
        if frozen := sorted(path.parent for path in directory.glob("*/composed.yaml")):
            from ddpm_lightning.run.sweeps.jobs import write_table

            rows = write_table(frozen, metric, shlex.join(words))
            failed = [row.number for row in rows if row.status != "finished"]
    if any(word.startswith("hydra/sweeper=") for word in words) and not code:
        return  # an adaptive one that is started again may leave what it had begun
    if failed:
        raise RunFailed(
            f"{len(failed)} of {len(frozen)} jobs failed: {', '.join(map(str, failed))}; the same "
            "command tries them again"
        )
    if code:
        raise JobError(code)


def _run_job(metric: str, job: Job) -> float:
    """Freeze a job, run it in a process of its own and return the metric, wherever this is called.

    Raises:
        UserError: for a mistake in it.   JobError: if it failed.
    """
    from ddpm_lightning.run.sweeps.jobs import (  # mistakes in words need no torch
        freeze_jobs,
        run_frozen,
    )

    own = HydraConfig.get()
    (frozen,) = freeze_jobs([job], own.job.num, Path(own.sweep.dir), metric)
    run_frozen([frozen], 1, is_shown=False)
    if not frozen.is_finished:
        raise JobError(1)
    return frozen.value(metric)


def _options(config_name: str, words: list[str]) -> Node:
    """Return the configuration as far as it says how a sweep is run, and where.

    Raises:
        UserError: for words that no sweep takes.
    """
    refuse_mistakes(config_name, words)
    for word in words:
        if root_of(word) in ("resume", "ckpt_path"):
            raise UserError(
                f"{word}: -m begins new runs; the same sweep's command again goes on with its jobs"
            )
    how = [word for word in words if root_of(word) in ("sweep", "outputs_dir")]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        options = resolved(compose(config_name, overrides=how))
    check_options("sweep", options["sweep"])
    return options


def _name(words: list[str]) -> str:
    """Return a name by what is swept and a hash of all words that make the jobs."""
    made_by = [word for word in words if not word.startswith(_HOW)]
    overrides = OverridesParser.create().parse_overrides(made_by)
    swept = [re.split("[./]", o.key_or_group)[-1] for o in overrides if o.is_sweep_override()]
    digest = hashlib.sha256(json.dumps(made_by).encode()).hexdigest()[:8]
    return "-".join([*swept, digest])[-80:]
