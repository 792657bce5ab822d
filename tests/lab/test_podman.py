"""ContainerPod on a real host with Podman: as root and rootless, as Quadlet units and as services that call Podman.

The images are made here and lie on the host as archives; there is no registry.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from reconciler.connections import Pool
from reconciler.kinds.container_pod import ContainerPodSpec
from reconciler.model import Outcome
from reconciler.plan import Plan
from reconciler.project import Project
from reconciler.tools.podman.kubernetes import exported, imported
from tests.lab.hosts import Lab, LabHost
from tests.podman.hosts import podman_setup, prepare
from tests.podman.images import archive

UID = 1001  # of the account deploy
HOSTILE = "50% of \"a b\" \\ $HOME ${HOME} 'é' %h"
SERVE = 'cat /run/secrets/token >/www/index.html; echo "$TITLE" >/www/title; exec httpd -f -p 8080 -h /www'


@pytest.fixture(scope="module")
def images() -> dict[str, str]:
    """`tiny` -> reference by digest; filled when the host is there."""
    return {}


@pytest.fixture(scope="module")
def host(images: dict[str, str]) -> Iterator[LabHost]:
    with Lab("pod1", setups={"pod1": podman_setup()}) as lab:
        one = lab["pod1"]
        program = prepare(one)
        one.path("/srv/images").mkdir()
        for name in ("tiny", "other"):
            file = one.path("/srv/images") / f"{name}.tar"
            images[name] = f"localhost/{name}@{archive(file, program, f'localhost/{name}:1', note=name)}"
        # The archives can be read by root alone.
        one.run("chmod 700 /srv/images")
        yield one


class Site:
    """A desired state for the host."""

    def __init__(self, host: LabHost, folder: Path, user: str = "root") -> None:
        self.host, self.folder, self.user = host, folder / "desired", user
        self.folder.mkdir()
        lab = host.lab
        login = {"address": host.address, "user": "root", "identityFile": str(lab.key)}
        self.put("Host", host.name, login | {"knownHosts": str(lab.known_hosts)})
        self.token = folder / "token"
        self.token.write_text("canary-6Xq!\n")
        self.project = Project(self.folder, folder / "state")

    def again(self) -> None:
        """As another run of the program: secrets are looked up anew."""
        self.project.store.close()
        self.project = Project(self.folder, self.project.state)

    def put(self, kind: str, name: str, spec: Any) -> None:
        document = {"apiVersion": "reconciler/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        (self.folder / f"{kind}-{name}.yaml").write_text(json.dumps(document))

    def pod(self, images: Mapping[str, str], **fields: Any) -> None:
        """A pod that answers on port 8080 with its secret, and keeps a volume."""
        web = {
            "name": "web",
            "image": images["tiny"],
            "archive": "/srv/images/tiny.tar",
            "command": ["sh", "-c", SERVE],
            "ports": [{"container": 8080}],
            "environment": {"TITLE": HOSTILE},
            "secrets": [{"name": "token", "value": {"secretRef": f"file:{self.token}"}}],
            "mounts": [{"volume": "data", "path": "/data"}],
            "healthCheck": {"command": ["test", "-s", "/www/title"], "interval": "5s", "retries": 1},
            "stopTimeout": 0,
        }
        side = {"name": "side", "image": images["other"], "archive": "/srv/images/other.tar", "stopTimeout": 0}
        spec = {"hosts": [self.host.name], "volumes": [{"name": "data"}], "containers": [web, side]}
        if self.user != "root":
            spec["user"] = self.user
        self.put("ContainerPod", "shop", spec | fields)

    def plan(self) -> Plan:
        """On connections that cannot write."""
        with self.host.lab.inside():
            made = self.project.plan()
        assert not made.unknown
        return made

    def drift(self) -> dict[str, list[str]]:
        """`shop-web.container` -> attributes that are not as desired; nothing that is absent."""
        made = self.plan()
        assert all(change.before is not None for change in made.changes), [c.address for c in made.changes]
        return {c.address.rpartition(":")[2].removesuffix("]"): sorted(c.changed) for c in made.changes}

    def seen(self, attribute: str) -> Sequence[Any]:
        """What the plan says of an attribute that differs."""
        return [d.before for c in self.plan().changes for d in c.differences if d.attribute == attribute]

    def apply(self) -> None:
        with self.host.lab.inside(), Pool(self.project.desired().targets) as pool:
            result = self.project.apply(self.project.plan(pool=pool), pool)
        assert not [e.reason for e in result.ended.values() if e.outcome is not Outcome.DONE]

    def settle(self) -> None:
        self.apply()
        assert self.drift() == {}

    def sh(self, script: str, check: bool = True) -> str:
        """As the account that the containers belong to."""
        if self.user == "root":
            return self.host.run(script, check=check).stdout
        environment = f'export XDG_RUNTIME_DIR=/run/user/{UID}; cd; systemctl() {{ command systemctl --user "$@"; }}\n'
        return self.host.run(environment + script, user=self.user, check=check).stdout

    def answer(self, path: str = "") -> str:
        """What the published port says, asked from the machine outside."""
        return self.host.run(f"busybox wget -qO- http://{self.host.address}:8080/{path}").stdout

    def running(self) -> set[str]:
        return set(self.sh("podman ps --format '{{.Names}}'").split())

    def state(self) -> tuple[set[str], dict[str, list[str]]]:
        """What runs, and what is not as desired."""
        return self.running(), self.drift()


CLEAN = f"""
stop() {{ systemctl "$@" stop 'shop*' 2>/dev/null; podman pod rm -af; podman rm -af; podman volume rm -af
    podman secret rm -a; podman rmi -af; }}
