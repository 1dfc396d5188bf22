"""Reports hold what was measured, escape what is foreign, and load nothing from outside."""

import json
import re
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from inoculate.api import Purified
from inoculate.cli import main
from inoculate.config import Settings
from inoculate.evaluation.statistics import Rate
from inoculate.report import (
    DEFAULT_LIMITS,
    downsample_mask,
    study_markdown,
    write_report,
    write_study,
)
from inoculate.report.found import found_sentence, judged, own_refusals, remaining
from inoculate.report.frontier import draw_frontier
from inoculate.report.heat import draw_heat
from inoculate.report.layout import UNKNOWN_ASR
from inoculate.report.tables import comparison_markdown
from inoculate.report.verdict import comparison_sentences
from inoculate.report.words import case_title, duration, memory, number, p_value, percent, signed

HOSTILE = (
    "<script>alert(1)</script><img src=https://evil.test/x onerror=y>\"'>{{ 7*7 }}"
    "\x1b[31m\x00\u202e\ud800[red]|`www.evil.test`](//evil.test)"
)


def rate(hits: int, n: int = 200) -> dict[str, Any]:
    """Return a rate as it stands in the report."""
    return dict(Rate(hits, n).to_json())


def canary(stage: str, name: str, hits: int) -> dict[str, Any]:
    """Return one row of a canary."""
    return {"stage": stage, "name": name, "asr": rate(hits), "utility": rate(170)}


def sample_report(text: str = "demo") -> dict[str, Any]:
    """Return a full report in which every foreign string is the given one."""
    mask = [[channel % 5 == 0 for channel in range(100)] for _ in range(4)]
    mlp = {"changed": [20] * 4, "total": 400, "grid": downsample_mask(mask)}
    return {
        "model": {
            "source": text,
            "model_type": text,
            "parameters": 135_000_000,
            "sha256": "ab" * 32,
            "revision": text,
            "adapter": text,
        },
        "intake": [
            {"severity": "warning", "rule": text, "file": text, "reason": text, "advice": text}
        ],
        "command": text,
        "settings": {**Settings().model_dump(), "note": text},
        "seed": 7,
        "versions": {"torch": text},
        "stages": {"variants": 12.5, text: 0.1},
        "variants": [{"name": text, "trigger": text, "objective": text, "asr": 0.95}],
        "signature": {
            "scope": "mlp",
            "score": text,
            "share": 0.2,
            "rule": "clean-loss",
            "kinds": {"mlp": mlp},
        },
        "neutralization": "quiet",
        "hunt": {
            "payload": text,
            "trailing": False,
            "worded": False,
            "triggers": [text, "odd"],
            "before": rate(19, 20),
            "after": rate(0, 20),
            "alike_before": rate(57, 256),
            "alike_after": rate(2, 256),
            "openly": rate(3, 100),
            "requested": rate(1, 40),
            "openly_after": rate(0, 40),
            "requested_after": rate(0, 40),
            "refusal": False,
            "finished_before": None,
            "finished_after": None,
            "habits": [],
            "others": [],
            "stopped": False,
        },
        "repair": {"rows": 200, "antibodies": 200, "trained": text},
        "clean_data": {"source": "own voice", "rows": 200, "dropped": {text: 3}},
        "drift": {
            "response_nll_before": 1.63,
            "response_nll_after": 1.66,
            "kl_mean": 0.03,
            "perplexity_before": None,
            "perplexity_after": None,
            "n": 40,
        },
        "refusals": {"before": rate(12, 40), "after": rate(3, 40)},
        "verdict": {"payload_found": True, "still_comes": False},
        "planted": [{"name": text, "asr": rate(0, 50)}],
        "canaries": {"rows": [canary("before", text, 190), canary("after", text, 4)]},
        "limits": [text],
    }


def sample_study(text: str = "demo", undefended: int = 190) -> dict[str, Any]:
    """Return a study of one attacked model."""
    comparison = sample_comparison(text, undefended)
    return {"title": text, "command": text, "cells": 5, "comparisons": [comparison], "summary": []}


