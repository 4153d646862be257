"""python evaluate.py measure=..: samples of a run, curves over calls, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from ddpm_lightning.plots.curves import read_metrics
from tests.commands import TINY, Call, assert_user_error, newest_run, spawn

pytestmark = pytest.mark.slow  # as a whole, not one by one

SMALL = ["num_samples=32", "batch_size=32"]
FEW = [*SMALL, "sampler=ddim", "sampler.num_evaluations=2"]


@pytest.fixture(scope="session")
def digits_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished run on 100 moving digits, of which a part is held out, with a
    loss that learns too.
    """
    folder = tmp_path_factory.mktemp("digits")
    data = ["data=moving_digits", "data.source.num_clips=100", "data.val_fraction=0.4"]
    tiny = [w for w in TINY if not w.startswith(("data=", "data.path", "data.val_fraction"))]
    data += ["loss=uncertainty"]
    quality = ["callbacks.quality.every_n_validations=2", "callbacks.quality.num_samples=32"]
    result = spawn(folder, "train", *tiny, *data, *quality, "data.path=digits", "logger=csv")
    assert result.code == 0, result.err
    return newest_run(folder)


@pytest.fixture
def digits(digits_once: Path, monkeypatch: pytest.MonkeyPatch, call: Call) -> Path:
    """That run, in the folder where its GIFs are; its evaluation is removed."""
    folder = next(p for p in digits_once.parents if (p / "digits").is_dir())
    monkeypatch.chdir(folder)
    shutil.rmtree(digits_once / "evaluation", ignore_errors=True)
    return digits_once


def test_all_measures_are_taken_and_those_not_possible_named(call: Call, digits: Path) -> None:
    words = ["measure=all", "measure.bits.flow=null", "measure.bits.bound.num_terms=2"]
    words += ["measure.trained_loss.num_draws=1"]
    result = call("evaluate", f"checkpoint={digits}", *words, *FEW)
    assert result.code == 0, result.err
    assert "frechet is not measured: a Frechet distance of 64 features needs" in result.out
    assert "digit_speed is not measured: moving digits are square and at least 16" in result.out
    folder = digits / "evaluation"
    cards = [card for file in folder.glob("*.json") for card in json.loads(file.read_text())]
    names = {card["name"] for card in cards}
    assert {"quality/spatial", "quality/temporal", "memorisation/content"} <= names
    for card in cards:
        assert card["run"]["weights"] == "ema"
        assert card["clips"]["num_held_out"] + card["clips"]["num_train"] == 100
        if card["samples"] is not None:
            assert card["samples"]["network_calls"] == 2
            assert card["samples"]["sampler"]["name"] == "DDIMSampler"
            assert card["floor"]["low"] <= card["floor"]["high"]
    with Image.open(folder / "memorisation_ema.png") as picture:
        assert picture.size == (2 * (4 * 48 + 6), 8 * (48 + 6))


@pytest.mark.draws
def test_a_curve_has_a_row_for_each_sampler_and_number_of_calls(call: Call, digits: Path) -> None:
    words = ["measure=quality", *SMALL, "curve.samplers=[heun,ddim]"]
    result = call("evaluate", f"checkpoint={digits}", *words, "curve.evaluations=[4,2]")
    assert result.code == 0, result.err
    cards = json.loads((digits / "evaluation" / "curve_quality_ema.json").read_text())
    calls = [c["samples"]["network_calls"] for c in cards if c["name"] == "quality/spatial"]
    assert calls == [1, 3, 2, 4]  # heun takes an odd number
    rows = [line.split()[:2] for line in result.out.splitlines()]
    assert ["heun", "3"] in rows
    assert (digits / "evaluation" / "curve_quality_ema.png").is_file()
    assert not (digits / "evaluation" / "quality.json").exists()


def test_training_logs_what_evaluating_measures(call: Call, digits: Path) -> None:
    metrics = read_metrics(digits / "metrics.csv")
    words = ["measure=[quality,trained_loss,levels]", "num_samples=32", "batch_size=2"]
    words += ["measure.trained_loss.num_draws=1"]  # as in training
    result = call("evaluate", f"checkpoint={digits}", *words)
    assert result.code == 0, result.err
    for card in json.loads((digits / "evaluation" / "quality.json").read_text()):
        steps, values = metrics[f"val/{card['name'].replace('/', '_')}"]
        assert len(steps) == 1  # of two validations, the second
        assert values[0] == pytest.approx(card["value"], rel=1e-5)  # float32 in the logger
    for name, metric in {"trained_loss": "val/loss", "levels": "val/error"}.items():
        (card,) = json.loads((digits / "evaluation" / f"{name}.json").read_text())
        assert metrics[metric][1][-1] == pytest.approx(card["value"], rel=1e-5)


REFUSED = {
    ("measure=digit_speed", *FEW): "digit_speed: moving digits are square and at least 16",
    ("measure=[quality,levls]",): "did you mean measure=levels?",
    ("measure=quality", "extractor=i3d"): "extractor.path must be given",
    ("measure=bits", "curve.samplers=[ddim]"): "no measure is one of samples; add measure=quality",
    ("measure=quality", "curve.samplers=[ddim]", "curve.evaluations=[51]"): (
        "curve.samplers: ddim at 51 evaluations: 51 intervals are more than the 50 steps"
    ),
    ("likelihood=flow",): "likelihood is now measure=bits",
}
MORE = {  # like one of those
    ("measure=quality", "num_samples=31"): "num_samples=31 is too few to measure: 32 or",
    ("measure=[frechet]", *FEW): "frechet: a Frechet distance of 64 features needs",
    ("measure=qualty",): "did you mean measure=quality?",
    ("measure=quality", "extractor=i3d", "extractor.path=x", "extractor.sha256=ff"): (
        "extractor: no weights can be read from x"
    ),
    ("measure=quality", "curve.samplers=[dim]"): "did you mean sampler=ddim?",
    ("measure=quality", "curve.evaluations=[0]"): "curve.evaluations",
    ("num_draws=4",): "num_draws is now measure.trained_loss.num_draws",
    ("data.batch_size=4",): "data.batch_size is now batch_size",
    ("weights=[]",): "weights=[] names none",
}


@pytest.mark.parametrize("mistakes", [REFUSED, pytest.param(MORE, marks=pytest.mark.long)])
def test_what_cannot_be_measured_is_refused_in_a_line(
    mistakes: dict[tuple[str, ...], str], call: Call, digits: Path
) -> None:
    for words, expected in mistakes.items():
        assert_user_error(call("evaluate", f"checkpoint={digits}", *words), expected)


@pytest.mark.long
def test_samples_of_a_run_that_holds_nothing_out_are_refused(call: Call, trained: Path) -> None:
    result = call("evaluate", f"checkpoint={trained}", "measure=quality", *FEW)
    assert_user_error(result, "quality: ", "clips are held out, at least 32 are needed")
    result = call("train", *TINY, "callbacks.quality.every_n_validations=1")
    assert_user_error(result, "callbacks.quality: ", "clips are held out, at least 32 are needed")
