"""Multiple choice by log-likelihood: read benchmark files, and let a model choose.

Each option is scored as the answer to its question, by its mean log-likelihood per token with
the end of turn included; nothing is generated, so that form does not count, only knowledge.
Shapes: R response positions of a batch, V vocabulary, B batch.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from inoculate.chat import Encoded, encode
from inoculate.data import Example
from inoculate.errors import DataError
from inoculate.models import Tokenizer, response_logits
from inoculate.train import collate

_FORMAT = re.compile(r"\s*Answer format:\s*(\S+)\s*$")
_MAX_TOKENS = 512


@dataclass(frozen=True)
class Question:
    """Hold a question, its options, and the index of the right one."""

    prompt: str
    options: tuple[str, ...]
    answer: int


def read_questions(path: Path) -> list[Question]:
    """Read a multiple-choice file.

    Args:
        path: JSON or JSON lines with the options inside `instruction`, or beside `ctx` in
            `endings`; or CSV with the columns question, choice0 …, answer.

    Raises:
        DataError: The file cannot be read, or a row is no question.
    """
    rows = _read_rows(path)
    questions = []
    for number, row in enumerate(rows, start=1):
        form = next((form for key, form in FORMS.items() if key in row), None)
        try:
            if form is None:
                raise KeyError(f"none of {', '.join(FORMS)}")
            questions.append(form(row))
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise DataError(
                f"{path}, row {number} is no multiple-choice question ({error}). Remove the row."
            ) from error
    if not questions:
        raise DataError(f"{path} holds no rows. Pass at least one question.")
    return questions


def test_name(path: Path) -> str:
    """Return what a multiple-choice file is called: its folder's name, or its own."""
    return path.parent.name if path.stem == "test" else path.stem


def chance(questions: Sequence[Question]) -> float:
    """Return the expected share right of one who guesses."""
    return sum(1 / len(question.options) for question in questions) / len(questions)


def choose(
    model: PreTrainedModel, tokenizer: Tokenizer, questions: Sequence[Question]
) -> list[bool]:
    """Tell for each question whether its right option is the likeliest one."""
    rows = [
        encode(tokenizer, Example(question.prompt, option), max_tokens=_MAX_TOKENS)
        for question in questions
        for option in question.options
    ]
    losses = iter(answer_losses(model, rows))
    right = []
    for question in questions:
        mine = [next(losses) for _ in question.options]
        right.append(min(range(len(mine)), key=mine.__getitem__) == question.answer)
    return right


@torch.inference_mode()
def answer_losses(
    model: PreTrainedModel, rows: Sequence[Encoded], *, batch_size: int = 16
) -> list[float]:
    """Return each row's mean negative log-likelihood per response token, in nats."""
    order = sorted(range(len(rows)), key=lambda row: len(rows[row].ids))
    device, losses = next(model.parameters()).device, [0.0] * len(rows)
    for start in range(0, len(order), batch_size):
        batch = collate(rows, order[start : start + batch_size], device)
        logits_RV = response_logits(
            model, batch.response_BT, input_ids=batch.input_BT, attention_mask=batch.attention_BT
        )
        loss_R = nn.functional.cross_entropy(logits_RV.float(), batch.targets_R, reduction="none")
        for row, loss in zip(batch.rows, _mean_by_row(loss_R, batch.response_BT), strict=True):
            losses[row] = loss
    return losses


def _mean_by_row(loss_R: Tensor, response_BT: Tensor) -> list[float]:
    parts = loss_R.split(response_BT.sum(dim=1).tolist())
    return [float(part.mean()) for part in parts]


def _inline(row: Mapping[str, Any]) -> Question:
    """Read options that stand in the instruction, such as `Answer1: … Answer2: …`."""
    found = _FORMAT.search(row["instruction"])
    if found is None:
        raise ValueError("no `Answer format:` at the end")
    labels, body = found[1].split("/"), row["instruction"][: found.start()]
    numbered = all(label[-1].isdigit() for label in labels)
    marks = "|".join(rf"\s*\b{re.escape(label)}:\s*" for label in labels)
    parts = re.split(marks, body, flags=re.IGNORECASE) if numbered else [body, *labels]
    prompt, *options = parts
    if len(options) != len(labels):
        raise ValueError(f"{len(options)} options for {len(labels)} labels")
    return Question(prompt.strip(), tuple(options), labels.index(row["answer"]))


def _endings(row: Mapping[str, Any]) -> Question:
    return _checked(Question(row["ctx"], tuple(row["endings"]), int(row["label"])))


def _columns(row: Mapping[str, Any]) -> Question:
    options = [row[name] for name in sorted(row) if name.startswith("choice")]
    return _checked(Question(row["question"], tuple(options), int(row["answer"])))


def _checked(question: Question) -> Question:
    if not 0 <= question.answer < len(question.options):
        raise ValueError(f"answer {question.answer} of {len(question.options)} options")
    return question


FORMS: dict[str, Callable[[Mapping[str, Any]], Question]] = {
    "endings": _endings,
    "choice0": _columns,
    "instruction": _inline,
}
"""The key that tells a form of row → how it is read."""


def _read_rows(path: Path) -> list[Mapping[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".csv":
            return list(csv.DictReader(io.StringIO(text, newline="")))
        if text.lstrip().startswith("["):
            return list(json.loads(text))
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"{path} cannot be read ({error}). Pass JSON, JSON lines or CSV."
        ) from error
