"""Every rule: a text that breaks it, with line and place, and one that OpenShift needs and nothing may flag."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date

import pytest

from reconciler.tools.nonroot.containerfile import KnownImage
from reconciler.tools.nonroot.rules import PLATFORMS, RULES, Flaw
from reconciler.tools.nonroot.scan import Acceptance, Found, ImageConfig, Policy, scan
from reconciler.tools.nonroot.workloads import Namespaces, Range

TODAY = date(2026, 11, 22)
HOME = "ENV HOME=/tmp\n"


def flaws(texts: Mapping[str, str], policy: Policy | None = None, **more: object) -> Sequence[Flaw]:
    return scan(Found(texts, **more), policy or Policy(), TODAY, texts).flaws  # type: ignore[arg-type]


def build(text: str, policy: Policy | None = None, **scripts: str) -> list[tuple[str, int]]:
    """Rules and lines of a Containerfile; what concerns other files has line 0."""
    texts = {"Containerfile": text}
    found = scan(Found(texts), policy or Policy(), TODAY, {n.replace("_", "."): t for n, t in scripts.items()})
    return [(f.rule, f.line) for f in found.flaws]


GOOD_POD = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  template:
    spec:
      securityContext:
        runAsNonRoot: true
        seccompProfile: {type: RuntimeDefault}
      containers:
        - name: app
          image: registry.example.org/app:1
          securityContext:
            allowPrivilegeEscalation: false
            capabilities:
              drop: [ALL]
"""


def pod(old: str = "", new: str = "", policy: Policy | None = None, text: str = GOOD_POD) -> list[tuple[str, int]]:
    assert old in text
    return [(f.rule, f.line) for f in flaws({"web.yaml": text.replace(old, new)}, policy)]


# ------------------------------------------------------------------------------------------------ what is right

GOOD_BUILDS = {
    "the facts": "FROM x\n" + HOME + "USER 1001:0\n",
    "group 0 may write": "FROM x\nRUN mkdir -p /a && chgrp -R 0 /a && chmod -R g=u /a\nENV HOME=/a\nUSER 1001:0\n",
    "chown to group 0": "FROM x\nRUN chown -R 1001:0 /a && chmod -R g=u /a\nENV HOME=/a\nUSER 1001:0\n",
    "opened later": "FROM x\nRUN chown -R 5:5 /a\nENV HOME=/a\nRUN chgrp -R 0 /a && chmod -R g+rwX /a\nUSER 1001:0\n",
    "copy with mode": "FROM x\nCOPY --chown=1001:0 --chmod=g=u a /a\nENV HOME=/a\nUSER 1001:root\n",
    "root in the builder alone": "FROM b AS b\nUSER root\nRUN useradd x && sudo y\nFROM x\n" + HOME + "USER 1001:0\n",
    "root for a while": "FROM x\nUSER root\nRUN y\n" + HOME + "USER 1001:0\n",
    "by an argument with a default": "FROM x\nARG UID=1001\n" + HOME + "USER ${UID}:0\n",
    "by an argument of the whole file": "ARG UID=1001\nFROM x\nARG UID\n" + HOME + "USER $UID:0\n",
    "HOME of an earlier stage": "FROM x AS a\nENV HOME=/tmp\nUSER 1001:0\nFROM a\nRUN y\n",
    "fix-permissions": "FROM x\nENV HOME=/opt/app\nRUN fix-permissions /opt/app\nUSER 1001:0\n",
    "install": "FROM x\nENV HOME=/a\nRUN install -d -m 0775 -g 0 /a\nUSER 1001:0\n",
    "in a loop": "FROM x\nENV HOME=/a\nRUN for d in /a /b; do chgrp -R 0 $d; chmod -R g=u $d; done\nUSER 1001:0\n",
    "here-document": "FROM x\nENV HOME=/a\nRUN <<EOF\nchgrp -R 0 /a\nchmod -R g=u /a\nEOF\nUSER 1001:0\n",
    "sticky": "FROM x\nRUN chmod 1777 /tmp\n" + HOME + "USER 1001:0\n",
    "high port": "FROM x\n" + HOME + "EXPOSE 8080/tcp 1024-1030\nUSER 1001:0\n",
    "start script that asks": (
        "FROM x\n" + HOME + 'COPY <<EOF /start\nif [ "$(id -u)" = 0 ]; then chown a /b; exec gosu a x; fi\nEOF\n'
        'USER 1001:0\nENTRYPOINT ["/start"]\n'
    ),
    "exec form": "FROM x\n" + HOME + 'USER 1001:0\nENTRYPOINT ["python3", "-m", "http.server", "8080"]\n',
    "65533 is a user like others": "FROM x\n" + HOME + "USER 65533:0\n",
}


