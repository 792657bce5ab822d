"""Resource types of Proxmox Backup Server (`pbs.*`), on top of `reconciler.types.api`."""
