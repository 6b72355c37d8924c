"""Processes of tests are what they should be: one that hangs or fails is named, and none goes on."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import processes
import pytest


def about_itself(folder):
    server = f"/proc/{os.getppid()}"
    missing = [name for name in processes.MODULES if name not in sys.modules]
    (folder / "found").write_text(f"{missing} {len(os.listdir(f'{server}/task'))} {os.environ['GIVEN']} {os.environ['SET']}")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are counted in /proc")
def test_they_are_forked_from_a_server_without_threads_that_has_imported_what_they_need(tmp_path, monkeypatch):
    monkeypatch.setenv("SET", "now")  # the server was started before
    threading.Thread(target=time.sleep, args=(0.5,)).start()
    processes.finish(processes.start(about_itself, tmp_path, environment={"GIVEN": "here"}))
    assert (tmp_path / "found").read_text() == "[] 1 here now"


def one_hangs(rank, world):
    if rank == 1:
        threading.Event().wait()


def one_fails(rank, world):
    if rank == 1:
        raise ValueError("the mistake of rank 1")
    time.sleep(30)


def test_one_that_hangs_says_where():
    before = time.monotonic()
    with pytest.raises(pytest.fail.Exception, match=r"Timeout[\s\S]*in one_hangs"):
        processes.together(2, one_hangs, limit=0.3)
    assert time.monotonic() - before < 20


def test_one_that_fails_says_what_and_the_others_are_killed():
    before = time.monotonic()
    with pytest.raises(pytest.fail.Exception, match="the mistake of rank 1"):
        processes.together(2, one_fails)
    assert time.monotonic() - before < 20
    assert not multiprocessing.active_children()


def test_the_command_line_is_a_process():
    found = processes.program("generat")
    assert found.wait() == 2
    assert "generat" in found.stderr
    assert not found.stdout


def test_nothing_keeps_the_interpreter_after_the_summary():
    code = "import processes, threading; threading.Thread(target=threading.Event().wait).start(); processes.exit_within(0.2)"
    place = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    found = subprocess.run([sys.executable, "-c", code], env=place, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 1
    assert "in _shutdown" in found.stderr
