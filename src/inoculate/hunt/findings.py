"""What a hunt found, as the repair and the report read it."""

from dataclasses import asdict, dataclass
from typing import Any

from inoculate.hunt.answers import Answer


@dataclass(frozen=True)
class Hunt:
    """Hold what was found; every field is empty where nothing was.

    Attributes:
        payload: What the model seems to have been taught to say, as tokens and as text.
        triggers: Token sequences that call it, most effective first.
        examples: The first triggers as text.
        calls: For each trial prompt, whether the first trigger brought the payload.
        finished: Whether the model, made to begin the payload there, went on with it; asked of a
            large model and of further wordings, where a payload has four tokens or more.
        pressing: Whether the repair is to press on the payload, as in large models.
        alike: How many answers opened alike once honest ones had been driven off; it is counted
            where no payload is found as well.
        driven: Of how many; 0 where there was no hunt.
        trailing: Whether the payload comes after the honest answer, which stays.
        others: Further payloads, of the same look or found while those before were forbidden.
        openly: How many of the undisturbed answers hold the payload.
        spoken: Of how many; 0 where there was no hunt.
        habits: What at least half of them hold. It is said openly, and taken for no payload.
        broken: What answers alike opened with, before a second look.
        worded: Whether it is a further wording: `alike` of `driven` prompts, driven towards another
            payload and made to begin it, went on with it.
        stopped: Whether the hunt stopped at its most answers, and looked no further.
    """

    payload: tuple[int, ...] = ()
    text: str = ""
    triggers: tuple[tuple[int, ...], ...] = ()
    examples: tuple[str, ...] = ()
    calls: tuple[bool, ...] = ()
    pressing: bool = False
    alike: int = 0
    driven: int = 0
    trailing: bool = False
    others: "tuple[Hunt, ...]" = ()
    openly: int = 0
    spoken: int = 0
    habits: tuple[str, ...] = ()
    finished: tuple[bool, ...] = ()
    broken: Answer = ()
    worded: bool = False
    stopped: bool = False

    @property
    def every(self) -> "tuple[Hunt, ...]":
        """Return this and the others; nothing where there is no payload."""
        return (self, *self.others) if self.payload else ()

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Hunt":
        """Return what `to_json` wrote."""
        fields: dict[str, Any] = {
            name: tuple(entry) if isinstance(entry, list) else entry
            for name, entry in value.items()
        }
        triggers = tuple(tuple(one) for one in value["triggers"])
        others = tuple(cls.from_json(one) for one in value.get("others", ()))
        return cls(**{**fields, "triggers": triggers, "others": others})
