"""The stage machine's decisions, one by one."""

import pytest

from crossdock.stages.events import (
    Action,
    Broken,
    CheckInputs,
    Finish,
    InputsChecked,
    Observe,
    Observed,
    OutputMissing,
    Plan,
    Planned,
    Record,
    Recorded,
    Start,
    Stop,
    TaskEnded,
    TaskId,
)
from crossdock.stages.machine import MAX_REPAIRS, Machine
from crossdock.stages.states import Checkpoint, StageRules

MAP, REDUCE = StageRules(name="map"), StageRules(name="reduce", upstream=("map",), final=True)
PAIR = [MAP, REDUCE]


def planned(machine: Machine, stage: str, tasks: int) -> list[int]:
    """Answer a plan; return the attempts that start."""
    ask = machine.stages[stage].ask
    started = machine.handle(Planned(stage, ({},) * tasks, ask))
    assert all(isinstance(a, Start) for a in started)
    return [a.task.attempt for a in started if isinstance(a, Start)]


def with_maps_recorded(machine: Machine, tasks: int = 2) -> list[int]:
    """Bring a machine of PAIR to where the reduce stage is planned; return the maps' attempts."""
    assert machine.begin() == [Plan("map", 1)]
    attempts = planned(machine, "map", tasks)
    for index, attempt in enumerate(attempts):
        record = machine.handle(TaskEnded(TaskId("map", index, attempt), None))
    assert record == [Record("map", dict(enumerate(attempts)), 2)]
    contents = {i: f"content {i}" for i in range(tasks)}
    assert Plan("reduce", 3) in machine.handle(Recorded("map", contents, 2))
    return attempts


def test_a_job_of_two_stages() -> None:
    machine = Machine(PAIR)
    with_maps_recorded(machine)
    [attempt] = planned(machine, "reduce", 1)
    assert machine.handle(TaskEnded(TaskId("reduce", 0, attempt), None)) == [
        Record("reduce", {0: attempt}, 4)
    ]
    assert machine.handle(Recorded("reduce", {}, 4)) == [Finish(None)]


def test_a_task_that_fails_too_often_ends_the_job_and_is_named() -> None:
    machine = Machine([StageRules(name="map", tries=2)])
    machine.begin()
    first, _ = planned(machine, "map", 2)
    again = machine.handle(TaskEnded(TaskId("map", 0, first), "exit code 1"))
    assert [type(a) for a in again] == [Start]
    assert isinstance(again[0], Start)
    assert machine.handle(TaskEnded(again[0].task, "exit code 7")) == [
        Finish("task 0 of stage map failed 2 times, last in attempt 2: exit code 7", again[0].task)
    ]


def test_output_that_ended_well_and_is_not_there_counts_as_a_failure() -> None:
    machine = Machine([StageRules(name="map", tries=1)])
    machine.begin()
    [attempt] = planned(machine, "map", 1)
    [record] = machine.handle(TaskEnded(TaskId("map", 0, attempt), None))
    assert isinstance(record, Record)
    [finish] = machine.handle(OutputMissing("map", {0: "nothing there"}, record.ask))
    assert finish == Finish(
        "task 0 of stage map failed once, last in attempt 0: nothing there",
        TaskId("map", 0, attempt),
    )


def test_output_that_was_there_and_is_lost_while_others_run_again_is_no_failure() -> None:
    machine = Machine([StageRules(name="map", tries=1), REDUCE])
    with_maps_recorded(machine)
    [task] = machine.handle(InputsChecked("reduce", {"map": frozenset({0})}, 3))
    assert isinstance(task, Start)
    assert task.task.index == 0
    [record] = machine.handle(TaskEnded(task.task, None))
    assert isinstance(record, Record)
    [again] = machine.handle(OutputMissing("map", {1: "lost meanwhile"}, record.ask))
    assert isinstance(again, Start)
    assert again.task.index == 1


def test_lost_maps_run_again_and_readers_that_are_done_stay_done_if_contents_are_equal() -> None:
    machine = Machine(PAIR)
    with_maps_recorded(machine)
    first, second = planned(machine, "reduce", 2)
    machine.handle(TaskEnded(TaskId("reduce", 0, first), None))
    [check] = machine.handle(TaskEnded(TaskId("reduce", 1, second), "cannot read"))
    assert isinstance(check, CheckInputs)
    [rerun] = machine.handle(InputsChecked("reduce", {"map": frozenset({1})}, check.ask))
    assert isinstance(rerun, Start)
    assert rerun.task.index == 1
    [record] = machine.handle(TaskEnded(rerun.task, None))
    assert isinstance(record, Record)
    same = {0: "content 0", 1: "content 1"}
    [start] = machine.handle(Recorded("map", same, record.ask))
    assert isinstance(start, Start)
    assert (start.task.stage, start.task.index) == ("reduce", 1)


