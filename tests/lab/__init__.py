"""A lab of real systems on this machine: Debian hosts with systemd and sshd, in namespaces of their own."""