@pytest.mark.parametrize("name", GOOD_BUILDS)
def test_builds_that_run_everywhere_are_not_flagged(name: str) -> None:
    assert build(GOOD_BUILDS[name]) == []


GOOD_PODS = {
    "no user at all, as OpenShift needs it": ("", ""),
    "the namespace's own range": ("runAsNonRoot: true", "runAsNonRoot: true\n        runAsUser: 1000650001"),
    "said by the container": (
        "runAsNonRoot: true\n        seccompProfile: {type: RuntimeDefault}\n      containers:\n        - name: app\n",
        "seccompProfile: {type: RuntimeDefault}\n      containers:\n        - name: app\n",
    ),
    "YAML 1.1's truth": ("runAsNonRoot: true", "runAsNonRoot: yes"),
    "a group of its own": ("runAsNonRoot: true", "runAsNonRoot: true\n        runAsGroup: 3000"),
    "a port below 1024 that may be had": (
        "runAsNonRoot: true",
        "runAsNonRoot: true\n        sysctls: [{name: net.ipv4.ip_unprivileged_port_start, value: '0'}]",
    ),
    "the one capability": ("drop: [ALL]", "drop: [ALL]\n              add: [NET_BIND_SERVICE]"),
}
RANGES = Policy(namespaces=Namespaces({"default": Range(1000650000, 10000)}))


@pytest.mark.parametrize("name", GOOD_PODS)
def test_pods_that_openshift_needs_are_not_flagged(name: str) -> None:
    old, new = GOOD_PODS[name]
    text = GOOD_POD
    if name == "said by the container":
        text = text.replace("capabilities", "runAsNonRoot: true\n            capabilities")
    if "1024" in name:
        text = text.replace("image: registry", "ports: [{containerPort: 80}]\n          image: registry")
    assert pod(old, new, RANGES, text) == []


# ------------------------------------------------------------------------------------------------ what is wrong

