"""An engine's executors say how many of them are needed."""

import pytest
from support import attached, open_job

from crossdock.demand import Need, Reported, need
from crossdock.errors import JobFenced, ProtocolError
from harness import StartWorker, WorkerProcess


def told(job_uid: str, workers: list[WorkerProcess]) -> Need | None:
    answers = [worker.request("GET", f"/v1/jobs/{job_uid}").json() for worker in workers]
    return need(Reported.from_json(each) for answer in answers for each in answer["demand"])


def test_a_driver_and_its_executors(start_worker: StartWorker) -> None:
    worker = start_worker()
    with open_job([worker]) as job:
        assert told(job.uid, [worker]) is None
        job.report_demand(12, reporter="driver")
        with attached(job, [worker]) as executor:
            executor.report_demand(reporter="executor-1", busy={"executor-1": 2})
            assert told(job.uid, [worker]) == Need(12, {"executor-1": 2})
        with pytest.raises(ProtocolError, match="tasks -1 is not a count"):
            job.report_demand(-1, reporter="driver")
        job.end()
        with pytest.raises(JobFenced):
            job.report_demand(1, reporter="driver")
