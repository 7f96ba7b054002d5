import copy
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml

from app.settings import Settings, variables

ROOT = Path(__file__).parent.parent
KUBERNETES = ROOT / "deploy" / "kubernetes"
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
# The oldest and the newest that are supported: each release is for about fourteen months.
VERSIONS = ("1.35", "1.37")
# Applied by themselves: one needs KServe, the other is run each time that a model is to be trained.
BESIDE = {"kserve.yaml", "train.yaml"}
SPARE_SECONDS = 5
PROFILES = ("replicas", "monitoring", "train")

Manifest = dict[str, Any]


def manifest(name: str) -> Manifest:
    """The one manifest in a file."""
    (content,) = yaml.safe_load_all((KUBERNETES / name).read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


KUSTOMIZATION = manifest("kustomization.yaml")
DEPLOYMENT, SERVICE, KSERVE = manifest("deployment.yaml"), manifest("service.yaml"), manifest("kserve.yaml")
PODS: dict[str, Manifest] = {
    "deployment": DEPLOYMENT["spec"]["template"]["spec"],
    "kserve": KSERVE["spec"]["predictor"],
    "train": manifest("train.yaml")["spec"]["template"]["spec"],
}
SERVING = ("deployment", "kserve")
# What an InferenceService says beside its pod.
KSERVES_OWN = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget"}


def container(pod: str) -> Manifest:
    """A pod's only container."""
    (only,) = PODS[pod]["containers"]
    assert isinstance(only, dict)
    return only


def environment(pod: str) -> dict[str, str]:
    """The variables of a pod's container."""
    return {variable["name"]: variable["value"] for variable in container(pod)["env"]}


def probes(pod: str) -> Iterator[Manifest]:
    """What each of a pod's probes asks."""
    return (content["httpGet"] for name, content in container(pod).items() if name.endswith("Probe"))


def seconds(duration: str) -> int:
    """A duration of Compose in seconds."""
    (number,) = re.findall(r"^(\d+)s$", duration)
    return int(number)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", [*KUSTOMIZATION["resources"], "train.yaml"])
def test_a_manifest_is_one_of_kubernetes(name: str, version: str) -> None:
    kubernetes_validate.validate(manifest(name), version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_pod_of_the_inference_service_is_one_of_kubernetes(version: str) -> None:
    spec = {name: value for name, value in PODS["kserve"].items() if name not in KSERVES_OWN}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "predictor"}, "spec": spec}
    kubernetes_validate.validate(pod, version, strict=True)