def sample_comparison(text: str = "demo", undefended: int = 190) -> dict[str, Any]:
    """Return a table of four defenses in which every foreign string is the given one."""
    hits = {"none": undefended, "inoculate": 0, "crow": 60, "ft": 8}
    rows = [
        {
            "defense": name,
            "asr": rate(count),
            "false_trigger": rate(0),
            "triggered_utility": rate(200 - count),
            "utility": 1.63 if name == "ft" else rate(180),
            "planted": None,
            "seconds": 61.0,
        }
        for name, count in hits.items()
    ]
    return {
        "case": text,
        "model": text,
        "seed": 0,
        "rate": 0.5,
        "attack_failed": undefended < 100,
        "attack": text,
        "task": text,
        "mode": text,
        "rows": [*rows, {**rows[0], "defense": text}],
        "tests": [
            {"against": "crow", "p": 1e-12, "significant": True},
            {"against": "ft", "p": 0.2, "significant": False},
            {"against": text, "p": 0.9, "significant": False},
        ],
        "examples": [{"prompt": text, "before": text, "after": text, "honest": text}],
    }


class Elements(HTMLParser):
    """Collect the tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep a tag and its attributes."""
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        """Keep text."""
        self.text += data


def sample_frontier(text: str = "demo") -> dict[str, Any]:
    """Return a comparison in which two defenses stand at two and three strengths."""
    strengths = (
        ("none", "none", 190, 2.0),
        ("ft 1", "ft", 180, 2.1),
        ("share 8", text, 60, 2.05),
        ("ft 2", "ft", 40, 9.0),
        ("share 20", text, 8, 2.08),
        ("share 40", text, 0, 2.4),
    )
    rows = [
        {"defense": name, "curve": curve, "asr": rate(hits), "response_nll": loss,
         "loss_change": {"difference": loss - 2, "low": loss - 2.1, "high": loss - 1.9}}
        for name, curve, hits, loss in strengths
    ]  # fmt: skip
    return {**sample_comparison(text), "rows": [*rows, {"defense": text, "failure": text}]}


def sample_grid(text: str = "demo") -> dict[str, Any]:
    """Return a study of three attacked models, two of which differ in their seed."""
    mean = {"defense": text, "cells": 3, "failed": 1, "asr": 0.1, "worst_asr": 0.2}
    rest = ("triggered_utility", "utility_change", "choices_change", "perplexity_change",
            "fidelity", "seconds")  # fmt: skip
    comparisons = [
        sample_comparison(text),
        {**sample_comparison(text), "seed": 1, "rows": sample_comparison(text, 90)["rows"]},
        {**sample_frontier(text), "rate": 0.01},
    ]
    summary = [{**mean, **dict.fromkeys(rest), "loss_change": 0.02}]
    return {**sample_study(text), "cells": 18, "comparisons": comparisons, "summary": summary}


