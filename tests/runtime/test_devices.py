import itertools
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from runtime import devices
from runtime.devices import lease_devices, visible_devices
from runtime.errors import ResourceError

RECORD = """
import json, os, sys, time
start = time.time(); time.sleep(float(sys.argv[2])); end = time.time()
json.dump([os.environ.get("CUDA_VISIBLE_DEVICES"), start, end], open(sys.argv[1], "w"))
"""


def environment(tmp_path, **more):
    kept = {
        k: v for k, v in os.environ.items() if k not in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID")
    }
    return {**kept, "DIFFIQA_DEVICES": "0,1", "DIFFIQA_LEASE_DIR": str(tmp_path / "locks"), **more}


def start(tmp_path, name, *flags, seconds=1.0, **more):
    command = [sys.executable, "-m", "runtime", "lease", *flags, "--"]
    command += [sys.executable, "-c", RECORD, str(tmp_path / f"{name}.out"), str(seconds)]
    return subprocess.Popen(command, env=environment(tmp_path, **more), stderr=subprocess.PIPE)


def overlaps(records):
    held = sorted((device, begin, end) for device, begin, end in records)
    pairs = itertools.pairwise(held)
    return [(a, b) for a, b in pairs if a[0] == b[0] and b[1] < a[2]]


def test_concurrent_jobs_get_distinct_devices(tmp_path):
    jobs = [start(tmp_path, str(number), seconds=0.4) for number in range(5)]
    assert [job.wait(timeout=120) for job in jobs] == [0] * 5
    records = [json.loads((tmp_path / f"{number}.out").read_text()) for number in range(5)]
    assert {device for device, _, _ in records} == {"0", "1"}
    assert overlaps(records) == []


def test_a_killed_job_frees_its_device_at_once(tmp_path):
    one_device = {"DIFFIQA_DEVICES": "7"}
    victim = start(tmp_path, "victim", seconds=60, **one_device)
    while b"leased device 7" not in victim.stderr.readline():
        assert victim.poll() is None
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    begin = time.monotonic()
    assert start(tmp_path, "next", seconds=0, **one_device).wait(timeout=60) == 0
    assert time.monotonic() - begin < 30
    assert json.loads((tmp_path / "next.out").read_text())[0] == "7"


def test_all_or_none_for_several_devices(tmp_path):
    assert start(tmp_path, "two", "--gpus", "2", seconds=0).wait(timeout=60) == 0
    assert json.loads((tmp_path / "two.out").read_text())[0] == "0,1"
    with pytest.raises(ResourceError, match="3 devices asked for, 2 visible"):
        lease_devices(3, environment=environment(tmp_path))


def test_user_choice_and_no_device(tmp_path):
    assert visible_devices({"CUDA_VISIBLE_DEVICES": "3,5", "DIFFIQA_DEVICES": "0"}) == ["3", "5"]
    assert visible_devices({"CUDA_VISIBLE_DEVICES": "1,-1,2"}) == ["1"]
    assert lease_devices(1, environment=environment(tmp_path, DIFFIQA_DEVICES="")) is None
    assert lease_devices(1, environment=environment(tmp_path, CUDA_VISIBLE_DEVICES="-1")) is None
    assert lease_devices(0, environment=environment(tmp_path)) is None


def test_a_scheduler_that_gave_just_what_was_asked_for_is_left_alone(tmp_path):
    given = environment(tmp_path, SLURM_JOB_ID="9", CUDA_VISIBLE_DEVICES="0")
    assert lease_devices(1, environment=given) is None
    assert not (tmp_path / "locks").exists()


def test_jobs_inside_a_large_allocation_share_it_out(tmp_path):
    given = environment(tmp_path, SLURM_JOB_ID="9", CUDA_VISIBLE_DEVICES="0,1,2")
    assert [lease_devices(1, environment=given) for _ in range(3)] == [["0"], ["1"], ["2"]]


def test_several_jobs_share_a_device_when_told(tmp_path):
    shared = environment(tmp_path)
    leased = [lease_devices(1, jobs_per_device=2, environment=shared) for _ in range(4)]
    assert leased == [["0"], ["1"], ["0"], ["1"]]


def test_a_job_that_wants_a_device_alone_does_not_share_it(tmp_path):
    two = environment(tmp_path)
    assert lease_devices(1, jobs_per_device=2, environment=two) == ["0"]
    assert lease_devices(1, environment=two) == ["1"]
    waiting = start(tmp_path, "late", seconds=0)
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(timeout=1.5)
    waiting.kill()
    waiting.wait()
    assert lease_devices(1, jobs_per_device=2, environment=two) == ["0"]


def test_without_nvidia_smi_the_driver_is_asked(tmp_path, monkeypatch):
    for address in ("0000:01:00.0", "0000:41:00.0"):
        (tmp_path / "gpus" / address).mkdir(parents=True)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(devices, "_DRIVER_DEVICES", tmp_path / "gpus")
    assert visible_devices({}) == ["0", "1"]


def modes(*paths):
    return [oct(stat.S_IMODE(path.stat().st_mode)) for path in paths]


@pytest.fixture
def careful_umask():
    before = os.umask(0o077)
    yield
    assert os.umask(before) == 0o077


def test_a_folder_that_the_user_names_is_open_to_other_users(tmp_path, careful_umask):
    locks = tmp_path / "new/locks"
    chosen = environment(tmp_path, DIFFIQA_LEASE_DIR=str(locks))
    assert lease_devices(1, jobs_per_device=2, environment=chosen) == ["0"]
    assert modes(locks.parent, locks) == ["0o700", "0o1777"]
    assert modes(*sorted(locks.iterdir())) == ["0o666", "0o666"]


def test_a_users_own_folder_stays_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    own = environment(tmp_path)
    del own["DIFFIQA_LEASE_DIR"]
    assert lease_devices(1, environment=own) == ["0"]
    assert modes(*tmp_path.iterdir()) == ["0o700"]


def test_locks_closed_to_this_user_are_one_clear_line(tmp_path, monkeypatch):
    def refused(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(ResourceError, match=r"device-0\.lock: no right .* DIFFIQA_LEASE_DIR"):
        lease_devices(1, environment=environment(tmp_path))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
def test_a_second_user_shares_the_devices(careful_umask):
    """The first has made the folder and a lock; the second waits for no lock and gets the other."""
    code = "import os; from runtime.devices import lease_devices; os.setgroups([]); "
    code += "os.setgid(65534); os.setuid(65534); os.umask(0o077); print(lease_devices(1))"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        both = environment(Path(folder))
        assert lease_devices(1, environment=both) == ["0"]
        second = [sys.executable, "-c", code]
        done = subprocess.run(second, env=both, capture_output=True, text=True, timeout=60)
        assert done.stdout == "['1']\n", done.stderr
