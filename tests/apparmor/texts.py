"""Texts of profiles, for our lint and for the parser: what it refuses, with the line that is wrong; what it takes."""

from __future__ import annotations

_TOP = "include <tunables/global>\nprofile a /usr/bin/a {\n  /usr/bin/a mr,\n"

REFUSED = {
    "a comma is missing": (f"{_TOP}  /etc/a r\n  /etc/b r,\n}}\n", 4),
    "a comma is missing after a capability": (f"{_TOP}  capability chown\n\n  # more\n  network inet,\n}}\n", 4),
    "a comma is missing before a qualifier": (f"{_TOP}  /etc/a rw\n  deny /etc/b r,\n}}\n", 4),
    "a comma is missing at the end": (f"{_TOP}  /etc/a r\n}}\n", 4),
    "a variable that is not declared": (f"{_TOP}  @{{WEBROT}}/** r,\n}}\n", 4),
    "a variable without any tunables": ("profile a /usr/bin/a {\n  /usr/bin/a mr,\n  @{PROC}/x r,\n}\n", 3),
    "two ways to start": (f"{_TOP}  /bin/x ix,\n  /bin/x Px,\n}}\n", 5),
    "two ways to start, by patterns": (f"{_TOP}  /bin/b* ix,\n  /bin/*c Cx,\n  profile x {{ }}\n}}\n", 5),
    "write and append": (f"{_TOP}  /etc/a wa,\n}}\n", 4),
    "letters that mean nothing": (f"{_TOP}  /etc/a rz,\n}}\n", 4),
    "x alone": (f"{_TOP}  /bin/a x,\n}}\n", 4),
    "an unknown capability": (f"{_TOP}  capability setuidd,\n}}\n", 4),
    "no closing brace": (f"{_TOP}  /etc/a r,\n", 2),
    "one brace too many": (f"{_TOP}}}\n}}\n", 5),
    "a rule outside": (f"{_TOP}}}\n/etc/b r,\n", 5),
}
"""Name -> text and the line that our lint names."""

TAKEN = {
    "patterns with commas and braces": f"{_TOP}  /{{usr/,}}lib/{{a,b}}/**.so* mr,\n  /etc/[ab]?^c r,\n}}\n",
    "quotes and spaces": f'{_TOP}  "/srv/two words/*.txt" rw,\n  owner "/srv/a, b" r,\n}}\n',
    "a rule over two lines": f"{_TOP}  signal (send, receive)\n    set=(term,\n      hup) peer=unconfined,\n}}\n",
    "permissions first": f"{_TOP}  r /etc/a,\n  rw /etc/b,\n}}\n",
    "comments everywhere": f"# top, with a comma\n{_TOP}  /etc/a r, # why, {{ and }}\n  # /etc/b rw\n}} # end\n",
    "children and hats": f"{_TOP}  /bin/x Cx -> c,\n"
    "  profile c flags=(complain) {\n    /c r,\n  }\n  ^h { /x r, }\n}\n",
    "one start, spelled out and by a pattern": f"{_TOP}  /bin/* ix,\n  /bin/x Px,\n}}\n",
    "the same start twice": f"{_TOP}  /bin/x ix,\n  /bin/x rix,\n}}\n",
    "variables of its own": "include <tunables/global>\n@{A}=/a /b\n@{A}+=/c\nprofile a @{A}/x {\n  @{A}/** mr,\n}\n",
    "an old include": f"{_TOP}  #include <abstractions/base>\n}}\n",
    "without the word profile": "/usr/bin/a {\n  /usr/bin/a mr,\n}\n",
    "all on one line": "profile a /usr/bin/a { /usr/bin/a mr, capability, network, deny /x w, }\n",
    "two profiles": f"{_TOP}}}\nprofile b {{ /b r, }}\n",
    "many sorts of rules": f"{_TOP}  unix (send) type=stream peer=(label=b),\n  ptrace (read),\n"
    "  mount options=(ro, bind) /a/ -> /b/,\n  set rlimit nofile <= 1024,\n  change_profile -> b,\n  link /a -> /b,\n"
    '  dbus send bus=system path="/a{,/b}",\n  userns,\n  priority=1 /etc/p r,\n}\n',
    "flags with spaces": "profile a /usr/bin/a flags = (complain, attach_disconnected) {\n  /usr/bin/a mr,\n}\n",
}
"""Name -> text."""
