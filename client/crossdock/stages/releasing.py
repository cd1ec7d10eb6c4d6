"""Which shuffles of a staged job may go before its end. Pure.

A shuffle that is lost is computed again from what its stage has read. So what a stage has read is
needed for as long as its own output may be lost: until that is in the store. And where maps of a
shuffle come out otherwise than before, all that was computed from it begins anew, and reads again
whatever it reads. That happens only to shuffles that somebody still reads, since only readers find
that something is lost.

So a shuffle may go when everything that was computed from it directly is *safe*, that is recorded
and in the store, and so is all that reads anything from which that was computed.
"""

from collections.abc import Mapping

from crossdock.stages.states import Phase, StageState


class Releasing:
    """The shuffles of one run that may go. Nothing of it has to survive: asked again, all is so."""

    def __init__(self, stages: Mapping[str, StageState]) -> None:
        """Begin. Args: `stages` are the machine's own, in order: each after those it reads."""
        self._stages = stages
        above: dict[str, set[str]] = {}
        readers: dict[str, set[str]] = {name: set() for name in stages}
        for name, stage in stages.items():
            above[name] = set(stage.rules.upstream).union(*(above[u] for u in stage.rules.upstream))
            for upstream in stage.rules.upstream:
                readers[upstream].add(name)
        self._needed = {
            name: read | {r for reader in read for a in above[reader] for r in readers[a]}
            for name, read in readers.items()
            if read
        }
        """By stage that others read: those that must be safe before its shuffle goes."""
        self._safe: dict[str, int] = {}
        """By stage, the version of its output that is in the store."""
        self._released: set[str] = set()

    def to_secure(self) -> list[str]:
        """Return stages whose output must go to the store, so that a shuffle can be released.

        Where that would not be enough, since some reader is not done, it is not worth a request.
        """
        done = {name for name, stage in self._stages.items() if stage.phase is Phase.DONE}
        wanted = {
            name
            for shuffle, needed in self._needed.items()
            if shuffle not in self._released and needed <= done
            for name in needed
        }
        return [name for name in self._stages if name in wanted and not self._is_safe(name)]

    def to_release(self) -> list[str]:
        """Return stages whose shuffles may go now."""
        return [
            name
            for name, needed in self._needed.items()
            if name not in self._released and all(map(self._is_safe, needed))
        ]

    def version(self, stage: str) -> int:
        """Return the version of a stage's output, to be given to `secured`."""
        return self._stages[stage].version

    def secured(self, stage: str, version: int) -> None:
        """Note that this version of a stage's output is in the store."""
        self._safe[stage] = version

    def released(self, stage: str) -> None:
        """Note that a stage's shuffle is released."""
        self._released.add(stage)

    def _is_safe(self, name: str) -> bool:
        stage = self._stages[name]
        published = stage.rules.final or self._safe.get(name) == stage.version
        return stage.phase is Phase.DONE and published
