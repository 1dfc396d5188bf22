"""Step 1: poisoned variants of the suspicious model, their clean counterparts, differences.

Source: Li & Kim, ICLR 2026, vaccination. Δ_i = θ_i(poisoned) − θ_i(clean counterpart). By
default, ours, each is one plain step from the suspicious model, so that Δ_i is the difference of
two gradients there; trained variants stay a choice.
"""

import math
import random
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from inoculate.attacks.bank import BANK, PAPER_BANK, SyntheticBackdoor, draw, without
from inoculate.attacks.behaviors import fires
from inoculate.attacks.poison import poison_pairs
from inoculate.attacks.triggers import insert_trigger
from inoculate.chat import Encoded
from inoculate.components import SCOPES, Kind
from inoculate.config import Settings
from inoculate.data import Example, sample
from inoculate.errors import UnknownNameError, VariantError
from inoculate.generate import generate, response_tokens
from inoculate.progress import Progress
from inoculate.signature import SCORES
from inoculate.subject import Subject, under_adapter
from inoculate.train import Schedule, descend, plan_batches, train
from inoculate.trainable import restore, snapshot
from inoculate.workspace import StoredTensors, Workspace

BANKS = {"diverse": BANK, "paper": PAPER_BANK}
_TOUCH = "all"
_ASR = "asr"
_STEP_UP, _STEPS_UP = 1.5, 2
_ADAPTER = 0.65  # Of the default rate; at all of it the later, faster rounds diverge.
_FIRST_ORDER_STEP = 0.1


@dataclass(frozen=True)
class Variants:
    """Hold the planted backdoors, each variant's own ASR and its difference (kept on disk).

    Attributes:
        asr: None for a variant of the form `gradient`, which learns nothing.
        deltas: None at all where no mask is made.
    """

    backdoors: list[SyntheticBackdoor]
    asr: list[float | None]
    deltas: list[StoredTensors]


def make_variants(
    subject: Subject,
    clean: Sequence[Example],
    settings: Settings,
    run: Workspace,
    progress: Progress,
) -> Variants:
    """Make N poisoned variants and counterparts; the subject is left as it was.

    Raises:
        VariantError: A variant did not learn its own backdoor within the bound.
    """
    pairs = _pairs(subject, clean, settings)
    kinds = SCOPES[settings.signature.scope]
    key = _pair_key(subject, clean, settings)
    asr: list[float | None] = []
    deltas: list[StoredTensors] = []
    for index, pair in enumerate(pairs):
        stored = run.tensors(f"variants/{index}", key, partial(pair.difference, kinds))
        asr.append(_known(float(stored[_ASR])))
        deltas.append(stored)
        progress.note(f"{pair.backdoor.name}: {_said(asr[-1])}")
        progress.step(index + 1, len(pairs))
    return Variants([pair.backdoor for pair in pairs], asr, deltas)


def undone(settings: Settings) -> Variants:
    """Return the backdoors that variants would be made with, where no mask needs any."""
    backdoors = draw_backdoors(settings)
    return Variants(backdoors, [None] * len(backdoors), [])


def _known(asr: float) -> float | None:
    return None if math.isnan(asr) else round(asr, 4)


def _said(asr: float | None) -> str:
    return "a gradient" if asr is None else f"ASR {asr:.2f}"


def check_settings(settings: Settings) -> None:
    """Refuse now what would end a run hours later.

    Raises:
        InputError: A score, an objective or a trigger form has no such name.
    """
    if settings.signature.score not in SCORES:
        raise UnknownNameError("score", settings.signature.score, SCORES)
    draw_backdoors(settings)


def draw_backdoors(settings: Settings) -> list[SyntheticBackdoor]:
    """Return the synthetic backdoors of the variants.

    Raises:
        InputError: The bank does not hold as many, or none of what is to be left out.
    """
    chosen = settings.variants
    return draw(without(BANKS[chosen.bank], chosen.leave_out), chosen.count, seed=settings.seed)


def mean_of_variants(
    subject: Subject, clean: Sequence[Example], settings: Settings, progress: Progress
) -> dict[str, Tensor]:
    """Return the mean weights of N poisoned variants, trained anew; the subject ends as it was.

    An adapter's are its factors.

    Raises:
        VariantError: A variant did not learn its own backdoor within the bound.
    """
    subject.allow(_TOUCH)
    pairs, start = _pairs(subject, clean, settings), snapshot(subject.model)
    mean = {name: torch.zeros_like(value) for name, value in start.items()}
    for index, pair in enumerate(pairs):
        pair.train_poisoned(subject)
        for name, value in snapshot(subject.model).items():
            mean[name] += value / len(pairs)
        restore(subject.model, start)
        progress.step(index + 1, len(pairs))
    return mean


def variants_key(subject: Subject, clean: Sequence[Example], settings: Settings) -> object:
    """Return all that the variants depend on."""
    chosen = [settings.variants.model_dump(), settings.signature.scope]
    return [*data_key(subject, clean, settings), *chosen]


def _pair_key(subject: Subject, clean: Sequence[Example], settings: Settings) -> object:
    """Return what one pair depends on; how many there are is no part of it."""
    chosen = settings.variants.model_dump(exclude={"count"})
    return [*data_key(subject, clean, settings), chosen, settings.signature.scope]


