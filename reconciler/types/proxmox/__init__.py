"""Resource types of Proxmox VE (`pve.*`). Lists and parameters are read and written by `reconciler.types.api`."""
