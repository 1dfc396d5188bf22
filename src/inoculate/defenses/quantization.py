"""INT4 baseline: a round trip through sixteen levels, as weight-only quantization does it.

Shapes: O outputs, I inputs, G groups of a projection, S weights of a group, V levels.
Source: NormalFloat of Dettmers et al., NeurIPS 2023 (QLoRA), appendix E; groups of 64 weights of
one output row, scaled by their largest magnitude, each rounded to the nearest level.
"""

import torch
from torch import Tensor

from inoculate.defenses.given import Given
from inoculate.defenses.pruning import projections

GROUP = 64
NORMAL_FLOAT = (
    -1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0,
    0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0,
)  # fmt: skip


def int4(given: Given) -> float:
    """Round every projection of the blocks to 4 bits and back, in place; an adapter is merged."""
    given.subject.merge()
    with torch.no_grad():
        for weight_OI in projections(given.subject).values():
            weight_OI.copy_(round_trip(weight_OI))
    return 0.0


def round_trip(weight_OI: Tensor) -> Tensor:
    """Return the weights as 4 bits can hold them: at most 16 values in a group."""
    outputs, inputs = weight_OI.shape
    padded = torch.nn.functional.pad(weight_OI.float(), (0, -inputs % GROUP))
    groups_GS = padded.reshape(-1, GROUP)
    scale_G1 = groups_GS.abs().amax(dim=1, keepdim=True).clamp_min(1e-12)
    levels_V = torch.tensor(NORMAL_FLOAT, device=weight_OI.device)
    bounds = (levels_V[1:] + levels_V[:-1]) / 2
    nearest_GS = levels_V[torch.bucketize(groups_GS / scale_G1, bounds)]
    return (nearest_GS * scale_G1).reshape(outputs, -1)[:, :inputs].to(weight_OI)
