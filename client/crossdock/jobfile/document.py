"""YAML text → the one ShuffleJob in it, as JSON values, with the line of every field.

Values are what `kubectl` makes of them: `no` and `on` are booleans as in YAML 1.1, dates and 1:30
are text. What was written is kept, so that errors can tell. Depth and number of nodes are
bounded, which also ends recursive aliases and alias bombs.
"""

import math
from typing import Final

import yaml

from crossdock.jobfile.report import FieldPath, Report, Spot, nearest, shown

KIND: Final = "ShuffleJob"
MAX_DEPTH: Final = 50
MAX_NODES: Final = 100_000
"""Counted after aliases are put in."""

_TAG: Final = "tag:yaml.org,2002:"
_HINTS: Final = {
    "cannot start any token": "indent with spaces, and quote texts that begin with @ or `",
    "mapping values are not allowed here": "quote a text that has `: ` in it; check indentation",
    "could not find expected ':'": "a field is written `name: value`",
}


class _TooMuch(Exception):
    """The document is deeper or larger than a job file can be."""


class _Loader(yaml.SafeLoader):
    """The safe loader with a bound on nesting, since it recurses."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:
        self._depth += 1
        try:
            if self._depth > MAX_DEPTH:
                mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
                raise yaml.MarkedYAMLError(None, None, f"more than {MAX_DEPTH} levels deep", mark)
            return super().compose_node(parent, index)  # type: ignore[arg-type]
        finally:
            self._depth -= 1


def read_job(text: str, report: Report) -> dict[str, object] | None:
    """Return the file's ShuffleJob as it stands, or None after noting why there is none.

    Problems that leave the document readable, such as a field given twice, are noted as well.
    """
    roots = _compose(text, report)
    if roots is None:
        return None
    jobs = [root for root in roots if _kind(root) == KIND]
    for root in roots:
        if root not in jobs:
            _check_other(root, alone=not jobs, report=report)
    if not jobs:
        if not any(map(_kind, roots)):
            report.add((), f"has no document of kind {KIND}", f"begin with kind: {KIND}")
        return None
    for another in jobs[1:]:
        report.add(("kind",), f"is a second {KIND}", "one file holds one job", line=_line(another))
    try:
        value = _Converter(report).convert(jobs[0], ())
    except _TooMuch as error:
        report.add((), str(error), "use fewer aliases")
        return None
    return value if isinstance(value, dict) else None


def _compose(text: str, report: Report) -> list[yaml.Node] | None:
    """Return the root nodes of the documents that are not empty."""
    roots = []
    try:
        loader = _Loader(text)
        while loader.check_node():
            roots.append(loader.get_node())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = str(error.problem or error.context or "is no YAML")
        hint = next((hint for part, hint in _HINTS.items() if part in what), "")
        report.add((), f"is no YAML: {what}", hint, line=mark.line + 1 if mark else 1)
        return None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        report.add((), f"holds the character U+{ord(text[error.position]):04X}", line=line)
        return None
    except (ValueError, OverflowError):  # "\UFFFFFFFF" gets as far as chr()
        report.add((), "is no YAML: an escaped character does not exist", line=loader.line + 1)
        return None
    return [r for r in roots if r is not None and r.tag != f"{_TAG}null"]


def _check_other(root: yaml.Node, *, alone: bool, report: Report) -> None:
    """Note what is wrong with a document that is no job: other kinds are none of our business."""
    kind = _kind(root)
    if not isinstance(root, yaml.MappingNode):
        report.add((), "must be a mapping with apiVersion, kind, metadata, spec", line=_line(root))
    elif not kind:
        keys = {str(k.value): _line(k) for k, _ in root.value}
        like = nearest("kind", keys)
        remedy = f"{like} is meant?" if like and like != "kind" else f"kind: {KIND}"
        report.add(("kind",), "is missing", remedy, line=keys.get(like, _line(root)))
    elif alone:
        remedy = f"{KIND} is meant?" if nearest(kind, [KIND]) else f"add one of kind {KIND}"
        what = f"is {shown(kind)}, and no document is a {KIND}"
        report.add(("kind",), what, remedy, line=_line(root))


def _kind(root: yaml.Node) -> str:
    if isinstance(root, yaml.MappingNode):
        for key, value in root.value:
            if key.value == "kind" and isinstance(value, yaml.ScalarNode):
                return str(value.value)
    return ""


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


class _Converter:
    """Nodes → JSON values. Notes where each field stands."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._scalars = yaml.constructor.SafeConstructor()
        self._nodes = 0

    def convert(self, node: yaml.Node, path: FieldPath, *, line: int = 0) -> object:
        """Return the node's value; `line` is its key's, if it has one."""
        self._count(len(path))
        line = line or _line(node)
        self._report.spots[path] = Spot(line)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.convert(item, (*path, n)) for n, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode), "YAML has three kinds of nodes"
        value = self._scalar(node, path)
        if not isinstance(value, str):
            self._report.spots[path] = Spot(line, str(node.value))
        return value

    def _mapping(self, node: yaml.MappingNode, path: FieldPath) -> dict[str, object]:
        pairs = self._pairs(node, path, depth=0)
        return {k: self.convert(v, (*path, k), line=line) for k, (line, v) in pairs.items()}

    def _pairs(
        self, node: yaml.MappingNode, path: FieldPath, *, depth: int
    ) -> dict[str, tuple[int, yaml.Node]]:
        """Return line and value of each key. Keys of its own count before merged ones."""
        self._count(depth)
        pairs: dict[str, tuple[int, yaml.Node]] = {}
        sources: list[yaml.Node] = []
        for key_node, value in node.value:
            if key_node.tag == f"{_TAG}merge":
                sources += value.value if isinstance(value, yaml.SequenceNode) else [value]
                continue
            key, line = self._key(key_node, path), _line(key_node)
            if key in pairs:
                what = f"is given twice, in line {pairs[key][0]} already"
                self._report.add((*path, key), what, "remove one", line=line)
            else:
                pairs[key] = (line, value)
        for source in sources:
            if isinstance(source, yaml.MappingNode):
                pairs = self._pairs(source, path, depth=depth + 1) | pairs
            else:
                what = "<< merges mappings, and this is none"
                self._report.add(path, what, "<<: *anchor", line=_line(source))
        return pairs

    def _count(self, depth: int) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES or depth > MAX_DEPTH:
            raise _TooMuch("is too large, or holds itself, once aliases are put in")

    def _key(self, node: yaml.Node, path: FieldPath) -> str:
        if not isinstance(node, yaml.ScalarNode):
            self._report.add(path, "has a key that is no text", line=_line(node))
            return ""
        value = self._scalar(node, path)
        if not isinstance(value, str):
            what = f"has the key {node.value}, which YAML reads as {shown(value)}"
            self._report.add(path, what, f'quote it: "{node.value}"', line=_line(node))
        return value if isinstance(value, str) else str(node.value)

    def _scalar(self, node: yaml.ScalarNode, path: FieldPath) -> object:
        """Return text, a number, a boolean or None."""
        written, tag = str(node.value), str(node.tag)
        kind = tag.removeprefix(_TAG)
        problem = f"has the tag {tag}"
        remedy = "job files need no tags"
        try:
            if any("\ud800" <= c <= "\udfff" for c in written):  # JSON's escapes come in pairs
                written = written.encode("utf-16", "surrogatepass").decode("utf-16")
            if kind in {"str", "timestamp", "value", "merge"} or ":" in written:
                return written
            if kind == "null":
                return None
            if kind == "bool":
                return bool(self._scalars.construct_yaml_bool(node))
            if kind == "int":
                return int(self._scalars.construct_yaml_int(node))
            if kind == "float":
                number = float(self._scalars.construct_yaml_float(node))
                if math.isfinite(number):
                    return number
                problem, remedy = f"is {written}", "numbers are finite"
        except UnicodeDecodeError:
            problem, remedy = "holds half of a surrogate pair", "write the character itself"
            written = written.encode("utf-8", "replace").decode()
        except (ValueError, KeyError):
            problem, remedy = f"is {shown(written)}, which is no {kind}", "quote it if it is text"
        self._report.add(path, problem, remedy, line=_line(node))
        return written
