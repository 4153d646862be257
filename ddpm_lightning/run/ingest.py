"""python ingest.py: fetches, checks and stores the GIFs of a list; may be stopped at any time."""

import shutil
import sys
from inspect import signature

from hydra.utils import instantiate
from omegaconf import DictConfig

from ddpm_lightning.data.ingest.driver import REPORT, News, run
from ddpm_lightning.data.ingest.urls import IngestData
from ddpm_lightning.run.config import check, resolved
from ddpm_lightning.run.errors import UserError, user_errors


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
        table = Table(sys.stderr.isatty())
        news = run(job, options["retry"], options["wait"], table.show)
    table.close()
    print(describe(news))
    print(f"  report         {job.directory / REPORT}\n  store          {job.directory.parent}")
    if not news.complete:
        raise UserError("some URLs are left; run the same command again")


class Table:
    """Shows progress on a terminal, drawn over itself; elsewhere as a line now and then."""

    def __init__(self, is_terminal: bool) -> None:
        self._is_terminal = is_terminal
        self._num_lines = 0
        self._next_line = 0.0

    def show(self, news: News) -> None:
        if self._is_terminal:
            width = shutil.get_terminal_size().columns - 1
            lines = [line[:width] for line in describe(news).splitlines()]
            up = f"\x1b[{self._num_lines}F" if self._num_lines else ""
            sys.stderr.write(up + "".join(f"\x1b[2K{line}\n" for line in lines))
            self._num_lines = len(lines)
        elif news.seconds >= self._next_line:
            self._next_line = news.seconds + 10
            print(describe(news).splitlines()[0], file=sys.stderr)

    def close(self) -> None:
        if self._num_lines:
            sys.stderr.write(f"\x1b[{self._num_lines}F\x1b[J")


def describe(news: News) -> str:
    """Return a line that sums up, then a line for clips, and one for each cause of a failure."""
    rate = news.num_fetched / news.seconds if news.seconds else 0.0
    left = (news.num_urls - news.num_settled) / rate if rate else None
    first = (
        f"{news.num_settled:,} of {news.num_urls:,} URLs, {rate:,.1f} a second, "
        f"{news.num_bytes / 1e6:,.1f} MB"
    )
    if left:
        first += f", {left / 60:,.0f} min left"
    lines = [f"  {name:<20} {n:>9,}" for name, n in news.causes.most_common()]
    if news.num_unlisted:
        lines.append(f"  {news.num_unlisted:,} of them are not in the list any more; they stay")
    return "\n".join([first, *lines])
