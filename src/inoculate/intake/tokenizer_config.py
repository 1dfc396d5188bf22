"""tokenizer_config.json and the small files beside it, rebuilt, and the templates in them."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from inoculate.intake.fields import field_table, many, rebuild, text
from inoculate.intake.files import Folder
from inoculate.intake.finding import Finding, RefusedError, shorten
from inoculate.intake.model_config import code_findings
from inoculate.intake.strict_json import parse_object
from inoculate.intake.tokenizer import Vocabulary

CONFIG = "tokenizer_config.json"
SPECIALS = "special_tokens_map.json"
ADDED = "added_tokens.json"
TEMPLATE = "chat_template.jinja"
NEEDLESS = ("tokenizer.model", "vocab.json", "merges.txt", "chat_template.json")
MAX_BYTES = 16_000_000
MAX_TEMPLATE_BYTES = 1_000_000
_MAX_DIGITS = 9  # Python itself gives up on numbers of thousands.
_CODE_KEYS = ("auto_map",)
_SPECIALS = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token",
             "mask_token")  # fmt: skip
_LISTS = ("additional_special_tokens", "extra_special_tokens")
_TEXT = text(r"(?s).{1,1024}")
_TEMPLATE_NAME = re.compile(r"\w{1,40}", re.ASCII)
_BOOL = bool | None
_SIDE = Literal["left", "right"] | None
_TOKEN = field_table({
    "content": _TEXT, "lstrip": bool, "rstrip": bool, "normalized": bool, "single_word": bool,
    "special": bool, "__type": Literal["AddedToken"], "id": int,
})  # fmt: skip
_CLASSES = Literal[
    "PreTrainedTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend", "LlamaTokenizer",
    "LlamaTokenizerFast", "CodeLlamaTokenizer", "CodeLlamaTokenizerFast", "GPT2Tokenizer",
    "GPT2TokenizerFast", "Qwen2Tokenizer", "Qwen2TokenizerFast", "GemmaTokenizer",
    "GemmaTokenizerFast",
]  # fmt: skip
_FIELDS = field_table({
    "tokenizer_class": _CLASSES | None,
    "backend": Literal["tokenizers"] | None,
    "model_max_length": Annotated[int | float, Field(ge=1, le=1e31)] | None,
    "model_input_names": many(Literal["input_ids", "attention_mask", "token_type_ids"], 3),
    "padding_side": _SIDE,
    "truncation_side": _SIDE,
    "errors": Literal["replace", "strict", "ignore"] | None,
    "add_bos_token": _BOOL,
    "add_eos_token": _BOOL,
    "add_prefix_space": _BOOL,
    "clean_up_tokenization_spaces": _BOOL,
    "legacy": _BOOL,
    "spaces_between_special_tokens": _BOOL,
    "split_special_tokens": _BOOL,
    "use_default_system_prompt": _BOOL,
    "is_local": _BOOL,
})  # fmt: skip


def read_tokenizer_config(
    folder: Folder, vocabulary: Vocabulary, rows: int, notes: list[Finding]
) -> dict[str, Any]:
    """Return tokenizer_config.json rebuilt, its chat template included.

    Raises:
        RefusedError: A value is out of bounds, or a token does not fit tokenizer.json.
    """
    given = parse_object(folder.read(CONFIG, MAX_BYTES), CONFIG)
    notes.extend(code_findings(given, CONFIG))
    tokens = _tokens_of(given, CONFIG)
    _check_known(tokens, vocabulary, rows, CONFIG)
    decoder = _decoder(given.get("added_tokens_decoder"), vocabulary, rows)
    special = (*tokens, *_CODE_KEYS, "added_tokens_decoder", "chat_template")
    kept = rebuild({k: v for k, v in given.items() if k not in special}, _FIELDS, CONFIG, notes)
    kept |= tokens | ({"added_tokens_decoder": decoder} if decoder else {})
    if given.get("chat_template") is not None:
        kept["chat_template"] = _checked_template(given["chat_template"])
    return {key: kept[key] for key in given if key in kept}


def read_token_files(
    folder: Folder, vocabulary: Vocabulary, rows: int, notes: list[Finding]
) -> dict[str, dict[str, Any]]:
    """Return special_tokens_map.json and added_tokens.json rebuilt, where they are.

    Raises:
        RefusedError: A token or an id does not fit tokenizer.json.
    """
    made: dict[str, dict[str, Any]] = {}
    if folder.find(SPECIALS):
        given = parse_object(folder.read(SPECIALS, MAX_BYTES), SPECIALS)
        made[SPECIALS] = _tokens_of(given, SPECIALS)
        rebuild({k: v for k, v in given.items() if k not in made[SPECIALS]}, {}, SPECIALS, notes)
        _check_known(made[SPECIALS], vocabulary, rows, SPECIALS)
    if folder.find(ADDED):
        made[ADDED] = parse_object(folder.read(ADDED, MAX_BYTES), ADDED)
        for token, number in made[ADDED].items():
            if vocabulary.find(token) != number or type(number) is not int:
                raise _unfit(ADDED, f"Token {shorten(token)} has another id in tokenizer.json.")
    for name in NEEDLESS:
        if name in folder.files:
            notes.append(Finding("dropped-file", name, "It is not read and not passed on."))
    return made


def templates_of(folder: Folder, config: Mapping[str, Any], notes: list[Finding]) -> dict[str, str]:
    """Return where each chat template stands → its text."""
    found: dict[str, str] = {}
    if folder.find(TEMPLATE):
        found[TEMPLATE] = _utf8(folder.read(TEMPLATE, MAX_TEMPLATE_BYTES))
    given = config.get("chat_template")
    named = given if isinstance(given, list) else [{"name": "", "template": given}] if given else []
    for entry in named:
        place = f"{CONFIG}#{entry['name']}" if entry["name"] else CONFIG
        found[place] = entry["template"]
    if TEMPLATE in found and named and found.get(CONFIG) != found[TEMPLATE]:
        reason = f"Its chat template differs from that in {TEMPLATE}; tools differ in their choice."
        notes.append(Finding("two-templates", CONFIG, reason))
    return found


def template_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the special tokens by name, as templates may write them."""
    return {key: _text(config[key]) for key in _SPECIALS if config.get(key) is not None}


