"""AppArmor profiles as data: the rules, their text, what is wrong with them, and what a log says they lack.

Pure: nothing here reads a file, a host or a clock. The language is that of apparmor.d(5) of AppArmor 4.1.
"""

from __future__ import annotations


def file_name(attachment: str) -> str:
    """The file of a profile in /etc/apparmor.d: the path without its first slash, slashes as dots.

    >>> file_name("/usr/sbin/httpd")
    'usr.sbin.httpd'
    """
    return attachment.lstrip("/").replace("/", ".")
