"""What chat templates are given beside the messages: the same in the audit as in use."""

from typing import Any

# Llama 3.2's own fallback: with the day's date a result would depend on the day.
_DATE = "26 Jul 2024"

OPTIONS: dict[str, Any] = {
    "enable_thinking": False,  # Qwen3's switch; other templates do not know it.
    "date_string": _DATE,
}
