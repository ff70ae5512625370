import fcntl
import os
import subprocess
import sys
import time

from runtime.exclusive import hold, release

HOLDER = """
import sys, time
from pathlib import Path
from runtime.exclusive import hold
hold(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


def holder(state, seconds):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(state), str(seconds)], stdout=subprocess.PIPE
    )
    return process


def test_a_second_process_waits_until_the_first_is_gone(tmp_path):
    state = tmp_path / ".state/00003"
    first = holder(state, 60)
    assert first.stdout.readline() == b"held\n"
    second = holder(state, 0)
    time.sleep(1.5)
    assert second.poll() is None
    first.kill()
    first.wait()
    assert second.wait(timeout=30) == 0


def test_other_shards_do_not_wait(tmp_path):
    first = holder(tmp_path / ".state/00003", 60)
    assert first.stdout.readline() == b"held\n"
    hold(tmp_path / ".state/00004")
    release(tmp_path / ".state/00004")
    first.kill()
    first.wait()


def test_the_same_process_may_open_again_and_leaves_no_file(tmp_path):
    state = tmp_path / ".state"
    hold(state)
    hold(state)
    assert (tmp_path / ".state.lock").exists()
    release(state)
    release(state)
    assert list(tmp_path.iterdir()) == []


def test_only_the_first_process_of_a_training_holds(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    hold(tmp_path / ".state")
    assert list(tmp_path.iterdir()) == []


def test_who_waited_for_a_removed_lock_waits_for_the_new_one(tmp_path):
    state, lock = tmp_path / ".state", tmp_path / ".state.lock"
    old = os.open(lock, os.O_RDWR | os.O_CREAT)
    fcntl.lockf(old, fcntl.LOCK_EX)
    waiting = holder(state, 0)
    time.sleep(1.5)
    lock.unlink()
    third = holder(state, 60)
    assert third.stdout.readline() == b"held\n"
    os.close(old)
    time.sleep(1.5)
    assert waiting.poll() is None, "two processes hold the same stage"
    third.kill()
    third.wait()
    assert waiting.wait(timeout=30) == 0
