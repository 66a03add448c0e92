"""What a model is asked: a template, and the sentences that are put into it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sensikit.errors import OptionError
from sensikit.languages import Pair, name_of, standard

PROMPT = (
    "Translate the following text from {source_name} into {target_name}. Answer with the translation alone.\n\n{source}"
)
"""What a model with a chat template is asked where no --prompt is given."""

_FIELD = re.compile(r"\{(\w*)\}")
_FIELDS = ("source", "source_name", "target_name", "source_code", "target_code")


def check_prompt(template: str | None) -> None:
    """Refuse a template without {source}, or with an unknown field."""
    found = _FIELD.findall(template or "{source}")
    unknown = [name for name in found if name not in _FIELDS]
    if unknown or "source" not in found:
        problem = f"has a field {{{unknown[0]}}}" if unknown else "does not say where {source} goes"
        raise OptionError("--prompt", problem, f"its fields are {', '.join(f'{{{name}}}' for name in _FIELDS)}")


def prompted(texts: Sequence[str], pair: Pair, template: str) -> list[str]:
    """Return a template with each of some texts filled in."""
    fields = {
        f"{side}_{what}": found
        for side, code in zip(("source", "target"), pair, strict=True)
        for what, found in (("code", code), ("name", name_of(standard(code))))
    }
    filled = _FIELD.sub(lambda field: fields.get(field[1], field[0]), template)
    return [filled.replace("{source}", text) for text in texts]
