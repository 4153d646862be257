"""Freed memory stays with the process."""

import platform
import subprocess
import sys

import pytest

from tests.commands import ROOT

FAULTS = """
import resource, sys, torch
from ddpm_lightning.run.fitting.allocator import keep_freed
from tests.networks.shared import unet

if sys.argv[1] == "kept":
    keep_freed()
model, x = unet(), torch.randn(2, 2, 8, 32, 32)
for step in range(8):
    if step == 4:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    model(x, torch.zeros(2)).square().mean().backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.long
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of GNU's C library alone")
def test_steps_find_the_memory_that_was_freed() -> None:
    """Pages that the system has to give, in four steps."""
    command = [sys.executable, "-c", FAULTS]
    kept, returned = (
        int(subprocess.run([*command, word], capture_output=True, check=True, cwd=ROOT).stdout)
        for word in ("kept", "returned")
    )
    assert kept < returned / 4
