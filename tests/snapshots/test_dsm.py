"""Synology: the connection on the wire, and policies on a simulated DiskStation while time passes."""

from __future__ import annotations

import contextlib
import json
import re
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.connections.dsm import Dsm, colons
from reconciler.errors import ConnectError, ConnectionLost
from reconciler.lab.dsm import LIMIT, DsmSimulator
from reconciler.lab.proxmox.wire import Fault, self_signed
from reconciler.model import Get, Outcome, Request, Work
from reconciler.project import Project
from reconciler.secrets import Secrets
from reconciler.types.dsm.schedule import Schedule, fires, last_hour, written
from reconciler.types.dsm.snapshots import moment

PASSWORD = "correct horse & battery=staple"
LIST = Get("SYNO.Core.Share.Snapshot/list", {"version": 2, "name": "photos", "offset": 0, "limit": -1})
CREATE = Request("POST", "SYNO.Core.Share.Snapshot/create", {"version": 1, "name": "photos"})
HOUR, DAY = 3600, 86_400


@pytest.fixture
def nas() -> Iterator[DsmSimulator]:
    with DsmSimulator({"ops": PASSWORD, "guest": "x"}, ("photos", "time machine"), plain=("guest",)) as one:
        yield one


def login(nas: DsmSimulator, **changed: Any) -> dict[str, Any]:
    secret = {"secretRef": "env:NAS"}
    return {"url": nas.url, "user": "ops", "password": secret, "fingerprint": nas.fingerprint} | changed


def dial(nas: DsmSimulator, password: str = PASSWORD, **changed: Any) -> Dsm:
    found = login(nas, **changed)
    return Dsm("nas1", {k: v for k, v in found.items() if v is not None}, lambda secret: password)


def perform(connection: Dsm, *steps: Any) -> list[Any]:
    return list(connection.execute([Work("a", steps)], lambda secret: PASSWORD))


# ------------------------------------------------------------------------------------------------ the wire


def test_one_login_for_all_and_a_logout(nas: DsmSimulator) -> None:
    connection = dial(nas)
    replies = connection.read([LIST, LIST])
    assert [json.loads(r.text)["total"] for r in replies] == [0, 0]
    assert [r.status for r in perform(connection, CREATE)] == [0]
    connection.read([LIST])
    asked = [method for _, method, _ in nas.requests]
    assert asked.count("login") == 1
    assert asked.count("list") == 2, "what is asked twice in a round is fetched once"
    assert PASSWORD not in repr(nas.requests)
    connection.close()
    assert not nas.sessions


def test_a_changed_certificate_is_an_error_that_shows_both(nas: DsmSimulator) -> None:
    other = self_signed("other").fingerprint
    with pytest.raises(ConnectError) as caught:
        dial(nas, fingerprint=other).read([LIST])
    assert other in str(caught.value)
    assert nas.fingerprint in str(caught.value)
    assert not nas.requests, "nothing was said to it, least of all the password"


def test_a_certificate_that_nobody_vouches_for_is_refused(nas: DsmSimulator, tmp_path: Path) -> None:
    with pytest.raises(ConnectError, match="is not trusted"):
        dial(nas, fingerprint=None).read([LIST])
    assert not nas.requests
    (tmp_path / "ca.pem").write_text(nas.certificate.public)
    assert dial(nas, fingerprint=None, ca=str(tmp_path / "ca.pem")).read([LIST])[0].status == 0
    (tmp_path / "other.pem").write_text(self_signed("other").public)
    with pytest.raises(ConnectError, match="is not trusted"):
        dial(nas, fingerprint=None, ca=str(tmp_path / "other.pem")).read([LIST])
    with pytest.raises(ConnectError, match="cannot be read"):
        dial(nas, fingerprint=None, ca=str(tmp_path / "nosuch.pem")).read([LIST])


