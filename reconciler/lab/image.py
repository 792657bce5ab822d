"""A small offline host: a folder with just enough of a Debian system to be managed without root.

Its package database is a simulation: packages are names and versions, no files are unpacked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

_ACCOUNTS: Final = """\
root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
polkitd:x:996:996:polkit:/nonexistent:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
_GROUP: Final = """\
root:x:0:
daemon:x:1:
adm:x:4:
sudo:x:27:
www-data:x:33:
users:x:100:
systemd-journal:x:101:
polkitd:x:996:
nogroup:x:65534:
"""
_PACKAGES: Final = {"base-files": "13.8", "openssh-server": "1:10.0p1-7", "systemd": "257.8-1", "polkitd": "126-2"}
_KNOWN: Final = {
    "btrfs-progs": "6.14-1",
    "catatonit": "0.2.1-2+b3",
    "chrony": "4.6.1-3",
    "curl": "8.14.1-2",
    "dbus-user-session": "1.16.2-2",
    "fuse-overlayfs": "1.14-1+b1",
    "htop": "3.4.1-5",
    "libpam-google-authenticator": "20191231-2+b2",
    "libpam-oath": "2.6.12-1",
    "libpam-yubico": "2.27-2",
    "nginx": "1.26.3-3",
    "passt": "0.0~git20250503.587980c-2",
    "podman": "5.4.2+ds1-2+b2",
    "postgresql": "17+278",
    "prometheus-node-exporter": "1.9.0-1",
    "python3-cryptography": "43.0.0-3",
    "python3": "3.13.5-1",
    "tmate": "2.4.0-2",
    "uidmap": "1:4.17.4-2",
    "unattended-upgrades": "2.12",
    "vim": "2:9.1.1230-2",
}
"""What apt could install. The services among them are those whose name is in `_UNITS`, too."""
_UNITS: Final = ("chrony", "cron", "nginx", "postgresql", "prometheus-node-exporter", "ssh", "systemd-timesyncd")
_FOLDERS: Final = (
    "etc/default etc/pam.d etc/polkit-1/rules.d etc/ssh etc/sysctl.d etc/systemd/system/multi-user.target.wants home "
    "opt root srv tmp usr/bin usr/lib/systemd/system usr/local/bin usr/local/lib usr/sbin usr/share/pam-configs "
    "usr/share/polkit-1/rules.d var/lib/dpkg/info var/lib/reconciler-lab var/log var/www"
)


def make_image(root: Path, name: str, *, extra: dict[str, str] | None = None) -> None:
    """Make the folder of an offline host.

    Args:
        root: the folder; it must not exist.
        name: the host's name.
        extra: more installed packages with their versions.
    """
    for folder in _FOLDERS.split():
        (root / folder).mkdir(parents=True)
    texts = {
        "etc/passwd": _ACCOUNTS,
        "etc/group": _GROUP,
        "etc/shadow": "".join(f"{line.split(':')[0]}:*:20000:0:99999:7:::\n" for line in _ACCOUNTS.splitlines()),
        "etc/gshadow": "".join(f"{line.split(':')[0]}:*::\n" for line in _GROUP.splitlines()),
        "etc/hostname": f"{name}\n",
        "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {name}\n",
        "etc/motd": "Welcome.\n",
        "etc/pam.d/sshd": "@include common-auth\naccount required pam_nologin.so\n@include common-account\n",
        "etc/os-release": 'ID=debian\nVERSION_ID="13"\nPRETTY_NAME="Debian GNU/Linux 13 (simulated)"\n',
        "etc/shells": "/bin/sh\n/bin/bash\n",
        "etc/ssh/sshd_config": "Include /etc/ssh/sshd_config.d/*.conf\nUsePAM yes\n",
        "var/lib/dpkg/status": "".join(_stanza(n, v) for n, v in sorted({**_PACKAGES, **(extra or {})}.items())),
        "var/lib/reconciler-lab/packages": "".join(
            f"{n} {v}{f' {n}.service' if n in _UNITS else ''}\n" for n, v in sorted(_KNOWN.items())
        ),
    }
    for unit in _UNITS:
        texts[f"usr/lib/systemd/system/{unit}.service"] = (
            f"[Unit]\nDescription={unit} (simulated)\n[Service]\nExecStart=/usr/bin/{unit}\n"
            "[Install]\nWantedBy=multi-user.target\n"
        )
    for path, text in texts.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    (root / "etc/shadow").chmod(0o640)
    (root / ".owners").write_text(
        "/etc/shadow|root|shadow\n/etc/polkit-1/rules.d|root|polkitd\n/var/www|www-data|www-data\n"
    )


def _stanza(name: str, version: str) -> str:
    return (
        f"Package: {name}\nStatus: install ok installed\nPriority: optional\nArchitecture: amd64\n"
        f"Version: {version}\nDescription: {name} (simulated)\n\n"
    )
