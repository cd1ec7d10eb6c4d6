"""Who is there, lost or away, by what workers say of each other."""

from crossdock.errors import Unavailable
from crossdock.records import WorkerInfo
from crossdock.survey import Acquaintances, Survey


def info(name: str, state: str = "serving") -> WorkerInfo:
    return WorkerInfo(id=name, incarnation=1, url=f"http://{name}", state=state)


def surveyed(lists: dict[str, list[WorkerInfo]]) -> Survey:
    """Return a survey in which these workers have answered with what they list."""
    survey = Survey([f"http://{name}" for name in lists], Acquaintances())
    for name, listed in lists.items():
        survey.note(f"http://{name}", (info(name), listed))
    return survey


def test_who_is_gone_is_not_asked() -> None:
    survey = surveyed({"a": [info("c", "gone")], "b": [info("c", "unreachable")]})
    assert survey.next_urls() == []
    assert "c" in survey.found().lost


def test_who_is_gone_by_some_and_there_by_others_is_asked() -> None:
    """It had drained, and is back: some have heard of it before others."""
    for first, second in (("gone", "serving"), ("serving", "gone"), ("gone", "draining")):
        survey = surveyed({"a": [info("c", first)], "b": [info("c", second)]})
        assert survey.next_urls() == ["http://c"]
        survey.note("http://c", (info("c"), []))
        found = survey.found()
        assert "c" in found.reachable
        assert not found.lost


def test_who_does_not_answer_then_is_gone_all_the_same() -> None:
    survey = surveyed({"a": [info("c", "gone")], "b": [info("c", "serving")]})
    survey.note("http://c", Unavailable("nobody there"))
    found = survey.found()
    assert "c" in found.lost
    assert not found.silent