BAD_BUILDS: dict[str, tuple[str, list[tuple[str, int]]]] = {
    "user-missing": ("FROM x\n" + HOME, [("user-missing", 1)]),
    "user-missing: only the builder has one": ("FROM b AS b\nUSER 1001:0\nFROM x\n" + HOME, [("user-missing", 3)]),
    "user-root": ("FROM x\n" + HOME + "USER root\n", [("user-root", 3)]),
    "user-root: by number": ("FROM x\n" + HOME + "USER 0:0\n", [("user-root", 3)]),
    "user-root: spelled in another way": ("FROM x\n" + HOME + "USER 00\n", [("user-root", 3)]),
    "user-root: by an argument": ("ARG U=root\nFROM x\nARG U\n" + HOME + "USER ${U}\n", [("user-root", 5)]),
    "user-root: of the stage it is built from": ("FROM x AS a\nUSER 0\nFROM a\n" + HOME, [("user-root", 2)]),
    "user-by-name": ("FROM x\n" + HOME + "USER app:0\n", [("user-by-name", 3)]),
    "user-malformed": ("FROM x\n" + HOME + "USER 1001:0 # app\n", [("user-malformed", 3)]),
    "user-malformed: no group": ("FROM x\n" + HOME + "USER 1001:\n", [("user-malformed", 3)]),
    "user-unresolved": ("FROM x\nARG U\n" + HOME + "USER $U\n", [("user-unresolved", 4)]),
    "user-reserved: 65534": ("FROM x\n" + HOME + "USER 65534:0\n", [("user-reserved", 3)]),
    "user-reserved: 65535": ("FROM x\n" + HOME + "USER 65535:0\n", [("user-reserved", 3)]),
    "user-reserved: nobody": ("FROM x\n" + HOME + "USER nobody:0\n", [("user-reserved", 3)]),
    "user-low": ("FROM x\n" + HOME + "USER 999:0\n", [("user-low", 3)]),
    "user-too-high": ("FROM x\n" + HOME + "USER 100000:0\n", [("user-too-high", 3)]),
    "group-unset": ("FROM x\n" + HOME + "USER 3000\n", [("group-unset", 3)]),
    "group-not-root": ("FROM x\n" + HOME + "USER 3000:3000\n", [("group-not-root", 3)]),
    "user-created": ("FROM x\n" + HOME + "RUN x && \\\n  useradd -u 1001 a\nUSER 1001:0\n", [("user-created", 4)]),
    "passwd-writable": ("FROM x\n" + HOME + "RUN chmod g=u /etc/passwd\nUSER 1001:0\n", [("passwd-writable", 3)]),
    "group-access": ("FROM x\n" + HOME + "RUN chown -R 1001:1001 /a\nUSER 1001:0\n", [("group-access", 3)]),
    "group-access: by COPY": ("FROM x\n" + HOME + "COPY --chown=app:app a /a\nUSER 1001:0\n", [("group-access", 3)]),
    "group-access: nothing opened": (
        "FROM x\n" + HOME + "RUN chown -R 1001:0 /a\nUSER 1001:0\n",
        [("group-access", 3)],
    ),
    "group-access: closed again": (
        "FROM x\n" + HOME + "RUN chgrp -R 0 /a && chmod -R g=u /a\nRUN chown -R 5:5 /a\nUSER 1001:0\n",
        [("group-access", 4)],
    ),
    "group-mode": (
        "FROM x\n" + HOME + "RUN chown 1001:0 /a && chmod g=u /a\nRUN chmod 700 /a\nUSER 1001:0\n",
        [("group-access", 3), ("group-mode", 4)],
    ),
    "world-writable": ("FROM x\n" + HOME + "RUN chmod -R 777 /a\nUSER 1001:0\n", [("world-writable", 3)]),
    "home-missing": ("FROM x\nUSER 1001:0\n", [("home-missing", 2)]),
    "home-not-writable": ("FROM x\nENV HOME=/home/a\nUSER 1001:0\n", [("home-not-writable", 2)]),
    "home-not-writable: root's": ("FROM x\nENV HOME /root\nUSER 1001:0\n", [("home-not-writable", 2)]),
    "flag-syntax": (
        "FROM x\n" + HOME + "COPY --chown 3000:3000 a /a\nUSER 3000:0\n",
        [("flag-syntax", 3), ("group-access", 3)],
    ),
    "privileged-port": ("FROM x\n" + HOME + "ARG P=80\nEXPOSE 8080 $P/tcp\nUSER 1001:0\n", [("privileged-port", 4)]),
    "root-at-start": ("FROM x\n" + HOME + "USER 1001:0\nENTRYPOINT chown a /b && x\n", [("root-at-start", 4)]),
    "root-at-start: gosu": (
        "FROM x\n" + HOME + 'USER 1001:0\nENTRYPOINT ["gosu", "app", "x"]\n',
        [("root-at-start", 4)],
    ),
    "root-at-start: sh -c": (
        "FROM x\n" + HOME + 'USER 1001:0\nCMD ["sh", "-c", "su app -c x"]\n',
        [("root-at-start", 4)],
    ),
    "root-at-start: a script in the file": (
        "FROM x\n" + HOME + 'COPY <<EOF /start\n#!/bin/sh\nchown a /b\nEOF\nUSER 1001:0\nENTRYPOINT ["/start"]\n',
        [("root-at-start", 5)],
    ),
    "passwd-needed": ("FROM x\n" + HOME + "USER 1001:0\nCMD x $(whoami)\n", [("passwd-needed", 4)]),
    "sudo": ("FROM x\n" + HOME + "RUN sudo make\nUSER 1001:0\n", [("sudo", 3)]),
    "sudo: installed": ("FROM x\n" + HOME + "RUN apt-get install -y \\\n  sudo\nUSER 1001:0\n", [("sudo", 4)]),
    "setuid": ("FROM x\n" + HOME + "RUN chmod 4755 /a\nUSER 1001:0\n", [("setuid", 3)]),
    "setuid: capabilities": ("FROM x\n" + HOME + "RUN setcap cap_net_raw+ep /a\nUSER 1001:0\n", [("setuid", 3)]),
    "unreadable": ("FORM x\nFROM x\n" + HOME + "USER 1001:0\n", [("unreadable", 1), ("unreadable", 1)]),
}


