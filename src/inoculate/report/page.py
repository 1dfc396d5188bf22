"""The self-contained pages: no remote asset, no script, every foreign character escaped."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, Undefined
from markupsafe import Markup

from inoculate.report import found, verdict, where, words
from inoculate.report.frontier import draw_frontier
from inoculate.report.heat import draw_heat
from inoculate.report.picture import draw
from inoculate.report.study import MEASURES, shown_measures
from inoculate.report.tables import summary_lines
from inoculate.show import visible


def render_report(report: Mapping[str, Any]) -> str:
    """Return the page of a purification."""
    kinds = (report.get("signature") or {}).get("kinds") or {}
    return _render(
        "report.html",
        report=report,
        sentences=verdict.report_sentences(report),
        changed=verdict.changed_counts(report),
        pictures={name: draw(kind.get("grid")) for name, kind in kinds.items()},
        canaries=verdict.canary_pairs(report.get("canaries")),
        totals=verdict.canary_totals(report.get("canaries")),
        settings=words.settings_rows(report.get("settings") or {}),
        planted=words.pooled([row["asr"] for row in report.get("planted") or []]),
    )


def render_study(study: Mapping[str, Any]) -> str:
    """Return the page of a study: what its tables say together, then each of them."""
    return _render(
        "study.html",
        study=study,
        sentences=verdict.study_sentences(study),
        heat=draw_heat(study),
        means=summary_lines(study.get("summary") or []),
        measures=MEASURES,
        shown_measures=shown_measures,
        verdict=verdict,
        draw_frontier=draw_frontier,
    )


def render_dissection(dissection: Mapping[str, Any]) -> str:
    """Return the page of where a backdoor lives."""
    pictures = [
        (title, where.draw_windows(dissection, attention_off=off))
        for title, off in (("ΔW_attn kept", False), ("ΔW_attn off as well", True))
    ]
    sentence = where.where_sentence(dissection)
    return _render("dissection.html", dissection=dissection, sentence=sentence, pictures=pictures)


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("inoculate", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
        keep_trailing_newline=True,
    )
    environment.globals.update(
        words=words,
        kind_name=verdict.kind_name,
        begun=found.begun,
        undisturbed=found.undisturbed,
        further_wording=found.further_wording,
    )
    return environment


def _finalize(value: object) -> object:
    """Show what a reader would not see; the escaping of HTML comes after this."""
    if value is None or isinstance(value, Undefined):
        return words.MISSING
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(value)
    return value
