"""How --help is laid out: the options of each settings class under a heading of its own, summaries whole."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup

LAST = "Every verb"
"""The heading of what all verbs have."""


class Verb(TyperCommand):
    """A verb whose options stand under the headings that they have."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, the verb's own options, those of each settings class, and those of every verb."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for each in self.get_params(ctx):
            record = each.get_help_record(ctx)
            if record:
                panel = getattr(each, "rich_help_panel", None)
                usual = (
                    "Arguments" if each.param_type_name == "argument" else LAST if each.name == "help" else "Options"
                )
                sections.setdefault(panel or usual, []).append(record)
        last = sections.pop(LAST, [])
        for heading, records in [*sections.items(), (LAST, last)]:
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the example in one line, to be copied."""
        formatter.write(f"\n{self.epilog}\n" if self.epilog else "")


class Verbs(TyperGroup):
    """The list of verbs, each with the whole first sentence of what it does."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a line or more for each verb."""
        verbs = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.get_short_help_str(1000)) for name, verb in verbs if verb is not None])
