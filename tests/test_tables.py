"""The tables of the pages: what ranks methods writes CSV files, and what makes the pages puts them there."""

import importlib.util
import json
import sys
from pathlib import Path

import cv2
import pytest
from rich.table import Table

from fusion_gym.metrics import REPORTED
from fusion_gym.synthetic import generate_scenes
from fusion_gym.text import show_table

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
rank_peers = pytest.importorskip("rank_peers", reason="benchmarks/ is absent")


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.stem)
def test_the_tables_of_a_page_are_those_of_its_csv_files(page, tables):
    text = page.read_text(encoding="utf-8")
    assert tables.filled(text) == text, "run python docs/tables.py"


def test_every_csv_file_of_tables_is_in_a_page():
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md"))
    for file in (ROOT / "docs" / "tables").glob("*.csv"):
        assert f"<!-- tables/{file.name} -->" in pages, file


def test_ranks_are_kept_as_csv_and_shown_with_ours_in_bold(tmp_path, tables, monkeypatch):
    for side in ("ir", "vi"):
        (tmp_path / "made" / "test" / side).mkdir(parents=True)
    for number, scene in enumerate(generate_scenes(2, 96, 1)):
        cv2.imwrite(str(tmp_path / "made" / "test" / "ir" / f"{number}.png"), scene[..., 0])
        cv2.imwrite(str(tmp_path / "made" / "test" / "vi" / f"{number}.png"), scene[..., 1:])
    values = {"good": dict.fromkeys(REPORTED, 1e3), "poor": dict.fromkeys(REPORTED, -1e3)}
    (tmp_path / "peers.json").write_text(json.dumps({"means": {"made": values}}))
    command = f"--peers {tmp_path / 'peers.json'} --root {tmp_path} --datasets made --out {tmp_path} mean=rule:mean"
    assert rank_peers.main(command.split()) == 0
    monkeypatch.setattr(tables, "DOCS", tmp_path)
    head, _, *rows = [line.strip("| ").split(" | ") for line in tables.markdown(tmp_path / "made.csv").splitlines()[:5]]
    assert head[0] == "method" and head[-2:] == ["invented ↓", "amplified ↓"] and head[1:10] == list(REPORTED)
    assert [(row[0], row[10]) for row in rows] == [("good", "1.0"), ("**mean**", "2.0"), ("poor", "3.0")]
    assert rows[1][-1].endswith("%") and rows[0][-1] == rows[2][-1] == "–"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_table_is_shown_whole_below_a_title_of_one_line_at_any_width(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    table = Table("method", *REPORTED)
    table.add_row("a method with [a long] name", *(f"{1234.5 + number}" for number in range(len(REPORTED))))
    show_table("a title that is longer than the table, " * 4, table)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a title that is longer than the table, " * 4
    (row,) = (line for line in lines if "a method with [a long] name" in line)
    assert all(f"{1234.5 + number}" in row for number in range(len(REPORTED)))