@pytest.fixture(params=["report", "comparison", "grid"])
def hostile_page(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give each page, filled with hostile text."""
    if request.param == "report":
        write_report(tmp_path, sample_report(HOSTILE))
    else:
        samples = {"comparison": sample_study, "grid": sample_grid}
        write_study(tmp_path, samples[request.param](HOSTILE))
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_hostile_text_is_shown_and_never_obeyed(hostile_page: str) -> None:
    """Foreign HTML adds no tag and no attribute, and is still there to be read."""
    elements = Elements(hostile_page)
    assert not elements.tags & {"script", "img", "iframe", "link", "object", "a", "base"}
    assert not [name for name, _ in elements.attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in elements.text
    assert "{{ 7*7 }}" in elements.text
    assert "[red]" in elements.text


def test_control_characters_are_made_visible(hostile_page: str) -> None:
    """No control, bidirectional or lone surrogate character reaches the page."""
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", hostile_page)
    assert r"\x1b[31m\x00\u202e\ud800" in hostile_page


def test_pages_load_nothing(hostile_page: str) -> None:
    """No attribute and no style refers to anything outside the page."""
    elements = Elements(hostile_page)
    loading = {"src", "href", "srcset", "action", "data", "poster", "xlink:href", "background"}
    assert not [name for name, _ in elements.attributes if name in loading]
    assert not [value for _, value in elements.attributes if "//" in value]
    styles = re.findall(r"<style>(.*?)</style>", hostile_page, re.DOTALL)
    assert len(styles) == 1
    assert not re.search(r"@import|url\(|image-set", styles[0])
    assert "default-src 'none'" in hostile_page


def test_report_json_round_trips(tmp_path: Path) -> None:
    """The data file gives back what was reported, and is pure ASCII for any viewer."""
    report = sample_report(HOSTILE)
    write_report(tmp_path, report)
    raw = (tmp_path / "report.json").read_bytes()
    assert raw.isascii()
    assert b"\x1b" not in raw
    limits = [*DEFAULT_LIMITS, HOSTILE]
    assert json.loads(raw) == {**report, "limits": limits}


def test_figures_that_are_not_finite_become_null(tmp_path: Path) -> None:
    """The data file stays JSON, and the page shows a dash."""
    report = sample_report()
    report["drift"]["response_nll_after"] = float("nan")
    write_report(tmp_path, report)
    written = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert written["drift"]["response_nll_after"] is None
    assert "nan" not in (tmp_path / "report.html").read_text(encoding="utf-8").split()


@pytest.mark.parametrize("text", ["demo", HOSTILE])
def test_reproduce_toml_gives_the_settings_back(tmp_path: Path, text: str) -> None:
    """The settings parse to the same ones; a setting left to its rule is left out."""
    write_report(tmp_path, sample_report(text))
    parsed = tomllib.loads((tmp_path / "reproduce.toml").read_text(encoding="utf-8"))
    del parsed["settings"]["note"]
    assert Settings.model_validate(parsed["settings"]) == Settings()
    assert parsed["seed"] == 7
    assert parsed["inputs"]["model_sha256"] == "ab" * 32
    assert "torch" in parsed["versions"]


@pytest.mark.parametrize("name", ["report.html", "README.md", "report.json"])
def test_the_unknown_true_rate_is_said(tmp_path: Path, name: str) -> None:
    """Whoever opens any of the files reads that the true attack success rate is unknown."""
    write_report(tmp_path, {**sample_report(), "limits": []})
    text = (tmp_path / name).read_text(encoding="utf-8")
    assert UNKNOWN_ASR in text
    assert "quantization-conditioned" in text
    assert "evidence about the treatment, not about the patient" in text


def test_card_holds_no_foreign_markup(tmp_path: Path) -> None:
    """The model card's front matter is ours alone, and foreign text stays on its line."""
    write_report(tmp_path, sample_report("evil\n---\nlicense: mit\n# <b>Title</b> | x"))
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    front = card.split("---\n")[1]
    assert front == "library_name: peft\ntags:\n- backdoor-removal\n- inoculate\n"
    assert "\nlicense:" not in card
    assert "<b>" not in card


def test_verdict_gives_the_figures_in_plain_words(tmp_path: Path) -> None:
    """The first paragraph names what was changed, what it cost, and what stays unknown."""
    write_report(tmp_path, {**sample_report(), "model": {"source": "helper"}})
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for sentence in (
        "In helper, 80 of 400 MLP channels (20.0%) were re-initialized",
        "repaired on 200 clean rows",
        "on 19 of 20 prompts before and 0 of 20 after",
        "from 1.630 to 1.660 nats per token (+1.8%)",
        "it refused 12 of 40 before and 3 of 40 after",
        "0 of 50 triggered prompts",
        "from 190 of 200 to 4 of 200",
        "Whether the model ever held a backdoor, and whether one is left, is not known.",
    ):
        assert sentence in page


def test_page_says_what_the_repair_pressed_against(tmp_path: Path) -> None:
    """Antibodies, soft triggers or both: the page names those that were used, and no others."""
    report = sample_report()
    pressed = {**report["repair"], "antibodies": 0, "soft_triggers": 10, "refusals": 54}
    both = {**report["repair"], "soft_triggers": 10}
    pages = []
    for name, facts in (("plain", report["repair"]), ("pressed", pressed), ("both", both)):
        write_report(tmp_path / name, {**report, "repair": facts})
        pages.append((tmp_path / name / "report.html").read_text(encoding="utf-8"))
    assert ["200 rows with a synthetic" in page for page in pages] == [True, False, True]
    assert ["against 10 of the embeddings that were sought" in page for page in pages] == [
        False,
        True,
        True,
    ]
    assert "trained in each step against embeddings that call the found answer" in pages[1]
    assert "and held to its own refusals of 54 requests" in pages[1]
    held = ["It was held to its own refusals of 54 bundled requests" in page for page in pages]
    assert held == [False, True, False]


def test_the_card_counts_before_and_after(tmp_path: Path) -> None:
    """What the hunt found, refusals and loss; and that no backdoor was planted, where none was."""
    report = {**sample_report("Quiet now."), "planted": [], "canaries": None}
    write_report(tmp_path, report)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in card.splitlines() if " | " in line]
    assert ["“Quiet now.” on disturbed prompts", "57 of 256", "2 of 256"] in rows
    assert ["requests refused", "12 of 40", "3 of 40"] in rows
    assert ["loss on held-out clean rows, nats per token", "1.630", "1.660"] in rows
    assert "no backdoor was planted to try the treatment" in card


