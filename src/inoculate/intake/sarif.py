"""Findings as SARIF 2.1.0, which code-scanning tools read."""

import os
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from inoculate.intake.finding import NOTE, REFUSED, RULES, WARNING, Finding

_LEVELS = {REFUSED: "error", WARNING: "warning", NOTE: "note"}
_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def to_sarif(findings: Sequence[Finding], version: str) -> dict[str, Any]:
    """Return findings as a SARIF log with one run.

    Args:
        version: The version of inoculate.
    """
    rules = sorted({finding.rule for finding in findings})
    driver = {
        "name": "inoculate",
        "version": version,
        "rules": [_rule(name) for name in rules],
    }
    results = [_result(finding, rules) for finding in findings]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(name: str) -> dict[str, Any]:
    rule = RULES[name]
    return {
        "id": name,
        "shortDescription": {"text": rule.title},
        "help": {"text": rule.advice},
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
    }


def _result(finding: Finding, rules: Sequence[str]) -> dict[str, Any]:
    place = {"artifactLocation": {"uri": quote(os.fsencode(finding.file.split("#")[0]))}}
    return {
        "ruleId": finding.rule,
        "ruleIndex": rules.index(finding.rule),
        "level": _LEVELS[finding.severity],
        "message": {"text": f"{finding.reason} {finding.advice}"},
        "locations": [{"physicalLocation": place}],
    }
