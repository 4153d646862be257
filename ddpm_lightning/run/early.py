"""What can be wrong with a configuration, found before Lightning is imported, which takes longest.

All of it is checked again where it is used; here it is only refused sooner.
"""

from hydra.utils import instantiate

from ddpm_lightning.run.cli import Job
from ddpm_lightning.run.config import TOP_LEVEL, check
from ddpm_lightning.run.directory import new_start
from ddpm_lightning.run.errors import user_errors

_PARTS = ("noise", "objective", "times", "loss", "network", "sampler")  # they know no framework


def check_early(job: Job) -> None:
    """UserError for what is wrong with the parts of a new run; a resumed one has been checked."""
    if job.cfg.ckpt_path is not None:
        return
    config = new_start(job).config
    plain = TOP_LEVEL.keys() & config.keys()
    check({key: config[key] for key in plain if not isinstance(config[key], dict)})
    check({key: config[key] for key in (*_PARTS, "optimizer")})
    for part in _PARTS:
        with user_errors(part):
            instantiate(config[part], _convert_="all")
    data = config["data"]
    if "source" in data:
        check({"data": {"source": data["source"]}})
        with user_errors("data"):
            instantiate(data["source"], _convert_="all")(data["path"])
