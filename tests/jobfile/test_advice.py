"""What a job may have and should still be told."""

from jobs import load, shuffling, stage

from crossdock.jobfile.advice import ignored, unread, warnings

POD = """podTemplate:
      metadata: {labels: {a: b}}
      spec:
        restartPolicy: Never
        volumes: [{name: v}]
        tolerations: []
        serviceAccountName: me
        containers:
        - name: task
          image: python
          imagePullPolicy: Always
          command: [python, "$(HOME)/x", "$$(HOME)", "$(date"]
          resources: {requests: {cpu: 1}}
          ports:
          env:
          - {name: A, value: b}
          - {name: SECRET, valueFrom: {secretKeyRef: {name: s, key: k}}}
          - {name: B, value: $(A)}
        - {name: sidecar, command: [x]}"""


def test_pod_fields_that_a_process_cannot_honour() -> None:
    (only,) = load(stage("a", "parallelism: 1", pod=POD)).stages
    assert ignored(only) == [
        "podTemplate.spec.volumes",
        "podTemplate.spec.serviceAccountName",
        "podTemplate.spec.containers[0].resources",
        "podTemplate.spec.containers[0].env[1].valueFrom",
        "podTemplate.spec.containers[1]",
    ]


def test_one_warning_for_each_subject() -> None:
    job = load(
        shuffling("a"),
        shuffling("b"),
        shuffling("c", "inputs: [{stage: a}]"),
        stage("d", "parallelism: 1", pod=POD),
    )
    assert unread(job) == ["b", "c"]
    shuffles, pods = warnings(job)
    assert "shuffle of b, c" in shuffles
    assert "d: podTemplate.spec.volumes, " in pods
    assert "a: " not in pods


def test_no_warning_without_a_cause() -> None:
    job = load(shuffling("a"), stage("b", "inputs: [{stage: a}]"))
    assert warnings(job) == []


def test_fields_for_a_cluster_are_taken_and_named() -> None:
    own = (
        "clusterRef: {name: c}",
        "quota: 1Gi",
        "lifecycle: {keepOnFailure: true}",
        "suspend: true",
    )
    spec = "".join(f"  {line}\n" for line in own)
    job = load(stage("a", "parallelism: 1"), spec=spec)
    assert warnings(job) == [
        "only a cluster honours these fields: clusterRef, quota, lifecycle, suspend"
    ]
