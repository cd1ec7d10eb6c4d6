"""`make examples`: the examples' job files as a cluster takes them, in examples/on-kubernetes.

A job file is for `crossdock run` and for a cluster, but for three things that only pods need: where
the volume is, a place for scratch, and a security context. They are the same for every example, so
they stand here once.
"""

from pathlib import Path
from typing import Final

EXAMPLES: Final = Path(__file__).parents[1] / "examples"
MADE: Final = EXAMPLES / "on-kubernetes"
JOBS: Final = {
    "tpch-q3": "tpch/q3.yaml",
    "tpch-q5": "tpch/q5.yaml",
    "tpch-q9": "tpch/q9.yaml",
    "tpch-q18": "tpch/q18.yaml",
    "tpch-q21": "tpch/q21.yaml",
    "wordcount": "wordcount/job.yaml",
    "sort": "sort/job.yaml",
}
"""Files that are made, and of what."""
PROGRAMS: Final = {
    "tpch-q5-verify": ("verify.py", "q5", "/data/tpch-q5/result/q5"),
    "sort-input": ("generate.py", "/data/sort/input", "--records=1000000"),
    "sort-validate": ("validate.py", "/data/sort/input", "/data/sort/output"),
}
"""Pods beside the jobs: what each of them runs."""
_IMAGE: Final = "          image: crossdock/examples:"
_CONTAINERS: Final = "        containers:\n"
_POD: Final = """\
        automountServiceAccountToken: false
        securityContext:
          runAsNonRoot: true
          runAsUser: 65532
          fsGroup: 65532
          seccompProfile: {type: RuntimeDefault}
        volumes:
        - name: data
          persistentVolumeClaim: {claimName: results}
        - name: scratch
          emptyDir: {}
"""
_CONTAINER: Final = """\
          resources: {requests: {cpu: 100m, memory: 128Mi}}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
          volumeMounts:
          - {name: data, mountPath: /data}
          - {name: scratch, mountPath: /tmp}
"""
_SCALE: Final = """\
          env:
          - {name: SCALE_FACTOR, value: "0.1"}   # 1: the tables have 1 GB
"""


def job(name: str, plain: str, source: str) -> str:
    """Return a job file for a cluster.

    Args:
        name: of the file that is made.
        plain: the file for `crossdock run`.
        source: where that is, in `examples`.
    """
    body = plain[plain.index("apiVersion:") :]
    _once(body, "\nspec:\n")
    _once(body, _CONTAINERS)
    _once(body, _IMAGE)
    body = body.replace("\nspec:\n", f"\nspec:\n  dataRoot: /data/{name}\n")
    return _head(name, source) + _pods(body, scaled=source.startswith("tpch/"))


def pod(name: str, image: str) -> str:
    """Return a pod that runs one of `PROGRAMS`, and is not run again."""
    command = ", ".join(["python", *PROGRAMS[name]])
    template = (
        f"{_CONTAINERS}        - name: task\n{_IMAGE}{image}\n          command: [{command}]\n"
    )
    indented = _pods(template, scaled=name.startswith("tpch-")).splitlines(keepends=True)
    body = "".join(line[6:] for line in indented)
    kind = f"apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\nspec:\n  restartPolicy: Never\n"
    return _head(name, "tools/examples.py") + kind + body


def made() -> dict[str, str]:
    """Return the text of every file that is made, by its name."""
    found = {}
    for name, source in JOBS.items():
        plain = (EXAMPLES / source).read_text()
        found[f"{name}.yaml"] = job(name, plain, source)
        image = plain.partition(_IMAGE)[2].split()[0]
    return found | {f"{name}.yaml": pod(name, image) for name in PROGRAMS}


def _pods(text: str, *, scaled: bool) -> str:
    """Return the text with what restricted pods need, in its one template."""
    text = text.replace(_CONTAINERS, _POD + _CONTAINERS)
    before, command, after = text.partition("          command: ")
    line, end, rest = after.partition("\n")
    return before + command + line + end + (_SCALE if scaled else "") + _CONTAINER + rest


def _head(name: str, source: str) -> str:
    first = "sort-input" if name == "sort" else "results"
    return (
        f"# Made by `make examples` of {source}: change that one. After {first}.yaml:\n"
        f"#   kubectl --namespace crossdock apply -f examples/on-kubernetes/{name}.yaml\n"
    )


def _once(text: str, part: str) -> None:
    """Make sure that the text has one such part.

    Raises:
        ValueError: it has none, or several.
    """
    if text.count(part) != 1:
        raise ValueError(f"not once in the example: {part!r}")


def main() -> None:
    for name, text in made().items():
        (MADE / name).write_text(text)


if __name__ == "__main__":
    main()
