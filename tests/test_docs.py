"""The documentation does what it says: its Python runs, its commands are accepted, its site builds."""

import argparse
import contextlib
import html
import io
import re
import runpy
import shlex
import sys
import warnings
from pathlib import Path

import pytest
import torch

from fusion_gym import __main__ as front
from fusion_gym.models.student import StudentError

ROOT = Path(__file__).parent.parent
OURS = ("fusion_gym", "agents")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"(?:<!-- not run: (?P<reason>.+?) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.M | re.S)
_INLINE = re.compile(r"`([^`\n]+)`")
_FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")


def blocks(page: Path, language: str) -> list[re.Match[str]]:
    return [found for found in _FENCE.finditer(page.read_text(encoding="utf-8")) if found["language"] == language]


def commands(page: Path) -> list[list[str]]:
    """The project's own commands in a page's shell blocks, as words from the script, ``-m`` or ``fusion-gym`` on."""
    lines = "\n".join(found["code"] for found in blocks(page, "bash")).replace("\\\n", " ").splitlines()
    parts = [part for line in lines for part in line.split(" && ")]
    words = [[word.removeprefix(".venv/bin/") for word in shlex.split(part, comments=True)] for part in parts]
    ours = [line[1:] for line in words if line[:1] == ["python"]]
    ours += [["-m", "fusion_gym", *line[1:]] for line in words if line[:1] == ["fusion-gym"]]
    return [line for line in ours if line[0].endswith(".py") or (line[0] == "-m" and line[1].startswith(OURS))]


class _Stop(BaseException):
    pass


_parsers: dict[str, argparse.ArgumentParser] = {}


