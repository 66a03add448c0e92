"""Made-up parallel text: English of common words, other languages with the words turned round."""

import random
from collections.abc import Sequence
from pathlib import Path

_TEXT = (
    "the a this each new old small large file page user list name date field value form image link page table server "
    "opens closes saves moves finds needs shows deletes renames keeps has wants reads writes sends before after inside "
    "without near under every green empty quick broken hidden shared local remote secure public private first last"
)
WORDS = _TEXT.split()


def english(number: int, seed: int = 0) -> list[str]:
    """So many different sentences of four to nine words."""
    draw = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < number:
        found[" ".join(draw.choice(WORDS) for _ in range(draw.randint(4, 9))).capitalize() + "."] = None
    return list(found)


def translated(sentence: str, code: str) -> str:
    """The sentence with every word turned round and the language's first letter at its end."""
    return " ".join(word[::-1] + code[0] for word in sentence.strip(".").lower().split()) + "!"


def write_tsv(path: Path, sentences: Sequence[str], code: str) -> Path:
    path.write_text("".join(f"{one}\t{translated(one, code)}\n" for one in sentences), encoding="utf-8")
    return path
