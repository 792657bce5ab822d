"""The emulator as one object: see the package's docstring."""

from __future__ import annotations

import copy
import json
import random
import re
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from reconciler.lab.kubernetes import http
from reconciler.lab.kubernetes.api import ApiServer
from reconciler.lab.kubernetes.controllers import Cluster, Controller, collection, rollout, run
from reconciler.lab.kubernetes.controllers.definitions import definitions
from reconciler.lab.kubernetes.controllers.router import router as routes
from reconciler.lab.kubernetes.kinds import route
from reconciler.lab.kubernetes.kinds.service import Allocator
from reconciler.lab.kubernetes.resources import Resource
from reconciler.lab.kubernetes.schema import Object
from reconciler.lab.kubernetes.store import Store
from reconciler.lab.kubernetes.wire import APPLY, Request
from reconciler.lab.kubernetes.writes import Writes

Clock = Callable[[], float]
FORMAT = "reconciler/kubernetes-emulator/v1"


class ManualClock:
    """A clock that stands still until somebody advances it."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self.now = start

    def __call__(self) -> float:
        """POSIX seconds."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Moves the time on."""
        self.now += seconds


class KubernetesEmulator:
    """A Kubernetes API server on loopback. Arguments and attributes: see the package's docstring."""

    def __init__(
        self,
        *,
        openshift: bool = False,
        controllers: bool = True,
        router: bool = True,
        kubelet: bool = True,
        tls: bool = False,
        port: int = 0,
        users: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        pod_start_seconds: float = 0.3,
        ingress_domain: str = "apps.test.example.com",
        service_range: str = "10.96.0.0/16",
        revision: int = 1,
        state: Object | None = None,
        seed: int | None = None,
    ) -> None:
        self.openshift = openshift
        self.users = dict(users or {"admin": "admin-token"})
        self.clock = clock or time.time
        self.log: list[tuple[str, str, int]] = []
        self.ca_pem = ""
        self.host = "127.0.0.1"
        self.port = port
        self._tls = tls
        self._server: ThreadingHTTPServer | None = None
        self._failures: list[http.Failure] = []
        self._wake = threading.Event()
        self._due: float | None = None
        self._store = Store(0)
        writes = Writes(
            self._store,
            self.clock,
            Allocator(service_range),
            openshift,
            "restricted" if openshift else "privileged",
            ingress_domain,
            random=random.Random(seed),  # noqa: S311 (names and ids that must repeat in a rehearsal)
        )
        self.api = ApiServer(self._store, writes)
        self.cluster = Cluster(self.api, pod_start_seconds)
        self._controllers = self._chosen(controllers, router, kubelet)
        self._bootstrap()
        self._store.revision = max(self._store.revision, revision - 1) if revision > 1 else self._store.revision
        if state is not None:
            self.restore(state)

    def _chosen(self, controllers: bool, router: bool, kubelet: bool) -> list[Controller]:
        found: list[Controller] = [definitions]
        if controllers:
            found += [collection.furnish, rollout.deployments, rollout.replica_sets]
            if kubelet:
                found.append(rollout.kubelet)
            found += [collection.collect, collection.empty_namespaces]
            if self.openshift:
                from reconciler.lab.kubernetes.controllers.service_ca import service_ca

                found += [collection.allot, service_ca]
                if router:
                    found.append(routes)
        return found

    def _bootstrap(self) -> None:
        """What every cluster has from its start."""
        namespaces = self.api.resource("", "namespaces")
        for name in ("default", "kube-node-lease", "kube-public", "kube-system"):
            value = {"metadata": {"name": name}}
            self.api.writes.controller_create(namespaces, value, "kube-apiserver")
        if self.openshift:
            definition = self.api.resource("apiextensions.k8s.io", "customresourcedefinitions")
            self.api.writes.controller_create(definition, copy.deepcopy(route.DEFINITION), "cluster-version-operator")
        self.settle()

    # ---- serving

    @property
    def url(self) -> str:
        """Where the server listens."""
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}"

    def start(self) -> Self:
        """Begins to listen."""
        context = None
        if self._tls:
            context = self._context()
        tokens = {token: user for user, token in self.users.items()}
        self.api.stopping.clear()
        self._server = http.listen(self.api, tokens, self._note, self._kick, self._failures, self.port, context)
        self.port = self._server.server_address[1]
        self.api.address = f"{self.host}:{self.port}"
        threading.Thread(target=self._work, name="kubernetes-controllers", daemon=True).start()
        return self

    def stop(self) -> None:
        """Stops to listen; open watches end."""
        self.api.stopping.set()
        self._wake.set()
        with self._store.changed:
            self._store.changed.notify_all()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def fail_request(
        self,
        method: str,
        path: str,
        status: int = 503,
        times: int = 1,
        retry_after: int | None = None,
        broken: str = "",
    ) -> None:
        """Lets requests over HTTP fail whose method is `method` and whose path matches the regular expression `path`.

        `status` 0 drops the connection without an answer; `broken="after"`: the request is done before it fails.
        """
        self._failures.append(http.Failure(method, re.compile(path), status, times, retry_after, broken == "after"))

    def _note(self, method: str, path: str, code: int) -> None:
        self.log.append((method, path, code))

    def _context(self) -> ssl.SSLContext:
        from reconciler.lab.kubernetes.certificates import serving_files

        self.ca_pem, chain = serving_files(self.host, self.clock())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with chain as path:
            context.load_cert_chain(path)
        return context

    # ---- controllers

    def _kick(self) -> None:
        """Controllers work when a write has been answered."""
        self._wake.set()

    def _work(self) -> None:
        while not self.api.stopping.is_set():
            # A clock that is set by hand moves in `settle` only.
            wait = 3600.0
            if self._due is not None and not isinstance(self.clock, ManualClock):
                wait = max(0.01, min(60.0, self._due - self.clock()))
            self._wake.wait(wait)
            self._wake.clear()
            if not self.api.stopping.is_set():
                self._run()

    def settle(self, seconds: float = 0) -> None:
        """Lets the controllers do what is due within `seconds`; a `ManualClock` is advanced by them, step by step."""
        if not isinstance(self.clock, ManualClock):
            time.sleep(seconds)
            self._run()
            return
        end = self.clock.now + seconds
        self._run()
        seen: tuple[float, int] | None = None
        while self._due is not None and self._due <= end and seen != (self._due, self._store.revision):
            seen = (self._due, self._store.revision)
            self.clock.now = max(self.clock.now, self._due)
            self._run()
        self.clock.now = end
        self._run()

    def _run(self) -> None:
        with self.api.lock:
            self._due = run(self.cluster, self._controllers)
            self.api.writes.sink.clear()

    # ---- clients

    def kubeconfig(self, user: str = "admin") -> Object:
        """A kubeconfig for a user, with the context `emulator`."""
        cluster: Object = {"server": self.url}
        if self.ca_pem:
            import base64

            cluster["certificate-authority-data"] = base64.b64encode(self.ca_pem.encode()).decode()
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "emulator", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": self.users[user]}}],
            "contexts": [
                {"name": "emulator", "context": {"cluster": "emulator", "user": user, "namespace": "default"}}
            ],
            "current-context": "emulator",
        }

    def write_kubeconfig(self, path: Path | str, user: str = "admin") -> Path:
        """Writes the kubeconfig as JSON (which is YAML), readable by the owner alone."""
        target = Path(path)
        target.touch(mode=0o600)
        target.write_text(json.dumps(self.kubeconfig(user), indent=2), "utf-8")
        return target

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        user: str = "admin",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any]:
        """A request without HTTP: its status and its body (JSON, text, or the list of a watch's events)."""
        raw = b"" if body is None else json.dumps(body).encode()
        given = {"content-type": "application/json", "user-agent": "emulator/1", **(headers or {})}
        response = self.api.answer(Request.of(method, path, given, raw, user))
        if method != "GET":
            self.settle()
        if response.stream is not None:
            return response.code, list(response.stream)
        return response.code, response.text if response.body is None else response.body

    def apply(self, *objects: Object, manager: str = "seed", force: bool = True) -> None:
        """Seeds objects by server-side apply. Raises ValueError where one is refused."""
        for value in objects:
            resource = self._served(value)
            meta = value["metadata"]
            base = f"/apis/{resource.api_version}" if resource.group else "/api/v1"
            space = f"/namespaces/{meta.get('namespace', 'default')}" if resource.namespaced else ""
            query = f"?fieldManager={manager}{'&force=true' if force else ''}"
            path = f"{base}{space}/{resource.plural}/{meta['name']}{query}"
            code, body = self.call("PATCH", path, value, headers={"content-type": APPLY})
            if code >= 300:
                message = body["message"] if isinstance(body, dict) else body
                raise ValueError(f"{value['kind']}/{meta['name']}: {message}")

    def load(self, *objects: Object) -> None:
        """Puts live objects in as they are: uid, resourceVersion, managedFields, status. For rehearsals.

        Owners that are not loaded count as existing somewhere else. Raises ValueError for a kind that is not served.
        """
        with self.api.lock:
            for value in sorted(objects, key=lambda one: one["kind"] != "CustomResourceDefinition"):
                resource = self._served(value)
                stored = copy.deepcopy(value)
                meta = stored["metadata"]
                meta.setdefault("uid", self.api.writes.new_uid())
                meta.setdefault("creationTimestamp", self.api.writes.now())
                self._store.insert(resource.place, stored)
                if resource.kind == "CustomResourceDefinition":
                    run(self.cluster, [definitions])
            known = {one["metadata"]["uid"] for place in self._store.places() for one in self._store.view(place)}
            owners = {owner["uid"] for one in objects for owner in one["metadata"].get("ownerReferences") or []}
            elsewhere = set(self.cluster.memory.get("elsewhere", [])) | (owners - known)
            self.cluster.memory["elsewhere"] = sorted(elsewhere)

    def _served(self, value: Object) -> Resource:
        group, _, version = value["apiVersion"].rpartition("/")
        for one in self.api.resources():
            if (one.group, one.version, one.kind) == (group, version, value["kind"]):
                return one
        raise ValueError(f"the emulator serves no {value['kind']} of {value['apiVersion']}")

    def get(self, path: str) -> Object | None:
        """An object or list by its path; None for a 404."""
        code, body = self.call("GET", path)
        if code == 404:
            return None
        assert isinstance(body, dict)
        return body

    # ---- state

    def snapshot(self) -> Object:
        """The whole cluster as JSON: objects, revision, what controllers remember."""
        with self.api.lock:
            return {
                "format": FORMAT,
                "openshift": self.openshift,
                "store": self._store.dump(),
                "memory": copy.deepcopy(self.cluster.memory),
            }

    def restore(self, state: Object) -> None:
        """Replaces the cluster by a snapshot. Raises ValueError for another format or flavour."""
        if state.get("format") != FORMAT:
            raise ValueError(f"not a snapshot of this emulator: {state.get('format')!r}")
        if state["openshift"] != self.openshift:
            raise ValueError("the snapshot is of another flavour (openshift)")
        with self.api.lock:
            self._store.load(copy.deepcopy(state["store"]))
            self.cluster.memory.clear()
            self.cluster.memory.update(copy.deepcopy(state["memory"]))

    def rotate_service_ca(self) -> None:
        """Rotates the service CA, as the operator does when it gets old."""
        from reconciler.lab.kubernetes.controllers.service_ca import rotate

        with self.api.lock:
            rotate(self.cluster)
        self.settle()

    def compact(self) -> None:
        """Forgets the history: older watches and exact lists are answered by 410."""
        self._store.compact()
