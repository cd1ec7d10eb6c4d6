"""Actions of several stages at once, with a real worker."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Barrier

from runs import JobDirectory, maps, reduces

from crossdock.jobfile.load import load
from crossdock.stagefile import ShuffleSource
from crossdock.stages.actions import Actions, find_inputs
from crossdock.stages.events import Planned, Recorded
from crossdock.stages.places import LocalPlace
from crossdock.stages.rundir import RunDirectory
from harness import WAIT_SECONDS, WorkerProcess, connect_all

ROUNDS = 50
SIDES = ("left", "middle", "right")


def test_stages_that_are_recorded_at_once_all_name_their_winners_to_a_reader(
    tmp_path: Path,
) -> None:
    inputs = [{"stage": side} for side in SIDES]
    file = JobDirectory(
        tmp_path, *(maps(1, name=side) for side in SIDES), reduces(1, inputs=inputs)
    ).file
    job = load(file)
    run = RunDirectory.fresh(tmp_path / "run", clear=lambda *_: None)
    barrier = Barrier(len(SIDES), timeout=WAIT_SECONDS)
    with ExitStack() as stack:
        stack.callback(run.remove)
        worker = stack.enter_context(WorkerProcess()).start()
        cluster = stack.enter_context(connect_all([worker]))
        handle = stack.enter_context(cluster.job("job-1", owner="runner"))
        place = LocalPlace(
            run,
            job=handle.uid,
            data_root=file.parent,
            files=find_inputs(job, file.parent),
            overwrite=False,
        )
        actions = Actions(job, handle=handle, place=place)
        for shuffle in (handle.shuffle(side, partitions=6) for side in SIDES):
            for attempt in range(2):
                with shuffle.writer(map_id=0, attempt=attempt) as writer:
                    writer.write(0, b"%d" % attempt, rows=1)

        def record(side: str, attempt: int) -> None:
            barrier.wait()
            answer = actions.record(job.stage(side), {0: attempt})
            assert isinstance(answer, Recorded), answer

        reader = job.stage("reduce")
        with ThreadPoolExecutor(len(SIDES)) as pool:
            for number in range(ROUNDS):
                attempt = number % 2
                for done in [pool.submit(record, side, attempt) for side in SIDES]:
                    done.result(timeout=WAIT_SECONDS)
                if number == 0:
                    assert isinstance(actions.plan(reader), Planned)
                made = place.read(reader.name)
                assert made is not None
                told = [s for s in made.inputs if isinstance(s, ShuffleSource)]
                winners = {s.shuffle: s.winners for s in told}
                assert winners == dict.fromkeys(SIDES, ((0, attempt),)), number
