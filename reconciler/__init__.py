"""Desired state in YAML, compared with the live systems themselves, and applied in order."""

__version__ = "0.1.0"
