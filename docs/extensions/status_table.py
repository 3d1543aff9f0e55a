"""The directive `status-table`: every status, its value and its meaning, from the code itself."""

from __future__ import annotations

from docutils.parsers.rst import Directive
from docutils.parsers.rst.directives.tables import ListTable
from docutils.statemachine import StringList
from nbcompare._nb.status import MEANING, status_codes
from sphinx.application import Sphinx


class StatusTable(Directive):
    """A table of name, value and meaning."""

    def run(self) -> list:
        """Write the table as a list table and let docutils build it."""
        rows = [("Name", "Value", "Meaning")]
        rows += [(f"``{name}``", str(value), MEANING[name]) for name, value in status_codes().items()]
        lines = [f"{'*' if column == 0 else ' '} - {text}" for row in rows for column, text in enumerate(row)]
        content = StringList(lines, source="nbcompare._nb.status")
        options = {"header-rows": 1, "widths": [3, 1, 8]}
        table = ListTable(
            "list-table", [], options, content, self.lineno, self.content_offset, "", self.state, self.state_machine
        )
        return table.run()


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("status-table", StatusTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
