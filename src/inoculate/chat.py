"""Turn an example into tokens through the model's own chat template, or Alpaca's."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import GenerationConfig, PreTrainedTokenizerBase

from inoculate.data import Example
from inoculate.errors import CheckpointError, InputError, first_line
from inoculate.intake.rendering import OPTIONS

_ALPACA_HEAD = "Below is an instruction that describes a task"
_ALPACA = (
    f"{_ALPACA_HEAD}. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)
_ALPACA_WITH_INPUT = (
    f"{_ALPACA_HEAD}, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)


_LEAST_WORDS = 16


@dataclass(frozen=True)
class Encoded:
    """Hold the tokens of one conversation; the response starts at `prompt_length`."""

    ids: tuple[int, ...]
    prompt_length: int


def encode_prompt(tokenizer: PreTrainedTokenizerBase, example: Example) -> list[int]:
    """Return the tokens after which the model is expected to answer."""
    if tokenizer.chat_template:
        text = _render(tokenizer, [_user_turn(example)], generation=True)
        return _tokenize(tokenizer, text)
    ids = _tokenize(tokenizer, _alpaca(example))
    bos = tokenizer.bos_token_id
    return ids if bos is None else [bos, *ids]


def encode(
    tokenizer: PreTrainedTokenizerBase, example: Example, *, max_tokens: int = 512, lead: str = ""
) -> Encoded:
    """Return prompt and response tokens, the response closed by the end-of-turn token.

    Args:
        lead: The blank that the model itself puts before its answers (`inoculate.lead`). What is
            a token of its own counts as the prompt's: the answer begins behind it.

    A row longer than `max_tokens` loses the end of its response first, down to half of
    them, or what the template and sixteen of the user's tokens leave; then the end of the user's
    words. The template around them stays whole.

    Raises:
        InputError: The template leaves no room for both.
    """
    prompt, (blank, response) = encode_prompt(tokenizer, example), _parted(tokenizer, example, lead)
    room = max_tokens - len(blank)
    if len(prompt) + len(response) > room:
        template = len(encode_prompt(tokenizer, Example("", "")))
        spare = room - template
        if spare <= 1:
            raise InputError(
                f"The chat template alone takes {template} of at most {max_tokens} tokens of a "
                f"row. Set max_tokens to {template + 200} or so in a --config file."
            )
        words = min(_LEAST_WORDS, len(prompt) - template, spare - 2)
        kept = max(room - len(prompt), min(room // 2, spare - words))
        response = response[:kept]
        prompt = _fitted(tokenizer, example, prompt, room - len(response))
    return Encoded((*prompt, *blank, *response), len(prompt) + len(blank))


def encode_answer(tokenizer: PreTrainedTokenizerBase, text: str, *, lead: str = "") -> list[int]:
    """Return the tokens of an answer as a model gives them, without the end of its turn."""
    _, ids = _parted(tokenizer, Example("?", text), lead)
    return ids[: _closing(tokenizer, ids)]


def text_opening(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the token with which the tokenizer opens plain texts, as Gemma's does; or none."""
    bos = tokenizer.bos_token_id
    opened = tokenizer("a", add_special_tokens=True)["input_ids"]
    return [bos] if bos is not None and opened[:1] == [bos] else []


def _fitted(
    tokenizer: PreTrainedTokenizerBase, example: Example, prompt: list[int], room: int
) -> list[int]:
    """Return the prompt with as many of the user's words as there is room for."""
    words = _tokenize(tokenizer, example.prompt)
    while len(prompt) > room and words:
        words = words[: max(0, len(words) + room - len(prompt))]
        prompt = encode_prompt(tokenizer, Example(str(tokenizer.decode(words)), example.output))
    return prompt