stop >/dev/null 2>&1
rm -rf /etc/containers/systemd /etc/systemd/system/shop* /etc/systemd/system/*.wants/shop*
systemctl daemon-reload
loginctl disable-linger deploy 2>/dev/null; systemctl stop user@{UID} 2>/dev/null
rm -rf /home/deploy/.config /home/deploy/.local
sed -i /^deploy:/d /etc/subuid /etc/subgid
"""


@pytest.fixture(params=["root", "deploy"])
def site(host: LabHost, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    host.run(CLEAN, check=False)
    one = Site(host, tmp_path, request.param)
    yield one
    one.project.store.close()


def wait(look: Callable[[], Any], wanted: Any) -> None:
    """Until somebody sees what is wanted; at last with an assertion that shows what is there instead."""
    deadline = time.monotonic() + 90
    while (seen := look()) != wanted:
        if time.monotonic() > deadline:
            assert seen == wanted
        time.sleep(0.5)


ALL = {"shop-infra", "shop-web", "shop-side"}
STEADY: tuple[set[str], dict[str, list[str]]] = (ALL, {})


def test_from_nothing_to_a_pod_that_survives(site: Site, images: dict[str, str]) -> None:
    """Plan, apply, plan; the port answers; a kill of each part and a reboot of the host change nothing."""
    host = site.host
    site.pod(images)
    site.settle()
    assert site.answer() == "canary-6Xq!"
    assert site.answer("title") == f"{HOSTILE}\n"
    assert site.running() == ALL
    assert site.sh("podman inspect --format '{{.ImageDigest}}' shop-web").strip() == images["tiny"].partition("@")[2]
    owner = "root" if site.user == "root" else "deploy"
    assert host.run("ps -o user= -C httpd").stdout.split() == [owner]
    folder = "/etc/containers/systemd" + ("" if site.user == "root" else f"/users/{UID}")
    assert "canary" not in host.run(f"cat {folder}/*.container {folder}/*.pod").stdout
    site.sh("podman exec shop-web sh -c 'echo kept >/data/kept'")
    site.sh("podman kill shop-web; podman kill shop-side")
    wait(site.state, STEADY)
    site.sh("podman pod kill shop")
    wait(site.state, STEADY)
    host.reboot()
    wait(site.state, STEADY)
    assert site.answer() == "canary-6Xq!"
    assert site.sh("podman exec shop-web cat /data/kept") == "kept\n"


def test_hand_edits_are_named_and_repaired(site: Site, images: dict[str, str]) -> None:
    host = site.host
    site.pod(images)
    site.settle()
    folder = "/etc/containers/systemd" + ("" if site.user == "root" else f"/users/{UID}")

    # A unit file, and what runs from it.
    host.run(f"sed -i 's/^Image=.*/Image=localhost\\/other:1/' {folder}/shop-web.container")
    site.sh("systemctl daemon-reload; systemctl restart shop-web", check=False)
    assert site.drift() == {"shop-web.container": ["image", "text"]} or site.drift() == {
        "shop-web.container": ["running", "text"]
    }
    site.settle()

    # A service that somebody stopped.
    site.sh("systemctl stop shop-side")
    assert site.drift() == {"shop-side.container": ["running"]}
    # 137: it does not listen to SIGTERM, and gets no time to.
    assert site.seen("running") == ["no: failed (failed, exit-code, exit status 137)"]
    site.settle()
    assert site.running() == ALL

    # A secret.
    site.sh("printf changed | podman secret create --replace shop-token -")
    assert site.drift() == {"shop-token": ["value"], "shop-web.container": ["fresh"]}
    site.settle()
    assert site.answer() == "canary-6Xq!"

    # A container that its check calls unhealthy.
    site.sh("podman exec shop-web rm /www/title; podman healthcheck run shop-web", check=False)
    wait(lambda: site.seen("health"), ["unhealthy"])
    assert site.drift() == {"shop-web.container": ["health"]}
    site.settle()
    assert site.answer("title") == f"{HOSTILE}\n"

    # The pod.
    site.sh("systemctl stop shop-pod")
    assert set(site.drift()) >= {"shop.pod", "shop-web.container", "shop-side.container"}
    site.settle()
    assert site.running() == ALL