@pytest.mark.parametrize(
    ("code", "words"), [(400, "wrong password"), (401, "disabled"), (403, "second factor"), (407, "blocked")]
)
def test_a_refused_login_says_why(nas: DsmSimulator, code: int, words: str) -> None:
    nas.refusals["ops"] = code
    with pytest.raises(ConnectError, match=words) as caught:
        dial(nas).read([LIST])
    assert PASSWORD not in str(caught.value)


def test_a_wrong_password(nas: DsmSimulator) -> None:
    with pytest.raises(ConnectError, match="refused \\(400\\)"):
        dial(nas, password="wrong").read([LIST])


def test_what_dsm_refuses_has_its_number(nas: DsmSimulator) -> None:
    connection = dial(nas)
    schedule = "SYNO.Core.Share.Snapshot/get_schedule"
    for one, code in (
        (Get(schedule, {"version": 2, "name": "photos"}), 103),
        (Get(schedule, {"version": 3, "name": "photos"}), 104),
        (Get(schedule, {"version": 1}), 114),
        (Get("SYNO.Nothing/get", {"version": 1}), 102),
        (Get("SYNO.Core.Share.Snapshot/nothing", {"version": 1}), 103),
    ):
        (reply,) = connection.read([one])
        assert reply.status == code
        assert reply.text
    (reply,) = dial(nas, user="guest", password="x").read([LIST])
    assert reply.status == 105
    assert "administrator" in reply.text


def test_a_session_that_ended_is_begun_again(nas: DsmSimulator) -> None:
    connection = dial(nas)
    connection.read([LIST])
    nas.sessions.clear()
    assert perform(connection, CREATE)[0].status == 0
    for code in (106, 107, 119):
        nas.faults.add(Fault("POST", re.compile("create"), code, "", 0, None, 1))
        nas.advance(60)
        assert perform(connection, CREATE)[0].status == 0
    assert json.loads(connection.read([LIST])[0].text)["total"] == 4, "each of them happened once"


def test_a_session_without_its_token_is_none(nas: DsmSimulator) -> None:
    connection = dial(nas)
    connection.read([LIST])
    assert connection._session is not None
    connection._session = (connection._session[0], "forged")
    before = [m for _, m, _ in nas.requests].count("login")
    assert connection.read([LIST])[0].status == 0
    assert [m for _, m, _ in nas.requests].count("login") == before + 1


def test_an_answer_that_does_not_arrive(nas: DsmSimulator) -> None:
    connection = dial(nas)
    connection.read([LIST])
    nas.faults.add(Fault("POST", re.compile("create"), None, "", 0, "after", 1))
    with pytest.raises(ConnectionLost):
        perform(connection, CREATE)
    connection.read([LIST])
    nas.faults.add(Fault("POST", re.compile("list"), None, "", 0, "before", 1))
    assert json.loads(connection.read([LIST])[0].text)["total"] == 1, "it was not sent twice"


def test_a_write_after_a_rest(nas: DsmSimulator) -> None:
    """DSM closes connections that nobody uses. That is no answer that got lost: nothing was sent."""
    connection = dial(nas)
    connection.read([LIST])
    server = nas._endpoint._server
    assert server is not None
    for one in list(server.open):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
    assert connection._connection is not None
    assert select.select([connection._connection.sock], [], [], 10)[0], "the end has arrived"
    assert [r.status for r in perform(connection, CREATE)] == [0]
    assert json.loads(connection.read([LIST])[0].text)["total"] == 1


def test_no_dsm(nas: DsmSimulator) -> None:
    with pytest.raises(ConnectError, match="answers 404"):
        dial(nas, url=f"{nas.url}/other").read([LIST])
    url = nas.url
    nas.__exit__()
    with pytest.raises(ConnectError, match="does not answer"):
        dial(nas, url=url).read([LIST])


def test_fingerprints() -> None:
    assert colons("ab:cd") == colons("ABCD") == "AB:CD"
    assert len(self_signed("x").fingerprint) == 95


# ------------------------------------------------------------------------------------------------ schedules

EVERY = ["5min", "15min", "30min", "1h", "2h", "3h", "4h", "6h", "8h", "12h", "1d"]


