"""The Python API: folders in, folders and evidence out."""

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from inoculate.attacks.behaviors import fires
from inoculate.attacks.triggers import insert_trigger
from inoculate.challenge import challenge_clean
from inoculate.clean import CleanData, clean_data, resolve_settings
from inoculate.config import Settings
from inoculate.destination import (
    check_destination,
    one_run,
    refuse_existing,
    refuse_foreign,
    whole_folder,
)
from inoculate.errors import UtilityError
from inoculate.evaluation.drift import drift, stand
from inoculate.evaluation.statistics import RateJson, rate_of
from inoculate.evaluation.utility import answer_requests, refuses
from inoculate.generate import generate, response_tokens
from inoculate.hunt.again import Said, look_again
from inoculate.intake import fetch
from inoculate.models import resolve_device
from inoculate.progress import Progress, Silent
from inoculate.provenance import bound, made_from, model_facts
from inoculate.purification import Purification, purify_subject, share_rule
from inoculate.repair import passes, soft_rows, trained_part
from inoculate.report import write_report
from inoculate.report.found import judged
from inoculate.report.picture import downsample_mask
from inoculate.resources import check_run
from inoculate.subject import Subject, open_subject
from inoculate.variants import check_settings
from inoculate.voice import bundled_requests
from inoculate.workspace import Workspace, hash_files


@dataclass(frozen=True)
class Purified:
    """Hold where the purified model lies, and the content of its report."""

    folder: Path
    report: dict[str, Any]


def purify(
    model: str | Path,
    output: str | Path,
    *,
    adapter: str | Path | None = None,
    clean_data_file: str | Path | None = None,
    settings: Settings | None = None,
    merged: bool = False,
    with_challenge: bool = False,
    max_utility_loss: float | None = None,
    device: str = "auto",
    run_folder: Path | None = None,
    progress: Progress | None = None,
) -> Purified:
    """Remove a backdoor from a checkpoint, or an adapter, without knowing its trigger.

    Args:
        model: Checkpoint folder or hub id; with `adapter`, the trusted base.
        clean_data_file: Clean pairs; without it the model's own filtered answers.
        merged: With `adapter`, write a merged checkpoint in place of an adapter.
        with_challenge: Also plant, treat and measure canaries in a copy.
        max_utility_loss: Allowed growth of the response NLL, as a fraction.
        run_folder: Where a second call goes on; default `<output>.run`, removed at the end.

    Raises:
        InputError, VariantError, UtilityError: See `inoculate.errors`; nothing is written.
    """
    out, over = Path(output), Path(adapter) if adapter else None
    refuse_existing(out)
    check_settings(settings or Settings())
    resolve_device(device)
    base, file = fetch(model), Path(clean_data_file) if clean_data_file else None
    check_destination(out, [base, *([over] if over else [])], like=over or base)
    options = _Options(merged, with_challenge, max_utility_loss, device)
    run = Workspace(run_folder or out.with_name(f"{out.name}.run"))
    if run_folder is None:
        refuse_foreign(run.folder)
    job = _Job(base, over, out, file, settings or Settings(), options, run, progress or Silent())
    with one_run(run.folder, keep=run_folder is not None):
        return Purified(out, job.work())


@dataclass(frozen=True)
class _Options:
    merged: bool
    challenge: bool
    max_utility_loss: float | None
    device: str


@dataclass(frozen=True)
class _Job:
    base: Path
    adapter: Path | None
    out: Path
    clean_data_file: Path | None
    settings: Settings
    options: _Options
    run: Workspace
    show: Progress

    def work(self) -> dict[str, Any]:
        """Do what is not done yet, write the output, and return its report."""
        run, show, options = self.run, self.show, asdict(self.options)
        run.sweep()
        show.stage("load")
        for line in check_run(self.base, self.adapter, self.out, run, self.settings, options):
            show.note(line)
        low_rank = self.settings.low_rank and not self.options.challenge
        subject = open_subject(
            self.base, adapter=self.adapter, device=self.options.device, low_rank=low_rank
        )
        facts = made_from(subject, self.clean_data_file, self.settings, options)
        with bound(run, self.out.name, facts):
            challenged = self.options.challenge
            report = facts | _evidence(
                subject, self.clean_data_file, self.settings, run, show, challenged
            )
            _check_utility(report["drift"], self.options.max_utility_loss)
            show.stage("write")
            _write(subject, self.out, report, merged=self.options.merged)
        return report


def _evidence(
    subject: Subject,
    file: Path | None,
    settings: Settings,
    run: Workspace,
    show: Progress,
    with_challenge: bool,
) -> dict[str, Any]:
    for finding in subject.findings:
        show.note(f"{finding.file}: {finding.reason} {finding.advice}")
    clean = clean_data(subject, file, settings, run, show)
    resolved = resolve_settings(settings, clean)
    canaries = challenge_clean(subject, clean, resolved, run, show) if with_challenge else None
    return {**_treat(subject, clean, resolved, run, show), "canaries": canaries}