def test_if_contents_differ_all_readers_begin_anew_also_after_a_kill() -> None:
    machine = Machine(PAIR)
    maps = with_maps_recorded(machine)
    first, second = planned(machine, "reduce", 2)
    machine.handle(TaskEnded(TaskId("reduce", 0, first), None))
    [check] = machine.handle(TaskEnded(TaskId("reduce", 1, second), "cannot read"))
    assert isinstance(check, CheckInputs)
    machine.handle(InputsChecked("reduce", {"map": frozenset({1})}, check.ask))
    machine = Machine(PAIR, epoch=1, checkpoint=machine.checkpoint())
    look_map, look_reduce = machine.begin()
    assert isinstance(look_map, Observe)
    assert isinstance(look_reduce, Observe)
    assert machine.handle(Observed("reduce", {0: first}, look_reduce.ask)) == []
    [rerun] = machine.handle(Observed("map", {0: maps[0]}, look_map.ask))
    assert isinstance(rerun, Start)
    assert machine.stages["map"].attempts == 2, "the one that was found, and the new one"
    [record] = machine.handle(TaskEnded(rerun.task, None))
    assert isinstance(record, Record)
    changed = {0: "content 0", 1: "something else"}
    [plan] = machine.handle(Recorded("map", changed, record.ask))
    assert isinstance(plan, Plan)
    later = planned(machine, "reduce", 2)

    # What the first plan's tasks wrote is of old data, though it is still to be found.
    machine = Machine(PAIR, epoch=2, checkpoint=machine.checkpoint())
    [look] = machine.begin()
    assert isinstance(look, Observe)
    assert first < look.since <= min(later)
    starts = machine.handle(Observed("reduce", {0: first, 1: later[1]}, look.ask))
    assert [a.task.index for a in starts if isinstance(a, Start)] == [0]


def test_final_stages_are_recorded_when_all_else_is_done() -> None:
    machine = Machine([MAP, REDUCE, StageRules(name="other", upstream=("map",))])
    with_maps_recorded(machine, 1)
    [result] = planned(machine, "reduce", 1)
    [other] = planned(machine, "other", 1)
    assert machine.handle(TaskEnded(TaskId("reduce", 0, result), None)) == []
    [record] = machine.handle(TaskEnded(TaskId("other", 0, other), None))
    assert isinstance(record, Record)
    [last] = machine.handle(Recorded("other", {0: "x"}, record.ask))
    assert isinstance(last, Record)
    assert last.stage == "reduce"


def test_output_that_is_lost_again_and_again_ends_the_job() -> None:
    machine = Machine(PAIR)
    with_maps_recorded(machine, 1)
    for _ in range(MAX_REPAIRS):
        ask = machine.stages["reduce"].ask
        [rerun] = machine.handle(InputsChecked("reduce", {"map": frozenset({0})}, ask))
        assert isinstance(rerun, Start)
        [record] = machine.handle(TaskEnded(rerun.task, None))
        assert isinstance(record, Record)
        machine.handle(Recorded("map", {0: "content 0"}, record.ask))
    ask = machine.stages["reduce"].ask
    [finish] = machine.handle(InputsChecked("reduce", {"map": frozenset({0})}, ask))
    assert finish == Finish(f"output of stage map was lost {MAX_REPAIRS + 1} times")


def test_answers_to_what_is_no_longer_asked_count_for_nothing() -> None:
    machine = Machine(PAIR)
    with_maps_recorded(machine)
    assert machine.handle(Planned("reduce", ({},), 2)) == []
    assert machine.handle(Broken("reduce", "an old plan failed", 2)) == []
    assert machine.handle(TaskEnded(TaskId("map", 0, 77), "never started")) == []
    assert machine.handle(TaskEnded(TaskId("reduce", 5, 0), "of no plan")) == []
    assert machine.finished is None


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (Stop("stopped by SIGINT"), "stopped by SIGINT"),
        (Broken("map", "no disk", 1), "stage map: "),
    ],
)
def test_what_ends_a_job_at_once(event: Stop | Broken, reason: str) -> None:
    machine = Machine(PAIR)
    machine.begin()
    [finish] = machine.handle(event)
    assert isinstance(finish, Finish)
    assert str(finish.failure).startswith(reason)
    assert machine.handle(Planned("map", ({},), 1)) == []


