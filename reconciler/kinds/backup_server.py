"""BackupServer: a Proxmox Backup Server, by its API."""

from __future__ import annotations

from reconciler.kinds.proxmox_cluster import Login, check, expand, settings
from reconciler.model import Document, Kind, Target


class BackupServerSpec(Login):
    """A Proxmox Backup Server that other documents put things on.

    Tokens of a backup server have rights of their own: grant both the user and the token what is needed.

    Example:

        apiVersion: reconciler/v1
        kind: BackupServer
        metadata:
          name: backup1
        spec:
          endpoints: [https://backup1.example.org:8007]
          user: reconciler@pbs
          token: ci
          secret: {secretRef: env:BACKUP1_TOKEN}
          fingerprint: 9C:1B:DA:44:5E:0C:75:9D:2A:37:16:0F:6C:4B:0A:92:D5:D1:0E:CB:4B:81:3D:9F:62:7F:1E:B2:3A:A0:54:E8
    """


def target(document: Document[BackupServerSpec]) -> Target:
    """How to reach the server."""
    return Target(document.name, "proxmox", settings(document, "PBS"), document.metadata.labels)


KIND = Kind("BackupServer", BackupServerSpec, expand, check, target)
