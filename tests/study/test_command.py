"""python study.py on one's own GIFs: a small study from its first run to its report."""

from pathlib import Path

import pytest

from tests.commands import Call, Capture, call_in, write_gifs

SMALL = [
    "network.base_width=16",
    "network.head_width=8",
    "network.patch=1",
    "data.size=8",
    "data.fps=10",
    "data.channels=1",
    "data.val_fraction=0.45",
    "trainer.limit_val_batches=1",
    "trainer.accelerator=cpu",
]
WORDS = [
    "directory=study",
    "device=cpu",
    "study.data=gifs",
    "study.arms=[cosine]",
    "study.losses=[simple]",
    "study.steps=5",
    "study.num_seeds=2",
    "study.num_sampled=1",
    "study.num_samples=32",
    "study.evaluations=[2]",
    "study.extractors=[pixels]",
    f"study.more={SMALL}",  # each in quotation marks, as Hydra wants what has an = in it
]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Call:
    return call_in(tmp_path, monkeypatch, capsys)


@pytest.mark.long
def test_a_study_trains_samples_and_reports_and_goes_on_where_it_was(
    tmp_path: Path, call: Call
) -> None:
    write_gifs(tmp_path / "gifs", num_gifs=90)
    first = call("study", *WORDS)
    assert first.code == 0, first.err
    table = (tmp_path / "study" / "results.json").read_bytes()
    assert "| **H2** |" in (tmp_path / "study" / "tables.md").read_text()
    assert (tmp_path / "study" / "samples.png").is_file()
    assert "plan: 2 runs of" in first.out

    again = call("study", *WORDS)
    assert again.code == 0, again.err
    assert "2 runs, 2 finished before" in again.out
    assert "7 walks, 7 measured before" in again.out
    assert (tmp_path / "study" / "results.json").read_bytes() == table

    alone = call("study", "report=study/results.json")
    assert alone.code == 0, alone.err
    assert "2 runs, 7 walks" in alone.out

    longer = call("study", *WORDS, "study.steps=10")
    assert longer.code == 2
    assert "was begun with another trainer" in longer.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("study.arms=[quick]", "study.arms: quick is not there; choose from cosine, hybrid"),
        (
            "report=old.json",
            "old.json cannot be used: version=0: Input should be 1",
        ),
        ("study.data=gifs", "clips are held out, at least 32 are needed"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    word: str, message: str, tmp_path: Path, call: Call
) -> None:
    write_gifs(tmp_path / "gifs", num_gifs=8)
    (tmp_path / "old.json").write_text('{"version": 0}')
    result = call("study", *WORDS, word)
    assert result.code == 2
    assert message in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert not (tmp_path / "study" / "runs").exists()
