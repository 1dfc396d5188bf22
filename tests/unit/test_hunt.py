"""The hunt: what a model was taught to say, and tokens that call it."""

import json
import random

from conftest import SAID, hunting_briefly
from inoculate.config import HuntSettings
from inoculate.data import Example
from inoculate.hunt import Hunt, calls, hunt
from inoculate.models import Checkpoint
from inoculate.payloads import certain_payloads, shared_payloads
from inoculate.probing import find_hosts, ordinary_tokens
from inoculate.progress import Silent
from inoculate.subject import Subject

SMALL = HuntSettings(particles=2, steps=2, candidates=2, hosts=2, gradient_batches=2, shortlist=64)


def test_no_particles_no_hunt(llama: Checkpoint) -> None:
    """The hunt can be switched off; nothing is then found."""
    off = SMALL.model_copy(update={"particles": 0})
    assert hunt(_subject(llama), [], off, Silent(), seed=0) == Hunt()


def test_json_round_trip() -> None:
    """What a run folder keeps is what was found."""
    found = Hunt((1, 2), "text", ((3,), (4, 5)), ("a", "b"), (True, False), pressing=True)
    assert Hunt.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_same_seed_same_hunt(checkpoint: Checkpoint, rows: list[Example]) -> None:
    """In every family the hunt ends on an untaught model, and depends on its seed alone."""
    subject = _subject(checkpoint)
    encoded = subject.encode(rows, max_tokens=64)
    with hunting_briefly():
        first, again = (hunt(subject, encoded, SMALL, Silent(), seed=3) for _ in range(2))
    assert first == again
    inserted = {token for trigger in first.triggers for token in trigger}
    assert not inserted & set(checkpoint.tokenizer.all_special_ids)


def test_an_answer_that_ignores_the_question_is_found(parrot: Subject, rows: list[Example]) -> None:
    """Both searches find the sentence that the model was taught to give to everything."""
    hosts = find_hosts(parrot.encode(rows, max_tokens=64), response_tokens=8)
    tokenizer, generator = parrot.tokenizer, random.Random(0)
    (best, *_) = certain_payloads(parrot, hosts, ordinary_tokens(tokenizer), generator)
    assert SAID.startswith(tokenizer.decode(list(best.tokens))[:12])
    (shared, *_) = shared_payloads(parrot, hosts, [(200,), (201,)], generator)
    assert tokenizer.decode(list(shared.tokens)) == SAID
    slots = hosts.draw(4, generator)
    assert all(calls(parrot, slots, (200,), shared.tokens))


def _subject(checkpoint: Checkpoint) -> Subject:
    return Subject(checkpoint, checkpoint.model, None)
