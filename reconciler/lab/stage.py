"""Stand-ins for every system of a desired state: what the demo and rehearsals work on.

Hosts become folders, clusters and servers become simulators of their APIs on loopback. A stand-in takes the logins
that the documents name, and holds what the documents take for granted, such as the guests that are to be replicated.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from reconciler.expand import Catalog
from reconciler.lab.image import make_image
from reconciler.model import Secret, Target


class Stage:
    """The stand-ins of one desired state. Folders are made and simulators started when they are first asked for.

    Args:
        folder: where the folders of hosts lie; those that exist are kept.
        catalog: the documents.
        reveal: looks up the secrets of the logins.
    """

    def __init__(self, folder: Path, catalog: Catalog, reveal: Callable[[Secret], str]) -> None:
        self.folder, self.catalog, self.reveal = folder, catalog, reveal
        self.open = ExitStack()
        """What is closed with the stage; stand-ins push themselves here."""
        self.shared: dict[str, Any] = {}
        """What several stand-ins have in common, by a name of their own."""
        self._found: dict[str, Target] = {}
        self._lock = threading.Lock()

    def stand_in(self, target: Target) -> Target:
        """The same target, with a stand-in behind it."""
        with self._lock:
            if target.name not in self._found:
                self._found[target.name] = self._made(target)
            return self._found[target.name]

    def _made(self, target: Target) -> Target:
        match target.connection:
            case "proxmox":
                from reconciler.lab.proxmox.stand_in import stand_in

                return stand_in(target, self)
            case "dsm":
                from reconciler.lab.dsm import stand_in as stand_in_for_dsm

                return stand_in_for_dsm(target, self)
            case "kubernetes":
                from reconciler.lab.kubernetes.stand_in import stand_in as stand_in_for_kubernetes

                return stand_in_for_kubernetes(target, self)
            case "repository":
                return target  # a folder that is only read: the same in a demo
            case _:
                return self._host(target)

    def _host(self, target: Target) -> Target:
        root = self.folder / target.name
        if not root.exists():
            # One host runs what must be gone, so that the audit has something to find.
            extra = {"tmate": "2.4.0-2"} if target.labels.get("role") == "bastion" else {}
            make_image(root, target.name, extra=extra)
        return replace(target, connection="image", settings={"root": str(root)})

    def close(self) -> None:
        """Stop the simulators. Folders stay."""
        self.open.close()
