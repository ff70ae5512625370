"""The real rules on simulated devices: each job writes down which device it was given."""

import itertools

from tests.workflow.stand_ins import StandIns, most_at_once, stand_ins

DEVICES = "0,1,2,3"
SLEEP = 'case $name in "enhancer sample") sleep 0.6 ;; esac'
UNTIL = ("--cores", "16", "until_votes")


def sampled(run: StandIns, *arguments: str, hook: str = SLEEP, **variables: str):
    variables = {"DIFFIQA_DEVICES": DEVICES, **variables}
    done = run.snakemake(*UNTIL, *arguments, hook=hook, **variables)
    assert done.returncode == 0, done.stdout
    return run.calls("enhancer sample")


def shared_times(calls):
    """Pairs of calls that had a device in common at the same time."""
    return [
        (a, b)
        for a, b in itertools.combinations(calls, 2)
        if set(a.devices.split(",")) & set(b.devices.split(","))
        and a.start_s < b.end_s
        and b.start_s < a.end_s
    ]


def test_more_jobs_allowed_than_there_are_devices(tmp_path):
    """20 devices are announced and 4 exist: 4 jobs at a time, each with its own."""
    calls = sampled(stand_ins(tmp_path, shards=12), "--resources", "gpu=20")
    assert sorted(call.item for call in calls) == [f"{number:05}" for number in range(12)]
    assert {call.devices for call in calls} == set("0123")
    assert most_at_once(calls) <= 4
    assert shared_times(calls) == []


def test_the_users_choice_of_devices_is_honoured(tmp_path):
    calls = sampled(
        stand_ins(tmp_path, shards=4), "--resources", "gpu=20", CUDA_VISIBLE_DEVICES="5,7"
    )
    assert {call.devices for call in calls} == {"5", "7"}
    assert shared_times(calls) == []


def test_several_jobs_on_one_device_when_the_configuration_says_so(tmp_path):
    changes = {"enhancer": {"base_model": "train", "sample": {"jobs_per_gpu": 2}}}
    run = stand_ins(tmp_path, shards=6, changes=changes)
    calls = sampled(run, "--resources", "gpu=20", DIFFIQA_DEVICES="0,1")
    for device in "01":
        assert 1 < most_at_once([call for call in calls if call.devices == device]) <= 2


def test_training_takes_all_its_devices_or_waits(tmp_path):
    """Training asks for 3 of 4 devices; the base model and the shards for one each."""
    changes = {"scheduling": {"enhancer_train_gpus": 3}}
    run = stand_ins(tmp_path, shards=2, changes=changes)
    sampled(run, "--resources", "gpu=4", hook="sleep 0.2")
    (training,) = run.calls("enhancer train")
    assert len(set(training.devices.split(","))) == 3
    assert shared_times([call for call in run.calls() if call.devices != "none"]) == []


def test_fewer_devices_announced_than_there_are(tmp_path):
    calls = sampled(stand_ins(tmp_path, shards=3), "--resources", "gpu=1")
    assert most_at_once(calls) == 1
