"""Commands whose standard streams are absent, closed, full or gone do their work."""

import os
import subprocess
import sys

import pytest

from fusion_gym.cli import guard
from fusion_gym.text import say

pytestmark = pytest.mark.skipif(os.name == "nt", reason="these are the shell's ways of Unix")

WORK = """
import sys
from pathlib import Path
from tqdm import tqdm
from fusion_gym.cli import guard
from fusion_gym.text import say

def work():
    with open(sys.argv[1], "w") as file:
        for _ in tqdm(range(3), mininterval=0):
            say("beside", error=True)
            file.write("x")
        assert file.fileno() > 2
    if sys.argv[2:]:
        raise ValueError("it is wrong")
    say("done")

sys.exit(guard("work", work, ""))
"""
FULL = os.path.exists("/dev/full")


@pytest.mark.parametrize(
    ("streams", "code"),
    [
        ("2>&-", 0),
        (">&- 2>&-", 0),
        ("<&- >&- 2>&-", 0),
        pytest.param("2>/dev/full", 0, marks=pytest.mark.skipif(not FULL, reason="this system has no /dev/full")),
        pytest.param(">/dev/full 2>&-", 2, marks=pytest.mark.skipif(not FULL, reason="this system has no /dev/full")),
        pytest.param("2>&1 >/dev/null | true", 0),
    ],
)
@pytest.mark.parametrize("mistake", [False, True])
def test_work_is_done_whatever_becomes_of_what_is_said_beside_it(streams, code, mistake, tmp_path):
    script = 'out=$1; shift; "$0" -c "$WORK" "$out" "$@" ' + streams + "; exit ${PIPESTATUS[0]}"
    command = ["bash", "-c", script, sys.executable, str(tmp_path / "out"), *["mistake"] * mistake]
    done = subprocess.run(command, env={**os.environ, "WORK": WORK}, capture_output=True, text=True)
    assert (tmp_path / "out").read_text() == "xxx", done.stderr
    assert done.returncode == (2 if mistake else code)


def test_streams_are_as_they_were_afterwards(capsys):
    before = sys.stdout, sys.stderr

    def work():
        assert sys.stderr is not before[1] and sys.stderr.encoding == before[1].encoding
        say("one")
        say("two", error=True)

    assert guard("work", work, "") == 0
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr() == ("one\n", "two\n")