def test_a_variable_of_the_base_image_is_no_more_than_a_warning() -> None:
    (flaw,) = flaws({"Containerfile": "FROM x\n" + HOME + "USER $APP_UID\n"})
    assert (flaw.rule, flaw.level) == ("user-unresolved", "warning")
    (flaw,) = flaws({"Containerfile": BAD_BUILDS["user-unresolved"][0]})
    assert (flaw.rule, flaw.level) == ("user-unresolved", "error")


@pytest.mark.parametrize("name", BAD_BUILDS)
def test_builds_that_break_a_rule(name: str) -> None:
    text, wanted = BAD_BUILDS[name]
    assert build(text) == wanted
    assert wanted[0][0] == name.partition(":")[0] or name == "group-mode"


def test_start_scripts_of_the_repo_are_read_and_named() -> None:
    text = "FROM x\n" + HOME + 'COPY run/start.sh run/other /opt/\nUSER 1001:0\nENTRYPOINT ["/opt/start.sh"]\n'
    script = "#!/bin/sh\n# chown is bad\nmkdir /x\nchown -R app /x\necho a:x:1:0::/: >> /etc/passwd\nexec app\n"
    named = text.replace("/opt/start.sh", "start.sh")
    found = scan(Found({"Containerfile": named}), Policy(), TODAY, {"run/start.sh": script}).flaws
    assert [f.file for f in found] == ["run/start.sh", "run/start.sh"]
    for path in ("web/run/start.sh", "run/start.sh"):
        found = scan(Found({"web/Containerfile": text}), Policy(), TODAY, {path: script}).flaws
        assert [(f.rule, f.file, f.line) for f in found] == [("root-at-start", path, 4), ("passwd-writable", path, 5)]


BAD_PODS: dict[str, tuple[str, str, list[tuple[str, int]]]] = {
    "run-as-non-root": ("        runAsNonRoot: true\n", "", [("run-as-non-root", 7)]),
    "run-as-root": ("runAsNonRoot: true", "runAsNonRoot: true\n        runAsUser: 0", [("run-as-root", 9)]),
    "run-as-root: said": ("runAsNonRoot: true", "runAsNonRoot: false", [("run-as-root", 8)]),
    "run-as-root: the container comes first": (
        "allowPrivilegeEscalation: false",
        "allowPrivilegeEscalation: false\n            runAsUser: 0",
        [("run-as-root", 15)],
    ),
    "user-reserved": (
        "runAsNonRoot: true",
        "runAsNonRoot: true\n        runAsUser: 65534",
        [("uid-outside-range", 9), ("user-reserved", 9)],
    ),
    "user-low": (
        "runAsNonRoot: true",
        "runAsNonRoot: true\n        runAsUser: 100",
        [("uid-outside-range", 9), ("user-low", 9)],
    ),
    "uid-outside-range": (
        "runAsNonRoot: true",
        "runAsNonRoot: true\n        runAsUser: 10001",
        [("uid-outside-range", 9)],
    ),
    "group-outside-range": (
        "runAsNonRoot: true",
        "runAsNonRoot: true\n        fsGroup: 1001",
        [("group-outside-range", 9)],
    ),
    "group-root": ("runAsNonRoot: true", "runAsNonRoot: true\n        runAsGroup: 0", [("group-root", 9)]),
    "group-root: fsGroup": ("runAsNonRoot: true", "runAsNonRoot: true\n        fsGroup: 0", [("group-root", 9)]),
    "group-root: supplemental": (
        "runAsNonRoot: true",
        "runAsNonRoot: true\n        supplementalGroups: [5, 0]",
        [("group-root", 9)],
    ),
    "privilege-escalation": (
        "            allowPrivilegeEscalation: false\n",
        "",
        [("privilege-escalation", 13)],
    ),
    "privilege-escalation: wanted": (
        "allowPrivilegeEscalation: false",
        "allowPrivilegeEscalation: true",
        [("privilege-escalation", 14)],
    ),
    "capabilities-drop": ("drop: [ALL]", "drop: [NET_RAW]", [("capabilities-drop", 16)]),
    "capabilities-drop: spelled wrong": ("drop: [ALL]", "drop: [all]", [("capabilities-drop", 16)]),
    "capabilities-add": ("drop: [ALL]", "drop: [ALL]\n              add: [SYS_ADMIN]", [("capabilities-add", 17)]),
    "seccomp": ("        seccompProfile: {type: RuntimeDefault}\n", "", [("seccomp", 7)]),
    "seccomp: none": ("{type: RuntimeDefault}", "{type: Unconfined}", [("seccomp", 9)]),
    "seccomp: Localhost": ("{type: RuntimeDefault}", "{type: Localhost, localhostProfile: x}", [("seccomp", 9)]),
    "privileged": (
        "capabilities:",
        "privileged: true\n            capabilities:",
        [("privileged", 15)],
    ),
    "host-access": ("      containers:", "      hostNetwork: true\n      containers:", [("host-access", 10)]),
    "host-access: a path": (
        "      containers:",
        "      volumes: [{name: a, hostPath: {path: /}}]\n      containers:",
        [("host-access", 10)],
    ),
    "host-access: a port": (
        "          image:",
        "          ports: [{containerPort: 8080, hostPort: 80}]\n          image:",
        [("host-access", 12)],
    ),
    "unknown-field": (
        "capabilities:",
        "readOnlyRootFileSystem: true\n            capabilities:",
        [("unknown-field", 15)],
    ),
    "unknown-field: wrong level": (
        "runAsNonRoot: true",
        "runAsNonRoot: true\n        readOnlyRootFilesystem: true",
        [("unknown-field", 9)],
    ),
    "privileged-port": (
        "          image:",
        "          ports: [{containerPort: 80}]\n          image:",
        [("privileged-port", 12)],
    ),
    "root-at-start": (
        "          image:",
        "          command: [sh, -c]\n          args: ['chown -R 1 /a && exec app']\n          image:",
        [("root-at-start", 12)],
    ),
}


