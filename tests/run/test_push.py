"""export.py push=ORG/NAME: what would be uploaded lies in a folder; a hub that is not there."""

import shutil
import socket
from pathlib import Path

import pytest
import yaml

from ddpm_lightning.run.config.errors import UserError
from ddpm_lightning.run.exchange.push import check_repository
from tests.commands import Call, assert_user_error
from tests.pipelines import save_pipeline

huggingface_hub = pytest.importorskip("huggingface_hub", reason="needs the extra hub")

pytestmark = pytest.mark.slow  # as a whole


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address at which nothing listens in the place of huggingface.co."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{port}")


def test_a_run_is_prepared_with_its_card(call: Call, trained: Path, tmp_path: Path) -> None:
    assert call("evaluate", f"checkpoint={trained}", "measure=levels").code == 0
    assert call("sample", f"checkpoint={trained}", "num_samples=1").code == 0
    for number, odd in enumerate(
        ["{", "[1]", '{"a": 1}', '[{"name": 1, "value": 1, "unit": "", "run": ""}]']
    ):
        (trained / "evaluation" / f"odd{number}.json").write_text(odd)
    result = call("export", f"checkpoint={trained}", "push=someone/digits")
    assert result.code == 1
    (line,) = result.err.strip().splitlines()
    assert "someone/digits could not be pushed" in line
    assert line.endswith(
        f"hf upload --private someone/digits {(trained / 'hub').relative_to(tmp_path)}"
    )
    folder = trained / "hub"
    names = {path.name for path in folder.iterdir()}
    assert names == {"README.md", "model.safetensors", "samples.gif"}
    (grid,) = trained.glob("samples/*/grid.gif")
    assert (folder / "samples.gif").read_bytes() == grid.read_bytes()
    card = huggingface_hub.ModelCard.load(folder / "README.md")
    assert card.data.library_name == "ddpm_lightning"
    assert "![Samples](samples.gif)" in card.text
    assert "```\npython sample.py checkpoint=model.safetensors weights=ema\n```" in card.text
    assert "| levels/error | " in card.text
    assert "| 1 | " not in card.text
    recipe = yaml.safe_load(card.text.split("```yaml\n")[1].split("```")[0])
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert recipe["model"] == config["model"]
    assert set(recipe["data"]) == {"size", "num_frames", "fps", "channels"}
    assert str(tmp_path) not in card.text
    shutil.rmtree(trained)
    folder = tmp_path / "gone"
    assert_user_error(call("export", f"checkpoint={trained}", "push=someone/digits"), "no run")
    assert not folder.exists()


def test_a_pipeline_is_pushed_in_their_format(call: Call, tmp_path: Path) -> None:
    pytest.importorskip("diffusers", reason="needs the extra diffusers")
    folder = save_pipeline(tmp_path / "theirs")
    words = ["format=diffusers", "push=someone/stills", "output=out"]
    result = call("export", f"checkpoint={folder}", *words)
    assert result.code == 1
    assert len(result.err.strip().splitlines()) == 1
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"README.md", "model_index.json", "unet", "scheduler"}
    text = (tmp_path / "out" / "README.md").read_text()
    assert "betas: 50 values, 9.99" in text
    assert "```\nDDPMPipeline.from_pretrained(FOLDER)\n```" in text
    assert_user_error(call("export", f"checkpoint={folder}", *words), "already holds files")


@pytest.mark.parametrize("name", ["stills", "a/b/c", "a/b c", "a/..", "a/--b"])
def test_what_names_no_repository_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="names no repository") as caught:
        check_repository(name)
    assert "\n" not in str(caught.value)
