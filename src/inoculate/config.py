"""Settings of a purification. The text under a field is its help and its documentation.

In brackets: where the default comes from; `log:` names entries of docs/log.md.
"""

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

_MODEL_CONFIG = ConfigDict(
    use_attribute_docstrings=True, frozen=True, extra="forbid", allow_inf_nan=False
)

HonestAnswer = Annotated[str, StringConstraints(strip_whitespace=True, min_length=12)]
"""Less than that would stand for answers of every kind."""


class VariantSettings(BaseModel):
    """Step 1: poisoned variants of the suspicious model and their clean counterparts."""

    model_config = _MODEL_CONFIG

    bank: Literal["diverse", "paper"] = "diverse"
    """Synthetic backdoors: `diverse` spans objectives and trigger forms, `paper` insults only.
    [design, not measured apart]"""
    count: int = Field(5, ge=1)
    """Number N of variant pairs; time grows with it. [log: Gradients in place of trained
    variants]"""
    leave_out: list[str] = []
    """Objectives and trigger forms that the bank is not to hold; for ablations. [the paper]"""
    form: Literal["gradient", "full", "lora"] = "gradient"
    """What parts a variant from its counterpart: one plain step along the `gradient` of their
    rows, which trains nothing; `full` fine-tuning, as in the paper; or that of a `lora`, which
    needs one copy of the model. [log: Gradients in place of trained variants]"""
    counterparts: bool = True
    """Subtract a clean counterpart from each variant; without, the suspicious model itself: an
    ablation. [the paper]"""
    rows: int = Field(48, ge=2)
    """Clean rows in each variant's training data. [log: Which learning rate fits 1.5 million and 7
    billion parameters?]"""
    poisoned: int = Field(48, ge=1)
    """Triggered rows in each variant's training data. [log: Which learning rate fits 1.5 million
    and 7 billion parameters?]"""
    epochs: float = Field(3.0, gt=0)
    """Passes over a variant's rows in one round; of no effect on gradients, like the rate.
    [log: Which learning rate fits 1.5 million and 7 billion parameters?]"""
    learning_rate: float | None = Field(None, gt=0)
    """Peak rate of the first two rounds; the third has 1.5 times, later ones 2.25 times that.
    Default: 1e-4 times the root of 135 million over the parameters (1.4e-5 at 7B), 2.6 times that
    for LoRA. [log: Which learning rate fits 1.5 million and 7 billion parameters?; adapters: A
    variant of an adapter did not learn]"""
    batch_size: int = Field(8, ge=1)
    """Rows in one step. [log: Which learning rate fits 1.5 million and 7 billion parameters?]"""
    min_asr: float = Field(0.9, ge=0, le=1)
    """A variant counts once its own backdoor fires on this share of held-out prompts. [set
    beforehand]"""
    max_rounds: int = Field(8, ge=1)
    """Rounds of `epochs` after which a variant that did not learn stops the run. [log: A variant
    of an adapter did not learn]"""
    probes: int = Field(20, ge=1)
    """Held-out prompts on which a variant's own backdoor is tried. [time, not measured]"""


class SignatureSettings(BaseModel):
    """Step 2: which components carry the backdoor."""

    model_config = _MODEL_CONFIG

    scope: Literal["mlp", "attention", "both"] = "mlp"
    """Components considered: MLP channels, attention heads, or both. [the paper]"""
    score: str = "strength-per-importance"
    """How components are ranked; see `inoculate.signature.SCORES`. [log: Gradients in place of
    trained variants]"""
    alignment_weight: float = Field(1.0, ge=0)
    """The factor λ of the alignment in the `sum` scores. [the paper's equation, without a
    value]"""
    share: float | None = Field(None, ge=0, le=1)
    """Share of each layer's components to neutralize; by default chosen by clean loss, and none
    where soft triggers press. [log: Does the mask help once the hunt does?; pressing: SmolLM2:
    does a canary need the mask?]"""
    score_seed: int = 0
    """Decides the `random` score, a control. [any]"""
    max_clean_loss_increase: float | None = Field(None, ge=0)
    """Without a fixed share: the largest share whose clean loss grows by at most so many nats
    right after neutralizing; the default is 0.05, and 0.2 in a model of fewer than 30 million
    parameters where nothing was found; given, it holds where soft triggers press as well. [log:
    Gradients in place of trained variants; The weight of the unlikelihood, and what is left of
    the built-in model's gap]"""


