"""The check of Pod Security `restricted` finds every violation that the standard names."""

import copy
from typing import Any

import pytest

from tests.chart.helm import Pod
from tests.chart.pod_security import violations

GOOD: dict[str, Any] = {
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "volumes": [{"name": "tmp", "emptyDir": {}}],
    "containers": [
        {
            "name": "main",
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            "ports": [{"containerPort": 5000}],
            "livenessProbe": {"httpGet": {"path": "/", "port": 5000}},
            "lifecycle": {"preStop": {"sleep": {"seconds": 10}}},
        }
    ],
}


def pod_with(change: dict[str, Any], of_container: dict[str, Any]) -> Pod:
    spec = copy.deepcopy(GOOD)
    _merge(spec, change)
    _merge(spec["containers"][0], of_container)
    return Pod("Pod test", {}, spec)


def _merge(into: dict[str, Any], change: dict[str, Any]) -> None:
    for name, value in change.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = value


def test_accepts_a_good_pod() -> None:
    assert violations(pod_with({}, {})) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hostNetwork": True}, "hostNetwork"),
        ({"hostPID": True}, "hostPID"),
        ({"hostIPC": True}, "hostIPC"),
        ({"volumes": [{"name": "etc", "hostPath": {"path": "/etc"}}]}, "volume etc of type {'hostPath'}"),
        ({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}, "sysctl kernel.msgmax"),
        ({"securityContext": {"runAsUser": 0}}, "runAsUser 0"),
        ({"securityContext": {"windowsOptions": {"hostProcess": True}}}, "hostProcess"),
        ({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}, "appArmorProfile"),
        ({"securityContext": {"seLinuxOptions": {"type": "spc_t"}}}, "seLinuxOptions"),
        ({"securityContext": {"seLinuxOptions": {"role": "sysadm_r"}}}, "seLinuxOptions"),
        ({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}, "seccompProfile"),
        ({"securityContext": {"runAsNonRoot": False}}, "runAsNonRoot"),
    ],
)
def test_finds_what_is_wrong_with_a_pod(change: dict[str, Any], said: str) -> None:
    assert said in violations(pod_with(change, {}))


def test_finds_an_unconfined_apparmor_annotation() -> None:
    annotations = {"container.apparmor.security.beta.kubernetes.io/main": "unconfined"}

    assert violations(Pod("Pod test", {"annotations": annotations}, GOOD)) == ["AppArmor annotation"]


@pytest.mark.parametrize("kind", ["containers", "initContainers"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"securityContext": {"capabilities": {"drop": ["NET_RAW"]}}}, "does not drop ALL capabilities"),
        ({"securityContext": {"capabilities": {"add": ["SYS_TIME"]}}}, "adds ['SYS_TIME']"),
        ({"securityContext": {"allowPrivilegeEscalation": True}}, "allowPrivilegeEscalation"),
        ({"securityContext": {"allowPrivilegeEscalation": None}}, "allowPrivilegeEscalation"),
        ({"securityContext": {"privileged": True}}, "privileged"),
        ({"securityContext": {"procMount": "Unmasked"}}, "procMount"),
        ({"securityContext": {"runAsNonRoot": False}}, "runAsNonRoot"),
        ({"securityContext": {"runAsUser": 0}}, "runAsUser 0"),
        ({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}, "seccompProfile"),
        ({"ports": [{"containerPort": 80, "hostPort": 80}]}, "hostPort"),
        ({"livenessProbe": {"httpGet": {"host": "10.0.0.1", "port": 80}}}, "host of a probe or hook"),
        ({"lifecycle": {"postStart": {"tcpSocket": {"host": "10.0.0.1", "port": 80}}}}, "host of a probe or hook"),
    ],
)
def test_finds_what_is_wrong_with_a_container(change: dict[str, Any], said: str, kind: str) -> None:
    pod = pod_with({}, change)
    if kind == "initContainers":
        pod.spec["initContainers"] = pod.spec["containers"]
        pod.spec["containers"] = GOOD["containers"]

    assert violations(pod)[:1] == [f"main: {said}"]


def test_needs_a_profile_and_a_user_that_is_not_root() -> None:
    assert violations(Pod("Pod test", {}, GOOD | {"securityContext": {}})) == [
        "main: runAsNonRoot",
        "main: seccompProfile",
    ]
