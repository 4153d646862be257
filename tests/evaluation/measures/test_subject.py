"""What is measured: samples, counted calls, clips without anything random."""

import pytest
import torch

from ddpm_lightning.evaluation.subject import Reference, Subject
from ddpm_lightning.samplers.ancestral import AncestralSampler
from ddpm_lightning.samplers.heun import HeunSampler
from tests.evaluation.measures.conftest import MakeReference
from tests.evaluation.measures.shared import denoiser

pytestmark = pytest.mark.slow  # as a whole: the clips that they share take seconds


def test_a_sample_depends_on_its_seed_and_number_alone(reference: Reference) -> None:
    sampler = AncestralSampler(num_evaluations=3)
    batches = [reference, Reference(reference.data, batch_size=3)]
    whole, parts = (Subject(denoiser(), r, sampler=sampler, num_samples=7) for r in batches)
    assert whole.samples.shape == (7, 6, 16, 16, 1)
    # Sums over another batch are rounded otherwise: a level of grey at most.
    assert (whole.samples.int() - parts.samples.int()).abs().max() <= 1
    other = Subject(denoiser(), reference, sampler=sampler, num_samples=7, seed=1)
    assert (whole.samples != other.samples).any()


def test_network_calls_are_counted_not_assumed(reference: Reference) -> None:
    subject = Subject(denoiser(), reference, sampler=HeunSampler(50), num_samples=2)
    facts = subject.sample_facts()
    assert facts["network_calls"] == 49  # two a step, one at the last
    assert facts["sampler"]["name"] == "HeunSampler"
    assert facts["sampler"]["num_evaluations"] == 50


def test_samples_are_asked_for_what_held_out_clips_are(reference: Reference) -> None:
    """Each as often as any other; in another order under another seed, and for each pass."""
    held_out = reference.held_out
    known = [held_out.annotation(i) for i in range(len(held_out))]
    first, other = (
        Subject(denoiser(), reference, HeunSampler(1), num_samples=2 * len(known), seed=seed).asked
        for seed in (0, 1)
    )
    for half in (first[: len(known)], first[len(known) :], other[: len(known)]):
        assert sorted(a["label"] for a in half) == sorted(a["label"] for a in known)
    assert len({str(part) for part in (first[:64], first[len(known) :][:64], other[:64])}) == 3
    assert all(set(a) == {"label", "fps"} and a["fps"] == 10 for a in first)


def test_training_clips_are_shown_without_anything_random(make_reference: MakeReference) -> None:
    first, second = (
        make_reference(flip=True, fps_jitter=0.5, seed=seed).clips("train") for seed in (0, 1)
    )
    assert torch.equal(first, second)


def test_the_two_sides_share_no_clip(reference: Reference) -> None:
    train, held_out = (reference.clips(split).flatten(1) for split in ("train", "val"))
    assert len(train) + len(held_out) == 160
    assert torch.cdist(held_out.float(), train.float()).min() > 0
