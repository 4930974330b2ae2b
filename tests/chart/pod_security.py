"""Say in words how a pod violates the Pod Security Standard `restricted`, baseline included.

https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from collections.abc import Iterator
from typing import Any

from tests.chart.helm import Pod

VOLUME_TYPES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range", "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem", "net.ipv4.tcp_syncookies", "net.ipv4.tcp_wmem",
}  # fmt: skip
SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
HANDLERS = ("livenessProbe", "readinessProbe", "startupProbe")


def violations(pod: Pod) -> list[str]:
    """Return why a namespace that enforces `restricted` would refuse this pod."""
    return [*_of_the_pod(pod), *(f"{c['name']}: {said}" for c in pod.containers for said in _of_a_container(c, pod))]


def _of_the_pod(pod: Pod) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.spec.get(field):
            yield field
    for volume in pod.spec.get("volumes", []):
        if (types := set(volume) - {"name"}) - VOLUME_TYPES:
            yield f"volume {volume['name']} of type {types}"
    for sysctl in _context(pod.spec).get("sysctls", []):
        if sysctl["name"] not in SYSCTLS:
            yield f"sysctl {sysctl['name']}"
    for name, profile in pod.metadata.get("annotations", {}).items():
        if name.startswith("container.apparmor.security.beta.kubernetes.io/") and not profile.startswith(
            ("runtime/default", "localhost/")
        ):
            yield "AppArmor annotation"
    if _context(pod.spec).get("runAsNonRoot") is False:
        yield "runAsNonRoot"
    yield from _of_any_context(_context(pod.spec))


def _of_a_container(container: dict[str, Any], pod: Pod) -> Iterator[str]:
    context = _context(container)
    capabilities = context.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []):
        yield "does not drop ALL capabilities"
    if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"adds {capabilities['add']}"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    if context.get("privileged"):
        yield "privileged"
    if context.get("procMount", "Default") != "Default":
        yield "procMount"
    if not context.get("runAsNonRoot", _context(pod.spec).get("runAsNonRoot")):
        yield "runAsNonRoot"
    profile = context.get("seccompProfile") or _context(pod.spec).get("seccompProfile") or {}
    if profile.get("type") not in {"RuntimeDefault", "Localhost"}:
        yield "seccompProfile"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield "hostPort"
    handlers = [container.get(name, {}) for name in HANDLERS] + list(container.get("lifecycle", {}).values())
    if any(isinstance(action, dict) and action.get("host") for handler in handlers for action in handler.values()):
        yield "host of a probe or hook"
    yield from _of_any_context(context)


def _of_any_context(context: dict[str, Any]) -> Iterator[str]:
    if context.get("runAsUser") == 0:
        yield "runAsUser 0"
    if context.get("seccompProfile", {}).get("type") == "Unconfined":
        yield "seccompProfile"
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield "hostProcess"
    if context.get("appArmorProfile", {}).get("type", "RuntimeDefault") not in {"RuntimeDefault", "Localhost"}:
        yield "appArmorProfile"
    selinux = context.get("seLinuxOptions", {})
    if selinux.get("type", "") not in SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        yield "seLinuxOptions"


def _context(of: dict[str, Any]) -> dict[str, Any]:
    context: dict[str, Any] = of.get("securityContext") or {}
    return context