@pytest.mark.parametrize("name", BAD_PODS)
def test_pods_that_break_a_rule(name: str) -> None:
    old, new, wanted = BAD_PODS[name]
    assert pod(old, new) == wanted


def test_home_on_a_read_only_root_needs_a_volume() -> None:
    env = "env: [{name: HOME, value: /home/app}]\n          image:"
    text = GOOD_POD.replace("image:", env).replace("allowP", "readOnlyRootFilesystem: true\n            allowP")
    assert pod(text=text) == [("home-not-mounted", 12)]
    mounted = text.replace("env:", "volumeMounts: [{name: h, mountPath: /home/app}]\n          env:")
    assert pod(text=mounted) == []
    assert pod(text=mounted.replace("mountPath: /home/app", "mountPath: /home/app, readOnly: true")) != []


@pytest.mark.parametrize("kind", ["initContainers", "ephemeralContainers"])
def test_init_and_ephemeral_containers_count(kind: str) -> None:
    extra = f"      {kind}: [{{name: x, securityContext: {{runAsUser: 0}}}}]\n      containers:"
    found = {r for r, _ in pod("      containers:", extra)}
    assert found == {"run-as-root", "privilege-escalation", "capabilities-drop"}


@pytest.mark.parametrize(
    ("kind", "version"),
    [
        ("StatefulSet", "apps/v1"),
        ("DaemonSet", "apps/v1"),
        ("Job", "batch/v1"),
        ("DeploymentConfig", "apps.openshift.io/v1"),
    ],
)
def test_everything_that_makes_pods_is_examined(kind: str, version: str) -> None:
    text = GOOD_POD.replace("Deployment", kind).replace("apps/v1", version)
    assert pod(text=text) == []
    assert pod("runAsNonRoot: true", "runAsNonRoot: false", text=text) == [("run-as-root", 8)]


def test_cron_jobs_pods_lists_several_documents_and_our_own_documents() -> None:
    bare = "securityContext: {runAsNonRoot: false, seccompProfile: {type: RuntimeDefault}}"
    ok = "{name: a, securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}"
    one = f"{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{{bare}, containers: [{ok}]}}}}"
    job = f"{{spec: {{template: {{spec: {{{bare}, containers: [{ok}]}}}}}}}}"
    cron = f"{{apiVersion: batch/v1, kind: CronJob, metadata: {{name: c}}, spec: {{jobTemplate: {job}}}}}"
    listed = f"{{apiVersion: v1, kind: List, items: [{one}, {cron}]}}"
    ours = f"{{apiVersion: reconciler/v1, kind: KubernetesManifest, metadata: {{name: m}}, spec: {{objects: [{one}]}}}}"
    text = f"{one}\n---\n{cron}\n---\n{listed}\n---\n{ours}\n"
    found = flaws({"all.yaml": text})
    assert [(f.rule, f.line) for f in found] == [("run-as-root", n) for n in (1, 3, 5, 5, 7)]
    assert [f.rule for f in flaws({"all.json": json.dumps({"apiVersion": "v1", "kind": "Pod", "spec": 5})})] == []


