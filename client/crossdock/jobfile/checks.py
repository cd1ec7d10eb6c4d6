"""What a job must be beyond the schema: stages and inputs that fit together.

These look at documents that may be wrong elsewhere, so that all problems are told at once. What
has the wrong shape is passed over here: the schema tells of it.
"""

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field

from crossdock.jobfile.report import FieldPath, Report, nearest, shown
from crossdock.jobfile.values import items, mapping, text


@dataclass(slots=True, kw_only=True)
class _Earlier:
    """Stages so far."""

    all_names: list[str]
    """Of these stages, and of those to come."""
    names: list[str] = field(default_factory=list)
    shuffles: dict[str, object] = field(default_factory=dict)
    """Partitions by stage with a shuffle."""
    directories: dict[str, str] = field(default_factory=dict)
    """Stage by directory of final output."""


def check(document: Mapping[str, object], report: Report) -> None:
    """Note every problem of a document's stages that the schema cannot see."""
    stages = [mapping(s) for s in items(mapping(document.get("spec")).get("stages"))]
    earlier = _Earlier(all_names=[text(s.get("name")) for s in stages])
    for n, stage in enumerate(stages):
        path: FieldPath = ("spec", "stages", n)
        name = text(stage.get("name"))
        if name and name in earlier.names:
            at = earlier.names.index(name)
            report.add((*path, "name"), f"is that of stages[{at}] too", "names are unique")
        _check_inputs(stage, path, earlier, report)
        _check_parallelism(stage, path, report)
        _check_command(stage, path, report)
        _check_output(stage, path, earlier, report)
        earlier.names.append(name)


def _check_inputs(
    stage: Mapping[str, object],
    path: FieldPath,
    earlier: _Earlier,
    report: Report,
) -> None:
    seen: set[str] = set()
    split_at: int | None = None
    partitions: tuple[str, object] | None = None
    for n, each in enumerate(map(mapping, items(stage.get("inputs")))):
        at = (*path, "inputs", n)
        source = text(each.get("stage"))
        _check_name(each, at, seen, report)
        _check_reading(each, at, report)
        if source:
            _check_source(source, (*at, "stage"), stage, earlier, report)
        if each.get("split") is True:
            if split_at is not None:
                what = f"is true for inputs[{split_at}] too"
                report.add((*at, "split"), what, "one input of a stage can be split")
            split_at = n if split_at is None else split_at
        if each.get("read") == "All" or not isinstance(earlier.shuffles.get(source), int):
            continue
        count = earlier.shuffles[source]
        if partitions is None:
            partitions = (source, count)
        elif partitions[1] != count:
            what = f"has {count} partitions, and {partitions[0]} has {partitions[1]}"
            remedy = "tasks read the same partitions of both: make them equal, or read: All of one"
            report.add((*at, "stage"), what, remedy)


def _check_name(
    each: Mapping[str, object], path: FieldPath, seen: set[str], report: Report
) -> None:
    name = input_name(each)
    if name and name in seen:
        remedy = "names of a stage's inputs are unique: give this one a name"
        report.add((*path, "name"), f"is {shown(name)} for an earlier input too", remedy)
    seen.add(name)


def input_name(each: Mapping[str, object]) -> str:
    """Return the name of an input as it stands in the file, or its default."""
    return text(each.get("name", "files" if "files" in each else each.get("stage")))


def _check_reading(each: Mapping[str, object], path: FieldPath, report: Report) -> None:
    if "files" in each and "stage" not in each:
        for name in ("read", "split"):
            if name in each:
                report.add((*path, name), "is for shuffles only", "files are shared out whole")
    elif each.get("read") == "All" and each.get("split") is True:
        report.add((*path, "split"), "does not go with read: All", "every task reads all of it")


def _check_source(
    source: str,
    path: FieldPath,
    stage: Mapping[str, object],
    earlier: _Earlier,
    report: Report,
) -> None:
    if source in earlier.shuffles:
        return
    if source in earlier.names:
        what = f"names the stage {source}, which has no shuffle"
        report.add(path, what, "give it output.shuffle, or read what it wrote as files")
    elif source == stage.get("name"):
        report.add(path, "is the stage itself", "name an earlier stage")
    elif source in earlier.all_names:
        what = f"names the stage {source}, which comes later"
        report.add(path, what, "move it before this one: stages run in order")
    else:
        like = nearest(source, earlier.shuffles)
        known = f"earlier shuffles: {', '.join(earlier.shuffles) or 'none'}"
        report.add(
            path,
            f"names {source}, and no stage is called so",
            f"{like} is meant?" if like else known,
        )


def _check_parallelism(stage: Mapping[str, object], path: FieldPath, report: Report) -> None:
    if stage.get("parallelism", "auto") != "auto":
        return
    inputs = stage.get("inputs", [])
    if not isinstance(inputs, list):
        return
    if not inputs:
        what = "must be a number in a stage without inputs"
        report.add((*path, "parallelism"), what, "how many tasks shall there be?")
    elif all(mapping(each).get("read") == "All" for each in inputs):
        what = "must be a number where all inputs are read: All"
        report.add((*path, "parallelism"), what, "nothing else says how many tasks there shall be")


def _check_command(stage: Mapping[str, object], path: FieldPath, report: Report) -> None:
    pod = mapping(mapping(stage.get("podTemplate")).get("spec"))
    containers = items(pod.get("containers"))
    if not containers or not isinstance(containers[0], dict):
        return
    if containers[0].get("command", []) == [] or items(containers[0].get("command"))[:1] == [""]:
        at = (*path, "podTemplate", "spec", "containers", 0, "command")
        report.add(at, "names no program", "a process has no image to know it from")


def _check_output(
    stage: Mapping[str, object], path: FieldPath, earlier: _Earlier, report: Report
) -> None:
    name, output = text(stage.get("name")), mapping(stage.get("output"))
    if isinstance(output.get("shuffle"), dict):
        earlier.shuffles.setdefault(name, mapping(output["shuffle"]).get("partitions"))
    elif "shuffle" in output or not output:
        earlier.shuffles.setdefault(name, None)  # it is wrong itself: say so once, not at readers
    directory = text(output.get("files"))
    if not directory:
        return
    directory = directory if "://" in directory else posixpath.normpath(directory)
    for other, owner in earlier.directories.items():
        if _overlap(directory, other):
            what = f"is, or lies in, or holds the output {other} of stage {owner}"
            report.add((*path, "output", "files"), what, "give each stage a directory of its own")
    earlier.directories.setdefault(directory, name)


def _overlap(one: str, other: str) -> bool:
    """Whether two directories are the same, or one lies in the other."""
    one, other = (f"{path.rstrip('/')}/".removeprefix("./") for path in (one, other))
    return one.startswith(other) or other.startswith(one)
