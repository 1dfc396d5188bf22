"""What an audit finds: a table of rules, and one value per finding."""

from dataclasses import dataclass

from inoculate.errors import CheckpointError

REFUSED, WARNING, NOTE = "refused", "warning", "note"


@dataclass(frozen=True)
class Rule:
    """Say how grave a kind of finding is, what it is about, and what the user can do."""

    severity: str
    title: str
    advice: str


_RESAVE = "Save the model anew with transformers from a source you trust."
_RESAVE_TOKENIZER = "Save the tokenizer anew with transformers."
_ADAPTER = "Pass a plain PEFT LoRA folder saved as safetensors."

RULES: dict[str, Rule] = {
    "no-folder": Rule(REFUSED, "no folder that can be read", "Pass a checkpoint folder."),
    "missing-file": Rule(REFUSED, "a needed file is missing", "Pass a complete folder."),
    "unsafe-file": Rule(
        REFUSED,
        "a link that leaves the folder, a device or a pipe",
        "Replace it by a regular file.",
    ),
    "oversized-file": Rule(REFUSED, "a file beyond its size limit", _RESAVE),
    "broken-json": Rule(REFUSED, "a file that is no plain JSON", _RESAVE),
    "pickle-only": Rule(
        REFUSED,
        "weights as pickle alone",
        "Convert the weights to safetensors first; pickle files are not opened.",
    ),
    "gguf-only": Rule(
        REFUSED,
        "weights as GGUF alone",
        "Pass the safetensors checkpoint that it was made from, or convert it back to one.",
    ),
    "two-weight-sets": Rule(
        REFUSED, "two sets of weights", "Remove the set that is not to be loaded."
    ),
    "broken-index": Rule(REFUSED, "a shard index that does not fit the shards", _RESAVE),
    "broken-header": Rule(REFUSED, "a safetensors header that breaks the format", _RESAVE),
    "dtype": Rule(
        REFUSED,
        "weights in a number format that is not supported",
        "Save them as float32, float16 or bfloat16.",
    ),
    "tensors": Rule(REFUSED, "tensors that do not fit config.json", _RESAVE),
    "not-finite": Rule(REFUSED, "NaN or Inf among the weights", "Get an undamaged copy."),
    "model-type": Rule(
        REFUSED, "a kind of model that is not supported", "Pass a decoder of a supported family."
    ),
    "quantized": Rule(
        REFUSED,
        "a quantized checkpoint",
        "Pass the unquantized weights: a purified weight cannot be written back quantized.",
    ),
    "config-key": Rule(
        REFUSED, "a configuration that changes how the model is loaded", "Remove the entry."
    ),
    "config-value": Rule(REFUSED, "a configuration value out of bounds", "Correct the value."),
    "tokenizer": Rule(REFUSED, "a tokenizer that cannot be used safely", _RESAVE_TOKENIZER),
    "token-ids": Rule(
        REFUSED,
        "token ids that do not fit the embedding rows",
        "Pass the tokenizer that belongs to this model.",
    ),
    "regex-bomb": Rule(
        REFUSED, "a regular expression that may never end", "Write it without nested repetition."
    ),
    "template": Rule(
        REFUSED, "a chat template that cannot be used safely", "Replace it by a standard template."
    ),
    "adapter": Rule(REFUSED, "an adapter that is no plain LoRA", _ADAPTER),
    "adapter-alone": Rule(
        REFUSED,
        "an adapter where a model is expected",
        "Pass its base with --base, and it with --adapter, or to `utility` as it is.",
    ),
    "adapter-base": Rule(
        REFUSED,
        "an adapter for another base",
        "Pass the base that the adapter was trained on.",
    ),
    "ignored-file": Rule(
        WARNING, "a file that is never opened", "Nothing to do; do not copy it anywhere."
    ),
    "ignored-key": Rule(
        WARNING, "a configuration entry that names code", "Nothing to do; it is left out."
    ),
    "two-templates": Rule(
        WARNING, "two chat templates that differ", "Remove the one that is not meant."
    ),
    "template-branches": Rule(
        WARNING,
        "a chat template that depends on what a message says",
        "Read these lines: no weight purification reaches them; a standard template is safer.",
    ),
    "template-drops": Rule(
        WARNING, "a chat template that leaves the user's words out", "Read the template."
    ),
    "normalizer": Rule(
        WARNING,
        "a tokenizer that rewrites text",
        "Check that the replacement is meant: no weight purification reaches it.",
    ),
    "added-token": Rule(
        WARNING,
        "added tokens that are ordinary or hidden text",
        "Check that they are meant: such a token can be a trigger.",
    ),
    "spare-token": Rule(
        WARNING,
        "a special token of the family without an embedding row",
        "Nothing to do; a text that holds it is refused.",
    ),
    "base-name": Rule(
        WARNING,
        "an adapter that names its base by a path",
        "Nothing to do; the name is left out and only --base is loaded.",
    ),
    "dropped-key": Rule(
        NOTE, "a configuration entry that is not needed", "Nothing to do; it is left out."
    ),
    "dropped-file": Rule(
        NOTE, "a tokenizer file that tokenizer.json makes needless", "Nothing to do."
    ),
}


@dataclass(frozen=True)
class Finding:
    """Name a rule, the file it was found in, relative to the folder, and what was found."""

    rule: str
    file: str
    reason: str

    @property
    def severity(self) -> str:
        """Return "refused", "warning" or "note"."""
        return RULES[self.rule].severity

    @property
    def advice(self) -> str:
        """Return what the user can do."""
        return RULES[self.rule].advice

    def to_json(self) -> dict[str, str]:
        """Return the finding as JSON, its severity and advice spelled out."""
        return {
            "severity": self.severity,
            "rule": self.rule,
            "file": self.file,
            "reason": self.reason,
            "advice": self.advice,
        }


class RefusedError(CheckpointError):
    """Signal the finding that ends one part of an audit."""

    def __init__(self, rule: str, file: str, reason: str) -> None:
        self.finding = Finding(rule, file, reason)
        super().__init__(f"{file}: {reason} {self.finding.advice}")


def shorten(value: object, limit: int = 60) -> str:
    """Return a value of the folder as quoted text of at most `limit` characters."""
    text = repr(value[:limit] if isinstance(value, str) else value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
