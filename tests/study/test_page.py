"""docs/study.md: what it quotes is what the committed table gives, and its commands compose."""

import re
import shlex
from pathlib import Path

import pytest

from ddpm_lightning.study.report import tables
from ddpm_lightning.study.table import read_table
from tests.problems import composed

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "study.md").read_text()


def commands() -> list[list[str]]:
    """Return the words of each command of train.py in the page's table of papers."""
    table = PAGE.partition("## Papers, as commands")[2]
    return [shlex.split(words) for words in re.findall(r"`python train\.py ([^`]*)`", table)]


def test_the_page_quotes_the_tables_of_the_committed_results() -> None:
    text = tables(read_table(DOCS / "study" / "results.json"))
    assert (DOCS / "study" / "tables.md").read_text() == text
    assert [line for line in text.splitlines() if line.startswith("|") and line not in PAGE] == []


def test_there_is_a_command_for_each_paper() -> None:
    assert len(commands()) >= 8


@pytest.mark.slow
@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_paper_s_command_composes(words: list[str]) -> None:
    assert composed(*words).model.denoiser is not None
