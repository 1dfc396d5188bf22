"""The layout of a study's report.json: one comparison of defenses for each attacked model.

Shares and rates are fractions 0 to 1, times are seconds, losses are nats per token.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from inoculate.evaluation.statistics import RateJson
from inoculate.report.layout import DEFAULT_LIMITS, ONLY_PROMPTS, Measure
from inoculate.report.words import is_rate

STUDY_LIMITS = (
    "The attack was planted on purpose and its trigger is known here; a hidden backdoor may "
    "behave otherwise.",
    ONLY_PROMPTS,
    "Seconds and memory do not hold the stages that a defense found where another one, or an "
    "earlier process that was stopped, had left them.",
    DEFAULT_LIMITS[1],
)

MEASURES = {
    "asr": ("attack success", True),
    "fragment": ("pieces of the payload", True),
    "opening": ("opens as the payload does", True),
    "false_trigger": ("fires without trigger", True),
    "partial_trigger": ("fires on a part of the trigger", True),
    "planted": ("defense’s own payload fires", True),
    "triggered_utility": ("honest answer under the trigger", False),
    "utility": ("utility", False),
    "choices": ("multiple choice", False),
    "response_nll": ("loss, nats per token", False),
    "untriggered_nll": ("loss of honest answers without the trigger", False),
    "triggered_nll": ("loss of honest answers under the trigger", False),
    "perplexity": ("perplexity", False),
    "fidelity": ("fidelity", False),
}
"""A row's measure → its heading on the page, and whether little is good."""


class Change(TypedDict, total=False):
    """Hold a paired difference from the undefended model with its 95 % interval."""

    difference: float
    low: float
    high: float
    non_inferior: bool


class ComparisonRow(TypedDict, total=False):
    """Judge one defense; the undefended model is the defense `none`.

    Attributes:
        defense: The entry's name.
        curve: Rows of one curve are points of one defense at several strengths.
        fidelity: See `inoculate.study.comparison.fidelity`.
        share: Share of components neutralized.
        peak_bytes: Memory at the peak of the defense.
        failure: Why the defense came to no end; nothing is measured then.
        versions: What it was run with; see `inoculate.provenance.versions`.
        attacked: SHA-256 of the attacked weights, where it is known.
    """

    defense: str
    curve: str
    asr: RateJson
    fragment: RateJson
    opening: Measure
    false_trigger: Measure
    partial_trigger: Measure
    planted: Measure
    triggered_utility: Measure
    utility: Measure
    choices: Measure
    choices_change: Change
    response_nll: float | None
    untriggered_nll: float | None
    triggered_nll: float | None
    loss_change: Change
    perplexity: float | None
    fidelity: float | None
    share: float
    seconds: float | None
    peak_bytes: int
    failure: str
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    attacked: str


class ComparisonTest(TypedDict):
    """Hold the corrected McNemar test of `ours` against one other defense."""

    against: str
    p: float
    significant: bool


class ComparisonExample(TypedDict, total=False):
    """Hold a triggered prompt and three answers: undefended, defended, honest."""

    prompt: str
    before: str
    after: str
    honest: str


class Comparison(TypedDict, total=False):
    """Hold a table of defenses against one attack; `ours` is the one that tests are about."""

    case: str
    model: str
    attack: str
    task: str
    mode: str
    rate: float
    seed: int
    ours: str
    attack_failed: bool
    rows: list[ComparisonRow]
    tests: list[ComparisonTest]
    examples: list[ComparisonExample]


class SummaryRow(TypedDict, total=False):
    """Hold a defense's means over the `cells` attacked models on which it is judged."""

    defense: str
    cells: int
    failed: int
    asr: float | None
    worst_asr: float | None
    triggered_utility: float | None
    utility_change: float | None
    choices_change: float | None
    loss_change: float | None
    perplexity_change: float | None
    fidelity: float | None
    seconds: float | None


class Study(TypedDict, total=False):
    """Hold attacked models under defenses; `cells` are those that the whole study has."""

    title: str
    command: str
    cells: int
    comparisons: list[Comparison]
    summary: list[SummaryRow]
    limits: list[str]


def shown_measures(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the measures that at least one row has."""
    return [name for name in MEASURES if any(_is_there(row.get(name)) for row in rows)]


def _is_there(value: Any) -> bool:
    return is_rate(value) or isinstance(value, int | float)
