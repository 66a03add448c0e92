"""What the pages hold that is made as they are built: formulas, the commands' help, the notebooks, examples."""

from __future__ import annotations

import base64
import html
import io
import os
import re
from pathlib import Path
from typing import Any

import griffe
import nbformat
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import math_to_image
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
RUN = "SENSIKIT_RUN"
"""The variable that names the run that notebooks are shown with; without it they are not run."""

WIDTH = 100
"""Characters of a line of help."""

FORMULA = re.compile(r"^\$\$ (.+?) \$\$$", re.MULTILINE | re.DOTALL)
EXAMPLE = re.compile(r"^([ ]*>>> .*(?:\n(?![ ]*$).+)*)", re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Add a page for each notebook."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        page = f"notebooks/{path.stem}.md"
        files.append(File.generated(config, page, content=page_of(nbformat.read(path, as_version=4), path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Draw formulas, make examples code, and fill in the commands."""
    markdown = FORMULA.sub(lambda found: drawn(found[1]), markdown)
    markdown = markdown.replace("<!-- commands -->", commands() if "<!-- commands -->" in markdown else "")
    return markdown if page.file.src_uri == "changes.md" else fenced(markdown)


def drawn(formula: str) -> str:
    """Return a formula as an image in the page: the same in every browser, and nothing is loaded to show it."""
    image = io.BytesIO()
    math_to_image(f"${formula}$", image, prop=FontProperties(size=13, math_fontfamily="stix"), format="svg")
    source = base64.b64encode(image.getvalue()).decode("ascii")
    return f'<img class="formula" alt="{html.escape(formula)}" src="data:image/svg+xml;base64,{source}">'


def fenced(text: str) -> str:
    """Return text whose examples (>>>) stand in fences: Markdown would take them for quotations."""
    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    parts[::2] = [EXAMPLE.sub(r"```pycon\n\1\n```", part) for part in parts[::2]]
    return "".join(parts)


class Examples(griffe.Extension):
    """Puts the examples of docstrings into fences."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the text of one docstring."""
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)


def commands() -> str:
    """Return the help of every verb."""
    import typer

    from sensikit_cli.main import app

    group: Any = typer.main.get_command(app)
    above = group.make_context("sensikit", [], resilient_parsing=True)
    texts = []
    for name, verb in group.commands.items():
        context = verb.make_context(name, [], parent=above, resilient_parsing=True, terminal_width=WIDTH)
        texts.append(f"## {name}\n\n```text\n{verb.get_help(context)}\n```\n")
    return "\n".join(texts)


def page_of(notebook: Any, path: Path) -> str:
    """Return a notebook as a page; with what it shows, where there is a run to show."""
    if os.environ.get(RUN):
        from nbclient import NotebookClient

        NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(path.parent)}}).execute()
    parts = [cell.source if cell.cell_type == "markdown" else coded(cell) for cell in notebook.cells]
    if not os.environ.get(RUN):
        parts.insert(1, "*Built without a run: `make demo` before `make docs` puts the figures here.*")
    return "\n\n".join([*parts, f"*This is `notebooks/{path.name}`.*"])


def coded(cell: Any) -> str:
    """Return a cell of code, and what it showed."""
    shown = [output.data.get("text/html") or f"<pre>{output.data['text/plain']}</pre>" for output in cell.outputs
             if "data" in output]  # fmt: skip
    text = "".join(f'\n\n<div class="output">\n{"".join(each.splitlines())}\n</div>' for each in shown)
    return f"```python\n{cell.source}\n```{text}"
