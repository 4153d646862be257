"""What is known of clips becomes tensors; wishes are dropped jointly, facts never."""

import pytest
import torch

from ddpm_lightning.conditions.columns import columns_of, in_columns
from ddpm_lightning.conditions.fps import FrameRate
from ddpm_lightning.conditions.joint import Conditions
from ddpm_lightning.conditions.label import Label
from ddpm_lightning.data.draws import uniform
from ddpm_lightning.networks.layers import LogSNREmbedding
from ddpm_lightning.training.randomness import StepDraws

ANNOTATIONS = [{"label": "cat", "fps": 5.0, "mood": "calm"}, {"label": "dog", "fps": 20.0}, {}]


def several(dropout: float = 0.1) -> Conditions:
    """Two wishes and a fact."""
    members = {"label": Label(["cat", "dog"]), "mood": Label(["calm"]), "fps": FrameRate()}
    return Conditions(members, dropout)


def test_a_label_is_a_vector_of_its_own_of_norm_1_and_zeros_where_there_is_none() -> None:
    label = Label(["a", "b", "c"])
    vectors = label.encode(["b", None, "c", "unheard of"])["vectors"]
    assert vectors.tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert torch.equal(label.null(2)["vectors"], torch.zeros(2, 3))


def test_a_frame_rate_is_a_vector_of_norm_1_that_tells_octaves_apart() -> None:
    vectors = FrameRate().encode([1.0, 2.0, 5.0, 10.0, 20.0, 50.0])["vectors"]
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(6))
    assert torch.cdist(vectors, vectors).add(torch.eye(6)).min() > 0.5
    assert torch.equal(FrameRate(default=20).null(1)["vectors"], vectors[4:5])


def test_members_stand_side_by_side() -> None:
    conditions = several()
    vectors = conditions.encode(ANNOTATIONS)["vectors"]
    assert vectors.shape == (3, conditions.vector_width) == (3, 2 + 1 + 8)
    assert vectors[:, :3].tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert torch.equal(vectors[2:], conditions.null(1)["vectors"])
    assert Conditions().encode(ANNOTATIONS) == Conditions().null(3) == {}


def test_wishes_are_dropped_together_at_their_rate_and_facts_never() -> None:
    """0.1 of 20,000 training samples, within three standard errors; keyed by the sample's number,
    whatever batch it is in.
    """
    conditions, number, annotation = several(), 20_000, ANNOTATIONS[0]
    draws = StepDraws(0, 7, range(number)).wishes()
    annotations = conditions.drop([annotation] * number, draws)
    kinds = {tuple(sorted(known)) for known in annotations}
    assert kinds == {("fps",), ("fps", "label", "mood")}
    share = sum("label" not in known for known in annotations) / number
    assert share == pytest.approx(0.1, abs=3 * (0.09 / number) ** 0.5)
    later = StepDraws(0, 7, range(500, 600)).wishes()
    assert conditions.drop([annotation] * 100, later) == annotations[500:600]


def test_draws_of_wishes_change_no_other_draw() -> None:
    """Times, noise and dropout of a run without conditions are what they were with three lanes."""
    draws = StepDraws(3, 11, [4, 5])
    keys = torch.tensor([4, 5]).numpy().astype("uint64") + 11 * 2**40
    expected = uniform(3 + 2**32, keys, num_lanes=3)
    assert draws.uniform().tolist() == expected[:, 0].tolist()
    assert draws.seed() == int(expected[0, 2] * 2**53)


def test_nothing_is_dropped_at_dropout_0() -> None:
    assert several(0.0).drop(ANNOTATIONS, torch.zeros(3)) == ANNOTATIONS


def test_a_vector_of_norm_1_is_louder_than_log_snr_from_the_start() -> None:
    """Numbers of size 1 in each hidden channel, beside those of size 0.4 of 32 waves: within 5
    standard errors over 4,096 channels; seed 0.
    """
    torch.manual_seed(0)
    layer = LogSNREmbedding(width=4096, vector_width=10)
    vector = FrameRate().null(1)["vectors"]
    assert layer.vectors is not None
    with torch.no_grad():
        heard = layer.vectors(torch.nn.functional.pad(vector, (0, 2)))
        angle = 3.0 * layer.frequencies
        waves = layer.first(torch.cat([angle.sin(), angle.cos()]))
    assert heard.std().item() == pytest.approx(1, abs=5 / (2 * 4096) ** 0.5)
    assert waves.std().item() == pytest.approx((16 / 96 + 1 / 96) ** 0.5, abs=5 / 4096**0.5)


def test_columns_are_the_choices_of_the_only_wish() -> None:
    one = Conditions({"label": Label(["a", "b", "c"]), "fps": FrameRate()})
    assert columns_of(one) == [{"label": "a"}, {"label": "b"}, {"label": "c"}]
    assert columns_of(several()) == columns_of(Conditions()) == []
    assert [a["label"] for a in in_columns(columns_of(one), 4)] == list("abcabc")


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("3", "no clip was labelled '3'; the nearest are dogs/white, dogs/black, cats"),
        ("dogs", "the nearest are dogs/white, dogs/black, cats"),
    ],
)
def test_a_label_that_is_not_there_lists_the_nearest(label: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        Label(["cats", "dogs/black", "dogs/white"]).parse(label)
    assert "\n" not in str(error.value)


def test_values_are_parsed_or_refused_in_one_line() -> None:
    assert Label(["a"]).parse("a") == "a"
    assert FrameRate().parse("12.5") == 12.5
    assert Label(["a"]).parse("") is None
    assert FrameRate().parse("") is None
    for text in ("0", "-1", "nan", "fast", "inf"):
        with pytest.raises(ValueError, match=f"above 0, got '{text}'"):
            FrameRate().parse(text)
    with pytest.raises(ValueError, match="must differ, got a, a"):
        Label(["a", "a"])
