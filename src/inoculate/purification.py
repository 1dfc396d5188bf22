"""The method on one page: hunt → variants → signature → neutralize → repair.

Shapes: L layers, C components of a layer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from inoculate.components import SCOPES, Kind
from inoculate.config import Settings
from inoculate.data import Example, sample
from inoculate.hunt import Hunt, hunt
from inoculate.importance import measure_importance
from inoculate.progress import Progress, Silent
from inoculate.repair import Lesson, prepare_lesson, presses, repair
from inoculate.share import largest_harmless_share
from inoculate.signature import Signature, measure_differences, score_components, select_top
from inoculate.subject import Subject
from inoculate.trainable import restore
from inoculate.variants import Variants, data_key, make_variants, undone, variants_key
from inoculate.workspace import Keep, Workspace

_SIGNATURE_PARTS = ("strength", "alignment", "importance")
_UNAIMED_LOSS, _LOSS = 0.2, 0.05
FIXED, CLEAN_LOSS, PRESSED = "fixed", "clean-loss", "pressed"


@dataclass(frozen=True)
class Purification:
    """Hold a treated subject and what was done to it.

    Attributes:
        masks: Kind of component → mask (L, C) of those neutralized.
        changed: Kind of component → number neutralized in each layer.
        refusals: Requests on which the repair held the model to its own refusals.
    """

    subject: Subject
    share: float
    variants: Variants
    found: Hunt = field(default_factory=Hunt)
    masks: dict[str, Tensor] = field(default_factory=dict)
    changed: dict[str, list[int]] = field(default_factory=dict)
    refusals: int = 0


def purify_subject(
    subject: Subject,
    clean: Sequence[Example],
    settings: Settings,
    run: Workspace,
    *,
    progress: Progress | None = None,
    keep_repaired: bool = False,
) -> Purification:
    """Remove a backdoor from a subject, in place, without knowing its trigger.

    Args:
        clean: Clean instruction–response pairs.
        run: Where finished stages are kept.
        keep_repaired: Also keep the repaired weights there, in fp32.

    Raises:
        VariantError: A variant did not learn its own backdoor.
    """
    show = progress or Silent()
    rows = sample(clean, settings.clean_rows, seed=settings.seed)
    subject.allow("all")
    show.stage("hunt")
    found = hunt_once(subject, rows, settings, run, show)
    variants, signatures, share = undone(settings), list[Signature](), 0.0
    key = variants_key(subject, rows, settings)
    if share_rule(found, settings) != PRESSED:
        variants, signatures = find_signatures(subject, rows, settings, run, key=key, progress=show)
        share = share_once(subject, rows, signatures, found, settings, run, key, show)
    triggers = [backdoor.trigger for backdoor in variants.backdoors]
    show.stage("prepare")
    lesson = prepare_lesson(subject, rows, triggers, found, settings, run, show)
    show.stage("neutralize")
    masks = select_components(signatures, share, settings)
    changed = neutralize_masks(subject, masks, settings)
    show.stage("repair")
    keep = partial(run.tensors, "repaired", [key, share, settings.model_dump()])
    repair_once(subject, lesson, settings, show, keep=keep if keep_repaired else None)
    subject.round()
    return Purification(subject, share, variants, found, masks, changed, lesson.refusals)


def repair_once(
    subject: Subject,
    lesson: Lesson,
    settings: Settings,
    progress: Progress,
    *,
    keep: Keep | None,
) -> None:
    """Repair the neutralized subject, in place, or give it the weights of an earlier repair.

    Args:
        keep: None to store nothing.
    """

    def repaired() -> dict[str, Tensor]:
        repair(subject, lesson, settings, progress)
        return subject.treated(_kinds(settings), lesson.touch)

    if keep is None:
        repaired()
    else:
        restore(subject.model, keep(repaired))


def find_signatures(
    subject: Subject,
    rows: Sequence[Example],
    settings: Settings,
    run: Workspace,
    *,
    key: object,
    progress: Progress,
) -> tuple[Variants, list[Signature]]:
    """Return the variants, and what their differences say of every component in scope."""
    progress.stage("variants")
    variants = make_variants(subject, rows, settings, run, progress)
    progress.stage("signature")
    subject.allow("all")  # Whether the variants were trained now or read.
    return variants, extract_signatures(subject, rows, variants, settings, run=run, key=key)


def extract_signatures(
    subject: Subject,
    rows: Sequence[Example],
    variants: Variants,
    settings: Settings,
    *,
    run: Workspace,
    key: object,
) -> list[Signature]:
    """Return strength, alignment and importance of every component in scope, made or kept."""
    encoded = subject.encode(list(rows), max_tokens=settings.max_tokens)

    def measure(kind: Kind) -> dict[str, Tensor]:
        strength_LC, alignment_LC = measure_differences(variants.deltas, subject.architecture, kind)
        importance_LC = measure_importance(subject.model, subject.architecture, kind, encoded)
        parts = (strength_LC, alignment_LC, importance_LC)
        return dict(zip(_SIGNATURE_PARTS, parts, strict=True))

    signatures = []
    for kind in SCOPES[settings.signature.scope]:
        stored = run.tensors(f"signature/{kind.name}", key, partial(measure, kind))
        signatures.append(Signature(kind, *(stored[name] for name in _SIGNATURE_PARTS)))
    return signatures


def share_once(
    subject: Subject,
    rows: Sequence[Example],
    signatures: Sequence[Signature],
    found: Hunt,
    settings: Settings,
    run: Workspace,
    key: object,
    progress: Progress,
) -> float:
    """Return the fixed share, or the largest one that clean loss allows, chosen or kept."""
    budget = allowed_loss(subject, found, settings)
    chosen = [settings.signature.model_dump(), settings.neutralization.model_dump(), budget]

    def choose() -> float:
        return choose_share(subject, rows, signatures, budget, settings, progress)

    return float(run.record("share", [key, chosen], choose))


def share_rule(found: Hunt, settings: Settings) -> str:
    """Return what decides the share: `fixed`, `clean-loss`, or `pressed`, which means no mask.

    Where the repair presses on a payload, a mask removed nothing more on the models tried.
    """
    if settings.signature.share is not None:
        return FIXED
    asked = settings.signature.max_clean_loss_increase is not None
    return CLEAN_LOSS if asked or not presses(found, settings) else PRESSED


def hunt_once(
    subject: Subject,
    rows: Sequence[Example],
    settings: Settings,
    run: Workspace,
    progress: Progress,
) -> Hunt:
    """Search the unchanged subject for a hidden behavior, or return what an earlier call found."""
    encoded = subject.encode(list(rows), max_tokens=settings.max_tokens)
    key = [*data_key(subject, rows, settings), settings.hunt.model_dump()]

    def remember(asked: object, make: Callable[[], Any]) -> Any:
        return run.record("hunt/part", [key, asked], make)

    def search() -> dict[str, object]:
        seed = settings.seed
        found = hunt(subject, encoded, settings.hunt, progress, seed=seed, remember=remember)
        return found.to_json()

    return Hunt.from_json(run.record("hunt", key, search))


def select_components(
    signatures: Sequence[Signature], share: float, settings: Settings
) -> dict[str, Tensor]:
    """Return, for each kind, the mask (L, C) of the top share within each layer.

    What no variant moved is never in it: an adapter may leave components out.
    """
    chosen = settings.signature
    masks = {}
    for signature in signatures:
        score_LC = score_components(
            signature,
            chosen.score,
            alignment_weight=chosen.alignment_weight,
            generator=torch.Generator().manual_seed(chosen.score_seed),
        )
        masks[signature.kind.name] = select_top(score_LC, share) & (signature.strength_LC > 0)
    return masks


def neutralize_masks(
    subject: Subject, masks: dict[str, Tensor], settings: Settings
) -> dict[str, list[int]]:
    """Neutralize the masked components, in place; return the counts by layer."""
    generator = torch.Generator().manual_seed(settings.seed)
    return {
        kind.name: subject.neutralize(
            kind, masks[kind.name], mode=settings.neutralization.mode, generator=generator
        )
        for kind in _kinds(settings)
        if kind.name in masks and masks[kind.name].any()
    }


def choose_share(
    subject: Subject,
    rows: Sequence[Example],
    signatures: Sequence[Signature],
    budget: float,
    settings: Settings,
    progress: Progress,
) -> float:
    """Return the fixed share, or the largest one that clean loss allows."""
    if settings.signature.share is not None:
        return settings.signature.share
    if not any(signature.strength_LC.any() for signature in signatures):
        progress.note("none of the components in scope belongs to the adapter")
        return 0.0

    def neutralize_share(share: float) -> object:
        masks = select_components(signatures, share, settings)
        return neutralize_masks(subject, masks, settings)

    return largest_harmless_share(
        subject,
        subject.encode(list(rows), max_tokens=settings.max_tokens),
        neutralize_share,
        max_increase=budget,
        progress=progress,
    )


def allowed_loss(subject: Subject, found: Hunt, settings: Settings) -> float:
    """Return by how many nats neutralizing may raise the clean loss.

    In a small model where nothing was found the mask is all there is to remove a backdoor.
    """
    unaimed = not found.payload and not subject.is_large
    automatic = _UNAIMED_LOSS if unaimed else _LOSS
    chosen = settings.signature.max_clean_loss_increase
    return automatic if chosen is None else chosen


def _kinds(settings: Settings) -> tuple[Kind, ...]:
    return SCOPES[settings.signature.scope]