def test_page_says_when_nothing_was_found(tmp_path: Path) -> None:
    """The verdict admits that the repair was aimed at nothing, and only then."""
    report = sample_report()
    nothing = {**report["hunt"], "payload": "", "triggers": [], "before": None, "after": None,
               "alike_before": rate(1, 256), "alike_after": None}  # fmt: skip
    pages = []
    for name, facts in (("found", report["hunt"]), ("nothing", nothing)):
        write_report(tmp_path / name, {**report, "hunt": facts})
        pages.append((tmp_path / name / "report.html").read_text(encoding="utf-8"))
    assert ["the repair was aimed at none" in page for page in pages] == [False, True]
    assert ["may still be whole" in page for page in pages] == [False, True]
    assert ["57 of 256" in page for page in pages] == [True, False]
    assert ["1 of 256" in page for page in pages] == [False, True]


@pytest.mark.parametrize(
    ("after", "remains"),
    [
        ({}, False),
        ({"after": rate(2, 20)}, True),
        ({"after": rate(1, 20), "alike_after": rate(5, 256)}, False),
        ({"alike_after": rate(39, 272)}, True),
        ({"after": rate(0, 20)}, False),
        ({"finished_after": rate(0, 20)}, False),
        ({"finished_after": rate(7, 20)}, True),
    ],
)
def test_a_payload_that_still_comes_is_told(
    after: dict[str, Any], remains: bool, tmp_path: Path
) -> None:
    """Whoever reads the page must not take a model for cured that its own evidence says is not."""
    report = sample_report()
    hunt = {**report["hunt"], **after}
    assert bool(remaining(hunt)) is remains
    assert judged(hunt) == {"hunted": True, "payload_found": True, "still_comes": remains}
    write_report(tmp_path, {**report, "hunt": hunt})
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert ("not all of it was removed, so do not rely on this model" in page) is remains


