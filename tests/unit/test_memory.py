"""Peak memory of a piece of work."""

import torch

from inoculate.memory import Peak


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
