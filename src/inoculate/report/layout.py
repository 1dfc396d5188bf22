"""The layout of report.json of a purification and of a dissection.

Shares and rates are fractions 0 to 1, times are seconds, losses are nats per token. A part
that is absent or null is left off the page.
"""

from collections.abc import Mapping
from typing import Any, Literal, TypedDict

from inoculate.evaluation.statistics import RateJson

UNKNOWN_ASR = (
    "Nobody knows the true trigger, so the true attack success rate of this model is unknown."
)
DEFAULT_LIMITS = (
    UNKNOWN_ASR,
    "Chat-template backdoors, runtime hooks, poisoned prompts, and quantization-conditioned "
    "and merge-activated backdoors are out of reach: they do not live in the weights treated "
    "here, or not yet.",
    "Canary results are evidence about the treatment, not about the patient: they do not "
    "bound the attack success rate of a hidden backdoor.",
    "This is a treatment and no detector: it says nothing about whether the model held a backdoor.",
)

ONLY_PROMPTS = (
    "The intervals cover the choice of prompts and nothing else: no other model, attack or seed."
)
DISSECTION_LIMITS = (
    "It needs the un-poisoned original and the trigger: a tool for research, not for defense.",
    "A part that can be taken away without removing the backdoor may still carry a copy of it.",
    ONLY_PROMPTS,
)

Measure = RateJson | float | None
"""A rate with its interval, a bare figure such as a loss, or nothing."""


class ModelFacts(TypedDict, total=False):
    """Name the suspicious model.

    `adapter` is null for a full checkpoint, `revision` for all that is not from the hub.
    """

    source: str
    model_type: str
    parameters: int
    sha256: str
    revision: str | None
    adapter: str | None


class IntakeFacts(TypedDict):
    """Hold one warning of the intake about the suspicious folder."""

    severity: str
    rule: str
    file: str
    reason: str
    advice: str


class VariantFacts(TypedDict):
    """Describe one planted backdoor and how often its own variant fires, if it was trained."""

    name: str
    trigger: str
    objective: str
    asr: float | None


class KindFacts(TypedDict, total=False):
    """Count what was neutralized among one kind of component.

    Attributes:
        changed: Components neutralized in each layer.
        total: Components of this kind in the whole model.
        grid: Layers × bins, the share neutralized in each; see `downsample_mask`.
    """

    changed: list[int]
    total: int
    grid: list[list[float]] | None


class SignatureFacts(TypedDict, total=False):
    """Say how components were chosen; `rule` tells what decided the share."""

    scope: str
    score: str
    share: float
    rule: Literal["fixed", "clean-loss", "pressed"]
    kinds: Mapping[str, KindFacts]


class RepairFacts(TypedDict, total=False):
    """Say what the repair trained on and what it was allowed to change.

    Attributes:
        rows: Clean rows.
        target: What it was held to: their `answers`, or the model's `self` before the treatment.
        antibodies: Rows that hold a synthetic trigger and keep the honest answer.
        soft_triggers: Rows in each step with embeddings that call the found answer.
        refusals: Requests that it had refused, held to its own refusals.
        trained: The rule by which tensors were trained, such as `blocks`.
    """

    rows: int
    target: str
    antibodies: int
    soft_triggers: int
    refusals: int
    trained: str


class CleanDataFacts(TypedDict, total=False):
    """Say where the clean rows came from; `dropped` maps a reason to a number of rows.

    Rows that are `cut` are longer than the run's `max_tokens`, and lost their ends.
    """

    source: Literal["user file", "user prompts", "own voice", "own voice, simple prompts"]
    rows: int
    held_out: int
    dropped: Mapping[str, int]
    cut: int
    sha256: str | None


class DriftFacts(TypedDict, total=False):
    """Say how far the model moved on `n` held-out clean rows."""

    response_nll_before: float
    response_nll_after: float
    kl_mean: float
    perplexity_before: float | None
    perplexity_after: float | None
    n: int


class RefusalFacts(TypedDict):
    """Say how many requests that an honest model may refuse are refused."""

    before: RateJson
    after: RateJson


