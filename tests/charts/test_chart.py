"""The chart, rendered: what comes of values, and which are refused."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from rendering import CHART, CI, NAMESPACE, ROOT, Object, helm, of, one, refused, rendered, text

import build_servers
from crossdock_operator import rbac
from crossdock_operator.api.crds import texts
from crossdock_operator.plan.owners import OwnerKind
from crossdock_operator.plan.targets import SCALABLE, kind_of_option

sys.path.append(str(ROOT / "tools"))
import chart_readme

OPERATOR = "rel-crossdock-operator"
STORE = {"store": {"url": "s3://bucket/prefix"}}
WITH_CLUSTER = {"defaultCluster": {"enabled": True, "spec": STORE}}


@pytest.mark.parametrize("values", CI, ids=CI)
def test_lint_finds_nothing(values: str) -> None:
    done = helm("lint", "--strict", str(CHART), "--namespace", NAMESPACE, values=CI[values])
    assert done.returncode == 0, done.stdout + done.stderr


def test_crds_and_rules_of_the_chart_are_those_of_the_operator() -> None:
    files = CHART / "files"
    assert _texts(files / "crds") == texts(), "make crds"
    wanted = {name: rbac.chart_text(rules) for name, rules in rbac.chart_files().items()}
    assert _texts(files / "roles") == wanted, "make roles"


def test_crds_are_rendered_whole_and_stay_after_an_uninstall() -> None:
    crds = of(rendered(), "CustomResourceDefinition")
    assert {crd["metadata"]["name"] for crd in crds} == {
        "shuffleclusters.crossdock.dev",
        "shufflejobs.crossdock.dev",
    }
    for crd in crds:
        annotations = crd["metadata"].pop("annotations")
        assert annotations == {"helm.sh/resource-policy": "keep"}
        del crd["metadata"]["labels"]
        (path,) = (ROOT / "crds").glob(f"{crd['spec']['names']['plural']}.yaml")
        assert crd == yaml.safe_load(path.read_text())


def test_crds_can_go_with_the_release_or_not_belong_to_it() -> None:
    for crd in of(rendered({"crds": {"keep": False}}), "CustomResourceDefinition"):
        assert "annotations" not in crd["metadata"]
    assert not of(rendered({"crds": {"enabled": False}}), "CustomResourceDefinition")


def test_without_namespaces_the_operator_may_look_after_all() -> None:
    found = rendered()
    everywhere = f"{NAMESPACE}-{OPERATOR}"
    assert one(found, "ClusterRole", everywhere)["rules"] == rbac.looked_after()
    assert one(found, "Role", OPERATOR)["rules"] == rbac.own_namespace()
    assert _bound(found, "ClusterRoleBinding", everywhere) == OPERATOR
    assert _bound(found, "RoleBinding", OPERATOR) == OPERATOR


def test_with_namespaces_it_has_a_role_in_each_and_none_everywhere() -> None:
    found = rendered(
        {"operator": {"watchNamespaces": ["blue", "green"]}, "rbac": {"aggregate": False}}
    )
    (page,) = of(found, "ClusterRole")  # who a viewer is can only be asked for all namespaces
    assert page["rules"] == rbac.reviews()
    roles = of(found, "Role", f"{OPERATOR}-jobs")
    assert [role["metadata"]["namespace"] for role in roles] == ["blue", "green"]
    assert all(role["rules"] == rbac.looked_after() for role in roles)
    args = _container(one(found, "Deployment"))["args"]
    assert [arg for arg in args if arg.startswith("--watch=")] == ["--watch=blue", "--watch=green"]
    leave = _container(one(found, "Job", "rel-crossdock-leave"))["args"]
    assert {"--watch=blue", "--watch=green"} <= set(leave)


@pytest.mark.parametrize("values", [{}, WITH_CLUSTER])
def test_every_pod_is_restricted(values: Object) -> None:
    found = rendered(values)
    specs = [o["spec"]["template"]["spec"] for o in of(found, "Deployment") + of(found, "Job")]
    specs += [pod["spec"] for pod in of(found, "Pod")]
    assert len(specs) == 3 + bool(values)
    for spec in specs:
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}


def test_the_default_cluster_comes_after_the_release_and_goes_before_it() -> None:
    found = rendered(WITH_CLUSTER)
    apply = one(found, "Job", "rel-crossdock-apply")
    assert apply["metadata"]["annotations"]["helm.sh/hook"] == (
        "post-install,post-upgrade,post-rollback"
    )
    (given,) = [a for a in _container(apply)["args"] if a.startswith("--cluster=")]
    metadata = {"name": "default", "namespace": NAMESPACE}
    assert json.loads(given.removeprefix("--cluster=")) == {"metadata": metadata, "spec": STORE}
    leave = one(found, "Job", "rel-crossdock-leave")
    assert leave["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete"
    assert "--cluster=default" in _container(leave)["args"]
    assert "--cluster=default" in _container(one(found, "Pod"))["args"]
    assert not of(rendered(), "Job", "rel-crossdock-apply")


def test_the_image_is_of_the_release_a_tag_or_a_digest() -> None:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert _image({}) == f"crossdock/crossdock:{version}"
    assert _image({"tag": "edge", "registry": "r:5000"}) == "r:5000/crossdock/crossdock:edge"
    digest = f"sha256:{'a' * 64}"
    assert _image({"tag": "edge", "digest": digest}).endswith(f"crossdock@{digest}")


def test_workers_have_the_operators_image_or_their_own() -> None:
    args = _container(one(rendered({"image": {"tag": "7"}}), "Deployment"))["args"]
    assert "--worker-image=crossdock/crossdock:7" in args
    args = _container(one(rendered({"workerImage": "w:1"}), "Deployment"))["args"]
    assert "--worker-image=w:1" in args


SPARK = {
    "group": "sparkoperator.k8s.io", "kind": "SparkApplication", "resource": "sparkapplications",
}  # fmt: skip
MESH = {"group": "example.com", "version": "v1beta2", "kind": "Mesh", "resource": "meshes"}


@pytest.mark.parametrize("watched", [[], ["blue"]])
def test_kinds_are_the_operators_options_and_in_its_roles(watched: list[str]) -> None:
    kinds = {"ownerKinds": [SPARK], "scalableKinds": [MESH]}
    found = rendered({"operator": {**kinds, "watchNamespaces": watched}})
    args = _container(one(found, "Deployment"))["args"]
    owners = [OwnerKind.parse(a.partition("=")[2]) for a in args if a.startswith("--owner-kinds=")]
    scalable = [kind_of_option(a.partition("=")[2]) for a in args if a.startswith("--scalable=")]
    assert [(str(kind), kind.plural) for kind in owners] == [
        ("SparkApplication.sparkoperator.k8s.io", "sparkapplications")
    ]
    (mesh,) = scalable
    assert mesh.path() == "/apis/example.com/v1beta2/meshes"
    role = of(found, "Role", f"{OPERATOR}-jobs") or of(
        found, "ClusterRole", f"{NAMESPACE}-{OPERATOR}"
    )
    assert role[0]["rules"] == rbac.looked_after(scalable, owners)


def test_without_more_the_operator_has_its_own_kinds() -> None:
    args = _container(one(rendered(), "Deployment"))["args"]
    scalable = [kind_of_option(a.partition("=")[2]) for a in args if a.startswith("--scalable=")]
    assert tuple(scalable) == SCALABLE
    assert not [arg for arg in args if arg.startswith("--owner-kinds")]


def test_every_pod_of_the_image_is_pulled_with_the_secrets() -> None:
    found = rendered({**WITH_CLUSTER, "imagePullSecrets": [{"name": "one"}, {"name": "two"}]})
    specs = [o["spec"]["template"]["spec"] for o in of(found, "Deployment") + of(found, "Job")]
    specs += [pod["spec"] for pod in of(found, "Pod")]
    assert [[s["name"] for s in spec["imagePullSecrets"]] for spec in specs] == [["one", "two"]] * 4
    args = _container(one(found, "Deployment"))["args"]
    assert [arg for arg in args if "pull-secret" in arg] == [
        "--worker-pull-secret=one", "--worker-pull-secret=two",
    ]  # fmt: skip
    tried = _container(one(found, "Pod"))["args"]
    assert tried[-2:] == ["--pull-secret=one", "--pull-secret=two"]


def test_two_operators_have_a_budget_and_one_has_none() -> None:
    assert of(rendered(), "PodDisruptionBudget")
    assert not of(rendered({"operator": {"replicas": 1}}), "PodDisruptionBudget")


def test_monitoring_is_off_until_it_is_wanted() -> None:
    kinds = ("ServiceMonitor", "PrometheusRule", "ConfigMap")
    found = rendered()
    assert not [each for kind in kinds for each in of(found, kind)]
    on = {"enabled": True}
    found = rendered({"monitoring": {"serviceMonitor": on, "rules": on, "dashboards": on}})
    monitor = one(found, "ServiceMonitor")["spec"]
    service = one(found, "Service")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert [each["name"] for each in service["spec"]["ports"]] == ["http"]
    assert one(found, "PrometheusRule")["spec"]["groups"]
    assert one(found, "ConfigMap")["data"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"operator": {"replicas": 3}}, "maximum: got 3, want 2"),
        ({"operator": {"replica": 1}}, "additional properties 'replica' not allowed"),
        ({"operator": {"logLevel": "chatty"}}, "/operator/logLevel"),
        ({"operator": {"watchNamespaces": ["Blue"]}}, "does not match pattern"),
        ({"operator": {"scalableKinds": []}}, "minItems: got 0, want 1"),
        ({"operator": {"ownerKinds": [{"kind": "RayJob"}]}}, "missing properties 'group'"),
        ({"crds": {"keep": "yes"}}, "got string, want boolean"),
        ({"image": {"digest": "latest"}}, "/image/digest"),
        ({"uninstall": {"whenInUse": "Force"}}, "'Refuse', 'Wait', 'Leave'"),
        ({"defaultCluster": {"enabled": True}}, "missing property 'store'"),
        ({"storage": {}}, "additional properties 'storage' not allowed"),
        ({"serviceAccount": {"create": False}}, "name one by serviceAccount.name"),
        ({"hooks": {"serviceAccount": {"create": False}}}, "name one by hooks.serviceAccount.name"),
        (
            {**WITH_CLUSTER, "operator": {"watchNamespaces": ["blue"]}},
            "add shuffling to operator.watchNamespaces",
        ),
        (
            {"crds": {"keep": False}, "uninstall": {"whenInUse": "Leave"}},
            "set crds.keep to true, or uninstall.whenInUse to Refuse or Wait",
        ),
    ],
)
def test_wrong_values_are_refused_by_name(values: Object, said: str) -> None:
    assert said in refused(values)


def test_prometheus_reads_the_alerts(tmp_path: Path) -> None:
    spec = one(rendered({"monitoring": {"rules": {"enabled": True}}}), "PrometheusRule")["spec"]
    path = tmp_path / "alerts.yaml"
    path.write_text(yaml.safe_dump(spec))
    assert _read_rules(path) == ""
    path.write_text(path.read_text().replace("sum by (namespace)", "sum by namespace", 1))
    assert "unexpected identifier" in _read_rules(path)


def test_prometheus_reads_what_the_dashboard_asks(tmp_path: Path) -> None:
    panels = json.loads((CHART / "files" / "dashboards" / "crossdock.json").read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    rules = [{"record": f"asked:{n}", "expr": expr} for n, expr in enumerate(asked)]
    path = tmp_path / "asked.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert _read_rules(path) == ""


def test_labels_of_the_selector_win() -> None:
    own = {"app.kubernetes.io/component": "mine", "team": "data"}
    pod = one(rendered({"operator": {"podLabels": own}, "commonLabels": own}), "Deployment")["spec"]
    labels = pod["template"]["metadata"]["labels"]
    assert pod["selector"]["matchLabels"].items() <= labels.items()
    assert labels["team"] == "data"


def test_common_labels_and_annotations_are_on_every_object() -> None:
    found = rendered(CI["everything"])
    more = [o for o in found if o["metadata"]["name"] in {"more", "rel-text"}]
    assert len(more) == 2
    for each in found:
        if each not in more:
            assert each["metadata"]["labels"]["cost-center"] == "42"
            assert each["metadata"]["annotations"]["example.com/owner"] == "data"


def test_openshift_chooses_ids_itself() -> None:
    spec = one(rendered(CI["openshift"]), "Deployment")["spec"]["template"]["spec"]
    seccomp = {"type": "RuntimeDefault"}
    assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": seccomp}


def test_a_global_registry_is_of_images_that_name_none() -> None:
    everywhere = {"global": {"imageRegistry": "mirror:5000"}}
    image = _container(one(rendered(everywhere), "Deployment"))["image"]
    assert image.startswith("mirror:5000/crossdock/crossdock:")
    own = {**everywhere, "image": {"registry": "own:5000"}}
    assert _container(one(rendered(own), "Deployment"))["image"].startswith("own:5000/crossdock/")


def test_pods_that_helm_waits_for_have_no_sidecar() -> None:
    found = rendered({**WITH_CLUSTER, "hooks": {"affinity": {"nodeAffinity": {}}}})
    pods = [each["spec"]["template"] for each in of(found, "Job")] + of(found, "Pod")
    assert len(pods) == 3
    for pod in pods:
        assert pod["metadata"]["labels"]["sidecar.istio.io/inject"] == "false"
        assert pod["metadata"]["annotations"]["linkerd.io/inject"] == "disabled"
        assert pod["spec"]["affinity"] == {"nodeAffinity": {}}


def test_the_hooks_have_an_account_of_another_name_or_of_somebody_else() -> None:
    found = rendered({"hooks": {"serviceAccount": {"name": "hooks"}}})
    assert of(found, "ServiceAccount", "hooks")
    (subject,) = one(found, "RoleBinding", "rel-crossdock-hooks")["subjects"]
    assert subject["name"] == "hooks"
    found = rendered({"hooks": {"serviceAccount": {"create": False, "name": "theirs"}}})
    assert not of(found, "ServiceAccount", "theirs")
    spec = one(found, "Job", "rel-crossdock-leave")["spec"]["template"]["spec"]
    assert spec["serviceAccountName"] == "theirs"


def test_who_may_edit_may_scale() -> None:
    found = rendered()
    for to, verbs in (("edit", {"get", "update", "patch"}), ("view", {"get"})):
        rules = one(found, "ClusterRole", f"{NAMESPACE}-{OPERATOR}-{to}")["rules"]
        (scale,) = [rule for rule in rules if rule["resources"] == ["shuffleclusters/scale"]]
        assert set(scale["verbs"]) == verbs


def test_every_value_has_a_default_and_a_line_in_the_readme() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    del schema["properties"]["global"]  # Helm's own
    assert _paths(schema) == {path for path in _paths(schema) if _has(values, path)}
    readme = (CHART / "README.md").read_text()
    assert chart_readme.filled(readme) == readme, "make chart-readme"


def test_it_renders_alike_each_time() -> None:
    assert text(WITH_CLUSTER) == text(WITH_CLUSTER)


def test_alerts_and_dashboard_ask_for_metrics_that_are_there() -> None:
    docs = (ROOT / "docs" / "operations.md").read_text() + (
        ROOT / "docs" / "operator.md"
    ).read_text()
    documented = set(re.findall(r"`(crossdock_\w+)", docs))
    asked = set(re.findall(r"\bcrossdock_\w+", (CHART / "files" / "alerts.yaml").read_text()))
    panels = json.loads((CHART / "files" / "dashboards" / "crossdock.json").read_text())["panels"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    asked |= {name for each in expressions for name in re.findall(r"\bcrossdock_\w+", each)}
    assert len(asked) > 10
    assert {name.removesuffix("_bucket") for name in asked} <= documented


def test_every_alert_has_a_section_that_it_names() -> None:
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs" / "alerts.md").read_text(), re.MULTILINE)
    groups = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert [rule["alert"] for rule in rules] == headings
    for rule in rules:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"]["runbook"] == f"docs/alerts.md#{rule['alert'].lower()}"
    page = "https://docs.internal/alerts.html"
    found = rendered({"monitoring": {"rules": {"enabled": True, "runbooks": page}}})
    for group in one(found, "PrometheusRule")["spec"]["groups"]:
        for rule in group["rules"]:
            assert rule["annotations"]["runbook_url"] == f"{page}#{rule['alert'].lower()}"
            assert "runbook" not in rule["annotations"]


def _texts(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir()}


def _read_rules(path: Path) -> str:
    """Return what Prometheus finds wrong with a file of rules."""
    program = build_servers.cached("promrules")
    if not program.exists():
        pytest.fail(f"{program} is not built; `make chart-programs` does it", pytrace=False)
    done = subprocess.run(
        [str(program), str(path)], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode == 0) == (done.stderr == "")
    return done.stderr


def _container(workload: Object) -> Any:
    (container,) = workload["spec"].get("template", workload)["spec"]["containers"]
    return container


def _image(image: Object) -> Any:
    return _container(one(rendered({"image": image}), "Deployment"))["image"]


def _bound(objects: list[Object], kind: str, name: str) -> Any:
    binding = one(objects, kind, name)
    assert binding["roleRef"]["name"] == name
    (subject,) = binding["subjects"]
    assert subject["namespace"] == NAMESPACE
    return subject["name"]


def _paths(schema: Object, at: str = "") -> set[str]:
    properties = schema.get("properties")
    if properties is None:
        return {at}
    return {
        p for name, inner in properties.items() for p in _paths(inner, f"{at}.{name}".strip("."))
    }


def _has(values: Any, path: str) -> bool:
    for part in path.split("."):
        if not isinstance(values, dict) or part not in values:
            return False
        values = values[part]
    return True
