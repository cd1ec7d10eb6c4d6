"""Specs for tests."""

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

Spec = dict[str, Any]
STORE: Final = Path(tempfile.mkdtemp(prefix="crossdock-test-kube-"))
"""A directory as the store of clusters that need none: it is there while this process runs."""
atexit.register(shutil.rmtree, STORE, ignore_errors=True)


def cluster(name: str = "main", **spec: Any) -> Spec:
    """Return a small ShuffleCluster with more of its spec."""
    return {
        "apiVersion": "crossdock.dev/v1alpha1",
        "kind": "ShuffleCluster",
        "metadata": {"name": name},
        "spec": {"store": {"url": STORE.as_uri()}, **spec},
    }


def job(name: str = "wordcount", **spec: Any) -> Spec:
    """Return a ShuffleJob of this spec."""
    return {
        "apiVersion": "crossdock.dev/v1alpha1",
        "kind": "ShuffleJob",
        "metadata": {"name": name},
        "spec": spec,
    }


def stage(name: str = "words", **fields: Any) -> Spec:
    """Return a stage with a shuffle, or what `fields` say."""
    container = {"name": "task", "image": "example.com/task", "command": ["python", "task.py"]}
    return {
        "name": name,
        "parallelism": 2,
        "podTemplate": {"spec": {"containers": [container]}},
        "output": {"shuffle": {"partitions": 4}},
        **fields,
    }


TARGET = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "executors"}