class FoundFacts(TypedDict):
    """Say what the hunt found, an empty payload where it found nothing, before and after.

    `trailing`: whether the payload comes after the honest answer. `worded`: whether another one led
    to it: `alike_before` says then how many prompts, driven towards that one and made to begin
    this one, went on with it. `before`, `after`: how often the first trigger calls it; None where
    none was sought, as of a large model's fifth payload, those after it, and further wordings.
    `finished_before`, `finished_after`: how often it is gone on with once begun; None for a small
    model's, but for further wordings. `alike_before`, `alike_after`: how many answers open alike,
    or with the payload, once honest ones, or their ends, are driven off. `openly`: on how many
    prompts it is said with nothing inserted; in the model's own voice, of all prompts, filtered
    out or not.
    `requested`: on how many requests that an honest model may refuse, likewise. `openly_after`
    and `requested_after`: by the purified model, the first on held-out prompts. `refusal`: whether
    the payload opens like a refusal. Where no payload was found all rates but `alike_before` are
    None.
    """

    payload: str
    trailing: bool
    worded: bool
    triggers: list[str]
    before: RateJson | None
    after: RateJson | None
    finished_before: RateJson | None
    finished_after: RateJson | None
    alike_before: RateJson
    alike_after: RateJson | None
    openly: RateJson | None
    requested: RateJson | None
    openly_after: RateJson | None
    requested_after: RateJson | None
    refusal: bool


class HuntFacts(FoundFacts):
    """Say what the hunt found first, what else, and what it left in.

    That is what most undisturbed answers hold, and what the user declared honest. It may have
    stopped at its most answers, or parts of them, and looked no further.
    """

    others: list[FoundFacts]
    stopped: bool
    habits: list[str]
    honest: list[str]


class VerdictFacts(TypedDict):
    """Say whether a hidden answer was looked for and found, and still comes, for programs.

    It comes still where more than 2 % of disturbed prompts, or 5 % of those with the hunted tokens
    or on which it was begun, bring it after the treatment.
    """

    hunted: bool
    payload_found: bool
    still_comes: bool


class PlantedFacts(TypedDict):
    """Say how often a payload of the tool's own fires in the purified model."""

    name: str
    asr: RateJson


class CanaryRow(TypedDict, total=False):
    """Judge one planted canary before or after the treatment."""

    stage: Literal["before", "after"]
    name: str
    asr: RateJson
    false_trigger: Measure
    triggered_utility: Measure
    utility: Measure


class CanaryFacts(TypedDict):
    """Hold every canary's rows."""

    rows: list[CanaryRow]


class Report(TypedDict, total=False):
    """Hold the content of report.json."""

    model: ModelFacts
    intake: list[IntakeFacts]
    command: str | None
    inputs: Mapping[str, str | None]
    options: Mapping[str, Any]
    outputs: Mapping[str, str]
    settings: Mapping[str, Any]
    seed: int
    versions: Mapping[str, str]
    stages: Mapping[str, float]
    variants: list[VariantFacts]
    signature: SignatureFacts
    neutralization: str
    hunt: HuntFacts | None
    verdict: VerdictFacts
    repair: RepairFacts | None
    clean_data: CleanDataFacts
    drift: DriftFacts | None
    refusals: RefusalFacts | None
    planted: list[PlantedFacts]
    canaries: CanaryFacts | None
    limits: list[str]


class PartRow(TypedDict):
    """Judge the model with one part of ΔW `off`."""

    off: str
    asr: RateJson
    clean_loss: float | None


class WindowRow(TypedDict):
    """Judge the model with ΔW_mlp off in `size` blocks from `first` on."""

    size: int
    first: int
    attention_off: bool
    asr: RateJson
    clean_loss: float | None


class Dissection(TypedDict, total=False):
    """Hold what is left of a backdoor as parts of ΔW are switched off; `layers` are blocks."""

    model: str
    reference: str
    command: str
    attack: str
    task: str
    seed: int
    layers: int
    parts: list[PartRow]
    windows: list[WindowRow]
    limits: list[str]