@given(
    st.sampled_from(EVERY),
    st.integers(0, 23),
    st.integers(0, 59),
    st.one_of(st.none(), st.lists(st.integers(0, 6), min_size=1, unique=True).map(lambda d: tuple(sorted(d)))),
)
@settings(deadline=None, max_examples=60)
def test_what_is_written_fires_within_a_week(every: Any, hour: int, minute: int, days: Any) -> None:
    """By the simulator's own reckoning, which knows nothing of `fires`; unless the interval leaves the day."""
    times = written(Schedule(share="photos", every=every, hour=hour, minute=minute, weekdays=days))
    simulator = DsmSimulator({}, ("photos",))
    share = simulator.shares["photos"]
    share.enabled, share.schedule = True, times
    simulator.advance(8 * DAY)
    assert bool(share.snapshots) == fires(times)
    if not every.endswith("h") or hour + int(every[:-1]) <= 23:
        assert fires(times)


@given(
    st.fixed_dictionaries(
        {
            "hour": st.integers(0, 23),
            "min": st.sampled_from([0, 2, 30]),
            "repeat_hour": st.integers(0, 13),
            "repeat_min": st.sampled_from([0, 5, 7, 15, 30]),
            "last_work_hour": st.integers(0, 23),
        }
    )
)
@settings(deadline=None, max_examples=100)
def test_what_never_fires_is_known(times: dict[str, Any]) -> None:
    full = {"date_type": 0, "week_name": "0,1,2,3,4,5,6", **times}
    simulator = DsmSimulator({}, ("photos",))
    share = simulator.shares["photos"]
    share.enabled, share.schedule = True, full
    simulator.advance(2 * DAY)
    assert bool(share.snapshots) or not fires(full)


def test_last_hours() -> None:
    assert [last_hour(0, n) for n in (0, 1, 2, 3, 4, 6, 8, 12)] == [23, 23, 22, 21, 20, 18, 16, 12]


def test_names_tell_their_moment() -> None:
    assert moment("GMT+01-2026.11.22-11.00.00") == moment("@GMT-2026.11.22-10.00.00") == 1_795_341_600
    assert moment("GMT-07-2026.11.22-03.00.00") == 1_795_341_600
    assert moment("GMT+05:30-2026.11.22-15.30.00") == 1_795_341_600
    assert moment("GMT+01-2026.13.22-11.00.00") is None
    assert moment("holiday") is None


# ------------------------------------------------------------------------------------------------ policies


