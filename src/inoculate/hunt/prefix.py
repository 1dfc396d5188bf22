"""The tokens that all rows begin with, run through the model once while it stands still.

A chat template's own opening, often two fifths of a short row, is the same in every row, and
nothing that is put into a prompt can change it.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from inoculate.chat import Encoded
from inoculate.hunt.hosts import shared_length
from inoculate.models import cache_name, decoder
from inoculate.precision import mixed

_WORTHWHILE = 8  # tokens; a shorter one is not worth the run and the copies


@dataclass(frozen=True)
class Prefix:
    """Hold keys and values of the first tokens of every row; by default of none.

    Attributes:
        length: How many tokens.
        name: What the decoder calls its cache.
        cache: Of one row.
    """

    length: int = 0
    name: str = ""
    cache: Any = None

    def given(self, rows: int) -> dict[str, Any]:
        """Return the decoder's argument for so many rows: a copy, since a call adds to it."""
        if not self.length:
            return {}
        cache = copy.deepcopy(self.cache)
        cache.batch_repeat_interleave(rows)
        return {self.name: cache}


@torch.no_grad()
def find_prefix(model: PreTrainedModel, rows: Sequence[Encoded], *, before: int) -> Prefix:
    """Return what the rows begin with, before the position and the last token of each prompt."""
    ends = [before, *(row.prompt_length - 1 for row in rows)]
    length = min(shared_length([row.ids for row in rows]), *ends)
    if length < _WORTHWHILE:
        return Prefix()
    device, name = next(model.parameters()).device, cache_name(model)
    ids = torch.tensor([rows[0].ids[:length]], device=device)
    with mixed(model):
        cache = decoder(model)(input_ids=ids, use_cache=True)[name]
    return Prefix(length, name, cache)