def _treat(
    subject: Subject, clean: CleanData, settings: Settings, run: Workspace, show: Progress
) -> dict[str, Any]:
    data = _clean_facts(subject, clean, settings, show)
    held_out = subject.encode(clean.held_out, max_tokens=settings.max_tokens)
    before, requested = stand(subject.model, held_out), _to_requests(subject)
    started = time.perf_counter()
    purification = purify_subject(
        subject, clean.rows, settings, run, progress=show, keep_repaired=True
    )
    seconds = time.perf_counter() - started
    show.stage("measure")
    after, answered = stand(subject.model, held_out), _to_requests(subject)
    hunt = _hunt_facts(purification, clean, (requested, answered), settings)
    return {
        "model": model_facts(subject),
        "intake": [finding.to_json() for finding in subject.findings],
        "seed": settings.seed,
        "stages": {"purify": round(seconds, 1)},
        "clean_data": data,
        "drift": drift(before, after, len(held_out)),
        "refusals": {"before": _refusals(requested), "after": _refusals(answered)},
        "planted": _planted_rates(purification, clean, settings),
        "hunt": hunt,
        "verdict": judged(hunt),
        **_what_changed(purification, settings),
    }


def _clean_facts(
    subject: Subject, clean: CleanData, settings: Settings, show: Progress
) -> dict[str, Any]:
    """Return where the clean rows came from, and how many are longer than may be trained on."""
    cut = subject.cut(clean.rows, max_tokens=settings.max_tokens)
    if cut:
        show.note(
            f"{cut} of {len(clean.rows)} clean rows are longer than max_tokens = "
            f"{settings.max_tokens}; their ends are left out"
        )
    return {**clean.to_json(), "cut": cut}


def _to_requests(subject: Subject) -> list[str]:
    """Return the answers to requests that an honest model may refuse."""
    return answer_requests(subject.model, subject.tokenizer, bundled_requests())


def _refusals(answers: Sequence[str]) -> RateJson:
    return rate_of([refuses(answer) for answer in answers]).to_json()


def _what_changed(purification: Purification, settings: Settings) -> dict[str, Any]:
    variants, chosen, subject = purification.variants, settings.signature, purification.subject
    kinds = {
        name: {"changed": purification.changed.get(name, [0] * len(mask)),
               "total": int(mask.numel()),
               "grid": downsample_mask(mask.tolist())}
        for name, mask in purification.masks.items()
    }  # fmt: skip
    return {
        "variants": [
            {
                "name": backdoor.name,
                "trigger": backdoor.trigger.text,
                "objective": backdoor.behavior.objective,
                "asr": asr,
            }
            for backdoor, asr in zip(variants.backdoors, variants.asr, strict=True)
        ],
        "signature": {
            "scope": chosen.scope,
            "score": chosen.score,
            "share": purification.share,
            "rule": share_rule(purification.found, settings),
            "kinds": kinds,
        },
        "neutralization": settings.neutralization.mode if subject.adapter is None else "zero",
        "repair": _repair_facts(purification, settings),
    }


def _repair_facts(purification: Purification, settings: Settings) -> dict[str, Any] | None:
    found, subject, chosen = purification.found, purification.subject, settings.repair
    rows = settings.clean_rows
    if not passes(found, settings):
        return None
    return {
        "rows": rows,
        "target": chosen.target,
        "antibodies": 0 if found.pressing else rows * chosen.antibodies * passes(found, settings),
        "soft_triggers": soft_rows(found, settings),
        "refusals": purification.refusals,
        "trained": trained_part(subject, found, settings),
    }


def _hunt_facts(
    purification: Purification,
    clean: CleanData,
    to_requests: Sequence[Sequence[str]],
    settings: Settings,
) -> dict[str, Any] | None:
    """Return what the hunt found; answers to requests are those before and after."""
    found, subject = purification.found, purification.subject
    if not found.driven:
        return None
    rows = subject.encode(clean.held_out, max_tokens=settings.max_tokens)
    said = Said(clean.spoken, *to_requests)
    facts = look_again(subject, found, rows, said, seed=settings.seed)
    return {**facts, "honest": settings.hunt.honest}


def _planted_rates(
    purification: Purification, clean: CleanData, settings: Settings
) -> list[dict[str, Any]]:
    """Return how often the variants' own backdoors fire; gradients plant none."""
    subject, generator = purification.subject, random.Random(settings.seed)
    variants = purification.variants
    pairs = zip(variants.backdoors, variants.asr, strict=True)
    planted = [backdoor for backdoor, asr in pairs if asr is not None]
    rates = []
    for backdoor in planted:
        rows = [insert_trigger(row, backdoor.trigger, generator) for row in clean.held_out[:20]]
        limit = response_tokens(subject.tokenizer, [backdoor.behavior.response])
        answers = generate(subject.model, subject.tokenizer, rows, max_new_tokens=limit)
        flags = [fires(backdoor.behavior, answer) for answer in answers]
        rates.append({"name": backdoor.name, "asr": rate_of(flags).to_json()})
    return rates


def _check_utility(moved: Mapping[str, Any], allowed: float | None) -> None:
    loss = moved["response_nll_after"] / moved["response_nll_before"] - 1
    if allowed is not None and not loss <= allowed:  # So that no figure at all is a loss as well.
        raise UtilityError(
            f"The response NLL grew by {loss:.1%}, more than the {allowed:.1%} allowed; nothing "
            "was written. Lower --share where components were neutralized, or pass clean data "
            "of the model's own kind."
        )


def _write(subject: Subject, out: Path, report: Mapping[str, Any], *, merged: bool) -> None:
    with whole_folder(out) as part:
        subject.save(part, merged=merged)
        outputs = {path.name: hash_files([path]) for path in sorted(part.iterdir())}
        write_report(part, {**report, "outputs": outputs})
