"""Simulator of a Proxmox Backup Server."""

from reconciler.lab.proxmox.pbs.simulator import PbsSimulator

__all__ = ["PbsSimulator"]
