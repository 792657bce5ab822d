"""A Kubernetes API server in this process: for the demo, for rehearsals and for the project's own tests.

    from reconciler.lab.kubernetes import KubernetesEmulator

    with KubernetesEmulator(openshift=True) as cluster:
        cluster.write_kubeconfig(path)      # token and, with tls=True, the CA; context "emulator"
        ...                                 # any client: kubectl, the Python client, `reconciler`
        cluster.settle()                    # let the controllers finish what is due now

It answers over HTTP (or HTTPS) on loopback as kube-apiserver v1.36.2 did in the transcripts under
`tests/fixtures/kubernetes/`; what differs is listed, with reasons, in `tests/kubernetes/differences.yaml`.

`KubernetesEmulator(...)`, all by name:

| argument | default | meaning |
| --- | --- | --- |
| `openshift` | `False` | routes.route.openshift.io with its admission, the service CA, Pod security `restricted` |
| `controllers` | `True` | Deployments roll out, owners are collected, namespaces empty |
| `router` | `True` | with `openshift` and `controllers`: Routes are admitted |
| `kubelet` | `True` | with `controllers`: Pods are bound to a node and get Ready |
| `tls` | `False` | serve HTTPS with a certificate of an own CA (`ca_pem`) |
| `port` | `0` | a free one |
| `users` | `{"admin": "admin-token"}` | user name -> bearer token; `admin` may do all, others by Roles |
| `clock` | real time | a callable that returns POSIX seconds; `ManualClock` is one that is set by hand |
| `pod_start_seconds` | `0.3` | of a Pod until Ready; the annotation `fake/state: never-ready` keeps it unready |
| `ingress_domain` | `apps.test.example.com` | generated Route hosts are `<name>-<namespace>.<domain>` |
| `service_range` | `10.96.0.0/16` | cluster IPs |
| `revision` | `1` | resourceVersion of the first object after the namespaces that are there from the start |
| `seed` | `None` | of uids and generated names: the same seed gives the same ones |
| `state` | `None` | a `snapshot()` to begin with |

Attributes: `url`, `host`, `port`, `ca_pem` (PEM text or ""), `users`, `clock`, `log` (every request as
`(method, path with query, status)`: a probe must show only GET and dryRun), `api` (the server without HTTP).

Methods:

- `start()`, `stop()`, `kubeconfig(user="admin") -> dict`, `write_kubeconfig(path, user="admin")`.
- Without HTTP: `call(method, path, body=None, user="admin", headers={}) -> (status, body)`, `get(path) -> dict | None`,
  `apply(*objects, manager="seed", force=True)` (seeds objects; ValueError on refusal), `load(*objects)` (live objects
  as they are: uid, resourceVersion, managedFields, status; for rehearsals).
- State: `snapshot() -> dict` (JSON), `restore(dict)`.
- Time: `settle(seconds=0)` advances a `ManualClock` by that much and runs what is due.
- What goes wrong: `rotate_service_ca()`, `compact()` (forgets history: older watches and lists get 410),
  `fail_request(method, path, status=503, times=1, retry_after=None, broken="")` (`status` 0: no answer;
  `broken="after"`: done, but the client is not told).

Names of users, tokens and hosts in here are made up; nothing in here talks to a real cluster.
"""

from __future__ import annotations

from reconciler.lab.kubernetes.emulator import KubernetesEmulator, ManualClock

__all__ = ["KubernetesEmulator", "ManualClock"]
