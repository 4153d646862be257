"""A run that is trained on labels and frame rates: resumed, exported, asked for, guided."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from ddpm_lightning.conditions.fps import FrameRate
from ddpm_lightning.conditions.joint import Conditions
from ddpm_lightning.conditions.label import Label
from ddpm_lightning.data.gif import decode
from ddpm_lightning.files.checkpoints import read
from ddpm_lightning.guidances.auto import AutoGuidance
from ddpm_lightning.run.commands.asked import asked_of
from ddpm_lightning.run.config.errors import UserError
from ddpm_lightning.run.config.paste import quoted
from ddpm_lightning.run.config.text import with_text
from ddpm_lightning.samplers.ancestral import AncestralSampler
from ddpm_lightning.training.callbacks.samples import SampleGrid
from tests.commands import TINY, Call, assert_user_error, newest_run, spawn, write_gifs

LABELLED = [word for word in TINY if not word.startswith("data.path")]
LABELLED += ["data.path=animals", "condition=[label,fps]", "logger=csv"]
MEMBERS = {"label": Label(["cat", "dog", "owl"]), "fps": FrameRate()}


@pytest.fixture(scope="module")
def animals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with animals/cat, animals/dog/black and a GIF without a label, and a run on them."""
    folder = tmp_path_factory.mktemp("labelled")
    for number, name in enumerate(("cat", "dog/black", ".")):
        write_gifs(folder / "animals" / name, num_gifs=4 + number, size=8 + number)
    result = spawn(folder, "train", *LABELLED)
    assert result.code == 0, result.err
    told = " ".join(result.out.split())
    assert "label, one of 2: cat, dog/black, fps, the frame rate of a GIF; 10% of clips" in told
    return folder


@pytest.fixture
def run(animals: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(animals)
    return newest_run(animals)


@pytest.mark.slow
def test_names_and_widths_are_recorded_and_a_resumed_run_keeps_them(run: Path, call: Call) -> None:
    assert call("train", f"resume={run}", "trainer.max_steps=6").code == 0
    config = yaml.safe_load((run / "config.yaml").read_text())
    denoiser = config["model"]["denoiser"]
    assert denoiser["conditions"]["label"]["names"] == ["cat", "dog/black"]
    assert denoiser["network"]["vector_width"] == 2 + 8
    state = read(run / "checkpoints" / "last.ckpt")["state_dict"]
    raw, averaged = (
        state[f"{weights}.network.embedding.vectors.weight"]
        for weights in ("denoiser", "ema_denoiser")
    )
    assert raw.shape == averaged.shape == (64, 10)
    assert not torch.equal(raw, averaged)


@pytest.mark.slow
def test_an_exported_run_draws_what_the_run_draws(run: Path, call: Call) -> None:
    assert call("export", f"checkpoint={run}", "output=one.safetensors").code == 0
    grids = []
    for checkpoint in (run, "one.safetensors"):
        out = f"from_{Path(checkpoint).suffix}"
        words = ["label=[dog/black,cat]", "guidance=classifier_free", "num_samples=4"]
        words += ["sampler.num_evaluations=3"]
        result = call("sample", f"checkpoint={checkpoint}", f"output={out}", *words)
        assert result.code == 0, result.err
        assert "label=dog/black; label=cat, a column each" in result.out
        assert "6 network calls each" in result.out
        grids.append(decode((Path(out) / "grid.gif").read_bytes()).frames)
    assert (grids[0] == grids[1]).all()


@pytest.mark.slow
def test_measures_draw_what_is_known_of_held_out_clips(run: Path, call: Call) -> None:
    words = ["measure=[levels,trained_loss]", "guidance=auto", "guidance.weak=raw"]
    result = call("evaluate", f"checkpoint={run}", *words, "measure.trained_loss.num_draws=1")
    assert result.code == 0, result.err


def rarely(*values: Any) -> Any:
    """One more that the same function refuses: left to make test-long."""
    return pytest.param(*values, marks=pytest.mark.long)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["label=cot"], "label: no clip was labelled 'cot'; the nearest are cat, dog/black"),
        (["mood=calm"], "mood"),
        rarely(["fps=fast"], "fps: fps must be a number above 0, got 'fast'"),
        rarely(["labels=none.txt"], "labels: none.txt does not exist"),
        (["label=cat", "guidance=auto"], "guidance: auto needs a weaker denoiser"),
        (
            ["guidance=auto", "guidance.weak=x.ckpt"],
            "is no checkpoint of this run, which has best.ckpt",
        ),
        rarely(
            ["guidance=classifier_free", "guidance.weight=-1"], "guidance.weight must be 0 or more"
        ),
    ],
    ids=str,
)
def test_what_cannot_be_asked_is_refused_in_one_line(
    words: list[str], message: str, run: Path, call: Call
) -> None:
    assert_user_error(call("sample", f"checkpoint={run}", *words), message)


