import io
import os
import signal
import subprocess
import sys
import time

import pytest

from fusion_gym.cli import guard
from fusion_gym.stopping import Stopped, stoppable, whole
from fusion_gym.text import say

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
TERM = signal.SIGTERM

WRITER = """
import sys, time
from fusion_gym.cli import guard
from fusion_gym.files import atomic_path

def work():
    with atomic_path(sys.argv[1]) as temporary:
        try:
            temporary.write_text("half")
            print("begun", flush=True)
            time.sleep(30)
        except KeyboardInterrupt:
            time.sleep(0.5)
            print("saved", flush=True)
            raise

sys.exit(guard("work", work, "Stopped."))
"""


def started(path):
    command = [sys.executable, "-c", WRITER, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_each_request_to_stop_cleans_up_saves_and_says_so(name, code, tmp_path):
    process = started(tmp_path / "a.txt")
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err.strip()) == (code, "saved\n", "Stopped.")
    assert not list(tmp_path.iterdir())


def test_a_request_that_arrives_twice_does_not_cut_the_saving(tmp_path):
    process = started(tmp_path / "a.txt")
    for _ in range(3):  # as `timeout` sends it to the process and to its group
        process.send_signal(TERM)
        time.sleep(0.1)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err.strip()) == (143, "saved\n", "Stopped.")


def test_what_a_kill_leaves_is_removed_at_the_next_writing(tmp_path):
    from fusion_gym.files import atomic_write

    process = started(tmp_path / "a.txt")
    process.kill()
    process.communicate()
    assert len(list(tmp_path.iterdir())) == 1
    going_on = started(tmp_path / "a.txt")  # which removes what the first left, and has one of its own
    atomic_write(tmp_path / "a.txt", "whole")
    assert len(list(tmp_path.iterdir())) == 2
    going_on.kill()
    going_on.communicate()
    atomic_write(tmp_path / "b.txt", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt"]


def test_a_block_is_not_cut_by_a_request_which_comes_at_its_end():
    done = []
    with pytest.raises(Stopped) as stop, stoppable():
        with whole():
            os.kill(os.getpid(), TERM)
            done.append("inside")
        done.append("after")
    assert done == ["inside"] and stop.value.code == 143


def test_signals_that_are_ignored_or_handled_stay_so_and_all_is_restored():
    seen = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN), signal.signal(TERM, lambda *_: seen.append("own"))
    try:
        with stoppable():
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), TERM)
        assert seen == ["own"]
    finally:
        signal.signal(signal.SIGHUP, before[0])
        signal.signal(TERM, before[1])
    with stoppable():
        assert signal.getsignal(TERM) is not before[1]
    assert signal.getsignal(TERM) == before[1]


def test_a_forked_child_ends_by_the_signal_alone():
    with stoppable():
        child = os.fork()
        if not child:
            time.sleep(20)
            os._exit(0)
        time.sleep(0.1)
        os.kill(child, TERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -TERM


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("utf-8", "α − ↓ ± … é"),
        ("ascii", "alpha - v +- ... e"),
        ("latin-1", "alpha - v ± ... é"),
        ("cp1252", "alpha - v ± … é"),
        ("cp437", "α - v ± ... é"),
    ],
)
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_what_a_code_page_lacks_is_shown_by_what_it_has(encoding, shown, stream, monkeypatch):
    bare = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict", newline="\n")
    monkeypatch.setattr(sys, stream, bare)
    assert guard("work", lambda: say("α − ↓ ± … é", error=stream == "stderr"), "") == 0
    bare.flush()
    assert bare.buffer.getvalue().decode(encoding) == f"{shown}\n"
    assert bare.errors == "strict"


def test_a_choice_of_the_users_for_what_cannot_be_shown_stays(monkeypatch):
    bare = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="replace")
    monkeypatch.setattr(sys, "stdout", bare)
    assert guard("work", lambda: say("↓"), "") == 0
    bare.flush()
    assert bare.buffer.getvalue() == b"?\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_lists_and_tables_of_metrics_go_to_any_code_page(encoding, monkeypatch):
    from fusion_gym.metrics import __main__ as command

    bare = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", bare)
    assert command.main(["--list"]) == 0
    bare.flush()
    assert "over the histogram" in bare.buffer.getvalue().decode(encoding)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_output_to_a_full_disk_is_one_sentence():
    script = "import sys; from fusion_gym.cli import guard; sys.exit(guard('work', lambda: print('x'), ''))"
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", script], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "work: A file or a stream cannot be read or written: No space left on device.\n"