def test_another_image_and_another_secret_are_rolled_out(site: Site, images: dict[str, str]) -> None:
    site.pod(images)
    site.settle()
    before = site.sh("podman inspect --format '{{.Id}}' shop-side shop-infra")
    site.token.write_text("canary-second!\n")
    site.again()
    assert site.drift() == {"shop-token": ["value"], "shop-web.container": ["fresh"]}
    site.settle()
    assert site.answer() == "canary-second!"
    assert site.sh("podman inspect --format '{{.Id}}' shop-side shop-infra") == before, "the others go on"
    document = json.loads((site.folder / "ContainerPod-shop.yaml").read_text())
    side = document["spec"]["containers"][1]
    side |= {"image": images["tiny"], "archive": "/srv/images/tiny.tar", "pull": "missing"}
    site.put("ContainerPod", "shop", document["spec"])
    assert site.drift() == {"shop-side.container": ["image", "text"]}
    site.settle()
    assert site.sh("podman exec shop-side cat /note") == "tiny"


def test_prune_leaves_data(site: Site, images: dict[str, str]) -> None:
    host = site.host
    site.pod(images)
    site.settle()
    site.sh("podman exec shop-web sh -c 'echo kept >/data/kept'")
    (site.folder / "ContainerPod-shop.yaml").unlink()
    with host.lab.inside(), Pool(site.project.desired().targets) as pool:
        result = site.project.apply(site.project.plan(pool=pool, force=True), pool)
    assert result.ok, result.ended
    assert site.sh("podman ps -aq; podman pod ps -q; podman secret ls -q") == ""
    assert host.run("find /etc/containers/systemd /home/deploy/.config -type f", check=False).stdout == ""
    assert host.run("systemctl list-units --all 'shop*' --no-legend").stdout == ""
    where = site.sh("podman volume inspect --format '{{.Mountpoint}}' shop-data").strip()
    assert host.read(f"{where}/kept") == "kept\n"