class Site:
    """A desired state for one DiskStation."""

    def __init__(self, nas: DsmSimulator, folder: Path) -> None:
        self.nas, self.folder = nas, folder / "desired"
        self.folder.mkdir()
        self.put("Synology", "nas1", login(nas))
        self.project = Project(self.folder, folder / "state")
        self.project.secrets = Secrets(lambda: b"k" * 32, {"NAS": PASSWORD})

    def put(self, kind: str, name: str, spec: Any) -> None:
        document = {"apiVersion": "reconciler/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        (self.folder / f"{name}.yaml").write_text(json.dumps(document))

    def policy(self, **fields: Any) -> None:
        spec = {"synology": "nas1", "shares": ["photos", "time machine"], "schedule": {"every": "4h"}}
        self.put("SnapshotPolicy", "policy", {**spec, **fields})

    def apply(self) -> None:
        with self.project.pool() as pool:
            result = self.project.apply(self.project.plan(pool=pool), pool)
        assert not [e.reason for e in result.ended.values() if e.outcome is not Outcome.DONE]
        assert self.project.plan().empty

    def rules(self) -> set[str]:
        made = self.project.plan()
        assert not made.unknown
        return {f.rule for f in made.findings}


@pytest.fixture
def site(nas: DsmSimulator, tmp_path: Path) -> Iterator[Site]:
    one = Site(nas, tmp_path)
    yield one
    one.project.store.close()


def times(nas: DsmSimulator, share: str = "photos") -> list[str]:
    return [row["time"] for row in nas.shares[share].snapshots]


def test_snapshots_appear_and_old_ones_go(site: Site) -> None:
    nas = site.nas
    site.policy(keep={"last": 2, "daily": 3, "weekly": 2})
    site.apply()
    assert site.rules() == {"no-snapshot"}
    nas.advance(4 * HOUR)
    assert len(times(nas)) == 1
    assert not site.rules()
    nas.advance(20 * DAY)
    names = times(nas)
    assert 5 <= len(names) <= 7
    assert not site.rules()
    site.policy(keep={"last": 2})
    site.apply()
    nas.advance(4 * HOUR)
    assert len(times(nas)) == 2
    # A schedule that stopped shows by the age of the newest.
    nas.shares["photos"].schedule["week_name"] = "0"
    nas.shares["photos"].enabled = False
    nas.advance(DAY)
    made = site.project.plan()
    assert [c.address for c in made.changes] == ["dsm.schedule[nas1:photos]"]
    site.apply()
    nas.advance(5 * HOUR)
    assert not site.rules()


def test_a_schedule_that_never_fires_is_named_and_repaired(site: Site) -> None:
    nas = site.nas
    site.policy(schedule={"every": "5min"}, keep={"last": 9})
    site.apply()
    share = nas.shares["photos"]
    assert share.schedule["min"] == 0
    share.schedule["min"] = 2
    nas.advance(2 * HOUR)
    assert not times(nas)
    assert times(nas, "time machine")
    (change,) = site.project.plan().changes
    assert change.address == "dsm.schedule[nas1:photos]"
    assert change.changed == {"minute"}
    site.apply()
    nas.advance(HOUR)
    assert len(times(nas)) == 9


def test_without_retention_dsm_stops_at_its_limit(site: Site) -> None:
    nas = site.nas
    site.policy(schedule={"every": "5min"})
    site.apply()
    nas.advance(HOUR)
    assert site.rules() == {"no-retention"}
    nas.advance(4 * DAY)
    assert len(times(nas)) == LIMIT
    assert site.rules() == {"no-retention", "count-near-limit", "too-old"}
    site.policy(schedule={"every": "5min"}, keep={"last": 20})
    site.apply()
    nas.advance(HOUR + 600)
    assert not site.rules()


def test_immutable_snapshots_stay_and_locked_ones_too(site: Site) -> None:
    nas = site.nas
    site.policy(keep={"last": 1}, immutable="7d")
    site.apply()
    nas.advance(2 * DAY)
    assert len(times(nas)) > 10, "retention does not touch what is protected"
    connection = dial(nas)
    remove = Request(
        "POST", "SYNO.Core.Share.Snapshot/delete", {"version": 1, "name": "photos", "snapshots": times(nas)}
    )
    assert perform(connection, remove)[0].status == 105
    first = times(nas)[0]
    mark = {"version": 1, "name": "photos", "snapshot": first, "snapinfo": {"lock": True}}
    assert perform(connection, Request("POST", "SYNO.Core.Share.Snapshot/set", mark))[0].status == 0
    site.policy(keep={"last": 1})
    site.apply()
    assert not nas.shares["photos"].protect
    nas.advance(10 * DAY)
    assert times(nas)[0] == first
    assert len(times(nas)) == 2


def test_prune_switches_the_schedule_off_and_leaves_the_snapshots(site: Site) -> None:
    nas = site.nas
    site.policy(keep={"last": 5}, immutable="1d")
    site.apply()
    nas.advance(2 * DAY)
    names = times(nas)
    site.policy(shares=["time machine"], keep={"last": 5}, immutable="1d")
    site.apply()
    share = nas.shares["photos"]
    assert not share.enabled
    assert share.retention["policyType"] == 0
    nas.advance(5 * DAY)
    assert times(nas) == names


def test_a_share_that_does_not_exist(site: Site) -> None:
    site.policy(shares=["nosuch"], keep={"last": 5})
    made = site.project.plan()
    assert set(made.unknown) == {f"dsm.{t}[nas1:nosuch]" for t in ("retention", "schedule", "snapshots")}
    assert "402" in next(iter(made.unknown.values()))
