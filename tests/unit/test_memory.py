"""Peak memory of a piece of work, and what a device has free."""

import sys

import pytest
import torch

from inoculate.memory import Peak, give_back
from inoculate.resources import free_memory


def test_what_was_given_back_still_counts() -> None:
    """A block of 100 MB that is gone at the end shows in the peak, and not in the next one."""
    with Peak() as calm:
        pass
    with Peak() as busy:
        block = torch.ones(25_000_000)
        del block
        again = torch.ones(25_000_000).sum()
    with Peak() as after:
        pass
    assert float(again) == 25_000_000
    if calm.bytes and not torch.cuda.is_available():
        assert busy.bytes > calm.bytes + 50_000_000
        assert after.bytes < busy.bytes - 50_000_000


def test_freed_memory_between_live_tensors_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 200 MB in small blocks every second is freed; what lies between goes back at once."""
    monkeypatch.setattr("inoculate.memory._WORTH_TRIMMING", 0)
    with Peak() as before:
        blocks = [torch.ones(5_000) for _ in range(10_000)]
    del blocks[::2]
    give_back()
    with Peak() as after:
        pass
    assert len(blocks) == 5_000
    if sys.platform == "linux" and before.bytes and not torch.cuda.is_available():
        assert after.bytes < before.bytes - 50_000_000


@pytest.mark.parametrize(("device", "asked"), [("cuda", None), ("cuda:1", 1)])
def test_the_memory_is_that_of_the_chosen_gpu(
    device: str, asked: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second GPU is not judged by what the first has free."""
    free = {None: 2, 1: 80}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (free[index], 96))
    assert free_memory(device) == (free[asked], "GPU memory")
