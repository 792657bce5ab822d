"""Names of snapshots: the moment at which they were taken, in GMT or in local time. Pure; also runs on hosts.

GMT: `@GMT-2026.11.22-04.00.00`, as Synology DSM and Samba's shadow_copy2 write it. Local time carries its offset,
`2026.11.22-05.00.00+0100`, so that the hour that DST repeats is not ambiguous.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone, tzinfo

_GMT = re.compile(r"@GMT-(\d{4}\.\d\d\.\d\d-\d\d\.\d\d\.\d\d)")
_LOCAL = re.compile(r"(\d{4}\.\d\d\.\d\d-\d\d\.\d\d\.\d\d)([+-])(\d\d)(\d\d)(\d\d)?")
_FORM = "%Y.%m.%d-%H.%M.%S"
GMT = timezone.utc  # noqa: UP017  datetime.UTC is newer than the Python of some hosts


def name_of(created: int, zone: tzinfo | None = None) -> str:
    """The name of a snapshot.

    Args:
        created: seconds since the epoch.
        zone: for local time; `None` = GMT.
    """
    if zone is None:
        return "@GMT-" + datetime.fromtimestamp(created, GMT).strftime(_FORM)
    # %z has seconds where an offset has them; years are padded because strftime does not do it everywhere.
    moment = datetime.fromtimestamp(created, zone)
    return moment.strftime(_FORM + "%z").rjust(24, "0")


def moment_of(name: str) -> int | None:
    """When a snapshot of this name was taken, in seconds since the epoch; `None` = the name is not one of ours."""
    try:
        match = _GMT.fullmatch(name)
        if match:
            return int(datetime.strptime(match[1], _FORM).replace(tzinfo=GMT).timestamp())
        match = _LOCAL.fullmatch(name)
        if match:
            offset = timedelta(hours=int(match[3]), minutes=int(match[4]), seconds=int(match[5] or 0))
            zone = timezone(-offset if match[2] == "-" else offset)
            return int(datetime.strptime(match[1], _FORM).replace(tzinfo=zone).timestamp())
    except (ValueError, OverflowError):
        pass
    return None
