"""The map of the code is true: imports keep to its layers, and the files that it names are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAP = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
CONTRACTS = re.search(r"^```ini\n(.*?)^```$", MAP, re.M | re.S)[1]


def kept(contracts, folder, monkeypatch):
    cli = pytest.importorskip("importlinter.cli", reason="import-linter is not installed")
    monkeypatch.chdir(ROOT)
    file = folder / "contracts.ini"
    file.write_text(contracts, encoding="utf-8")
    imports = folder.parent / "imports"  # read once for all tests
    return cli.lint_imports(config_filename=str(file), cache_dir=str(imports)) == 0


def test_imports_keep_to_the_layers_of_the_map(tmp_path, monkeypatch, capsys):
    assert kept(CONTRACTS, tmp_path, monkeypatch), capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "instead", "found"),
    [
        ("    env\n", "", "not listed"),
        (
            "    env\n    wrappers | rendering | arguments\n",
            "    wrappers | rendering | arguments\n    env\n",
            "arguments",
        ),
        ("forbidden_modules = gymnasium\n", "forbidden_modules = torch\n", "fusion_gym.distiller"),
    ],
    ids=["not on the map", "upward", "forbidden"],
)
def test_an_import_that_the_map_does_not_allow_is_found(line, instead, found, tmp_path, monkeypatch, capsys):
    assert line in CONTRACTS
    assert not kept(CONTRACTS.replace(line, instead), tmp_path, monkeypatch)
    assert found in capsys.readouterr().out


def test_files_that_the_map_names_are_there():
    named = {name for name in re.findall(r"`([\w./-]+)`", MAP) if "/" in name}
    assert len(named) > 20
    assert not [name for name in named if not (ROOT / name).exists()]
