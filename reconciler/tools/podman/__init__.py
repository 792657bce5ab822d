"""Podman without Podman: pods as data, their Quadlet and systemd units, and Kubernetes YAML. Nothing runs here."""
