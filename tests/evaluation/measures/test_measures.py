"""What measures say of samples that are known: new clips, copies, noise, frames out of order."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ddpm_lightning.evaluation.features.pixels import Pixels
from ddpm_lightning.evaluation.measure import Card, cards_of, write_cards
from ddpm_lightning.evaluation.measures.bits import Bits
from ddpm_lightning.evaluation.measures.coverage import Coverage
from ddpm_lightning.evaluation.measures.digits import (
    DigitBounce,
    DigitLabel,
    DigitMeasure,
    DigitSpeed,
)
from ddpm_lightning.evaluation.measures.distances import DistanceMeasure
from ddpm_lightning.evaluation.measures.frechet import Frechet
from ddpm_lightning.evaluation.measures.memorisation import GAP, TILE_PIXELS, Memorisation
from ddpm_lightning.evaluation.measures.quality import Quality
from ddpm_lightning.evaluation.measures.sliced import SlicedWasserstein
from ddpm_lightning.evaluation.report import table
from ddpm_lightning.evaluation.subject import Reference
from ddpm_lightning.likelihood.variational import VariationalBound
from tests.evaluation.measures.conftest import MakeReference
from tests.evaluation.measures.shared import subject_of

pytestmark = pytest.mark.slow  # as a whole: the clips that they share take seconds


def shuffled_frames(clips: Tensor) -> Tensor:
    """Return each clip with its frames in another order."""
    generator = torch.Generator().manual_seed(0)
    return torch.stack([clip[torch.randperm(len(clip), generator=generator)] for clip in clips])


def test_quality_of_real_clips_is_within_the_floor_and_that_of_noise_is_not(
    reference: Reference,
) -> None:
    real = reference.clips("train")[:64]
    noise = torch.randint(0, 256, real.shape, generator=torch.Generator().manual_seed(0))
    for result in Quality()(subject_of(real, reference)).values():
        assert result.floor is not None
        assert result.floor.low <= result.value <= result.floor.high  # seeded
    for result in Quality()(subject_of(noise.byte(), reference)).values():
        assert result.floor is not None
        assert result.interval is not None
        assert result.interval[0] > 10 * result.floor.high


def test_frames_out_of_order_are_seen_by_the_temporal_half_alone(reference: Reference) -> None:
    clips = shuffled_frames(reference.clips("train")[:64])
    results = Quality()(subject_of(clips, reference))
    (spatial, temporal), floors = results.values(), [r.floor for r in results.values()]
    assert floors[0] is not None
    assert floors[1] is not None
    assert spatial.value <= floors[0].high
    assert temporal.value > 3 * floors[1].high


def test_sliced_and_coverage_order_real_clips_before_noise(
    reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = reference.clips("train")[:48]
    noise = torch.randint(0, 256, real.shape, generator=torch.Generator().manual_seed(0)).byte()
    monkeypatch.setattr(DistanceMeasure, "num_subsamples", 4)
    monkeypatch.setattr(Coverage, "num_subsamples", 4)
    for measure in (SlicedWasserstein(num_projections=16), Coverage()):
        near, far = (measure(subject_of(clips, reference)) for clips in (real, noise))
        for name in near:
            better = near[name].value - far[name].value
            assert (better < 0) == measure.less_is_better, name


def test_copies_of_training_clips_are_memorised_and_shown_beside_them(
    reference: Reference,
) -> None:
    train = reference.clips("train")
    subject = subject_of(train[:40], reference)
    measure = Memorisation(num_shown=3)
    results = measure(subject)
    assert [result.value for result in results.values()] == [1.0, 1.0]
    picture = measure.picture(subject, results)
    width = 6 * TILE_PIXELS + GAP
    assert picture.shape == (3 * (TILE_PIXELS + GAP), 2 * width, 3)
    assert (picture[:, :width] == picture[:, width:]).all()


def test_held_out_clips_are_not_memorised(reference: Reference) -> None:
    """As samples they are what they are compared with: all pairs tie or cancel."""
    for result in Memorisation()(subject_of(reference.clips("val"), reference)).values():
        assert result.value == pytest.approx(0.5)


@pytest.mark.parametrize("measure", [DigitSpeed(), DigitBounce()], ids=lambda m: m.name)
def test_new_digits_obey_their_law_and_shuffled_ones_do_not(
    measure: DigitMeasure, reference: Reference
) -> None:
    clips = reference.clips("train")[:64]
    for samples, is_within in ((clips, True), (shuffled_frames(clips), False)):
        (result,) = measure(subject_of(samples, reference)).values()
        assert result.floor is not None
        assert (result.value < result.floor.mean + 5 * result.floor.std) == is_within


def test_held_out_digits_show_what_they_are_asked_for_and_others_do_not(
    reference: Reference,
) -> None:
    known = [reference.held_out.annotation(i) for i in range(len(reference.held_out))]
    clips, measure = reference.clips("val"), DigitLabel()
    assert measure.mean(clips, known, 10.0)[0] > 0.97
    others = [{"label": str((int(annotation["label"]) + 1) % 10)} for annotation in known]
    assert measure.mean(clips, others, 10.0)[0] < 0.03
    with pytest.raises(ValueError, match="where the run has condition=label"):
        measure(subject_of(clips, reference))


def test_too_few_clips_are_refused_in_one_line(
    reference: Reference, make_reference: MakeReference
) -> None:
    clips = reference.clips("train")
    with pytest.raises(ValueError, match=r"num_samples=31 is too few to measure: 32 or more"):
        Quality()(subject_of(clips[:31], reference))
    with pytest.raises(ValueError, match=r"\d clips are held out, at least 32 are needed; more"):
        Quality()(subject_of(clips, make_reference(val_fraction=0.1)))
    with pytest.raises(ValueError, match=r"no clip is held out: 160 clips both train and valid"):
        Quality()(subject_of(clips, make_reference(val_fraction=0.0)))
    with pytest.raises(ValueError, match=r"Frechet distance of 64 features needs .* 320, got"):
        Frechet()(subject_of(clips, reference))
    with pytest.raises(ValueError, match=r"clips of at least 2 frames, got 1"):
        Quality()(subject_of(clips[:, :1], make_reference(num_frames=1)))


def test_features_are_computed_once_for_all_measures(
    reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = subject_of(reference.clips("train")[:40], reference)
    first, second = Memorisation(), Memorisation()
    results = first(subject)
    monkeypatch.delattr(Pixels, "series")
    assert first.extractor is second.extractor
    assert second(subject) == results


def test_a_card_is_plain_json_with_all_that_its_number_depends_on(
    reference: Reference, tmp_path: Path
) -> None:
    subject, measure = subject_of(reference.clips("train")[:40], reference), Quality()
    run = {"checkpoint": "x.ckpt", "step": 4, "weights": "ema"}
    cards = cards_of(measure, subject, measure(subject), run, {"extractor": "pixels"})
    stored = json.loads(write_cards(cards, tmp_path / "of" / "quality.json").read_text())
    assert [card["name"] for card in stored] == ["quality/spatial", "quality/temporal"]
    for card in stored:
        assert card.keys() == {field.name for field in fields(Card)}
        assert card["floor"].keys() == {"mean", "std", "low", "high"}
        assert card["clips"]["size"] == [16, 16]
        assert card["clips"]["resize_filter"] == "area"
        assert card["samples"]["num_samples"] == 40
        assert card["extractor"] == {"name": "pixels", "sha256": None}
        assert {"model", "noise", "sampler"} <= set(card["comparable_across"])
        assert "data" not in card["comparable_across"]
    shown = table(cards)
    assert "40 samples" in shown
    assert f"{len(reference.held_out)} held out" in shown


def test_a_measure_of_a_denoiser_draws_no_samples(reference: Reference) -> None:
    subject = subject_of(reference.clips("train"), reference)
    measure = Bits(bound=VariationalBound(num_terms=2), flow=None, num_clips=4)
    (card,) = cards_of(measure, subject, measure(subject), {}, {})
    assert card.samples is None
    assert "samples" not in vars(subject)
    assert card.facts["num_clips"] == 4
    assert card.value == pytest.approx(sum(card.facts["terms_in_nats"].values()) / 0.6931472)
