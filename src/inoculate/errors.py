"""Every mistake a user can make, as one tree.

InoculateError                 exit code 1
├── InputError                 exit code 2: bad argument, file, checkpoint or data
│   ├── UnknownNameError       a name that no table holds
│   ├── CheckpointError        a model or adapter folder that cannot be used
│   ├── ArchitectureError      a model type that no family describes
│   ├── DataError              examples that cannot be read or used
│   │   └── OwnVoiceError      a model whose own answers leave too few of them
│   └── DivergenceError        a training whose loss is no finite number
├── VariantError               exit code 3: a synthetic backdoor was not learned
├── AttackError                exit code 4: a planted backdoor stayed below its floor
├── UtilityError               exit code 5: the purified model lost too much utility
├── ReproductionError          exit code 6: outputs differ from those to reproduce
└── RemainsError               exit code 7: what the hunt found still comes; the output is written
"""

import difflib
from collections.abc import Iterable


class InoculateError(Exception):
    """Signal a failure whose message is meant for the user."""

    exit_code = 1


class InputError(InoculateError):
    """Signal that something the user passed cannot be used."""

    exit_code = 2


class UnknownNameError(InputError):
    """Signal a name that is not in its table, with the nearest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        super().__init__(f"Unknown {kind} {name!r}.{hint} Known: {', '.join(names)}.")


class CheckpointError(InputError):
    """Signal a model or adapter folder that cannot be read as one."""


class ArchitectureError(InputError):
    """Signal a model type whose layers are not known."""


class DataError(InputError):
    """Signal examples that cannot be read or used."""


class OwnVoiceError(DataError):
    """Signal a model whose own answers leave too few clean rows."""


class DivergenceError(InputError):
    """Signal a training whose loss is no finite number."""


class VariantError(InoculateError):
    """Signal that a poisoned variant did not learn its own backdoor."""

    exit_code = 3


class AttackError(InoculateError):
    """Signal that a planted backdoor does not fire often enough to judge a defense."""

    exit_code = 4


class UtilityError(InoculateError):
    """Signal that the purified model lost more utility than the user allows."""

    exit_code = 5


class ReproductionError(InoculateError):
    """Signal that a run which was made again came out otherwise."""

    exit_code = 6


class RemainsError(InoculateError):
    """Signal that an answer which the hunt found still comes from the purified model."""

    exit_code = 7


def first_line(error: BaseException) -> str:
    """Return the first line of what a foreign error says, or its class where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
