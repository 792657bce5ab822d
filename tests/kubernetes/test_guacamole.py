"""A desktop program as a web page: the article's Guacamole, from a short document, on an emulator."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from reconciler.kinds.guacamole_app import GuacamoleAppSpec, properties, user_mapping
from reconciler.model import Outcome
from reconciler.secrets import Secrets
from reconciler.types.kubernetes import fieldpaths as paths
from tests.kubernetes.world import PASSWORD, World, document, outcomes, world

DEPLOYMENT = "/apis/apps/v1/namespaces/web/deployments/kate"
SECRET = "/api/v1/namespaces/web/secrets/kate-guacamole"
SPEC = (
    "cluster: prod, namespace: web, "
    "app: {image: registry.example.org/kate, runAsUser: 1001, writable: [/home/kate, /tmp]}, "
    "users: [{name: admin, password: {secretRef: 'env:PASSWORD'}}]"
)
SERVICE = ", service: {type: NodePort, nodePort: 30000}"


@pytest.fixture
def one(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        label = {"pod-security.kubernetes.io/enforce": "restricted"}
        made.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "web", "labels": label}})
        yield made


def files(one: World) -> dict[str, str]:
    """The files of the Secret."""
    return {key: base64.b64decode(value).decode() for key, value in one.live(SECRET)["data"].items()}


def pod(one: World) -> Any:
    """The template of the Pods."""
    return one.live(DEPLOYMENT)["spec"]["template"]


def test_the_articles_objects_come_out_of_a_short_document(one: World) -> None:
    one.write(document("GuacamoleApp", "kate", SPEC + SERVICE))
    one.settle()
    guacamole, guacd, kate = pod(one)["spec"]["containers"]
    assert guacd["args"] == ["-b", "127.0.0.1"]
    assert {e["name"]: e.get("value") for e in guacamole["env"]}["GUACD_HOSTNAME"] == "127.0.0.1"
    assert kate["image"] == "registry.example.org/kate"
    (port,) = one.live("/api/v1/namespaces/web/services/kate")["spec"]["ports"]
    assert (port["nodePort"], port["port"]) == (30000, 8080)
    mapping = ElementTree.fromstring(files(one)["user-mapping.xml"])
    (authorize,) = mapping.findall("authorize")
    assert authorize.attrib == {
        "username": "admin",
        "password": hashlib.sha256(PASSWORD.encode()).hexdigest(),
        "encoding": "sha256",
    }
    assert [p.text for p in authorize.iter("param")] == ["127.0.0.1", "5900"]


def test_every_container_is_hardened_and_the_namespace_takes_nothing_less(one: World) -> None:
    """The article's contexts have a misspelt field, which is ignored, and allow more than they need."""
    one.write(document("GuacamoleApp", "kate", SPEC))
    one.settle()
    assert not any("PodSecurity" in f["output"] for event, f in one.events if event == "step_finished")
    for container in pod(one)["spec"]["containers"]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["runAsUser"] >= 1000


def test_openshift_gives_users_itself(tmp_path: Path) -> None:
    with world(tmp_path, openshift=True) as one:
        one.write(document("GuacamoleApp", "kate", SPEC.replace(", runAsUser: 1001", "") + ", route: {}"))
        one.settle()
        assert not any("runAsUser" in c["securityContext"] for c in pod(one)["spec"]["containers"])
        assert (
            one.live("/apis/route.openshift.io/v1/namespaces/web/routes/kate")["spec"]["tls"]["termination"] == "edge"
        )


def test_pods_roll_when_the_properties_change_and_not_when_users_do(one: World) -> None:
    one.write(document("GuacamoleApp", "kate", SPEC))
    one.settle()
    before = pod(one)["metadata"]["annotations"]["reconciler/properties"]
    one.environ["PASSWORD"] = "another-secret"
    one.settle()
    assert pod(one)["metadata"]["annotations"]["reconciler/properties"] == before
    assert hashlib.sha256(b"another-secret").hexdigest() in files(one)["user-mapping.xml"]
    one.write(document("GuacamoleApp", "kate", SPEC + ', properties: {api-session-timeout: "30"}'))
    made = one.plan()
    assert len(made.changes) == 2
    one.settle()
    after = pod(one)["metadata"]["annotations"]["reconciler/properties"]
    assert after != before
    assert "api-session-timeout: 30\n" in files(one)["guacamole.properties"]


