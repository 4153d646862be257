"""What a study says of tables whose effects are known."""

from math import exp
from pathlib import Path

import pytest

from ddpm_lightning.run.config.errors import UserError
from ddpm_lightning.study.analysis import findings
from ddpm_lightning.study.report import tables, write_report
from ddpm_lightning.study.table import read_table, write_table
from tests.study.tables import BETTER, EFFECT, table


def test_differences_are_those_of_the_table_and_all_four_hold() -> None:
    """H1 exp(-0.2); H2 -0.5 for each walk, network and number of calls; H3 likewise, and 0.01."""
    h1, h2, h3, h4 = findings(table())
    assert h1.difference is not None
    assert h1.difference.mean == pytest.approx(EFFECT, abs=1e-9)
    assert h2.difference is not None
    assert h2.difference.mean == pytest.approx(BETTER, abs=1e-9)
    assert h2.more.keys() == {
        f"{walk}, {arm}'s network" for walk in ("midpoint", "pair") for arm in ("cosine", "hybrid")
    }
    assert h3.difference is not None
    assert h3.difference.mean == pytest.approx(BETTER + 0.01 * (13 % 2 - 6 % 2), abs=1e-9)
    assert h3.more["agreement"].mean == pytest.approx(0.25)
    assert [f.verdict for f in (h1, h2, h3, h4)] == ["holds"] * 3 + ["not refuted"]


def test_no_effect_is_not_shown_and_a_harm_is_the_opposite() -> None:
    null = findings(table(effect=0.0, better=0.0))
    assert [f.verdict for f in null[:2]] == ["not shown", "not shown"]
    assert null[3].verdict == "nothing was gained"
    harm = findings(table(effect=0.1, better=0.3))
    assert [f.verdict for f in harm[:3]] == ["the opposite"] * 3


def test_a_network_that_the_clock_cut_short_is_left_out_of_h2() -> None:
    whole = table()
    short = [w for w in whole.walks if (w.arm, w.seed) != ("hybrid", 2)]
    h2 = findings(whole.model_copy(update={"walks": short}))[1]
    assert h2.difference is not None
    assert h2.difference.num_pairs == 3
    assert h2.more["pair, hybrid's network"].num_pairs == 2


def test_one_seed_is_not_tested() -> None:
    whole = table()
    first = [row for row in whole.trainings if row.seed == 0]
    seen = findings(whole.model_copy(update={"trainings": first, "walks": []}))
    assert [f.verdict for f in seen] == ["not tested"] * 3 + ["nothing was gained"]


def test_a_table_is_read_as_it_was_written_and_gives_the_same_report(tmp_path: Path) -> None:
    whole = table("study.arms=[cosine,hybrid,median_hybrid]")
    write_table(whole, tmp_path / "results.json")
    again = read_table(tmp_path / "results.json")
    assert again == whole
    assert tables(again) == tables(whole)


def test_report_says_what_was_left_out(tmp_path: Path) -> None:
    whole = table("study.arms=[cosine,hybrid]", "study.losses=[simple]")
    rows = [row for row in whole.trainings if row.clips == "stream" or row.seed]
    text = tables(whole.model_copy(update={"trainings": rows}))
    assert "- frozen-hybrid-simple: seeds 0" in text
    assert f"{100 * (exp(EFFECT) - 1):+.1f} %" in text


@pytest.mark.slow
@pytest.mark.draws
def test_figures_are_drawn_from_the_table_alone(tmp_path: Path) -> None:
    names = {path.name for path in write_report(table(), tmp_path)}
    assert names == {"tables.md", "errors.png", "paths.png"}
    assert all((tmp_path / name).is_file() for name in names)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"version": 99}', "cannot be used: version=99: Input should be 1"),
        ('{"version": 1, "made_by": {}}', "cannot be used: options=.*: Field required"),
        ("[1]", "it holds no object"),
        ("{", "cannot be used: Expecting property name"),
    ],
)
def test_another_file_is_refused_in_one_line(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as error:
        read_table(path)
    assert "\n" not in str(error.value)
