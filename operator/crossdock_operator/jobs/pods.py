"""What pods of a Job say of their ends: why they failed, and which of them wrote the files."""

from collections.abc import Mapping
from typing import Final

from crossdock.stagefile import attempt_of_pod
from crossdock_operator.jobs.batch import Batch
from crossdock_operator.kinds import POD, Object
from crossdock_operator.kube import Kube

INDEX: Final = "batch.kubernetes.io/job-completion-index"
OF_JOB: Final = "batch.kubernetes.io/job-name"
_LINE_CHARACTERS: Final = 300


async def failures(kube: Kube, namespace: str, job: str, batch: Batch) -> dict[int, str]:
    """Return why tasks of a Job failed, by the task's index."""
    found: dict[int, str] = {}
    async for pod in kube.every(POD, namespace, labels=f"{OF_JOB}={job}"):
        if (pod.get("status") or {}).get("phase") == "Failed":
            found[_task(pod, batch)] = failure_of(pod)
    return found


async def writers(kube: Kube, namespace: str, job: str, batch: Batch) -> dict[int, int]:
    """Return the attempts under which the tasks of a Job wrote that succeeded, by index."""
    found: dict[int, int] = {}
    async for pod in kube.every(POD, namespace, labels=f"{OF_JOB}={job}"):
        if (pod.get("status") or {}).get("phase") == "Succeeded":
            found[_task(pod, batch)] = attempt_of_pod(batch.attempt, pod["metadata"]["uid"])
    return found


def failure_of(pod: Object) -> str:
    """Return one line that says why a pod failed."""
    status = pod.get("status") or {}
    if status.get("reason") or status.get("message"):
        said = f"{status.get('reason', '')}: {status.get('message', '')}".strip(": ")
        return f"pod {pod['metadata']['name']}: {_line(said)}"
    for container in status.get("containerStatuses") or ():
        ended: Mapping[str, object] = (container.get("state") or {}).get("terminated") or {}
        if not ended or not (ended.get("exitCode") or ended.get("signal")):
            continue
        why = f"exit code {ended.get('exitCode')}"
        reason = ended.get("reason")
        if reason not in {None, "", "Error"}:
            why += f", {reason}"
        last = _line(str(ended.get("message") or ""))
        return f"pod {pod['metadata']['name']}: {why}" + (f": {last}" if last else "")
    return f"pod {pod['metadata']['name']} failed"


def _task(pod: Object, batch: Batch) -> int:
    number = int((pod["metadata"].get("annotations") or {}).get(INDEX, 0))
    return (batch.index or 0) + number


def _line(text: str) -> str:
    """Return the last line with text in it: what a program says as it dies."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:_LINE_CHARACTERS] if lines else ""
