"""Two ranks: collectives of a step, and the gradients of one rank, in any division of a batch."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.commands import ROOT, TINY
from tests.run.test_ranks import Group

SCRIPT = str(ROOT / "tests" / "run" / "collectives.py")
STEPS = 5
WORDS = [*TINY, "logger=csv", "network.zero_exits=false", "data.val_fraction=0"]
WORDS += [f"trainer.max_steps={STEPS}", "trainer.val_check_interval=100"]
WORDS += ["trainer.log_every_n_steps=100"]


def gradients(folder: Path, rank: int = 0) -> Tensor:
    """(STEPS, number of parameters)."""
    steps = range(STEPS)
    return torch.stack([torch.load(folder / f"gradient-{rank}-{step}.pt") for step in steps])


@pytest.mark.long
def test_two_ranks_have_the_gradients_of_one_by_two_collectives_a_step(group: Group) -> None:
    """One is the bucket of all gradients, the other whether any rank is to stop; batches that
    accumulate, and are recomputed, have none but in the last of a step. All begin at a fence.
    """
    group.start(SCRIPT, *WORDS, "data.batch_size=8", "run_dir=one")
    assert group.codes() == [0], group.output()
    expected = gradients(group.folder)
    ranks = ["trainer.devices=2", "network.checkpointing=true"]
    for batch, parts in ((4, 1), (2, 2)):
        rows = group.folder / "collectives-0.jsonl"
        rows.unlink()
        words = [f"data.batch_size={batch}", f"trainer.accumulate_grad_batches={parts}"]
        group.start(SCRIPT, *WORDS, *ranks, *words, f"run_dir=two-{parts}")
        assert group.codes()[-1] == 0, group.output()
        for rank in range(2):
            error = torch.linalg.vector_norm(gradients(group.folder, rank) - expected, dim=1)
            assert (error < 1e-5 * torch.linalg.vector_norm(expected, dim=1)).all()  # float32
        counts = [json.loads(line) for line in rows.read_text().splitlines()[-parts:]]
        fences = [{"barrier": 1}] * (parts - 1)
        assert sorted(counts, key=len) == [*fences, {"barrier": 1, "allreduce_": 2}]
