"""docs/kubernetes, held against docker-compose.yml: the same roles, commands, secrets, rights. No cluster is needed."""

import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from shared.local import commands
from shared.settings import Settings
from tests import compose
from tests.compose import PASSWORDS, ROOT

FOLDER: Final = ROOT / "docs" / "kubernetes"
GENERATED: Final = "redraft-settings"


def resources(folder: Path) -> list[dict[str, Any]]:
    """All that a folder's kustomization names, in its order."""
    names = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    return [one for name in names for one in yaml.safe_load_all((folder / name).read_text())]


ALL: Final = [*resources(FOLDER), *resources(FOLDER / "migrate")]
ROLES: Final = {
    one["metadata"]["labels"]["app.kubernetes.io/component"]: one for one in ALL if one["kind"] in ("Deployment", "Job")
}
PODS: Final = {name: one["spec"]["template"]["spec"] for name, one in ROLES.items()}
CONTAINERS: Final = {name: pod["containers"][0] for name, pod in PODS.items()}
SERVICES: Final = compose.resolved(PASSWORDS)["services"]
OURS: Final = {name: one for name, one in SERVICES.items() if one["image"].startswith("redraft:")}
SETTINGS: Final = {f"REDRAFT_{name.upper()}" for name in Settings.model_fields}


def test_the_roles_are_those_of_compose() -> None:
    assert set(ROLES) == set(OURS)
    assert {pod["containers"][0]["image"] for pod in PODS.values()} == {"redraft"}
    for folder in (FOLDER, FOLDER / "migrate"):
        [image] = yaml.safe_load((folder / "kustomization.yaml").read_text())["images"]
        assert f"{image['newName']}:{image['newTag']}" == OURS["api"]["image"]


@pytest.mark.parametrize("name", ROLES)
def test_a_role_is_started_as_in_compose(name: str) -> None:
    args = [one for one in CONTAINERS[name]["args"] if not one.startswith(("--processes", "--data-dir"))]
    assert args == [one for one in OURS[name]["command"] if not one.startswith("--data-dir")]


@pytest.mark.parametrize("name", ROLES)
def test_a_role_gets_its_secrets_and_no_others(name: str) -> None:
    given = CONTAINERS[name].get("env", [])
    secrets = {one["name"] for one in given if "valueFrom" in one}
    told = {
        key for key in OURS[name]["environment"] if key.endswith(("PASSWORD", "SECRET", "DATABASE_URL", "REDIS_URL"))
    }
    assert secrets == told
    assert {one["name"] for one in given} <= SETTINGS
    assert all(one["valueFrom"]["secretKeyRef"]["key"] == one["name"] for one in given if "valueFrom" in one)


def test_what_is_no_secret_is_a_setting() -> None:
    [generated] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["configMapGenerator"]
    assert generated["name"] == GENERATED
    assert {line.partition("=")[0] for line in generated["literals"]} <= SETTINGS
    assert {name for name, one in CONTAINERS.items() if "envFrom" in one} == set(ROLES) - {"migrate"}


@pytest.mark.parametrize("name", ROLES)
def test_a_pod_has_no_rights_that_it_does_not_need(name: str) -> None:
    container, pod = CONTAINERS[name], PODS[name]
    user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert user
    security = pod["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"]) == (int(user[1]), int(user[2]))
    assert security["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "memory" in container["resources"]["limits"]
    assert {one["mountPath"] for one in container["volumeMounts"]} >= {"/tmp"}  # noqa: S108 - the container's own


def test_a_worker_is_asked_as_in_compose() -> None:
    for name, container in CONTAINERS.items():
        if name.startswith("worker-"):
            [_, asked] = OURS[name]["healthcheck"]["test"]
            assert container["livenessProbe"]["exec"]["command"] == ["sh", "-c", asked]
            assert container["startupProbe"]["exec"]["command"] == ["sh", "-c", asked]


def test_a_pod_gets_longer_to_end_than_its_tasks_do() -> None:
    grace = Settings.model_fields["grace"].default
    waits = int(CONTAINERS["api"]["lifecycle"]["preStop"]["exec"]["command"][1])
    for name, pod in PODS.items():
        if name != "migrate":
            assert pod["terminationGracePeriodSeconds"] > max(grace, waits + commands.API_GRACE), name


def test_selectors_find_what_they_mean() -> None:
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in ROLES.values()]
    for one in ALL:
        selector = one["spec"].get("selector")
        if selector:
            wanted = selector.get("matchLabels", selector)
            assert sum(wanted.items() <= found.items() for found in labels) == 1, one["metadata"]["name"]
    targets = [one["spec"]["scaleTargetRef"]["name"] for one in ALL if one["kind"] == "HorizontalPodAutoscaler"]
    assert targets == ["redraft-worker-edits"]