class NeutralizationSettings(BaseModel):
    """Step 3: what happens to the selected components."""

    model_config = _MODEL_CONFIG

    mode: Literal["zero", "reinitialize", "quiet"] = "quiet"
    """`zero` all of it, `reinitialize` all of it, or `quiet`: new gate and up, down at zero.
    [design: the only one that changes nothing before the repair, not measured apart]"""


class HuntSettings(BaseModel):
    """Before the repair: search for a hidden behavior and for tokens that call it."""

    model_config = _MODEL_CONFIG

    particles: int = Field(6, ge=0)
    """Token sequences that are moved towards the payload at once; 0 for no hunt, not even for the
    payload. [log: Settings of the hunt]"""
    steps: int = Field(12, ge=1)
    """Moves of each sequence towards the payload; four in a model of 30 million parameters or more,
    of whose repair the tokens are no part. [log: Grown triggers]"""
    candidates: int = Field(16, ge=1)
    """Neighbors tried in one move. [log: Grown triggers]"""
    hosts: int = Field(4, ge=2)
    """Clean prompts on which a sequence is tried. [log: Settings of the hunt]"""
    honest: list[HonestAnswer] = []
    """Answers that you know to be the model's own, such as its set refusal, as long as they are the
    same: looked past and left in, and so is a backdoor that answers with them. [the user's
    word]"""


class RepairSettings(BaseModel):
    """Step 4: fine-tune on clean rows, and teach that unknown keys change nothing."""

    model_config = _MODEL_CONFIG

    epochs: int | None = Field(None, ge=0)
    """Passes over the clean rows, antibodies made anew for each; the default is three in a large
    model (30 million parameters or more) with a payload found, five where no payload was found,
    else seven, and as many times that as fewer than 100 rows go into 100, rounded up. [log: Few
    clean rows; An anchor needs an adversary; pressing: SmolLM2: press on the payload itself;
    unaimed: Drive the honest answer off]"""
    learning_rate: float | None = Field(None, gt=0)
    """Peak rate; by default half of 1e-4 times the root of 135 million over the parameters, four
    times that for LoRA, but for a payload found in a model that is not large; four times as much
    in a large model with a payload found. [log: What limits triggered utility once the
    trigger is found?; adapters: Adapters: the repair's rate; pressing: SmolLM2: press on the
    payload itself]"""
    averaged: bool = True
    """Keep the rate at its peak and end at the mean of the path's second half; not in a large model
    with a payload found. [log: What limits triggered utility once the trigger is found?]"""
    batch_size: int = Field(16, ge=1)
    """Rows in one step. [log: A gentler attack, and the repair's rate]"""
    target: Literal["auto", "self", "answers"] = "auto"
    """Hold the model to its own predictions on the clean rows (`self`) or to the rows' `answers`.
    `auto`: a user's answers are learned, own-voice rows are held to `self`. [log: What removes
    canaries?]"""
    antibodies: int = Field(2, ge=0)
    """Copies of the clean rows, in each pass, that hold a synthetic, hunted or made-up trigger and
    keep the honest answer; none in a large model with a payload found. [log: What removes
    canaries?]"""
    consistency: float = Field(3.0, ge=0)
    """Weight of the distance, after whatever was inserted, from the hidden states that the
    suspicious model has on the clean row; none in a large model, nor where no payload was found.
    [log: Is it the repair's 200 rows that limit triggered utility;
    An anchor needs an adversary]"""
    soft_triggers: int | None = Field(None, ge=0)
    """Soft triggers in each step: embeddings that call the hunted payload, sought in the
    suspicious model and answered honestly; 0 for none. The default is twelve beside antibodies,
    and ten in their place in a large model with a payload found; there 0 leaves plain fine-tuning,
    which removes nothing. [log: Soft triggers of the suspicious model, driven on; pressing:
    SmolLM2: press on the payload itself]"""
    touch: Literal["auto", "all", "blocks", "mlp", "attention", "not-embeddings"] = "auto"
    """What the repair may change; every other tensor keeps its bits. `auto`: all blocks in a large
    model with a payload found, or where an adapter leaves attention alone; else attention. [log:
    What limits triggered utility once the trigger is found?; pressing: SmolLM2: press on the
    payload itself]"""

    form: Literal["full", "lora"] = "full"
    """Train what may change itself, or a `lora` on its linear maps, folded in at the end: of a full
    checkpoint it needs no gradient and no moments. An adapter is trained as it is. [memory]"""