def test_ranges_come_from_the_policy_and_from_namespaces_among_the_files() -> None:
    text = GOOD_POD.replace("runAsNonRoot: true", "runAsUser: 1000650001\n        runAsNonRoot: true")
    text = text.replace("{name: web}", "{name: web, namespace: team}")
    (unknown,) = flaws({"a.yaml": text})
    assert (unknown.rule, unknown.level) == ("uid-outside-range", "warning")
    notes = {"openshift.io/sa.scc.uid-range": "1000650000/10000"}
    ours = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team", "annotations": notes}}
    assert flaws({"a.yaml": text, "ns.json": json.dumps(ours)}) == []
    notes["openshift.io/sa.scc.uid-range"] = "1000660000/10000"
    (other,) = flaws({"a.yaml": text, "ns.json": json.dumps(ours)})
    assert other.level == "error"
    assert "1000660000-1000669999" in other.message
    assert flaws({"a.yaml": text}, Policy(namespaces=Namespaces({"te*": Range(1000650000, 2)}))) == []


def test_known_images() -> None:
    policy = Policy(images=[KnownImage("registry.example.org/*", "app"), KnownImage("good/*", "1001:0", "/opt")])
    assert pod(policy=policy) == [("run-as-user-needed", 11)]
    assert build("FROM good/x\nRUN y\n", policy) == []
    assert build("FROM registry.example.org/x\n" + HOME, policy) == [("user-by-name", 1)]


@pytest.mark.parametrize("scc", ["anyuid", "privileged", "nonroot-v2"])
def test_wider_constraints_are_named(scc: str) -> None:
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": f"system:openshift:scc:{scc}"}
    one: dict[str, object] = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {}}
    one |= {"roleRef": role, "subjects": [{"kind": "ServiceAccount", "name": "app"}]}
    assert [f.rule for f in flaws({"a.json": json.dumps(one)})] == ["scc-granted"]
    role["name"] = "system:openshift:scc:restricted-v2"
    assert flaws({"a.json": json.dumps(one)}) == []


# ------------------------------------------------------------------------------------------------ Helm

CHART = {"c/Chart.yaml": "name: c\n"}


@pytest.mark.parametrize(
    ("file", "text", "wanted"),
    [
        ("values.yaml", "podSecurityContext:\n  runAsUser: 1001\n", [("helm-fixed-id", 2)]),
        ("values.yaml", "a: {b: [{fsGroup: 1001}]}\n", [("helm-fixed-id", 1)]),
        ("values-prod.yaml", "runAsUser: 65534\n", [("helm-fixed-id", 1), ("user-reserved", 1)]),
        ("values.yaml", "runAsUser: 0\n", [("run-as-root", 1)]),
        ("values.yaml", "runAsUser: 10\n", [("helm-fixed-id", 1), ("user-low", 1)]),
        ("values.yaml", "runAsGroup: 0\n", [("group-root", 1)]),
        ("values.yaml", "securityContext: {privileged: true}\n", [("privileged", 1)]),
        ("values.yaml", "runAsUser: null\nfsGroup:\nrunAsNonRoot: true\nrunAsGroup: 3000\n", []),
        ("templates/d.yaml", "  runAsUser: 1001\n", [("helm-hard-coded", 1)]),
        ("templates/d.yaml", "x:\n  fsGroup: '1001' # why\n", [("helm-hard-coded", 2)]),
        ("templates/d.yaml", "runAsUser: 0\n", [("helm-hard-coded", 1), ("run-as-root", 1)]),
        ("templates/d.yaml", "runAsUser: {{ .Values.u | default 1001 }}\n", [("helm-not-nullable", 1)]),
        ("templates/d.yaml", "runAsUser: {{ int .Values.u }}\n", [("helm-not-nullable", 1)]),
        ("templates/d.yaml", "runAsUser: {{ .Values.u }}\n", []),
        ("templates/d.yaml", "securityContext: {{- toYaml .Values.podSecurityContext | nindent 8 }}\n", []),
        ("templates/d.yaml", "runAsNonRoot: true\nrunAsGroup: 3000\n", []),
        ("values.schema.json", '{"properties": {"runAsUser": {"type": "integer"}}}', [("helm-not-nullable", 1)]),
        ("values.schema.json", '{"properties": {"runAsUser": {"type": ["integer", "null"]}}}', []),
        ("values.schema.json", "{", [("unreadable", 1)]),
        ("values.yaml", "a: [\n", [("unreadable", 2)]),
    ],
)
def test_charts(file: str, text: str, wanted: list[tuple[str, int]]) -> None:
    assert [(f.rule, f.line) for f in flaws({**CHART, f"c/{file}": text})] == wanted


