"""The simulator of a Proxmox Backup Server."""

from __future__ import annotations

from reconciler.lab.proxmox.simulator import Simulator


class PbsSimulator(Simulator):
    """A simulated Proxmox Backup Server."""
