"""Simulator of a Proxmox VE cluster."""

from reconciler.lab.proxmox.pve.simulator import PveSimulator

__all__ = ["PveSimulator"]