def test_rendered_charts_are_manifests_and_values_elsewhere_are_none() -> None:
    rendered = "---\n# Source: c/templates/d.yaml\n" + GOOD_POD.replace("runAsNonRoot: true", "runAsNonRoot: false")
    assert [(f.rule, f.line) for f in flaws({"rendered.yaml": rendered})] == [("run-as-root", 10)]
    assert flaws({"values.yaml": "runAsUser: 0\n"}) == []


# ------------------------------------------------------------------------------------------------ images


def config(**fields: object) -> list[str]:
    text = json.dumps({"os": "linux", "config": fields})
    return [f.rule for f in flaws({}, images=[ImageConfig("a.tar", "web:1", text)])]


def test_image_configs() -> None:
    env = ["PATH=/bin", "HOME=/opt/app"]
    assert config(User="1001:0", Env=env, Entrypoint=["app"], ExposedPorts={"8080/tcp": {}}) == []
    assert config(Env=env) == ["user-missing"]
    assert config(User="0", Env=env) == ["user-root"]
    assert config(User="app:0", Env=env) == ["user-by-name"]
    assert config(User="1001") == ["group-unset", "home-missing"]
    assert config(User="65535:0", Env=["HOME=/root"]) == ["home-not-writable", "user-reserved"]
    assert config(User="1001:0", Env=env, Entrypoint=["gosu", "a", "b"]) == ["root-at-start"]
    assert config(User="1001:0", Env=env, Entrypoint=["sh", "-c"], Cmd=["chown a b"]) == ["root-at-start"]
    assert config(User="1001:0", Env=env, ExposedPorts={"80/tcp": {}}) == ["privileged-port"]
    for text in ("[]", "{", '{"config": 5}', "[" * 100_000):
        assert [f.rule for f in flaws({}, images=[ImageConfig("a.tar", "", text)])] == ["unreadable"]


# ------------------------------------------------------------------------------------------------ the policy


def test_platforms_decide_what_is_reported_and_why() -> None:
    text = "FROM x\nUSER app:5\n"
    on = {p: {r for r, _ in build(text, Policy([p]))} for p in PLATFORMS}
    assert on == {
        "docker": set(),
        "kubernetes": {"user-by-name"},
        "openshift": {"group-not-root", "home-missing"},
    }


def test_exceptions_cover_end_and_wear_out() -> None:
    texts = {"a/Containerfile": "FROM x\n" + HOME + "USER 999:0\n"}

    def judged(**fields: object) -> list[str]:
        given = {"rule": "user-low", "path": "a/**", "reason": "r", "expires": TODAY, **fields}
        result = scan(Found(texts), Policy(exceptions=[Acceptance(**given)]), TODAY)  # type: ignore[arg-type]
        return sorted(f.rule for f in result.flaws) + ["accepted"] * len(result.accepted)

    assert judged() == ["accepted"]
    assert judged(rule="*", path="a") == ["accepted"]
    assert judged(expires=date(2026, 11, 21)) == ["exception-expired", "user-low"]
    assert judged(path="b/**") == ["exception-unused", "user-low"]
    assert judged(subject="Deployment/*") == ["exception-unused", "user-low"]


def test_every_rule_is_broken_by_some_test_and_says_why_and_how() -> None:
    """A rule that no text breaks finds nothing."""
    broken = {r for _, wanted in BAD_BUILDS.values() for r, _ in wanted}
    broken |= {r for _, _, wanted in BAD_PODS.values() for r, _ in wanted}
    elsewhere = {"home-not-mounted", "run-as-user-needed", "scc-granted", "exception-expired", "exception-unused"}
    elsewhere |= {"helm-fixed-id", "helm-hard-coded", "helm-not-nullable"}
    assert broken | elsewhere == RULES.keys()
    for rule in RULES.values():
        assert rule.why
        assert rule.fix.endswith(".")
        assert all(text.endswith(".") for text in rule.why.values())
        assert not rule.title.endswith(".")