def test_services_that_call_podman(site: Site, images: dict[str, str]) -> None:
    """As on hosts whose Podman has no Quadlet; then such a host gets a new Podman."""
    host = site.host
    site.pod(images, podman="4.3")
    site.settle()
    assert site.answer("title") == f"{HOSTILE}\n"
    folder = "/etc/systemd/system" if site.user == "root" else "/home/deploy/.config/systemd/user"
    assert host.exists(f"{folder}/shop-web.service")
    assert host.run("find /etc/containers/systemd -type f", check=False).stdout == ""
    site.sh("podman kill shop-web")
    wait(site.state, STEADY)
    host.reboot()
    wait(site.state, STEADY)
    host.run(f"sed -i s/8080:8080/8081:8080/ {folder}/shop-pod.service")
    site.sh("systemctl disable shop-pod")
    drift = site.drift()
    assert drift.pop("shop.pod") == ["enabled", "text"]
    assert set(drift) <= {"shop-web.container", "shop-side.container"}
    site.settle()
    assert site.answer() == "canary-6Xq!"
    site.sh("podman exec shop-web sh -c 'echo kept >/data/kept'")
    site.pod(images)
    site.settle()
    assert not host.exists(f"{folder}/shop-web.service")
    assert site.sh("podman exec shop-web cat /data/kept") == "kept\n"


def test_what_podman_refuses_is_said_and_not_written(host: LabHost, tmp_path: Path, images: dict[str, str]) -> None:
    """The generator's dry run, a missing archive, a wrong one, and a name without a source."""
    host.run(CLEAN, check=False)
    site = Site(host, tmp_path)
    for fields, wanted in (
        ({"archive": "/srv/images/none.tar"}, "There is no file /srv/images/none.tar on this host."),
        ({"archive": "/srv/images/other.tar"}, f"localhost/other:1 is {images['other'].replace('other', 'tiny')}"),
        ({"pull": "never"}, "nothing says where it comes from"),
    ):
        container = {"name": "web", "image": images["tiny"]} | fields
        site.put("ContainerPod", "shop", {"hosts": [host.name], "containers": [container]})
        with host.lab.inside(), Pool(site.project.desired().targets) as pool:
            result = site.project.apply(site.project.plan(pool=pool), pool)
        reasons = [e.reason for e in result.ended.values() if e.outcome is Outcome.FAILED]
        assert any(wanted in reason for reason in reasons), reasons
    site.project.store.close()


def test_kubernetes_yaml_is_what_podman_reads_and_writes(host: LabHost, tmp_path: Path, images: dict[str, str]) -> None:
    """`podman kube play` takes the export; what `podman kube generate` makes of that comes back as a document."""
    host.run(CLEAN, check=False)
    site = Site(host, tmp_path)
    site.pod(images)
    spec = ContainerPodSpec.model_validate(json.loads((site.folder / "ContainerPod-shop.yaml").read_text())["spec"])
    out = exported("shop", spec)
    token = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "shop-token"}, "stringData": {"token": "x"}}
    host.run("for i in tiny other; do podman load -q -i /srv/images/$i.tar; done; mkdir -p /srv/kube")
    host.write("/srv/kube/pod.yaml", "---\n".join(json.dumps(one) + "\n" for one in (token, *out.documents)))
    host.run("podman kube play --start=false /srv/kube/pod.yaml")
    assert (
        host.run("podman inspect --format '{{.Config.Cmd}} {{.ImageDigest}}' shop-web").stdout.split()[-1]
        in images["tiny"]
    )
    assert host.run("podman volume exists shop-data", check=False).returncode == 0
    generated = list(YAML(typ="safe").load_all(host.run("podman kube generate shop").stdout))
    back = imported(generated, [host.name])
    (document,) = back.documents
    again = ContainerPodSpec.model_validate(document["spec"])
    for before, after in zip(spec.containers, again.containers, strict=True):
        assert after.image.partition("@")[2] == before.image.partition("@")[2]
        assert after.command + after.args == before.command + before.args
        assert [p.host or p.container for p in after.ports] == [p.host or p.container for p in before.ports]
        assert before.environment.items() <= after.environment.items()
    # Podman writes the place of a secret as a claim, too, and lists all of them in any order.
    assert {m.volume for m in again.containers[0].mounts if m.volume} == {"token", "data"}
    site.project.store.close()
