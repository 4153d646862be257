"""python ingest.py: fetches, checks and stores the GIFs of a list; may be stopped at any time."""

import sys
from functools import partial
from inspect import signature
from typing import NoReturn

from hydra.utils import instantiate
from omegaconf import DictConfig
from tqdm import tqdm

from ddpm_lightning.data.ingest.driver import REPORT, News, run
from ddpm_lightning.data.ingest.urls import IngestData
from ddpm_lightning.run.config.check import check, resolved
from ddpm_lightning.run.config.errors import UserError, user_errors


def ingest(cfg: DictConfig) -> None:
    """Ingest one part, show the progress, and log what was stored and what was skipped."""
    config = resolved(cfg)
    if "list" not in config["data"]:
        raise UserError("data must be a list of URLs: data=tgif or data=gif_urls")
    # Not UrlClips: it would bring torch along, ten times the memory of everything here.
    wanted = signature(IngestData).parameters
    config["data"] = {key: value for key, value in config["data"].items() if key in wanted}
    config["data"]["_target_"] = f"{IngestData.__module__}.{IngestData.__qualname__}"
    check(config)
    options = config["ingest"]
    with user_errors("data"):
        data: IngestData = instantiate(config["data"], _convert_="all")
        print(data.urls.report.describe())
    with user_errors("ingest"):
        job = data.urls.job(
            options["part"], options["num_parts"], data.limits, options["num_workers"]
        )
        interval = 0.2 if sys.stderr.isatty() else 10  # into a file or a pipe, a line every 10 s
        with tqdm(
            desc="ingesting", unit="URL", smoothing=0, mininterval=interval, dynamic_ncols=True
        ) as bar:
            news = run(job, options["retry"], options["wait"], partial(show, bar))
    print(describe(news))
    print(f"  report         {job.directory / REPORT}\n  store          {job.directory.parent}")
    if not news.complete:
        raise UserError("some URLs are left; run the same command again")


def show(bar: "tqdm[NoReturn]", news: News) -> None:
    """Show news in a bar."""
    bar.total, bar.initial = news.num_urls, news.num_settled - news.num_fetched
    bar.set_postfix(dict(news.causes.most_common(5)), refresh=False)
    bar.update(news.num_settled - bar.n)


def describe(news: News) -> str:
    """Return a line that sums up, then a line for clips, and one for each cause of a failure."""
    rate = news.num_fetched / news.seconds if news.seconds else 0.0
    first = (
        f"{news.num_settled:,} of {news.num_urls:,} URLs, {rate:,.1f} a second, "
        f"{news.num_bytes / 1e6:,.1f} MB"
    )
    lines = [f"  {name:<20} {n:>9,}" for name, n in news.causes.most_common()]
    if news.num_unlisted:
        lines.append(f"  {news.num_unlisted:,} of them are not in the list any more; they stay")
    return "\n".join([first, *lines])