@pytest.mark.long
def test_guidance_is_refused_where_nothing_was_dropped(call: Call, trained: Path) -> None:
    result = call("sample", f"checkpoint={trained}", "guidance=classifier_free")
    assert_user_error(result, "guidance: classifier-free guidance needs a run that was trained on")
    result = call("sample", f"checkpoint={trained}", "label=3")
    assert_user_error(result, "label=3: this run was trained without it; it takes no conditions")


@pytest.mark.slow
def test_labels_of_data_without_any_are_refused(call: Call) -> None:
    result = call("train", *TINY, "condition=label")
    assert_user_error(result, "condition=label: no GIF below gifs has a label; put those of each")


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.text(alphabet=st.sampled_from("a '\"\\${}()[],:=#%*\té3"), max_size=12))
def test_text_reaches_a_command_as_it_was_typed(text: str) -> None:
    (word,) = with_text("sample", [f"label={text}"])
    override = OverridesParser.create().parse_override(word)
    assert override.key_or_group == "asked.label"
    assert not override.is_sweep_override()
    config = OmegaConf.create({"asked": {}})
    OmegaConf.update(config, "asked.label", str(override.value()), force_add=True)
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    assert resolved["asked"]["label"] == text
    assert with_text("train", [f"label={text}"]) == [f"label={text}"]


def test_other_words_are_left_alone() -> None:
    words = ["checkpoint=a", "seed=1", "--help", "-m", "label"]
    assert with_text("sample", words) == words
    assert quoted("a dog, jumping") == "'a dog, jumping'"
    assert with_text("sample", ["keep=null", "init=null"]) == ["keep=null", "init=null"]


def test_homes_of_text_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    words = ["init=~/My (1).gif", "labels=~/Bücher.txt", "label=~"]
    assert with_text("sample", words) == [
        "init='/home/me/My (1).gif'",
        "+asked.labels='/home/me/Bücher.txt'",
        "+asked.label='~'",
    ]


def test_no_grid_is_guided_by_weights_that_are_not_there_yet() -> None:
    grid = SampleGrid(AncestralSampler(4), "samples", guidance=AutoGuidance("raw"))
    with pytest.raises(ValueError, match=r"give guidance=auto to sample\.py"):
        grid.check()


def test_values_are_columns_of_full_rows(tmp_path: Path) -> None:
    conditions = Conditions(MEMBERS)
    file = tmp_path / "labels.txt"
    file.write_text("owl\n\ncat\n")
    cat, owl = {"label": "cat"}, {"label": "owl"}
    assert asked_of(conditions, {"label": "[cat, owl]"}, 3) == ([cat, owl, cat, owl], 2)
    assert asked_of(conditions, {"labels": str(file)}, 2) == ([owl, cat], 2)
    assert asked_of(conditions, {"label": "cat"}, 2) == ([cat, cat], None)
    assert asked_of(conditions, {}, 2) == ([{}, {}], None)
    both = {"label": "owl", "fps": 5.0}
    assert asked_of(conditions, {"label": "owl", "fps": "5"}, 1) == ([both], None)
    assert asked_of(conditions, {"label": ""}, 1) == ([{"label": None}], None)


def test_one_of_several_wishes_is_refused_and_an_empty_one_is_none() -> None:
    """They are dropped together in training: one without the other was never seen."""
    conditions = Conditions({"label": Label(["cat"]), "mood": Label(["calm"])})
    with pytest.raises(UserError, match=r"mood is missing: .* label and mood together; add mood="):
        asked_of(conditions, {"label": "cat"}, 1)
    expected = [{"label": "cat", "mood": None}]
    assert asked_of(conditions, {"label": "cat", "mood": ""}, 1) == (expected, None)
    vectors = conditions.encode(expected)["vectors"]
    assert vectors.tolist() == [[1, 0]]
    with pytest.raises(UserError, match=r"label is missing: .* trained on label always"):
        asked_of(Conditions({"label": Label(["cat"])}, dropout=0.0), {}, 1)
    with pytest.raises(UserError, match="label is there already; give one of them"):
        asked_of(conditions, {"label": "cat", "labels": "file"}, 1)
