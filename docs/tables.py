#!/usr/bin/env python
"""Puts the tables of ``docs/tables/`` into the pages that name them: ``python docs/tables.py``.

A page has ``<!-- tables/NAME.csv -->`` and ``<!-- end of table -->``; what is between them is made anew. A row whose
column ``ours`` says yes is bold; the column itself is not shown, and artefacts are percentages.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from pathlib import Path

from fusion_gym.files import atomic_write
from fusion_gym.metrics import ARTEFACTS

DOCS = Path(__file__).parent
END = "<!-- end of table -->"
_PLACE = re.compile(rf"(<!-- (tables/[\w.-]+\.csv) -->\n).*?({re.escape(END)})", re.S)


def markdown(file: Path) -> str:
    """The table of a CSV file in Markdown, its numbers to the right."""
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    heads = [head for head in rows[0] if head != "ours"]
    shown = [head + " ↓" if head in ARTEFACTS else head for head in heads]
    table = [shown, ["---"] + ["---:"] * (len(heads) - 1)]
    for row in rows:
        cells = {head: row[head] or "–" for head in heads}
        for artefact in ARTEFACTS:
            if row.get(artefact):
                cells[artefact] = f"{float(row[artefact]):.2%}"
        if row.get("ours") == "yes":
            cells[heads[0]] = f"**{cells[heads[0]]}**"
        table.append(list(cells.values()))
    return "".join(f"| {' | '.join(row)} |\n" for row in table) + f"\n[The table as CSV]({file.relative_to(DOCS)})\n"


def filled(text: str) -> str:
    """A page's text with its tables made anew."""
    return _PLACE.sub(lambda place: f"{place[1]}\n{markdown(DOCS / place[2])}\n{place[3]}", text)


def main() -> int:
    """Makes the pages; says which have changed."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for page in sorted(DOCS.glob("*.md")):
        before = page.read_text(encoding="utf-8")
        after = filled(before)
        if after != before:
            atomic_write(page, after)
            print(f"{page} has new tables.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
