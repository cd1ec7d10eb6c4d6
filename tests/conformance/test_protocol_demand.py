"""Demand: an engine's word of how many executors it needs."""

import time

import pytest

from raw import Reply, Target


def say(target: Target, **fields: object) -> Reply:
    return target.peer.ask_json("PUT", f"{target.job_path}/demand", fields)


def said(target: Target) -> list[dict[str, object]]:
    found: list[dict[str, object]] = target.peer.ask("GET", target.job_path).json()["demand"]
    return found


def test_the_newest_word_of_each_reporter_is_told(target: Target) -> None:
    assert said(target) == []
    assert say(target, reporter="driver", tasks=40, busy={"a": 3, "b": 0}).status == 200
    assert say(target, reporter="other", tasks=1).status == 200
    assert say(target, reporter="driver", tasks=4).status == 200
    found = {each["reporter"]: each for each in said(target)}
    assert {name: each["tasks"] for name, each in found.items()} == {"driver": 4, "other": 1}
    assert found["driver"]["busy"] == {}
    assert found["driver"]["valid_seconds"] == 60.0
    age = found["driver"]["age_seconds"]
    assert isinstance(age, float)
    assert 0 <= age < 30
    uid = target.job_path.rpartition("/")[2]
    [listed] = [
        job for job in target.peer.ask("GET", "/v1/jobs").json()["jobs"] if job["uid"] == uid
    ]
    assert {each["reporter"] for each in listed["demand"]} == {"driver", "other"}


def test_jobs_are_listed_by_demand(target: Target) -> None:
    def listed() -> list[str]:
        jobs = target.peer.ask("GET", "/v1/jobs?demand=true").json()["jobs"]
        return [job["uid"] for job in jobs if target.job_path.endswith(job["uid"])]

    assert listed() == []
    assert say(target, reporter="driver", tasks=0).status == 200
    assert len(listed()) == 1


def test_a_word_is_forgotten_when_it_is_old(target: Target) -> None:
    assert say(target, reporter="driver", tasks=4, valid_seconds=0.05).status == 200
    end = time.monotonic() + 60
    while said(target):
        assert time.monotonic() < end


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"reporter": ""},
        {"reporter": "a", "tasks": -1},
        {"reporter": "a", "tasks": 1.5},
        {"reporter": "a", "tasks": True},
        {"reporter": "a", "busy": [1]},
        {"reporter": "a", "busy": {"x": -1}},
        {"reporter": "a", "busy": {"../x": 1}},
        {"reporter": "a", "valid_seconds": 0},
        {"reporter": "a", "valid_seconds": 3601},
        {"reporter": "a", "valid_seconds": "60"},
        {"reporter": "a", "more": 1},
    ],
)
def test_a_word_that_is_wrong_changes_nothing(target: Target, fields: dict[str, object]) -> None:
    reply = say(target, **fields)
    assert (reply.status, reply.code) == (400, "protocol")
    assert said(target) == []


def test_of_a_job_that_is_not_there(target: Target) -> None:
    target.peer.ask("POST", f"{target.job_path}/fence")
    reply = say(target, reporter="a", tasks=1)
    assert (reply.status, reply.code) == (410, "job_fenced")