def test_a_runner_of_a_finished_job_has_nothing_to_do() -> None:
    machine = Machine(PAIR)
    with_maps_recorded(machine)
    [attempt] = planned(machine, "reduce", 1)
    [record] = machine.handle(TaskEnded(TaskId("reduce", 0, attempt), None))
    assert isinstance(record, Record)
    machine.handle(Recorded("reduce", {}, record.ask))
    later = Machine(PAIR, epoch=1, checkpoint=machine.checkpoint())
    assert later.begin() == [Finish(None)]
    assert Machine(PAIR, checkpoint=Checkpoint()).begin() == [Plan("map", 1)]


def test_a_plan_of_what_has_run_again_since_is_made_anew() -> None:
    machine = Machine([MAP, REDUCE, StageRules(name="other", upstream=("map",))])
    with_maps_recorded(machine, 1)
    slow = machine.stages["other"].ask
    [attempt] = planned(machine, "reduce", 1)
    [check] = machine.handle(TaskEnded(TaskId("reduce", 0, attempt), "cannot read"))
    assert isinstance(check, CheckInputs)
    [rerun] = machine.handle(InputsChecked("reduce", {"map": frozenset({0})}, check.ask))
    assert isinstance(rerun, Start)
    [record] = machine.handle(TaskEnded(rerun.task, None))
    assert isinstance(record, Record)
    machine.handle(Recorded("map", {0: "content 0"}, record.ask))
    [again] = machine.handle(Planned("other", ({},), slow))
    assert isinstance(again, Plan)
    assert again.ask != slow


OTHER = StageRules(name="other", upstream=("map",))


def map_changes(machine: Machine) -> list[Action]:
    """Lose the map that `with_maps_recorded` made, and record another in its place."""
    ask = machine.stages["reduce"].ask
    [rerun] = machine.handle(InputsChecked("reduce", {"map": frozenset({0})}, ask))
    assert isinstance(rerun, Start)
    [record] = machine.handle(TaskEnded(rerun.task, None))
    assert isinstance(record, Record)
    return machine.handle(Recorded("map", {0: "something else"}, record.ask))


def test_a_plan_waits_for_the_end_of_one_that_is_void() -> None:
    machine = Machine([MAP, REDUCE, OTHER])
    with_maps_recorded(machine, 1)
    slow = machine.stages["other"].ask
    assert [a.stage for a in map_changes(machine) if isinstance(a, Plan)] == ["reduce"]
    planned(machine, "reduce", 1)
    [again] = machine.handle(Planned("other", ({},), slow))
    assert isinstance(again, Plan)
    assert again.stage == "other"
    assert len(planned(machine, "other", 2)) == 2


def test_a_plan_waits_for_the_end_of_a_record_that_is_void() -> None:
    machine = Machine([MAP, REDUCE, OTHER])
    with_maps_recorded(machine, 1)
    [attempt] = planned(machine, "other", 1)
    [slow] = machine.handle(TaskEnded(TaskId("other", 0, attempt), None))
    assert isinstance(slow, Record)
    assert [a.stage for a in map_changes(machine) if isinstance(a, Plan)] == ["reduce"]
    [again] = machine.handle(Recorded("other", {0: "of old data"}, slow.ask))
    assert isinstance(again, Plan)
    assert again.stage == "other"


def test_a_failure_is_judged_by_a_look_at_the_inputs_after_it() -> None:
    machine = Machine([MAP, StageRules(name="reduce", upstream=("map",), tries=2)])
    with_maps_recorded(machine)
    first, second = planned(machine, "reduce", 2)
    [look] = machine.handle(TaskEnded(TaskId("reduce", 0, first), "exit code 1"))
    assert isinstance(look, CheckInputs)
    assert machine.handle(TaskEnded(TaskId("reduce", 1, second), "cannot read")) == []
    [again] = machine.handle(InputsChecked("reduce", {}, look.ask))
    assert isinstance(again, CheckInputs)
    [rerun] = machine.handle(InputsChecked("reduce", {"map": frozenset({0})}, again.ask))
    assert isinstance(rerun, Start)
    assert rerun.task.stage == "map"
    assert [t.failures for t in machine.stages["reduce"].tasks] == [0, 0]
