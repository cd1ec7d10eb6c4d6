"""What must survive of a job, in the API server: its state, and the stage files that Jobs mount."""

import base64
from contextlib import suppress
from dataclasses import replace

from crossdock.stagefile import StageFile, unpack
from crossdock_operator.errors import KubeError, Stale
from crossdock_operator.jobs.place import ClusterPlace, Packed
from crossdock_operator.jobs.render import config_map, file_name, state_name
from crossdock_operator.jobs.state import FILE, State
from crossdock_operator.kinds import CONFIG_MAP, Object
from crossdock_operator.kube import Kube
from crossdock_operator.records import Job


class Kept:
    """The state of one job, as this operator wrote it last."""

    def __init__(self, kube: Kube, body: Object, state: State) -> None:
        """Use `take_up`."""
        self._kube = kube
        self._body = body
        self.state = state
        self._made: set[str] = set()

    @classmethod
    async def take_up(cls, kube: Kube, job: Job, fresh: State) -> "Kept":
        """Take a job up: from now on no other operator writes its state.

        Args:
            kube: where it is.
            job: the job.
            fresh: its state, if nobody has taken it up before.

        Raises:
            Stale: another operator does so just now.
        """
        name = state_name(job)
        body = await kube.get(CONFIG_MAP, job.key.namespace, name)
        if body is None:
            made = config_map(job, name, {FILE: fresh.encode()}, immutable=False)
            return cls(kube, await kube.create(CONFIG_MAP, made), fresh)
        state = State.decode(base64.b64decode(body["binaryData"][FILE]))
        kept = cls(kube, body, state)
        await kept.save(replace(state, epoch=state.epoch + 1))
        return kept

    @classmethod
    async def pin(cls, kube: Kube, job: Job, fresh: State) -> None:
        """Keep the state of a job that is accepted, unless it is kept already."""
        body = config_map(job, state_name(job), {FILE: fresh.encode()}, immutable=False)
        with suppress(Stale):
            await kube.create(CONFIG_MAP, body)

    async def save(self, state: State) -> None:
        """Write the state, if it changed. What follows from it comes after.

        Raises:
            Stale: another operator has taken the job up.
        """
        if state == self.state:
            return
        data = {FILE: base64.b64encode(state.encode()).decode()}
        try:
            self._body = await self._kube.replace(CONFIG_MAP, {**self._body, "binaryData": data})
        except Stale:
            raise
        except KubeError:  # it may have been written: then the next try would take itself for other
            await self._catch_up(state)
            raise
        self.state = state

    async def _catch_up(self, state: State) -> None:
        metadata = self._body["metadata"]
        found = await self._kube.get(CONFIG_MAP, metadata["namespace"], metadata["name"])
        if found is not None and State.decode(base64.b64decode(found["binaryData"][FILE])) == state:
            self._body, self.state = found, state

    async def keep_file(self, job: Job, found: Packed) -> tuple[str, ...]:
        """Keep a stage file; return the names of the ConfigMaps with its parts, in order."""
        names = []
        for part, data in sorted(found.parts.items()):
            name = file_name(job, found.digest, part)
            names.append(name)
            if name in self._made:
                continue
            try:
                body = config_map(job, name, {part: data}, immutable=True)
                await self._kube.create(CONFIG_MAP, body)
            except Stale:
                pass  # its name says what is in it
            self._made.add(name)
        return tuple(names)

    async def restore(self, job: Job, place: ClusterPlace) -> None:
        """Read the stage files that an earlier operator kept."""
        for stage, names in self.state.files.items():
            parts: dict[str, bytes] = {}
            for name in names:
                body = await self._kube.get(CONFIG_MAP, job.key.namespace, name)
                for part, data in ((body or {}).get("binaryData") or {}).items():
                    parts[part] = base64.b64decode(data)
            place.write(StageFile.decode(unpack(parts), what=f"the file of stage {stage}"))