def test_a_misspelt_field_is_no_manifest() -> None:
    misspelt = copy.deepcopy(DEPLOYMENT)
    misspelt["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(misspelt, VERSIONS[0], strict=True)


def test_the_kustomization_names_every_file_but_those_that_are_applied_by_themselves() -> None:
    files = {path.name for path in KUBERNETES.iterdir()} - {"kustomization.yaml"}
    assert files - set(KUSTOMIZATION["resources"]) == BESIDE
    assert set(KUSTOMIZATION["resources"]) <= files


@pytest.mark.needs("kubectl")
def test_kubectl_puts_the_kustomization_together() -> None:
    command = ["kubectl", "kustomize", str(KUBERNETES)]
    built = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    kinds = sorted(content["kind"] for content in yaml.safe_load_all(built))
    assert kinds == sorted(manifest(name)["kind"] for name in KUSTOMIZATION["resources"])


def test_the_inference_service_runs_our_container_without_knative() -> None:
    assert (KSERVE["apiVersion"], KSERVE["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert KSERVE["spec"].keys() == {"predictor"}
    assert KSERVE["metadata"]["annotations"] == {
        "serving.kserve.io/deploymentMode": "Standard",
        "serving.kserve.io/autoscalerClass": "hpa",
    }
    assert PODS["kserve"].keys() >= KSERVES_OWN
    assert container("kserve")["name"] == "kserve-container"


def test_both_ways_to_serve_run_the_same_pod_and_scale_alike() -> None:
    shared = ("image", "env", "resources", "securityContext", "volumeMounts")
    assert [container("kserve")[name] for name in shared] == [
        container("deployment")[name] for name in shared
    ]
    of_pod = ("securityContext", "volumes", "terminationGracePeriodSeconds")
    assert [PODS["kserve"][name] for name in of_pod] == [PODS["deployment"][name] for name in of_pod]
    scaling, predictor = manifest("scaling.yaml")["spec"], PODS["kserve"]
    (metric,) = scaling["metrics"]
    assert predictor["scaleMetric"] == metric["resource"]["name"]
    assert predictor["scaleTarget"] == metric["resource"]["target"]["averageUtilization"]
    for name in ("minReplicas", "maxReplicas"):
        assert predictor[name] == scaling[name]


def test_there_are_two_replicas_and_applying_does_not_undo_the_scaling() -> None:
    assert manifest("scaling.yaml")["spec"]["minReplicas"] == 2
    assert "replicas" not in DEPLOYMENT["spec"]
    target = manifest("scaling.yaml")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == (DEPLOYMENT["kind"], DEPLOYMENT["metadata"]["name"])


@pytest.mark.parametrize("pod", PODS)
def test_a_pod_may_do_nothing_that_it_need_not(pod: str) -> None:
    spec, own = PODS[pod], container(pod)
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert own["resources"]["requests"].keys() == {"cpu", "memory"}
    assert own["resources"]["limits"].keys() == {"memory"}


@pytest.mark.parametrize("pod", PODS)
def test_a_pod_runs_as_the_images_user(pod: str) -> None:
    users = {PODS[pod]["securityContext"][name] for name in ("runAsUser", "runAsGroup", "fsGroup")}
    (user,) = re.findall(r"\buseradd\b.* --uid (\d+)", DOCKERFILE)
    assert users == {int(user)}


@pytest.mark.parametrize("pod", PODS)
def test_kubernetes_gives_a_pod_no_variables_that_look_like_settings(pod: str) -> None:
    # A Service named plumbline would set PLUMBLINE_PORT to tcp://…, and the service would not start.
    assert PODS[pod]["enableServiceLinks"] is False


@pytest.mark.parametrize("pod", SERVING)
def test_only_the_store_and_scratch_are_mounted_and_the_store_cannot_be_written(pod: str) -> None:
    (store,) = re.findall(r"\bPLUMBLINE_STORE=(\S+)", DOCKERFILE)
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in container(pod)["volumeMounts"]}
    assert {path for path, is_read_only in mounts.items() if is_read_only} == {store}
    assert [volume.keys() - {"name"} for volume in PODS[pod]["volumes"]] == [
        {"persistentVolumeClaim"},
        {"emptyDir"},
    ]
    claims = [volume["persistentVolumeClaim"] for volume in PODS[pod]["volumes"] if volume["name"] == "store"]
    assert claims == [{"claimName": manifest("store.yaml")["metadata"]["name"], "readOnly": True}]


def test_training_writes_where_serving_reads() -> None:
    (claim,) = (volume for volume in PODS["train"]["volumes"] if volume["name"] == "store")
    assert claim["persistentVolumeClaim"] == {"claimName": manifest("store.yaml")["metadata"]["name"]}
    (command,) = container("train")["args"]
    assert f"--name {environment('deployment')['PLUMBLINE_NAME']} --store /store --promote" in command


@pytest.mark.parametrize("pod", SERVING)
def test_the_port_is_the_images_and_the_services(pod: str) -> None:
    (port,) = container(pod)["ports"]
    (exposed,) = re.findall(r"^EXPOSE (\d+)$", DOCKERFILE, re.MULTILINE)
    assert port["containerPort"] == int(exposed) == Settings.model_fields["port"].default
    assert {probe["port"] for probe in probes(pod)} <= {port["name"], port["containerPort"]}


def test_the_service_the_policy_and_the_annotations_name_the_port_of_the_pod() -> None:
    (port,) = container("deployment")["ports"]
    assert [one["targetPort"] for one in SERVICE["spec"]["ports"]] == [port["name"]]
    (ingress,) = manifest("network-policy.yaml")["spec"]["ingress"]
    assert ingress == {"ports": [{"port": port["name"]}]}
    annotations = DEPLOYMENT["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(port["containerPort"])


def test_everything_that_selects_pods_selects_those_of_the_deployment() -> None:
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    budget, policy = manifest("disruption-budget.yaml"), manifest("network-policy.yaml")
    selected = [
        DEPLOYMENT["spec"]["selector"]["matchLabels"],
        SERVICE["spec"]["selector"],
        budget["spec"]["selector"]["matchLabels"],
        policy["spec"]["podSelector"]["matchLabels"],
        *(one["labelSelector"]["matchLabels"] for one in PODS["deployment"]["topologySpreadConstraints"]),
    ]
    assert all(one == labels for one in selected)


@pytest.mark.parametrize("pod", SERVING)
def test_what_probes_and_prometheus_ask_is_answered(pod: str, mixed_service: str) -> None:
    paths = [probe["path"] for probe in probes(pod)]
    assert paths == ["/livez", "/livez", "/readyz"]
    metrics = DEPLOYMENT["spec"]["template"]["metadata"]["annotations"]["prometheus.io/path"]
    for path in (*paths, metrics):
        assert httpx.get(f"{mixed_service}{path}").status_code == 200, path


def test_every_variable_in_the_files_is_a_setting() -> None:
    files = [COMPOSE, *(path for path in (ROOT / "deploy").rglob("*") if path.is_file())]
    used = {
        name: path.name
        for path in files
        for name in re.findall(r"PLUMBLINE_[A-Z_]+[A-Z]\b", path.read_text(encoding="utf-8"))
    }
    assert {"PLUMBLINE_NAME", "PLUMBLINE_DRAIN_SECONDS"} <= used.keys()
    assert {name: where for name, where in used.items() if name not in variables()} == {}


@pytest.mark.parametrize("pod", SERVING)
def test_a_pod_has_time_to_drain_and_to_finish(pod: str) -> None:
    given = environment(pod)
    needed = int(given["PLUMBLINE_DRAIN_SECONDS"]) + int(given["PLUMBLINE_GRACE_SECONDS"])
    assert PODS[pod]["terminationGracePeriodSeconds"] >= needed + SPARE_SECONDS
    assert "lifecycle" not in container(pod)


def compose() -> dict[str, Manifest]:
    """The services of docker-compose.yml, as YAML merges them."""
    services: dict[str, Manifest] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    return services


def compose_command() -> list[str]:
    """What reads docker-compose.yml here; skips the test where nothing does."""
    for command in (["docker", "compose"], ["docker-compose"]):
        found = shutil.which(command[0])
        if (
            found
            and subprocess.run([found, *command[1:], "version"], capture_output=True, check=False).returncode
            == 0
        ):
            return [found, *command[1:]]
    pytest.skip("neither docker-compose nor the plugin 'docker compose' is here")


@pytest.mark.parametrize("profiles", [(), *((profile,) for profile in PROFILES), PROFILES], ids=", ".join)
def test_docker_compose_takes_the_file_with_every_profile(profiles: tuple[str, ...]) -> None:
    chosen = [argument for profile in profiles for argument in ("--profile", profile)]
    command = [*compose_command(), "--file", str(COMPOSE), *chosen, "config", "--quiet"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stderr


def test_docker_compose_up_trains_and_serves_and_the_rest_is_asked_for() -> None:
    without = {name for name, service in compose().items() if not service.get("profiles")}
    assert without == {"train", "serve"}
    assert {profile for service in compose().values() for profile in service.get("profiles", [])} == set(
        PROFILES
    )
    assert compose()["serve"]["depends_on"]["train"]["condition"] == "service_completed_successfully"
    assert compose()["serve"]["ports"] == ["127.0.0.1:8000:8000"]


@pytest.mark.parametrize("name", compose())
def test_a_service_of_docker_compose_may_do_nothing_that_it_need_not(name: str) -> None:
    service = compose()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert any(Path(scratch.split(":")[0]).parts[1:] == ("tmp",) for scratch in service["tmpfs"])
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize("name", sorted(compose().keys() - {"train", "retrain"}))
def test_a_service_that_stays_is_watched_restarted_and_given_time_to_end(name: str) -> None:
    service = compose()[name]
    is_ours = service["image"] == "plumbline:latest"
    assert service["restart"] == "unless-stopped"
    assert "healthcheck" in service or (is_ours and re.search(r"^HEALTHCHECK\b", DOCKERFILE, re.MULTILINE))
    assert (
        seconds(service["stop_grace_period"])
        >= Settings.model_fields["grace_seconds"].default + SPARE_SECONDS
    )
    if is_ours:
        assert "store:/store:ro" in service["volumes"]