def parser_of(words: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[argparse.ArgumentParser, list[str]]:
    """The parser that a command makes, caught on its way to parsing; and the command's arguments."""
    place = 3 if words[:2] == ["-m", "fusion_gym"] else 2 if words[0] == "-m" else 1
    name, arguments = " ".join(words[:place]), words[place:]
    if name not in _parsers:

        def catch(parser: argparse.ArgumentParser, *_: object) -> None:
            _parsers[name] = parser
            raise _Stop

        monkeypatch.chdir(ROOT)
        with monkeypatch.context() as patch, warnings.catch_warnings(), contextlib.suppress(_Stop):
            warnings.simplefilter("ignore", RuntimeWarning)  # the module may have been imported by another test
            patch.setattr(argparse.ArgumentParser, "parse_args", catch)
            patch.setattr(sys, "argv", [words[place - 1]])
            patch.syspath_prepend(Path(words[0]).parent)  # as Python does for a script
            if place == 3:
                front.main([words[2]])
            else:
                run = runpy.run_module if place == 2 else runpy.run_path
                run(words[place - 1], run_name="__main__")
    return _parsers[name], arguments


# Options of other programs, named in the text.
OF_OTHERS = {"--env-id", "--gym-packages", "--config-settings"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_of_the_docs_are_accepted(page, monkeypatch):
    for words in commands(page):
        if not words[0].startswith("examples/"):
            parser, arguments = parser_of(words, monkeypatch)
            known = parser._option_string_actions
            unknown = [word for word in arguments if word.startswith("-") and word.split("=")[0] not in known]
            assert not unknown, f"{' '.join(words)}: {unknown}"
            with contextlib.redirect_stderr(io.StringIO()) as complaint:
                try:
                    parser.parse_args(arguments)
                except SystemExit:
                    pytest.fail(f"{' '.join(words)}: {complaint.getvalue()}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_options_in_the_text_exist(page, monkeypatch):
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    named = {flag for code in _INLINE.findall(text) for flag in _FLAG.findall(code)}
    ours = [words for other in PAGES for words in commands(other) if not words[0].startswith("examples/")]
    known = {flag for words in ours for flag in parser_of(words, monkeypatch)[0]._option_string_actions}
    named -= OF_OTHERS
    assert named <= known, f"{page.name} names {sorted(named - known)}"


def test_options_of_the_training_are_all_explained(monkeypatch):
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    parser, _ = parser_of(["train_agent.py"], monkeypatch)
    for action in parser._actions:
        assert any(flag in text for flag in action.option_strings) or action.dest == "help", action.option_strings


def test_the_readmes_first_screen_has_exactly_two_commands_that_set_up_everything():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    first = blocks(ROOT / "README.md", "bash")[0]
    lines = first["code"].splitlines()
    assert len(lines) == 2 and text[: first.end()].count("\n") < 30
    assert all(line.startswith("python3 -m venv .venv && .venv/bin/pip install") for line in lines)
    assert lines[0].endswith("train-agent") and lines[1].endswith("-m pytest -n 2 --dist loadfile")
    assert "README.md" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_version_is_said_alike_everywhere():
    import fusion_gym

    assert f"\nversion: {fusion_gym.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## [{fusion_gym.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_an_option_that_does_not_exist_is_found(monkeypatch):
    parser, _ = parser_of(["train_agent.py"], monkeypatch)
    assert "--algo" in parser._option_string_actions
    assert "--algorithm" not in parser._option_string_actions


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_of_the_docs_runs(page, tmp_path, monkeypatch):
    found = blocks(page, "python")
    if not found:
        pytest.skip("no Python on this page")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    ir, vi, fused = torch.rand(3, 1, 1, 176, 176, generator=torch.Generator().manual_seed(0))
    pair = {"ir": ir[0, 0].numpy(), "vi": vi[0, 0].numpy()}
    given = {"metrics": {"ir": ir, "vi": vi, "fused": fused}, "README": pair}.get(page.stem, {})
    namespace: dict[str, object] = {"__name__": "docs", **given}
    for block in found:
        file = re.match(r"# (\w+\.py)\n", block["code"])
        if file:  # the reader is told to save it
            (tmp_path / file[1]).write_text(block["code"], encoding="utf-8")
        code = compile(block["code"], page.name, "exec")
        if block["reason"] is None:
            try:
                exec(code, namespace)
            except StudentError as error:
                if "no weights" not in str(error):
                    raise
                pytest.skip(str(error))


def test_schedules_and_instances_of_the_docs_are_read(tmp_path):
    from agents.comparison import read_instances
    from agents.scripted import make_schedule
    from fusion_gym.actions import ACTIONS

    (schedule,) = blocks(ROOT / "docs" / "agents.md", "yaml")
    (instances,) = blocks(ROOT / "docs" / "comparing.md", "yaml")
    path = tmp_path / "file.yml"
    path.write_text(schedule["code"], encoding="utf-8")
    assert make_schedule("piecewise", str(path), list(ACTIONS)).settings(0.0)["guidance"] == 1
    path.write_text(instances["code"], encoding="utf-8")
    assert set(read_instances(str(path))) == {"good", "poor"}


def test_logged_names_of_the_docs_are_those_of_the_environment():
    import gymnasium as gym

    import fusion_gym  # noqa: F401  (registers the ids)
    from agents.training.callbacks import END_METRICS, STEP_METRICS

    _, info = gym.make("FusionDistillFast-v0").reset(seed=0)
    logged = {key if "/" in key else f"fusion/{key}" for key in info if key.startswith(STEP_METRICS + END_METRICS)}
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8").partition("## Logged names")[2]
    named = {name for name in _INLINE.findall(text) if re.fullmatch(r"(fusion|ratio|gap|action|student)/\w+", name)}
    assert named and named <= logged
    documented = {name.split("/")[0] for name in named}
    assert {name for name in logged if name.split("/")[0] not in documented} == set()


def test_site_builds_with_the_environments_own_docstring_and_needs_no_network(tmp_path):
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    if not (ROOT / "docs" / "images" / "scenes.png").is_file():
        pytest.skip("docs/pictures.py has not drawn the pictures")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config
    from mkdocs.exceptions import Abort

    from fusion_gym.actions import ACTIONS
    from fusion_gym.observations import OBSERVATIONS

    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path), strict=True)
    try:
        config.plugins.on_startup(command="build", dirty=False)
        build(config)
    except Abort:
        pytest.fail("mkdocs build --strict gives warnings; run it to see them.")
    page = (tmp_path / "environment" / "index.html").read_text(encoding="utf-8")
    for name in (*ACTIONS, *(feature.name for feature in OBSERVATIONS)):
        assert f"<td>{name}</td>" in page
    for table in (ACTIONS.values(), OBSERVATIONS):
        assert all(f"<td>{html.escape(row.doc, quote=False)}</td>" in page for row in table)
    assert 'id="rewards"' in page and "docstring of" not in page
    for file in tmp_path.rglob("*.html"):
        fetched = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"(https?:)?//", file.read_text(encoding="utf-8"))
        assert not fetched, file
    assert not list(tmp_path.rglob("*.py"))