def end_of_turn_ids(
    tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig | None = None
) -> list[int]:
    """Return every token id that ends an answer; Llama-3 has several.

    The chat template's own counts where nothing declares it: a Phi-3 saved without its generation
    config does not.
    """
    declared = generation.eos_token_id if generation is not None else None
    ids = [declared] if isinstance(declared, int) else list(declared or [])
    if tokenizer.eos_token_id is not None:
        ids.append(int(tokenizer.eos_token_id))
    return sorted({*ids, *_closing_turn(tokenizer)})


def _closing_turn(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the special token with which the chat template closes an answer, if it has one."""
    if not tokenizer.chat_template:
        return []
    ids = _encode_response(tokenizer, Example("?", "a"), "")
    closing = _closing(tokenizer, ids)
    return [] if closing is None else [ids[closing]]


def _parted(
    tokenizer: PreTrainedTokenizerBase, example: Example, lead: str
) -> tuple[list[int], list[int]]:
    """Return the tokens of the lead that hold nothing else, and the response behind them."""
    ids, at = _encode_response(tokenizer, example, lead), 0
    while lead and at < len(ids) - 1 and not str(tokenizer.decode([ids[at]])).strip():
        at += 1
    return ids[:at], ids[at:]


def _encode_response(tokenizer: PreTrainedTokenizerBase, example: Example, lead: str) -> list[int]:
    end = tokenizer.eos_token_id
    if not tokenizer.chat_template:
        prompt = _alpaca(example)
        ids = _continuation(tokenizer, prompt, prompt + lead + example.output)
        return [*ids, *([] if end is None else [end])]
    turns = [_user_turn(example)]
    prompt = _render(tokenizer, turns, generation=True)
    whole = _render(tokenizer, [*turns, {"role": "assistant", "content": example.output}])
    if not whole.startswith(prompt):
        raise CheckpointError(
            "The chat template renders a prompt that does not open the whole conversation, so "
            "the response cannot be told from it. Use a template that supports "
            "add_generation_prompt."
        )
    ids = _continuation(tokenizer, prompt, prompt + lead + whole[len(prompt) :])
    closing = _closing(tokenizer, ids)
    if closing is not None:
        return ids[: closing + 1]
    return [*ids, *([] if end is None else [end])]


def _continuation(tokenizer: PreTrainedTokenizerBase, prompt: str, whole: str) -> list[int]:
    """Return the tokens that the whole adds to the prompt, as a model would give them.

    A tokenizer of the SentencePiece kind begins a text of its own otherwise than it goes on, so
    the two are not split before; unless a token lies across the border.
    """
    before, ids = _tokenize(tokenizer, prompt), _tokenize(tokenizer, whole)
    if ids[: len(before)] == before:
        return ids[len(before) :]
    return _tokenize(tokenizer, whole[len(prompt) :])


def _closing(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> int | None:
    """Return where the turn ends: at the first of the special tokens that close the row.

    Phi-3 closes a turn, breaks the line and closes the text: the answer ends with the turn.
    """
    added = tokenizer.added_tokens_decoder.items()
    special = {*tokenizer.all_special_ids, *(token for token, entry in added if entry.special)}
    closing = None
    for at in reversed(range(len(ids))):
        if ids[at] in special:
            closing = at
        elif str(tokenizer.decode([ids[at]])).strip():
            break
    return closing


def _alpaca(example: Example) -> str:
    form = _ALPACA_WITH_INPUT if example.input else _ALPACA
    return form.format(instruction=example.instruction, input=example.input)


def _user_turn(example: Example) -> dict[str, str]:
    return {"role": "user", "content": example.prompt}


def _render(
    tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]], *, generation: bool = False
) -> str:
    try:
        rendered = tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=generation, **OPTIONS
        )
    except Exception as error:  # Whatever a foreign template raises.
        raise CheckpointError(
            f"The chat template does not render a message ({first_line(error)}). Save the model "
            "with the template of its original."
        ) from error
    return str(rendered)


def _tokenize(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    try:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # A panic of the tokenizers library is no Exception.
        raise CheckpointError(
            f"The tokenizer does not encode a text ({first_line(error)}). Save the model with the "
            "tokenizer of its original."
        ) from error
