"""The hunt: what the suspicious model was taught to say, and tokens that make it say so."""

from inoculate.hunt.findings import Hunt
from inoculate.hunt.search import HOST_RESPONSE_TOKENS, hunt
from inoculate.hunt.trials import calls

__all__ = ["HOST_RESPONSE_TOKENS", "Hunt", "calls", "hunt"]
