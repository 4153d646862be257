"""What the memory plan is compared with."""

from ddpm_lightning.run import memory


def test_free_memory_of_this_machine_is_read() -> None:
    assert 2**26 < memory.available_bytes(on_gpu=False) < 2**50
