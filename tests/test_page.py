import importlib.machinery
import re
import sys
import types

import numpy as np
import pytest
from browser import CHROMIUM, Browser

from fusion_gym.cli import called
from fusion_gym.page import Chart, Line, Page, Scene, Table, action_lines, write_page

SIZE = (90, 120)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    gray, colour = np.full(SIZE, 40, np.uint8), np.full((*SIZE, 3), (200, 30, 30), np.uint8)
    page = Page(
        "A run <of> & \x1b[31mmine",
        "What came out.",
        "python train_agent.py --config 'a b.yml'",
        "seed: 1\n</script><script>alert(1)</script>",
        [
            Chart("score", "updates", {"total": Line([0, 10, 20], [0.1, float("nan"), 0.3])}, {"constant": 0.2}),
            Chart("actions", "updates", action_lines([10, 20], {"guidance": [0.25, 1.0]})),
        ],
        [Table("agents", ["agent", "return"], [["b", "−1.5 ± 2"], ["c", ""], ["a", "10.0 ± 1"], ["d", "9.0"]], "note")],
        [Scene("scene", {"infrared": gray, "visible": colour, "student": gray / 255})],
    )
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page(path, page)
    return path


def test_page_is_one_file_that_fetches_nothing_and_runs_nothing_of_a_names(path):
    text = path.read_text(encoding="utf-8")
    assert not re.findall(r"(?:src|href)=\"(?!data:)", text) and "://" not in text.replace("http://www.w3.org", "")
    assert text.count("<script") == 3 and "alert(1)</script>" not in text  # two charts' figures and the page's own
    assert "A run &lt;of&gt; &amp; \\x1b[31mmine" in text and "default-src 'none'" in text
    assert text.count("data:image/jpeg;base64,") == 3


@pytest.mark.parametrize(
    ("started", "module", "said"),
    [
        ("/x/agents/comparison/__main__.py", "agents.comparison.__main__", "python -m agents.comparison 'a b'"),
        ("/x/distill_student.py", None, "python distill_student.py 'a b'"),
        ("fusion-gym compare", "fusion_gym.__main__", "fusion-gym compare 'a b'"),
    ],
)
def test_the_command_that_does_it_again_is_one_that_runs(started, module, said, monkeypatch):
    main = types.ModuleType("__main__")
    main.__spec__ = module and importlib.machinery.ModuleSpec(module, None)
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "argv", [started, "a b"])
    assert called() == said


def test_actions_are_drawn_as_shares_of_their_ranges_and_said_as_they_are():
    line = action_lines([1, 2], {"guidance": [0.25, 1.0]})["guidance"]
    assert (line.y, line.said) == ([0.25, 1.0], ["0.25 weight", "1 weight"])


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def column(browser, number):
    return browser.run(f"[...document.querySelectorAll('tbody tr')].map(row => row.cells[{number}].textContent)")


@pytest.mark.parametrize("look", [{}, {"dark": True}, {"width": 390, "phone": True}], ids=["light", "dark", "phone"])
def test_page_in_a_browser_slides_sorts_shows_values_and_complains_of_nothing(path, browser, look):
    browser.open(path, **look)
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(20, 24, 29)" if look.get("dark") else "rgb(255, 255, 255)")
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")

    browser.run("document.querySelector('.stage').scrollIntoView({block: 'center'})")
    x, y, width, height = browser.run(
        "(box => [box.x, box.y, box.width, box.height])(document.querySelector('.stage').getBoundingClientRect())"
    )
    middle = y + height / 2
    browser.drag((x + width / 2, middle), (x + width * 0.6, middle), (x + width * 0.8, middle))
    at = browser.run("parseFloat(document.querySelector('.stage').style.getPropertyValue('--at'))")
    assert at == pytest.approx(80, abs=4)
    visible = "[...document.querySelectorAll('.stage img')].filter(i => getComputedStyle(i).visibility === 'visible')"
    assert browser.run(f"{visible}.map(image => image.alt)") == ["infrared", "student"]
    browser.run(
        "(side => { side.selectedIndex = 1; side.dispatchEvent(new Event('change')) })"
        "(document.querySelector('select.left'))"
    )
    assert browser.run(f"{visible}.map(image => image.alt)") == ["visible", "student"]
    browser.run("document.querySelector('.zoom').click()")
    assert browser.run("document.querySelector('.stage').offsetWidth") == SIZE[1]

    heads = "document.querySelectorAll('thead button')"
    browser.run(f"{heads}[1].click()")
    assert column(browser, 0) == ["a", "d", "b", "c"]  # 10, 9, -1.5, and no number last
    browser.run(f"{heads}[1].click()")
    assert column(browser, 0) == ["b", "d", "a", "c"]
    browser.run(f"{heads}[0].click()")
    assert column(browser, 0) == ["a", "b", "c", "d"]

    browser.run("document.querySelector('.plot').scrollIntoView({block: 'center'})")
    x, y, width = browser.run("(b => [b.x, b.y, b.width])(document.querySelector('.plot').getBoundingClientRect())")
    browser.move(x + width - 14, y + 60)
    shown = "[...document.querySelectorAll('.legend .value')].map(value => value.textContent)"
    assert browser.run(shown) == ["0.3", "0.2000", "1 weight"]  # both charts at 20 updates, and the constant
    browser.run("document.querySelector('.plot').scrollIntoView()")
    assert browser.said == []
