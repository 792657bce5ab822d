"""Snapshots of shared folders on Synology DSM, by its web API, which Synology does not document.

Where facts come from: the API's own answers and the client of Snapshot Replication on DSM 7.3 and 7.4, as others
observed and published them; docs/snapshots.md says what nobody of this project ever saw on a real DSM.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from reconciler.errors import ProbeFailed
from reconciler.fields import Rule
from reconciler.model import Reply

SNAPSHOT = "SYNO.Core.Share.Snapshot"
RETENTION = "SYNO.DisasterRecovery.Retention"

ShareName = Annotated[
    str,
    Rule(
        r"(?! )[^\u0000-\u001f\u007f!\"#$%&'()*+,/:;<=>?@\[\]\\^`{}|~]+(?<! )",
        "the name of a shared folder, without the characters that DSM does not allow in one",
        32,
    ),
]


def data(reply: Reply, what: str) -> Any:
    """The data of an answer.

    Raises:
        ProbeFailed: DSM refused.
    """
    if reply.status:
        raise ProbeFailed(f"{what} cannot be read: {reply.text}")
    try:
        return json.loads(reply.text)
    except ValueError:
        raise ProbeFailed(f"{what} cannot be read: the answer is no JSON.") from None
