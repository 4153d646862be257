"""Orders: one stream of samples, for every world size and after every resume."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest

from ddpm_lightning.data.draws import permutation, uniform
from ddpm_lightning.data.order import Cursor, InOrder, Sample, ShuffledOrder

START = Cursor()
SHARDS = [i // 7 for i in range(50)]  # 50 clips in 8 shards


def stream(
    num_batches: int,
    shards: list[int] = SHARDS,
    batch_size: int = 8,
    seed: int = 3,
    world_size: int = 1,
    cursor: Cursor = START,
) -> list[list[list[Sample]]]:
    """Of every global batch, what each rank gets."""
    ranks = [ShuffledOrder(shards, batch_size, seed, r, world_size) for r in range(world_size)]
    batches = []
    for _ in range(num_batches):
        batches.append([rank.samples(cursor) for rank in ranks])
        (cursor,) = {rank.after(cursor) for rank in ranks}
    return batches


def flat(batches: Iterable[list[list[Sample]]]) -> list[Sample]:
    """The samples in the order of their numbers."""
    return sorted((s for ranks in batches for rank in ranks for s in rank), key=lambda s: s.number)


def test_samples_are_numbered_and_every_pass_is_a_permutation() -> None:
    samples = flat(stream(25))
    assert [sample.number for sample in samples] == list(range(200))
    items = [sample.item for sample in samples]
    passes = [items[k : k + 50] for k in range(0, 200, 50)]
    assert all(sorted(part) == list(range(50)) for part in passes)
    assert len(set(map(tuple, passes))) == 4
    assert items[50:100] == permutation(3, 1, 50).tolist()


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("num_clips", [50, 5, 1])
def test_every_world_size_sees_the_same_samples(world_size: int, num_clips: int) -> None:
    shards = SHARDS[:num_clips]
    alone = stream(25, shards)
    batch_size = 8 // world_size
    together = stream(25, shards, batch_size=batch_size, world_size=world_size)
    for one, several in zip(alone, together, strict=True):
        assert all(len(rank) == batch_size for rank in several)
        assert flat([several]) == one[0]
        assert all(rank == sorted(rank, key=lambda s: s.number) for rank in several)
    # The global batch may also have another size: the stream is the same.
    larger = flat(stream(7, shards, batch_size=9, world_size=world_size))
    assert larger[:50] == flat(alone)[:50]


def test_the_stream_goes_on_from_any_cursor_at_any_world_size() -> None:
    whole = flat(stream(40))
    order = ShuffledOrder(SHARDS, 8, 3)
    cursor = Cursor()
    for batch in range(30):
        assert cursor.drawn == 8 * batch == 50 * cursor.epoch + cursor.position
        for world_size in (1, 2, 4):
            rest = flat(stream(2, world_size=world_size, cursor=cursor))
            assert rest == whole[8 * batch :][: len(rest)]
        cursor = order.after(cursor)


def test_the_order_depends_on_the_seed_alone() -> None:
    assert stream(10) == stream(10)
    assert stream(10) != stream(10, seed=4)
    # Frozen: other numbers here would be another order in everyone's runs.
    assert permutation(0, 0, 10).tolist() == [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]


def test_ranks_mostly_read_their_own_shards() -> None:
    """Of 16 samples a rank owns 16 on average, with a deviation of 3.5 on 4 ranks: at least 85 %
    are its own (seen: 91 %). Whoever owns fewer than 16 gets no foreign one for want of room."""
    shards = np.repeat(np.arange(40), 25)
    batches = stream(60, shards.tolist(), batch_size=16, world_size=4)
    own: Counter[int] = Counter()
    for ranks in batches:
        owned = Counter(int(shards[s.item]) % 4 for rank in ranks for s in rank)
        for rank, samples in enumerate(ranks):
            kept = sum(int(shards[s.item]) % 4 == rank for s in samples)
            assert kept == min(16, owned[rank])
            own[rank] += kept
    assert own.total() > 0.85 * 60 * 64


def test_renewing_begins_a_pass_over_all_clips() -> None:
    order = ShuffledOrder(range(5), 4, 0)
    order.cursor = order.after(order.after(Cursor()))
    assert order.cursor == Cursor(1, 3, 8)
    order.renew(range(20))
    assert order.cursor == Cursor(2, 0, 8)
    samples = []
    for _ in range(5):
        samples += order.samples(order.cursor)
        order.cursor = order.after(order.cursor)
    assert samples == [Sample(int(i), 8 + k) for k, i in enumerate(permutation(0, 2, 20))]


def test_an_epoch_has_as_many_batches_as_fit_and_at_least_one() -> None:
    sizes = {(50, 8): 6, (50, 50): 1, (3, 8): 1}
    for (num_clips, batch_size), length in sizes.items():
        assert len(ShuffledOrder(range(num_clips), batch_size, 0)) == length
    assert len(ShuffledOrder(range(50), 2, 0, rank=3, world_size=4)) == 6
    assert len(ShuffledOrder(range(50), 4, 0, accumulate=5)) == 10  # two whole optimizer steps
    assert len(ShuffledOrder(range(3), 4, 0, accumulate=5)) == 5


@pytest.mark.parametrize("num_clips", [1, 3, 8, 13, 16])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_in_order_shows_every_clip_once_in_even_batches(num_clips: int, world_size: int) -> None:
    """Apart from repetitions that fill the last batch: fewer than there are ranks."""
    ranks = [InOrder(num_clips, 2, rank, world_size) for rank in range(world_size)]
    cursor = Cursor()
    shown = []
    for _ in range(len(ranks[0])):
        shares = [rank.samples(cursor) for rank in ranks]
        assert len({len(share) for share in shares}) == 1
        shown += [s.item for group in zip(*shares, strict=True) for s in group]
        cursor = ranks[0].after(cursor)
    assert cursor == Cursor()
    assert shown[:num_clips] == list(range(num_clips))
    assert len(shown) - num_clips < world_size


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="no clip to train on"):
        ShuffledOrder([], 1, 0)
    with pytest.raises(ValueError, match="no clip to validate on"):
        InOrder(0, 1)


def test_draws_are_uniform_and_independent() -> None:
    """100,000 draws: means within 5 standard errors of 0.0009, correlations within 5 of 0.0032;
    ten bins of 10,000 +- 5 x 95."""
    draws = uniform(0, np.arange(100_000), 4)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert abs(draws.mean(0) - 0.5).max() < 0.0046
    correlation = np.corrcoef(np.hstack((draws[:-1], draws[1:])).T) - np.eye(8)
    assert abs(correlation).max() < 0.016
    other = uniform(1, np.arange(100_000), 1)
    assert abs(np.corrcoef(draws[:, 0], other[:, 0])[0, 1]) < 0.016
    counts = np.stack([np.histogram(lane, 10, (0, 1))[0] for lane in draws.T])
    assert abs(counts - 10_000).max() < 475


def test_a_draw_depends_on_its_place_alone() -> None:
    whole = uniform(7, np.arange(100), 5)
    np.testing.assert_array_equal(uniform(7, np.array([42, 3]), 2), whole[[42, 3], :2])
    assert uniform(7, np.array([2**40]), 1)[0, 0] != whole[0, 0]
    assert uniform(0, np.array([2]), 2)[0].tolist() == [0.8357022799528567, 0.3193228892287364]