def _tokens_of(given: Mapping[str, Any], file: str) -> dict[str, Any]:
    """Return the entries that name special tokens, each checked."""
    made = {}
    for key in (*_SPECIALS, *_LISTS):
        if key in given:
            made[key] = given[key]
            # Lists may be objects that name their tokens; a single token may not.
            tokens = _members(given[key]) if key in _LISTS else _single(given[key])
            for token in tokens:
                _check_token(token, key, file)
    return made


def _single(value: Any) -> list[Any]:
    return [] if value is None else [value]


def _members(value: Any) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, dict) and "content" not in value:
        return list(value.values())
    return value if isinstance(value, list) else [value]


def _check_token(token: Any, key: str, file: str) -> None:
    given = {"content": token} if isinstance(token, str) else token
    if not isinstance(given, dict) or "content" not in given:
        raise _unfit(file, f"{key} holds {shorten(token)}, which is no token.")
    left: list[Finding] = []
    rebuild(given, _TOKEN, file, left)
    if left:
        raise _unfit(file, f"{key} holds {shorten(token)}, which is no plain token.")


def _text(token: Any) -> str:
    return str(token["content"] if isinstance(token, dict) else token)


def _special_texts(tokens: Mapping[str, Any]) -> Iterator[str]:
    for value in tokens.values():
        yield from (_text(token) for token in _members(value))


def _check_known(tokens: Mapping[str, Any], vocabulary: Vocabulary, rows: int, file: str) -> None:
    """Demand that tokens which are not in tokenizer.json would still get a row.

    A spare token has none, so it may stand in a list, but not at the ends of texts.
    """
    for key, token in template_tokens(tokens).items():
        if token in vocabulary.spare:
            raise RefusedError(
                "token-ids", file, f"{key} is {shorten(token)}, which has no embedding row."
            )
    new = sorted({token for token in _special_texts(tokens) if vocabulary.find(token) is None})
    if new and vocabulary.highest() + len(new) >= rows:
        reason = f"{shorten(new[0])} is not in tokenizer.json and has no embedding row."
        raise RefusedError("token-ids", file, reason)


def _decoder(given: Any, vocabulary: Vocabulary, rows: int) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise _unfit(CONFIG, "added_tokens_decoder is no object.")
    for number, token in given.items():
        _check_token(token, "added_tokens_decoder", CONFIG)
        whole = number.isascii() and number.isdigit() and len(number) < _MAX_DIGITS
        if not whole or (int(number) >= rows and _text(token) not in vocabulary.spare):
            reason = f"added_tokens_decoder holds id {shorten(number)}; there are {rows} rows."
            raise RefusedError("token-ids", CONFIG, reason)
        if vocabulary.find(_text(token)) not in (None, int(number)):
            raise _unfit(CONFIG, f"{shorten(_text(token))} has another id in tokenizer.json.")
    return given


def _checked_template(given: Any) -> Any:
    if isinstance(given, str):
        return given
    entries = given if isinstance(given, list) else [None]
    names = [entry.get("name") if isinstance(entry, dict) else None for entry in entries]
    plain = all(
        isinstance(entry, dict)
        and set(entry) == {"name", "template"}
        and all(isinstance(value, str) for value in entry.values())
        for entry in entries
    )
    if not plain or len(set(names)) < len(names) or len(names) > 10:
        raise RefusedError("template", CONFIG, "Its chat_template is neither text nor named texts.")
    if odd := [name for name in names if not _TEMPLATE_NAME.fullmatch(str(name))]:
        reason = f"One of its chat templates is named {shorten(odd[0])}."
        raise RefusedError("template", CONFIG, reason)
    if "default" not in names:
        raise RefusedError("template", CONFIG, "None of its named chat templates is the default.")
    return given


def _utf8(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise RefusedError("template", TEMPLATE, "It is not UTF-8.") from None


def _unfit(file: str, reason: str) -> RefusedError:
    return RefusedError("tokenizer", file, reason)
