"""Ranks wait for each other: two real processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ddpm_lightning.training.process_group import any_rank, fence
from tests.commands import ROOT

PROGRAM = """
import os, sys, time
from datetime import timedelta
import torch
from torch import distributed
from ddpm_lightning.training.process_group import any_rank, fence, limit, lost_ranks
rank = int(sys.argv[1])
distributed.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
limit(timedelta(seconds=0.5))
time.sleep(1.5 * rank)
fence()
print(any_rank(rank == 1, False), flush=True)
limit(timedelta(seconds=0.5))
if rank:
    time.sleep(3)
else:
    try:
        with lost_ranks():
            distributed.all_reduce(torch.zeros(1))
    except ConnectionAbortedError as e:
        print(e, flush=True)
os._exit(0)
"""


@pytest.mark.long
def test_ranks_wait_long_at_a_fence_and_no_longer_than_a_limit_after_it(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(rank), str(tmp_path / "store")],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    waiting, late = (rank.communicate(timeout=300)[0].splitlines() for rank in ranks)
    assert late == ["[True, False]"]
    assert waiting[0] == "[True, False]"
    assert waiting[1].startswith("another rank has ended or hangs (")


def test_a_process_on_its_own_waits_for_nobody() -> None:
    fence()
    assert any_rank(True, False) == [True, False]