def test_the_mark_of_the_properties_does_not_tell_a_password(one: World) -> None:
    """With PostgreSQL the password is among what is read at the start. A plain digest could be searched by guessing."""
    database = "postgresql: {hostname: db.example.org, password: {secretRef: 'env:PASSWORD'}}"
    one.write(document("GuacamoleApp", "kate", re.sub(r"users: \[.*\]", database, SPEC)))
    one.settle()
    text = "enable-environment-properties: true\n" + PASSWORD
    mark = pod(one)["metadata"]["annotations"]["reconciler/properties"]
    assert re.fullmatch(r"[0-9a-f]{64}", mark)
    assert mark != hashlib.sha256(text.encode()).hexdigest()
    assert PASSWORD not in repr(one.live(DEPLOYMENT))
    one.environ["PASSWORD"] = "another-secret"
    one.settle()
    assert pod(one)["metadata"]["annotations"]["reconciler/properties"] != mark


@pytest.mark.parametrize("evil", ['"/><authorize username="x', "</param>", "&amp;", "]]>", "a'b\"c<d>&e", "ä😀"])
def test_no_text_breaks_the_file_by_which_everybody_logs_in(evil: str) -> None:
    spec = GuacamoleAppSpec.model_validate(
        {
            "cluster": "prod",
            "app": {"image": "kate"},
            "users": [{"name": evil, "password": {"secretRef": "env:P"}}],
            "connection": {"name": evil, "parameters": {"title": evil, "password": {"secretRef": "env:P"}}},
        }
    )
    text = Secrets(lambda: b"k" * 32, {"P": evil}).reveal(user_mapping(spec, "kate"))
    (authorize,) = ElementTree.fromstring(text)
    assert authorize.attrib["username"] == evil
    found = {p.attrib["name"]: p.text for p in authorize.iter("param")}
    assert found["title"] == found["password"] == evil


def test_a_parameter_that_is_secret_comes_back_with_its_line_ends() -> None:
    """Such as a key of SSH from Windows."""
    spec = GuacamoleAppSpec.model_validate(
        {
            "cluster": "prod",
            "app": {"image": "kate"},
            "users": [{"name": "a", "password": {"secretRef": "env:P"}}],
            "connection": {"protocol": "ssh", "parameters": {"private-key": {"secretRef": "env:K"}}},
        }
    )
    text = Secrets(lambda: b"k" * 32, {"P": "p", "K": "a\r\nb\n"}).reveal(user_mapping(spec, "kate"))
    found = {p.attrib["name"]: p.text for p in ElementTree.fromstring(text).iter("param")}
    assert found["private-key"] == "a\r\nb\n"


def test_a_secret_that_xml_cannot_hold_stops_before_anything_is_changed(one: World) -> None:
    one.environ["VNC"] = "a\x01b"
    more = ", connection: {parameters: {password: {secretRef: 'env:VNC'}}}"
    one.write(document("GuacamoleApp", "kate", SPEC + more))
    made = one.plan()
    assert any("not text that XML can hold" in reason for reason in made.unknown.values())
    assert not one.writes()


def test_each_field_that_somebody_else_changed_is_named_and_repaired(one: World) -> None:
    one.write(document("GuacamoleApp", "kate", SPEC))
    one.settle()
    metadata = {"name": "kate", "namespace": "web"}
    inside = {"spec": {"template": {"spec": {"containers": [{"name": "guacd", "args": ["-b", "0.0.0.0"]}]}}}}
    one.cluster.apply(
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, **inside}, manager="kubectl-edit"
    )
    made = one.plan()
    (change,) = made.changes
    assert any(
        "kubectl-edit" in why and why.endswith("set spec.template.spec.containers[name=guacd].args")
        for why in change.why
    )
    result = one.settle()
    assert set(outcomes(result).values()) == {Outcome.DONE}


def test_the_program_gets_a_secret_by_its_environment(one: World) -> None:
    """Such as the password of its VNC server, which Guacamole sends."""
    inside = "app: {env: {VNC_PASSWORD: {secretRef: 'env:PASSWORD'}, SIZE: big}, "
    more = ", connection: {parameters: {password: {secretRef: 'env:PASSWORD'}}}"
    one.write(document("GuacamoleApp", "kate", SPEC.replace("app: {", inside) + more))
    one.settle()
    size, password = pod(one)["spec"]["containers"][2]["env"]
    assert size == {"name": "SIZE", "value": "big"}
    assert files(one)[password["valueFrom"]["secretKeyRef"]["key"]] == PASSWORD
    assert PASSWORD not in repr(one.live(DEPLOYMENT))
    before = pod(one)["metadata"]["annotations"]
    one.environ["PASSWORD"] = "another-secret"
    one.settle()
    assert pod(one)["metadata"]["annotations"] != before