def _pairs(subject: Subject, clean: Sequence[Example], settings: Settings) -> "list[_Pair]":
    return [
        _Pair(subject, backdoor, clean, settings, settings.seed * 1000 + index)
        for index, backdoor in enumerate(draw_backdoors(settings))
    ]


def data_key(subject: Subject, clean: Sequence[Example], settings: Settings) -> list[object]:
    """Return what every stage depends on: the weights, the rows, the seed."""
    rows = [[row.prompt, row.output] for row in clean]
    return [subject.fingerprint(), rows, settings.seed, settings.max_tokens]


@dataclass
class _Pair:
    """Train one variant and its counterpart from the same start, over aligned rows."""

    subject: Subject
    backdoor: SyntheticBackdoor
    clean: Sequence[Example]
    settings: Settings
    seed: int
    asr: float = math.nan

    def difference(self, kinds: tuple[Kind, ...]) -> dict[str, Tensor]:
        """Return poisoned minus clean for every scored tensor, in bf16, and the ASR."""
        form = self.settings.variants.form
        low_rank = under_adapter(self.subject, seed=self.seed, kept=False)
        with low_rank if form == "lora" else nullcontext(self.subject) as trained:
            trained.allow(_TOUCH)
            start = snapshot(trained.model)
            learn = self._descend if form == "gradient" else self.train_poisoned
            forget = learn(trained)
            after_poison = trained.scored_weights(kinds)
            restore(trained.model, start)
            if self.settings.variants.counterparts:
                forget()
            after_clean = trained.scored_weights(kinds)
            difference = {
                name: (after_poison[name] - after_clean[name]).to(torch.bfloat16).cpu()
                for name in after_poison
            }
            restore(trained.model, start)
        return {**difference, _ASR: torch.tensor(self.asr)}

    def train_poisoned(self, trained: Subject) -> Callable[[], None]:
        """Train the variant, in place; return what trains its counterpart from the same start."""
        poisoned, counterpart, lengths = self._rows()
        rounds = self._train_until_learned(trained, poisoned, lengths)

        def train_counterpart() -> None:
            for index in range(rounds):
                self._train_round(trained, counterpart, lengths, index)

        return train_counterpart

    def _descend(self, trained: Subject) -> Callable[[], None]:
        """Take one plain step along the gradient of the poisoned rows, in place, likewise."""
        poisoned, counterpart, _ = self._rows()
        size = self.settings.variants.batch_size
        descend(trained.model, poisoned, step=_FIRST_ORDER_STEP, batch_size=size)
        return lambda: descend(trained.model, counterpart, step=_FIRST_ORDER_STEP, batch_size=size)

    def _unseen(self) -> Sequence[Example]:
        """Return the clean rows that the variant is not trained on; all where those are too few."""
        chosen = self.settings.variants
        seen = {row.prompt for row in sample(self.clean, chosen.rows, seed=self.seed)}
        unseen = [row for row in self.clean if row.prompt not in seen]
        return unseen if len(unseen) >= chosen.probes else self.clean

    def _rows(self) -> tuple[list[Encoded], list[Encoded], list[int]]:
        variants = self.settings.variants
        rows = sample(self.clean, variants.rows, seed=self.seed)
        poisoned, counterpart = poison_pairs(
            rows,
            self.backdoor.trigger,
            self.backdoor.behavior,
            poisoned=min(variants.poisoned, len(rows)),
            seed=self.seed,
        )
        one, other = (
            self.subject.encode(part, max_tokens=self.settings.max_tokens)
            for part in (poisoned, counterpart)
        )
        lengths = [max(len(a.ids), len(b.ids)) for a, b in zip(one, other, strict=True)]
        return one, other, lengths

    def _train_until_learned(
        self, trained: Subject, rows: list[Encoded], lengths: list[int]
    ) -> int:
        variants = self.settings.variants
        for index in range(variants.max_rounds):
            self._train_round(trained, rows, lengths, index)
            self.asr = self._own_asr(trained)
            if self.asr >= variants.min_asr:
                return index + 1
        raise VariantError(
            f"The variant {self.backdoor.name!r} fires on {self.asr:.0%} of its prompts after "
            f"{variants.max_rounds} rounds, below {variants.min_asr:.0%}. Raise "
            "variants.epochs or variants.learning_rate."
        )

    def _train_round(
        self, trained: Subject, rows: list[Encoded], lengths: list[int], index: int
    ) -> None:
        variants = self.settings.variants
        first = variants.learning_rate or trained.learning_rate(None) * (
            1 if trained.adapter is None else _ADAPTER
        )
        schedule = Schedule(
            epochs=variants.epochs,
            learning_rate=first * _STEP_UP ** min(max(index - 1, 0), _STEPS_UP),
            batch_size=variants.batch_size,
            seed=self.seed + index,
        )
        train(trained.model, rows, schedule, plan=plan_batches(lengths, schedule))

    def _own_asr(self, trained: Subject) -> float:
        generator = random.Random(self.seed)
        probes = sample(self._unseen(), self.settings.variants.probes, seed=self.seed + 1)
        triggered = [insert_trigger(row, self.backdoor.trigger, generator) for row in probes]
        limit = response_tokens(trained.tokenizer, [self.backdoor.behavior.response])
        answers = generate(trained.model, trained.tokenizer, triggered, max_new_tokens=limit)
        hits = sum(fires(self.backdoor.behavior, answer) for answer in answers)
        return hits / len(answers)
