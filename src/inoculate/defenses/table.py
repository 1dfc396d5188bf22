"""Every defense as one function of the settings; controls share rows, steps and share.

A control is the default recipe with one thing taken away or replaced, so that a difference in the
table can be laid at that thing's door. Without antibodies there are no soft triggers either, and
as many steps; without a hunt the repair is the shorter one of a model where nothing is found.
"""

from collections.abc import Callable

from inoculate.config import Settings, paper_settings, updated
from inoculate.defenses.crow import crow
from inoculate.defenses.finetuning import fine_tune, plain_passes, weight_average
from inoculate.defenses.given import Defense, Given
from inoculate.defenses.plant_and_unlearn import plant_and_unlearn
from inoculate.defenses.pruning import dormant_masks, magnitude_masks, pruned, wanda_masks
from inoculate.defenses.quantization import int4
from inoculate.defenses.variants_mean import repair_from_variants
from inoculate.errors import UnknownNameError
from inoculate.purification import purify_subject


def _with(change: Callable[[Given], Settings]) -> Defense:
    def defense(given: Given) -> float:
        subject, settings = given.subject, change(given)
        done = purify_subject(subject, given.clean, settings, given.run, progress=given.progress)
        return done.share

    return defense


def _unmasked(**groups: dict[str, object]) -> Defense:
    return _with(lambda given: updated(given.settings, signature={"share": 0.0}, **groups))


def _plain(given: Given) -> Settings:
    """Repair on clean rows alone: as many steps, with nothing inserted and nothing sought.

    Without a mask a model's own predictions have nothing to teach it, so it learns answers.
    """
    passes = plain_passes(given.subject, given.settings)
    return updated(
        given.settings,
        signature={"share": 0.0},
        repair={"target": "answers", "antibodies": 0, "soft_triggers": 0, "epochs": passes},
    )


def _masked(score: str, seed: int) -> Defense:
    def change(given: Given) -> Settings:
        signature = {"score": score, "share": given.share, "score_seed": seed}
        return updated(given.settings, signature=signature)

    return _with(change)


def _untouched(_: Given) -> float:
    return 0.0


def _paper(given: Given) -> Settings:
    chosen = given.settings.signature.share
    recipe = paper_settings(given.settings, adapter=given.subject.adapter is not None)
    if chosen is not None:
        recipe = updated(recipe, signature={"share": chosen})
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
    "inoculate": _with(lambda given: given.settings),
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


def defend(name: str, given: Given) -> float:
    """Apply the named defense to the subject, in place, in the precision of its files.

    Returns:
        The share of components neutralized.

    Raises:
        UnknownNameError: The defense is not in `DEFENSES`.
    """
    if name not in DEFENSES:
        raise UnknownNameError("defense", name, DEFENSES)
    taken = DEFENSES[name](given)
    given.subject.round()
    return taken