def test_a_secret_property_comes_by_the_environment_and_pods_roll_with_it(one: World) -> None:
    more = ", properties: {ldap-search-bind-password: {secretRef: 'env:PASSWORD'}}"
    one.write(document("GuacamoleApp", "kate", SPEC + more))
    one.settle()
    (found,) = [e for e in pod(one)["spec"]["containers"][0]["env"] if e["name"] == "LDAP_SEARCH_BIND_PASSWORD"]
    key = found["valueFrom"]["secretKeyRef"]
    assert files(one)[key["key"]] == PASSWORD
    assert PASSWORD not in files(one)["guacamole.properties"]
    assert PASSWORD not in repr(one.live(DEPLOYMENT))
    before = pod(one)["metadata"]["annotations"]
    one.environ["PASSWORD"] = "another-secret"
    one.settle()
    assert pod(one)["metadata"]["annotations"] != before


def test_without_a_secret_among_them_the_mark_of_the_properties_is_the_same_whoever_applies(one: World) -> None:
    """Otherwise each fresh state folder, as in CI, would restart the program."""
    one.write(document("GuacamoleApp", "kate", SPEC))
    one.settle()
    elsewhere = World(one.folder / "elsewhere", one.cluster)
    elsewhere.write(document("GuacamoleApp", "kate", SPEC))
    elsewhere.assert_nothing_to_do()


def test_an_empty_password_lets_nobody_in(one: World) -> None:
    one.environ["PASSWORD"] = ""
    one.write(document("GuacamoleApp", "kate", SPEC))
    made = one.plan()
    assert any("env:PASSWORD is empty" in reason for reason in made.unknown.values())


@pytest.mark.parametrize(
    ("value", "line"), [(" x", "k: \\ x"), ("C:\\x", "k: C:\\\\x"), ("ü", "k: \\u00fc"), ("a ", "k: a ")]
)
def test_properties_are_read_back_as_they_were_written(value: str, line: str) -> None:
    spec = GuacamoleAppSpec.model_validate({"cluster": "prod", "app": {"image": "kate"}, "properties": {"k": value}})
    assert properties(spec).splitlines()[1] == line


def only(path: paths.Path, value: Any) -> Any:
    """An object that holds one field."""
    if not path:
        return value
    part, *rest = path
    inner = only(tuple(rest), value)
    return [{**dict(part), **inner}] if isinstance(part, tuple) else {part: inner}


def other(value: Any) -> Any:
    """Another value, of the same type."""
    if isinstance(value, list):
        return [*value, "more"]
    return not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else f"{value}9"


def test_every_field_that_others_change_is_named_with_its_own_manager_and_repaired(tmp_path: Path) -> None:
    """All at once, each by another manager; what the server does not take at all is left out."""
    with world(tmp_path, openshift=True) as one:
        more = ", route: {host: kate.example.org}, service: {type: NodePort, nodePort: 30000}"
        one.write(document("GuacamoleApp", "kate", SPEC.replace(", runAsUser: 1001", "") + more))
        one.settle()
        before = {
            c.address: c.spec.manifest for c in one.project().desired(one.project().validate()).resources.values()
        }
        changed: dict[str, str] = {}
        for address, manifest in before.items():
            names = {"apiVersion": manifest["apiVersion"], "kind": manifest["kind"]}
            named = {"name": manifest["metadata"]["name"], "namespace": "web"}
            for path, value in paths.leaves({key: manifest[key] for key in ("spec",) if key in manifest}):
                keys = [key for part in path if isinstance(part, tuple) for key, _ in part]
                if not path or path[-1] in keys or not isinstance(value, str | int | list) or not value:
                    continue
                try:
                    one.cluster.apply(
                        {**names, "metadata": named, **only(path, other(value))}, manager=f"m{len(changed)}-x"
                    )
                except ValueError:
                    continue
                changed[f"m{len(changed)}-x"] = f"{address} {paths.spelled(path)}"
        made = one.plan()
        assert not made.unknown
        found = {
            text.partition(" ")[0]: f"{change.address} {text.rpartition(' set ')[2]}"
            for change in made.changes
            for text in change.why
            if " set " in text
        }
        assert found == changed
        assert len(changed) > 30
        one.settle()