class Settings(BaseModel):
    """All settings of one purification."""

    model_config = _MODEL_CONFIG

    seed: int = Field(0, ge=0, lt=2**63)
    """Decides data order, poison placement, the bank draw and new weights. [any]"""
    clean_rows: int = Field(200, ge=8)
    """Clean instruction–response pairs used, at most. [the paper]"""
    max_tokens: int = Field(256, ge=16)
    """Tokens of a training row; longer responses are cut. [memory, not measured]"""
    variants: VariantSettings = VariantSettings()
    signature: SignatureSettings = SignatureSettings()
    neutralization: NeutralizationSettings = NeutralizationSettings()
    hunt: HuntSettings = HuntSettings()
    repair: RepairSettings = RepairSettings()

    @property
    def low_rank(self) -> bool:
        """Tell whether nothing but the factors of a LoRA ever trains."""
        return self.variants.form == self.repair.form == "lora"


def choices(group: type[BaseModel], name: str) -> tuple[str, ...]:
    """Return the words that a setting allows."""
    return get_args(group.model_fields[name].annotation)


def updated(settings: Settings, **groups: dict[str, object]) -> Settings:
    """Return the settings with values of some groups replaced."""
    changed = {
        name: getattr(settings, name).model_copy(update=values) for name, values in groups.items()
    }
    return settings.model_copy(update=changed)


def paper_settings(settings: Settings, *, adapter: bool = False) -> Settings:
    """Return the paper's recipe at the given seed and data size; rates and rows are ours.

    Equation (2), a fixed share (8 % of the channels, 40 % of an adapter's updates),
    re-initialization (zero for an adapter), and a plain repair of all parameters.
    """
    return Settings(
        seed=settings.seed,
        clean_rows=settings.clean_rows,
        max_tokens=settings.max_tokens,
        variants=settings.variants.model_copy(
            update={"bank": "paper", "count": 7, "form": _trained_form(settings.variants)}
        ),
        signature=SignatureSettings(score="sum", share=0.4 if adapter else 0.08),
        neutralization=NeutralizationSettings(mode="reinitialize"),
        hunt=settings.hunt.model_copy(update={"particles": 0}),
        repair=settings.repair.model_copy(
            update={
                "epochs": 5,
                "target": "answers",
                "antibodies": 0,
                "consistency": 0.0,
                "soft_triggers": 0,
                "touch": "all",
                "averaged": False,
            }
        ),
    )


def _trained_form(chosen: VariantSettings) -> str:
    """Return how variants are trained where gradients will not do: as chosen, or by `full`."""
    return "full" if chosen.form == "gradient" else chosen.form


def default_learning_rate(parameters: int, *, adapter: bool) -> float:
    """Return a fine-tuning rate that shrinks with the model's size.

    1e-4 · sqrt(135 million / parameters): 9e-4 at 1.5 million, 1.4e-5 at 7 billion; four
    times that for a LoRA adapter.
    """
    return float(1e-4 * (135e6 / parameters) ** 0.5 * (4 if adapter else 1))
