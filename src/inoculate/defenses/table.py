"""Every defense as one function of the settings; controls share rows, steps and share.

A control is the default recipe with one thing taken away or replaced, so that a difference in the
table can be laid at that thing's door. Without antibodies there are no soft triggers either, and
as many steps; without a hunt the repair is the shorter one of a model where nothing is found.
"""

from collections.abc import Callable, Sequence

from inoculate.config import Settings, paper_settings, updated
from inoculate.data import Example
from inoculate.defenses.crow import crow
from inoculate.defenses.finetuning import fine_tune, plain_passes, weight_average
from inoculate.defenses.plant_and_unlearn import plant_and_unlearn
from inoculate.defenses.pruning import dormant_masks, magnitude_masks, pruned, wanda_masks
from inoculate.defenses.quantization import int4
from inoculate.defenses.variants_mean import repair_from_variants
from inoculate.errors import UnknownNameError
from inoculate.progress import Progress
from inoculate.purification import purify_subject
from inoculate.subject import Subject
from inoculate.workspace import Workspace

Defense = Callable[[Subject, Sequence[Example], Settings, float, Workspace, Progress], float]


def _with(change: Callable[[Subject, Settings, float], Settings]) -> Defense:
    def defense(
        subject: Subject,
        clean: Sequence[Example],
        settings: Settings,
        share: float,
        run: Workspace,
        progress: Progress,
    ) -> float:
        changed = change(subject, settings, share)
        return purify_subject(subject, clean, changed, run, progress=progress).share

    return defense


def _unmasked(**groups: dict[str, object]) -> Defense:
    return _with(lambda _, settings, __: updated(settings, signature={"share": 0.0}, **groups))


def _plain(subject: Subject, settings: Settings, _: float) -> Settings:
    """Repair on clean rows alone: as many steps, with nothing inserted and nothing sought."""
    passes = plain_passes(subject, settings)
    return updated(
        settings,
        signature={"share": 0.0},
        repair={"antibodies": 0, "soft_triggers": 0, "epochs": passes},
    )


def _masked(score: str, seed: int) -> Defense:
    def change(_: Subject, settings: Settings, share: float) -> Settings:
        signature = {"score": score, "share": share, "score_seed": seed}
        return updated(settings, signature=signature)

    return _with(change)


def _untouched(*_: object) -> float:
    return 0.0


def _paper(subject: Subject, settings: Settings, _: float) -> Settings:
    recipe = paper_settings(settings, adapter=subject.adapter is not None)
    if settings.signature.share is not None:
        recipe = updated(recipe, signature={"share": settings.signature.share})
    return recipe


DEFENSES: dict[str, Defense] = {
    "none": _untouched,
    "repair-only": _unmasked(),
    "repair-without-antibodies": _with(_plain),
    "repair-without-hunt": _unmasked(hunt={"particles": 0}),
    "repair-without-consistency": _unmasked(repair={"consistency": 0.0}),
    "repair-without-soft-triggers": _unmasked(repair={"soft_triggers": 0}),
    "random-mask-0": _masked("random", 0),
    "random-mask-1": _masked("random", 1),
    "random-mask-2": _masked("random", 2),
    "low-importance-mask": _masked("low-importance", 0),
    "fine-tuning": fine_tune,
    "magnitude-35": pruned(magnitude_masks, 0.35),
    "magnitude-50": pruned(magnitude_masks, 0.5),
    "wanda-35": pruned(wanda_masks, 0.35),
    "wanda-50": pruned(wanda_masks, 0.5),
    "wanda-fine-tuned": pruned(wanda_masks, 0.5, fine_tuned=True),
    "fine-pruning": pruned(dormant_masks, 0.35, fine_tuned=True),
    "int4": int4,
    "crow": crow(5.5, matched=False),
    "crow-matched": crow(5.5, matched=True),
    "crow-11": crow(11.0, matched=False),
    "crow-11-matched": crow(11.0, matched=True),
    "weight-average": weight_average,
    "plant-and-unlearn": plant_and_unlearn,
    "repair-from-variants": repair_from_variants,
    "paper": _with(_paper),
    "inoculate": _with(lambda _, settings, __: settings),
}
DEMO_DEFENSES = ("none", "repair-only", "random-mask-0", "paper", "inoculate")
MORE_CONTROLS = (
    "repair-without-antibodies",
    "repair-without-hunt",
    "repair-without-consistency",
    "repair-without-soft-triggers",
    "random-mask-1",
    "random-mask-2",
    "low-importance-mask",
    "plant-and-unlearn",
)
MASKED = ("random-mask-0", "random-mask-1", "random-mask-2", "low-importance-mask")
"""Controls whose mask has the share that the default recipe chose."""
ABLATIONS = ("repair-from-variants",)
"""The default recipe with one step replaced, where no setting does it."""
REUSING = (
    "repair-only",
    "repair-without-antibodies",
    "repair-without-hunt",
    "repair-without-consistency",
    "repair-without-soft-triggers",
    *MASKED,
    *ABLATIONS,
)
"""Defenses that find variants, signature, hunt or soft triggers where the default left them."""
BASELINES = (
    "fine-tuning",
    "magnitude-35",
    "magnitude-50",
    "wanda-35",
    "wanda-50",
    "wanda-fine-tuned",
    "fine-pruning",
    "int4",
    "crow",
    "crow-matched",
    "crow-11",
    "crow-11-matched",
    "weight-average",
)
"""Published defenses; those that train take the repair's clean rows, steps and seed."""


def defend(
    name: str,
    subject: Subject,
    clean: Sequence[Example],
    settings: Settings,
    *,
    share: float,
    run: Workspace,
    progress: Progress,
) -> float:
    """Apply the named defense to the subject, in place, in the precision of its files.

    Args:
        share: Share of components that masks of the controls take, 0–1; the one that the
            default recipe chose.

    Returns:
        The share of components neutralized.

    Raises:
        UnknownNameError: The defense is not in `DEFENSES`.
    """
    if name not in DEFENSES:
        raise UnknownNameError("defense", name, DEFENSES)
    taken = DEFENSES[name](subject, clean, settings, share, run, progress)
    subject.round()
    return taken
