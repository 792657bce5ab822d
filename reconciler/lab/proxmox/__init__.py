"""Simulators of Proxmox VE (a whole cluster) and Proxmox Backup Server, over HTTPS on loopback.

They serve the demo, `reconciler rehearse` and the tests. They are strict: an unknown parameter, a wrong type, an option
of another storage type, an old digest, a missing privilege are refused with the status and the text of the real API; a
weak token gets an empty list and no error; whatever is a task there is a task here. How close they are is measured by
`tests/proxmox/test_replay.py`, which replays what was recorded from a real cluster.

    from reconciler.lab.proxmox import PbsSimulator, PveSimulator

    with PbsSimulator() as pbs, PveSimulator(backup_servers={"pbs1.example": pbs}) as pve:
        pve.url                          # "https://127.0.0.1:40123", the first node
        pve.urls                         # {"pve1": "https://127.0.0.1:40123", "pve2": ...}: one endpoint per node
        pve.fingerprint                  # "AB:CD:...", SHA-256 of the first node's certificate; .fingerprints for all
        pve.certificates                 # {"pve1": PEM text}: for clients that check by CA
        pve.mint_token("root@pam!ci")    # the secret of a new API token, full rights of its user (separated=False)

Both simulators take

- `state`: what exists at the start, JSON; the keys that are given replace those of `empty_cluster()` / `empty_server()`
  (reconciler/lab/proxmox/{pve,pbs}/state.py). The user root@pam has the password "secret123" there. Passwords and token
  secrets may be given in clear text (`password`, `secret`); they are kept as digests.
- `clock`: seconds since the epoch as a function without arguments. `ManualClock` stands still until `advance(seconds)`.
- `pace`: how long things take (`Pace`, in seconds): tasks, the round of the replication scheduler, the broadcast of a
  guest's status. `QUICK` (the default) suits people and tests, `REAL` is what was measured.

and have

- `start()`, `stop()`, `with`; `url`, `fingerprint`, `requests` (what was asked: method, path, parameters, status).
- `snapshot() -> dict` (JSON, running tasks included) and `restore(state)`; the certificates are part of it, so that a
  pinned fingerprint survives. `edit()` is a context manager that gives the live state: changes behind everybody's back.
- `fail_request(method, path, ...)` for the next matching requests: another status, a delay, or a connection that breaks
  before or after the effect (a time-out says nothing about the effect); `fail_task(type, text, id)` for the next
  matching task.

To rehearse on what there is: `pve.seed` and `pbs.seed` make a state from what a real cluster or server answered.

`PveSimulator` has besides: `stop_node(name)`, `start_node(name)` (its port refuses connections, the others answer 595
for it, and it no longer votes), `quorate` (None: by votes; True or False: forced), `fail_replication(id, text, times)`,
`move_guest(vmid, node)` (as HA does: no job is turned round until the scheduler notices), `backup_servers` (by
"HOST" or "HOST:PORT": where storages of type pbs log in).
"""

from reconciler.lab.proxmox.clock import QUICK, REAL, ManualClock, Pace
from reconciler.lab.proxmox.pbs import PbsSimulator
from reconciler.lab.proxmox.pve import PveSimulator

__all__ = ["QUICK", "REAL", "ManualClock", "Pace", "PbsSimulator", "PveSimulator"]
