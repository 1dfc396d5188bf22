"""Plain fine-tuning on the clean rows, and the weights half-way to its result.

Every baseline that trains goes through here: the repair's rows, steps, seed and rate (but for the
gentler one of an adapter that it can aim at), with no mask, no hunt and no antibodies. It learns
the rows' answers, as published: held to its own predictions, an unchanged model has nothing to
learn.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from inoculate.config import Settings, updated
from inoculate.defenses.given import Given
from inoculate.hunt import Hunt
from inoculate.repair import Lesson, passes, prepare_lesson, repair
from inoculate.subject import Subject
from inoculate.trainable import snapshot


def plain_passes(subject: Subject, settings: Settings) -> int:
    """Return how often plain rows are seen in as many steps as the repair takes.

    As if something had been found: a large model's repair takes no antibodies then.
    """
    likely = Hunt(payload=(0,), pressing=subject.is_large)
    copies = 0 if likely.pressing else settings.repair.antibodies
    return (1 + copies) * passes(likely, settings)


def plain_settings(subject: Subject, settings: Settings) -> Settings:
    """Return the repair's settings without antibodies, with as many steps and all parameters."""
    plain = {
        "target": "answers",
        "epochs": plain_passes(subject, settings),
        "antibodies": 0,
        "consistency": 0.0,
        "touch": "all",
        "averaged": False,
    }
    return updated(settings, repair=plain)


def plain_lesson(given: Given) -> Lesson:
    """Return the clean rows, repeated until they make up the repair's steps."""
    subject, nothing = given.subject, Hunt(pressing=given.subject.is_large)
    plain = plain_settings(subject, given.settings)
    return prepare_lesson(subject, given.rows, (), nothing, plain, given.run, given.progress)


def fine_tune(given: Given) -> float:
    """Fine-tune all parameters on the clean rows, in place."""
    settings = plain_settings(given.subject, given.settings)
    repair(given.subject, plain_lesson(given), settings, given.progress)
    return 0.0


def weight_average(given: Given) -> float:
    """Average the suspicious weights with those of its fine-tuned copy, in place.

    An adapter is merged first: the mean of two products is no product of means.
    Source: Arora et al., ACL Findings 2024, who merge with another model; none is given here.
    """
    subject = given.subject
    subject.merge()
    subject.allow("all")
    before = snapshot(subject.model)
    fine_tune(given)
    average(dict(subject.model.named_parameters()), before)
    return 0.0


@torch.no_grad()
def average(weights: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> None:
    """Move each weight half-way to the other of its name, in place."""
    for name, other in others.items():
        weights[name].lerp_(other.to(weights[name]), 0.5)