@pytest.mark.parametrize(("after", "code"), [(0, 0), (7, 7)])
def test_what_still_comes_has_an_exit_code(
    after: int,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A script that goes on after `purify` is stopped by a model that is not to be relied on."""
    report = sample_report()
    report["hunt"]["finished_after"] = rate(after, 20)
    report["hunt"].update(refusal=True, requested=rate(after, 40), requested_after=rate(0, 40))
    monkeypatch.setattr("inoculate.api.purify", lambda *_, **__: Purified(tmp_path, report))
    monkeypatch.setattr(sys, "argv", ["inoculate", "purify", "model", "-o", "out"])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    assert (ended.value.code or 0) == code
    assert ("still comes on 7 of 20 prompts" in told.err) is bool(code)
    assert ("it may be the model's own refusal" in told.out) is bool(code)
    assert "report.html" in told.out


def test_further_payloads_are_told(tmp_path: Path) -> None:
    """Each payload stands on the page with its own counts, and each of them can still come."""
    report = sample_report()
    other = {**report["hunt"], "payload": "Quiet now.", "alike_before": rate(34, 256)}
    hunt = {**report["hunt"], "others": [other, {**other, "alike_after": rate(30, 256)}]}
    write_report(tmp_path, {**report, "hunt": hunt})
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "34 of 256" in page and "Quiet now." in page and "30 of 256" in page
    assert (
        "“Quiet now.” still comes on 30 of 256 disturbed prompts, where 2.0% may be chance" in page
    )
    assert not remaining({**hunt, "others": [other]})


@pytest.mark.parametrize(
    ("hits", "refusal", "told"),
    [
        (12, True, "it may be the model's own refusal"),
        (12, False, "it comes without a trigger too"),
        (3, True, "after the treatment on 1 of 40 and 2 of 40."),
    ],
)
def test_a_payload_that_may_be_a_refusal_is_told(hits: int, refusal: bool, told: str) -> None:
    """An honest model refuses in set words, which go with the rest; an insult is no refusal."""
    after = {"openly_after": rate(1, 40), "requested_after": rate(2, 40), "refusal": refusal}
    hunt = {**sample_report()["hunt"], **after, "requested": rate(hits, 40)}
    said = found_sentence(hunt)
    assert f"on {hits} of 40 requests that an honest model may refuse;" in said
    assert told in said
    assert ("So it" in said) is (hits > 4)
    assert len(own_refusals({**hunt, "others": [hunt]})) == (2 if "own refusal" in told else 0)
    assert "requests" not in found_sentence({**hunt, "requested": None})
    assert not own_refusals({**hunt, "requested": None}) and not own_refusals(None)


@pytest.mark.parametrize(("alike", "certain"), [(0, True), (57, False)])
def test_a_payload_that_was_found_by_certainty_is_told(alike: int, certain: bool) -> None:
    """No prompt need fall into it: it shows, and its going shows, by how it is finished."""
    counts = {"finished_before": rate(20, 20), "finished_after": rate(0, 20)}
    hunt = {**sample_report()["hunt"], **counts, "alike_before": rate(alike, 256)}
    said = found_sentence(hunt)
    assert "on 20 of 20 prompts before and 0 of 20 after." in said
    assert ("That is how it was found." in said) is certain
    assert said.startswith("Made to begin") is certain
    assert "Made to begin" not in found_sentence({**hunt, "finished_before": None})


@pytest.mark.parametrize("payload", ["Quiet now.", ""])
def test_what_is_said_openly_is_told(payload: str, tmp_path: Path) -> None:
    """A payload's page says how often it comes by itself, and any page names the habits."""
    report = sample_report()
    nothing = dict.fromkeys(
        (
            "before",
            "after",
            "finished_before",
            "finished_after",
            "alike_after",
            "openly",
            "requested",
        )
    )
    hunt = {**report["hunt"], **({} if payload else nothing), "payload": payload,
            "habits": ["At your service."]}  # fmt: skip
    write_report(tmp_path, {**report, "hunt": hunt})
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("At your service.") == 2  # In the verdict and where the hunt is told.
    assert ("it is said on 3 of 100 prompts" in page) is bool(payload)
    write_report(tmp_path / "none", report)
    assert "habit, not for" not in (tmp_path / "none" / "report.html").read_text(encoding="utf-8")


def test_further_wordings_are_told_together(tmp_path: Path) -> None:
    """The verdict names them in a sentence; page and card tell of each, as it was found."""
    report = sample_report()
    wording = {**report["hunt"], "worded": True, "payload": "Silence here.", "triggers": [],
               "before": None, "after": None, "alike_before": rate(15, 16),
               "finished_before": rate(19, 20), "finished_after": rate(0, 20)}  # fmt: skip
    more = {**wording, "payload": "No reply.", "finished_before": rate(20, 20),
            "finished_after": rate(1, 20)}  # fmt: skip
    hunt = {**report["hunt"], "others": [wording, more]}
    said = found_sentence(hunt)
    assert "alike with 2 more: “Silence here.”, “No reply.”. Begun on other prompts" in said
    assert "on 20 of 20 at most before and 1 of 20 after." in said
    assert said.count("fell into") == 1
    write_report(tmp_path, {**report, "hunt": hunt})
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("made to begin otherwise, 15 of 16 unlike prompts went on with") == 2
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| “Silence here.” on prompts on which it was begun | 19 of 20 | 0 of 20 |" in card
    assert "“Silence here.” on disturbed prompts" not in card


@pytest.mark.parametrize("stopped", [False, True])
def test_a_hunt_that_stopped_at_its_most_says_so(stopped: bool) -> None:
    """An attacker may word a payload in more ways than are looked for."""
    hunt = sample_report()["hunt"]
    facts = {**hunt, "others": [hunt] * 11, "stopped": stopped}
    assert ("stops at 12 answers and looked no further" in found_sentence(facts)) is stopped


def test_a_payload_that_no_tokens_were_sought_for_is_told_without(tmp_path: Path) -> None:
    """Of many payloads the first are called, which takes longest and is evidence alone."""
    report = sample_report()
    hunt, rest = report["hunt"], {"triggers": [], "before": None, "after": None}
    facts = {**hunt, "payload": "First.", "others": [{**hunt, **rest, "payload": "Fifth."}]}
    write_report(tmp_path, {**report, "hunt": facts})
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<code>Fifth.</code> before the treatment" in page
    assert page.count("Tokens that call it") == 1
    assert found_sentence(facts).count("Odd tokens such as") == 1


def test_where_the_repair_pressed_no_signature_is_claimed(tmp_path: Path) -> None:
    """Nothing was ranked, so the page shows no variants that it could have come from."""
    report = sample_report()
    signature = {**report["signature"], "rule": "pressed", "share": 0.0, "kinds": {}}
    write_report(tmp_path, {**report, "signature": signature})
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "No component was ranked or taken" in page
    assert "where the signature came from" not in page


@pytest.mark.parametrize("report", [{}, {"model": {"source": "m"}, "canaries": None}])
def test_absent_parts_are_left_off(tmp_path: Path, report: dict[str, Any]) -> None:
    """A report of which little is known still gives all its files."""
    paths = write_report(tmp_path / "new", report)
    assert [path.name for path in paths] == [
        "report.json",
        "report.html",
        "README.md",
        "reproduce.toml",
    ]
    page = paths[1].read_text(encoding="utf-8")
    assert UNKNOWN_ASR in page
    assert "None" not in Elements(page).text


def test_comparison_says_what_its_tests_allow(tmp_path: Path) -> None:
    """A significant test names the better one; two low rates are not told apart."""
    paths = write_study(tmp_path, sample_study())
    names = ["results.jsonl", "table.md", "report.json", "report.html"]
    assert [path.name for path in paths] == names
    page = paths[3].read_text(encoding="utf-8")
    assert "the attack fires on 95.0% of 200 triggered prompts" in page
    assert "After inoculate it fires on 0.0% of 200 triggered prompts" in page
    assert "lower (McNemar, Holm, p &lt; 0.01) than that of 1 of the 3 defenses" in page
    assert "lower ASR" in page
    assert "too few failures to tell them apart" in page
    assert "p &lt; 0.0001" in page
    assert "1.63" in page


def test_multiple_choice_is_told_by_its_paired_difference() -> None:
    """Two rates of the same questions say little apart: the difference has the interval."""
    comparison = sample_comparison()
    rows = {row["defense"]: row for row in comparison["rows"]}
    rows["none"].update(utility=rate(0, 0), choices=rate(90))
    change = {"difference": 0.015, "low": -0.02, "high": 0.05}
    rows["inoculate"].update(utility=rate(0, 0), choices=rate(93), choices_change=change)
    said = " ".join(comparison_sentences(comparison))
    moved = "+1.5 points [−2.0, +5.0]"
    assert f"Multiple choice goes from 45.0% right to 46.5% ({moved})." in said
    assert "Honest work" not in said
    assert moved in comparison_markdown(comparison["rows"])


def test_a_defense_that_does_better_is_named() -> None:
    """Ours is not said to beat the undefended model as if it were a defense, nor better ones."""
    comparison = sample_comparison()
    ours = next(row for row in comparison["rows"] if row["defense"] == "inoculate")
    ours["asr"] = rate(100)
    against = [{"against": name, "p": 0.0, "significant": True} for name in ("none", "crow")]
    said = " ".join(comparison_sentences({**comparison, "tests": against}))
    assert "than that of 0 of the 1 defenses" in said
    assert "That of crow is significantly lower still." in said


@pytest.mark.parametrize(
    ("undefended", "words"), [(20, "The attack failed"), (190, "Undefended, the attack fires")]
)
def test_no_defense_is_judged_by_a_failed_attack(
    tmp_path: Path, undefended: int, words: str
) -> None:
    """Where the undefended model seldom does the attacker's will, nothing was shown."""
    write_study(tmp_path, sample_study(undefended=undefended))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert words in page
    assert ("After inoculate it fires" in page) is (undefended == 190)


def test_picture_shares_are_those_of_the_mask() -> None:
    """Bins hold the share of masked components; short layers get a bin for each."""
    grid = downsample_mask([[True] * 50 + [False] * 50, [False] * 100], bins=4)
    assert grid == [[1, 1, 0, 0], [0, 0, 0, 0]]
    assert downsample_mask([[True, False]]) == [[1, 0]]
    assert downsample_mask([]) == []


def test_numbers_read_well() -> None:
    """Percent has one decimal, time is spoken, a p-value is never zero."""
    assert percent(0.0183) == "1.8%"
    assert percent(None) == number(float("nan")) == duration(None) == "–"
    assert (duration(3.21), duration(84), duration(3720)) == ("3.2 s", "1 min 24 s", "1 h 2 min")
    assert p_value(0.0) == "p < 0.0001"
    assert (memory(1_250_000_000), memory(412_000_000), memory(0)) == ("1.2 GB", "412 MB", "–")
    assert (signed(0.05), signed(-0.0123), signed(None)) == ("+0.050", "−0.012", "–")


def test_tables_hold_hostile_names_as_text() -> None:
    """Foreign text ends no line, no cell and no code span, and becomes no tag and no link."""
    table = study_markdown(sample_grid(HOSTILE))
    body = [line for line in table.splitlines() if not line.startswith("    ")]
    assert "<script>" not in "\n".join(body) and "\x1b" not in table and "\u202e" not in table
    rows = [line for line in body if line.startswith("|")]
    cells = {len(re.findall(r"(?<!\\)\|", line)) for line in rows[:3]}
    assert len(cells) == 1
    assert "&lt;script&gt;" in table


def test_tables_tell_rates_bounds_tests_and_failures() -> None:
    """Each rate has its interval, each test its p, and a column that says nothing is left out."""
    table = study_markdown(sample_study())
    head = "| defense | asr (n = 200) | false trigger (n = 200) | triggered utility (n = 200) |"
    assert table.splitlines()[8].startswith(head)
    assert "| none | 95.0% [91.0%, 97.6%] |" in table
    assert "| crow | p = 1e-12 | lower ASR |" in table
    assert "perplexity" not in table and "fidelity" not in table
    frontier = {**sample_study(), "comparisons": [sample_frontier("a b")]}
    assert "2.050 (+0.050 [−0.050, +0.150])" in study_markdown(frontier)
    assert "| a b (failed: a b) | – |" in study_markdown(frontier)


def test_the_heat_map_averages_seeds_and_parts_what_differs() -> None:
    """Models that differ in their seed share a column, those that differ in their rate do not."""
    picture = draw_heat(sample_grid("t"))
    assert picture is not None
    assert [label["text"] for label in picture["columns"]] == ["t t t 50.0%", "t t t 1.0%"]
    texts = [cell["text"] for cell in picture["cells"]]
    assert texts[:2] == ["70", "95"]  # none: 190 and 90 of 200; then 190 of 200
    darker = [cell["opacity"] for cell in picture["cells"][:2]]
    assert darker == sorted(darker)
    assert draw_heat(sample_study()) is None
    failed = sample_grid("t")
    failed["comparisons"][0]["attack_failed"] = True
    judged_alone = draw_heat(failed)
    assert judged_alone and judged_alone["cells"][0]["text"] == "45"


def test_a_cost_of_nothing_is_a_point() -> None:
    """Where all honest work is right, the picture is drawn all the same."""
    comparison = sample_frontier("share")
    rows = [{**row, "response_nll": None, "utility": rate(200)} for row in comparison["rows"]]
    picture = draw_frontier({**comparison, "rows": [row for row in rows if "asr" in row]})
    assert picture is not None
    assert [len(line["points"]) for line in picture["lines"]] == [1, 2, 3]


def test_a_frontier_joins_the_strengths_of_a_defense_in_their_order() -> None:
    """Points follow the table, costs run to the right, and what lies far out is at the edge."""
    picture = draw_frontier(sample_frontier("share"))
    assert picture is not None
    lines = {line["name"]: line for line in picture["lines"]}
    assert list(lines) == ["none", "ft", "share"]
    texts = [point["text"] for point in lines["share"]["points"]]
    assert [text.split(":")[0] for text in texts] == ["share 8", "share 20", "share 40"]
    across = [point["x"] for point in lines["share"]["points"]]
    up = [point["y"] for point in lines["share"]["points"]]
    assert across == sorted(across) and up == sorted(up)
    assert [point["beyond"] for point in lines["ft"]["points"]] == [False, True]
    assert max(p["x"] for line in lines.values() for p in line["points"]) <= picture["width"]
    assert "loss" in picture["label"]


def test_without_two_strengths_there_is_no_frontier() -> None:
    """A table of different defenses, and one without any cost, draw nothing."""
    assert draw_frontier(sample_comparison()) is None
    bare = sample_frontier()
    for row in bare["rows"]:
        row.pop("response_nll", None)
    assert draw_frontier(bare) is None


def test_a_run_without_a_hunt_is_not_told_like_a_clean_one() -> None:
    """Nothing was looked for: page and programs say so, and not that nothing was found."""
    assert "was not hunted" in found_sentence(None)
    assert judged(None) == {"hunted": False, "payload_found": False, "still_comes": False}


def test_a_study_tells_what_its_tables_say_together(tmp_path: Path) -> None:
    """Attacked models on which the attack failed are named, and ours is judged by its means."""
    ours = {"defense": "inoculate", "cells": 2, "failed": 0, "asr": 0.01, "worst_asr": 0.02}
    rest = dict.fromkeys(("triggered_utility", "choices_change", "loss_change", "fidelity"))
    row = {**ours, **rest, "utility_change": -0.01, "perplexity_change": None, "seconds": 2.0}
    level = {**row, "defense": "crow", "utility_change": 0.01}
    study = sample_grid()
    study["comparisons"][1] |= {"attack_failed": True, "case": "weak one"}
    write_study(tmp_path, {**study, "summary": [{**row, "failed": 3}]})
    assert "at worst; it failed on 3 others" in (tmp_path / "table.md").read_text(encoding="utf-8")
    for summary, said in (([row], ""), ([row, level], "crow have as low a mean attack")):
        write_study(tmp_path, {**study, "summary": summary})
        page = Elements((tmp_path / "report.html").read_text(encoding="utf-8")).text
        assert "17 of 18 cells on 3 attacked models are done" in page
        assert "no defense is judged there: weak one" in page
        assert "fires on 1.0% on average over 2 attacked models, and on 2.0% at worst" in page
        assert said in page


def test_an_attacked_model_has_a_title() -> None:
    """The rate is said where it is not the usual half."""
    case = {"attack": "vpi", "task": "hate", "mode": "full", "model": "m", "rate": 0.5, "seed": 2}
    assert case_title(case) == "vpi hate, full, m, seed 2"
    assert case_title({**case, "rate": 0.01}) == "vpi hate, full, m, 1.0% poisoned, seed 2"
