"""What a run says of the code that it was trained with."""

import subprocess
from pathlib import Path

import pytest

from ddpm_lightning.run.directory import provenance


def git(folder: Path, *words: str, given: str = "") -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", folder, *who, *words], input=given.encode(), check=True)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "conf").mkdir()
    (tmp_path / "old.py").write_text("before = 1\n")
    (tmp_path / ".gitignore").write_text("outputs\n")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        git(tmp_path, *words)
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    return tmp_path


def test_a_clean_checkout_has_no_patch(checkout: Path) -> None:
    assert provenance.diff() == ""


def test_new_files_of_code_and_configuration_are_in_the_patch(checkout: Path) -> None:
    (checkout / "old.py").write_text("after = 2\n")
    (checkout / "losses").mkdir()
    (checkout / "losses" / "mine.py").write_text("mine = 3\n")
    (checkout / "conf" / "mine.yaml").write_text("weight: 4\n")
    (checkout / "outputs").mkdir()
    (checkout / "outputs" / "result.py").write_text("ignored = 5\n")
    (checkout / "notes.txt").write_text("no code\n")
    patch = provenance.diff()
    for line in ("-before = 1", "+after = 2", "+mine = 3", "+weight: 4"):
        assert line in patch
    assert "ignored" not in patch
    assert "no code" not in patch
    git(checkout, "stash", "-q", "--include-untracked")
    git(checkout, "apply", "-", given=patch)
    assert (checkout / "losses" / "mine.py").read_text() == "mine = 3\n"
