"""The intake of an untrusted folder: audit it, then load nothing but an allow-listed copy.

It imports neither torch nor transformers, opens no pickle and runs nothing from the folder.
"""

from inoculate.intake.audit import Audit, audit
from inoculate.intake.finding import Finding
from inoculate.intake.hub import fetch, revision
from inoculate.intake.staging import Staged, admit_adapter, admit_model

__all__ = [
    "Audit",
    "Finding",
    "Staged",
    "admit_adapter",
    "admit_model",
    "audit",
    "fetch",
    "revision",
]
