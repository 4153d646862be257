"""docs/diffusion.md names code that is there, and README and docs link to files that are."""

import inspect
import re
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
STORY = ROOT / "docs" / "diffusion.md"
CODE = re.compile(r"\[`([\w.]+)`\]\(\.\./(ddpm_lightning/[\w/]+)\.py\)")
LINK = re.compile(r"\]\(([^)#:]+)(#[^)]*)?\)")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize(("name", "path"), sorted(set(CODE.findall(STORY.read_text()))))
def test_what_the_story_names_is_defined_in_the_file_that_it_links_to(name: str, path: str) -> None:
    module: Any = import_module(path.replace("/", "."))
    named: Any = reduce(getattr, name.split("."), module)
    assert Path(inspect.getsourcefile(inspect.unwrap(named)) or "") == ROOT / f"{path}.py"


def test_every_equation_has_its_code_and_every_section_its_place_in_the_contents() -> None:
    text = STORY.read_text()
    assert len(CODE.findall(text)) == text.count("](../ddpm_lightning/")  # none that CODE misses
    headings = re.findall(r"^## (\d.*)$", text, re.MULTILINE)
    anchors = re.findall(r"^\d\. \[.*\]\(#(.*)\)$", text, re.MULTILINE)
    assert anchors == [_anchor(heading) for heading in headings]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    targets = [target for target, _ in LINK.findall(page.read_text())]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_films_of_the_story_exist() -> None:
    films = re.findall(r"python show\.py (\w+)", STORY.read_text())
    assert {*films} == {path.stem for path in (ROOT / "conf" / "film").glob("*.yaml")}


def _anchor(heading: str) -> str:
    """Return GitHub's anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
