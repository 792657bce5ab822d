"""Connections on real sshd servers: who is there, who we are, and what happens when something breaks."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from reconciler.connections import connect, ssh
from reconciler.connections.shell import MAX_OUTPUT, Shell
from reconciler.errors import ConnectError, ConnectionLost, HostKeyError
from reconciler.model import Put, Run, Script, Secret, Sh, Step, StepResult, Target, Work
from reconciler.probe import probe_target
from reconciler.registry import default
from tests.lab.hosts import Lab, LabHost, Slot

SECRET = Secret(secret_ref="env:NEVER")
HOSTILE = (
    "a b",
    "$(id)",
    "`id`",
    ";rm -rf x",
    "it's",
    '"q"',
    "back\\slash",
    "-n",
    "*",
    "é\u00fc漢",
    "#x",
    "~",
    "a&b|c",
    "%s",
)


@pytest.fixture(autouse=True)
def no_ssh_of_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty home folder, no agent, and nothing remembered of files that were read."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    for cached in (ssh._known_hosts, ssh._private_key, ssh._public_text, ssh._config):
        cached.cache_clear()


def shell(host: LabHost, **settings: Any) -> Shell:
    """A shell on a host; a setting of None is left out."""
    known = {"address": host.address, "user": "root", "identityFile": host.lab.key, "knownHosts": host.lab.known_hosts}
    merged = {name: str(value) for name, value in (known | settings).items() if value is not None}
    found = connect(Target(host.name, "ssh", merged))
    assert isinstance(found, Shell)
    return found


def ask(connection: Shell, sh: str, *args: str) -> str:
    """What one read prints, over a connection that is closed afterwards."""
    with closing(connection):
        (reply,) = connection.read([Script(sh, args)])
    return reply.text


def do(connection: Shell, *steps: Step) -> list[StepResult]:
    return list(connection.execute([Work("it", steps)], lambda secret: "hush hush"))


def fingerprint(host: LabHost) -> str:
    line = subprocess.run(
        ["ssh-keygen", "-lf", f"{host.host_key}.pub"], capture_output=True, text=True, check=True
    ).stdout
    return line.split()[1]


def remembered(tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "known_hosts"
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


# ------------------------------------------------------------------------------------------------ who is there


def test_an_unknown_host_key_is_refused_and_the_error_says_how_to_add_it(lab: Lab, tmp_path: Path) -> None:
    host = lab["web1"]
    known = remembered(tmp_path)
    with lab.inside():
        with pytest.raises(HostKeyError) as caught:
            ask(shell(host, knownHosts=known), "echo in")
        text = str(caught.value)
        assert text.startswith(f"web1: the host key of {host.address} is not known")
        assert fingerprint(host) in text
        assert known.read_text() == ""
        assert list((tmp_path / "home").iterdir()) == []
        file, _, line = text.partition("add this line to ")[2].partition(": ")
        Path(file).write_text(f"{line}\n")
        ssh._known_hosts.cache_clear()
        assert ask(shell(host, knownHosts=known), "hostname") == "web1\n"


def test_a_changed_host_key_is_refused_and_both_fingerprints_are_named(lab: Lab, tmp_path: Path) -> None:
    host, other = lab["web1"], lab["web2"]
    known = remembered(tmp_path, "# a comment", "", f"{host.address} {other.public_host_key}")
    host.reset_sessions()
    with lab.inside(), pytest.raises(HostKeyError) as caught:
        ask(shell(host, knownHosts=known), "echo in")
    text = str(caught.value)
    assert "CHANGED" in text
    assert f"{fingerprint(other)} ({known}:3)" in text
    assert f"the host shows ssh-ed25519 {fingerprint(host)}" in text
    assert host.sessions().connections == 0


def test_known_hosts_are_read_as_openssh_reads_them(lab: Lab, tmp_path: Path) -> None:
    """Hashed names, patterns, several keys of a kind, damaged lines, revoked keys, certificate authorities."""
    host = lab["web1"]
    key, other = host.public_host_key, lab["web2"].public_host_key
    plain = f"{host.address} {key}"
    hashed = remembered(tmp_path, plain)
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(hashed)], check=True, capture_output=True)
    assert hashed.read_text().startswith("|1|")
    good = [
        [hashed.read_text().strip()],
        [f"10.77.*.{host.address.rpartition('.')[2]} {key}"],
        [f"{host.address} {other}", plain],
        ["only-a-name", f"{host.address} ssh-ed25519 ???", "|1|x|y ssh-ed25519 AAAA", "|1|broken k v", plain],
        [f"@cert-authority * {other}", plain],
    ]
    with lab.inside():
        for lines in good:
            ssh._known_hosts.cache_clear()
            assert ask(shell(host, knownHosts=remembered(tmp_path, *lines)), "hostname") == "web1\n", lines
        for lines, expected in (
            ([plain, f"@revoked {host.address} {key}"], "is revoked by"),
            ([f"@cert-authority * {other}"], "client: openssh"),
            ([f"*,!{host.address} {key}"], "is not known"),
        ):
            ssh._known_hosts.cache_clear()
            with pytest.raises(HostKeyError, match=expected):
                ask(shell(host, knownHosts=remembered(tmp_path, *lines)), "hostname")


# ------------------------------------------------------------------------------------------------ the way there


def test_an_alias_of_the_ssh_configuration(lab: Lab, tmp_path: Path) -> None:
    """By `configFile`, and by `~/.ssh/config`; what the document says goes before."""
    bare = {"address": None, "user": None, "identityFile": None, "knownHosts": None}
    with lab.inside():
        assert ask(shell(lab["web2"], configFile=lab.ssh_config, **bare), "hostname; id -un") == "web2\nroot\n"
        aliased = bare | {"address": "web1", "user": "admin"}
        assert ask(shell(lab["web2"], configFile=lab.ssh_config, **aliased), "hostname; id -un") == "web1\nadmin\n"
        (tmp_path / "home/.ssh").mkdir()
        (tmp_path / "home/.ssh/config").write_text(
            f"Host nick\n  HostName {lab['db1'].address}\n  HostKeyAlias db1\n{lab.ssh_config.read_text()}"
        )
        assert ask(shell(lab["db1"], **bare | {"address": "nick"}), "hostname") == "db1\n"
        (tmp_path / "home/.ssh/config").write_text(
            f'Match originalhost nick exec "test %n = nick"\n  HostName {lab["db1"].address}\n  HostKeyAlias db1\n'
            f"{lab.ssh_config.read_text()}"
        )
        assert ask(shell(lab["db1"], **bare | {"address": "nick"}), "hostname") == "db1\n"
        with pytest.raises(ConnectError, match=r"^web1: there is no SSH configuration /nowhere/config\.$"):
            ask(shell(lab["web1"], configFile="/nowhere/config"), "hostname")


def test_by_way_of_other_hosts(lab: Lab, tmp_path: Path) -> None:
    """ProxyJump over one host and over two; a jump host that names itself; one that does not get through."""
    config = tmp_path / "config"
    web1, web2, db1 = lab["web1"], lab["web2"], lab["db1"]

    def came_from(jump: str) -> str:
        config.write_text(f"Host db1\n  ProxyJump {jump}\n{lab.ssh_config.read_text()}")
        ssh._config.cache_clear()
        bare = {"address": None, "user": None, "identityFile": None, "knownHosts": None, "configFile": config}
        return ask(shell(db1, **bare), "hostname; echo $SSH_CONNECTION").replace("\n", " ").split()[1]

    with lab.inside():
        assert came_from("web1") == web1.address
        assert came_from("root@web1:22,web2") == web2.address
        assert came_from("web2\nHost *\n  ProxyJump web2") == web2.address
        with pytest.raises(ConnectError, match=r"by way of web1.*takes none"):
            came_from("nobody-there@web1")
        with pytest.raises(ConnectError, match="runs in circles"):
            came_from("web1\nHost web1\n  ProxyJump web2\nHost web2\n  ProxyJump web1")
    with lab.inside(), pytest.raises(ConnectError, match="jump host cannot reach"):
        config.write_text(f"Host gone\n  ProxyJump web1\n{lab.ssh_config.read_text()}")
        ssh._config.cache_clear()
        ask(shell(web1, address="gone", knownHosts=None, identityFile=None, configFile=config), "true")


def test_the_openssh_client(lab: Lab, tmp_path: Path) -> None:
    """The same by OpenSSH's own program; its errors come through."""
    host = lab["web1"]
    with lab.inside():
        assert ask(shell(host, client="openssh"), "hostname; id -un") == "web1\nroot\n"
        with pytest.raises(ConnectError, match="Host key verification failed"):
            ask(shell(host, client="openssh", knownHosts=remembered(tmp_path)), "hostname")
        with pytest.raises(ConnectError, match="Permission denied"):
            ask(shell(host, client="openssh", user="nobody-there"), "hostname")
        connection = shell(host, client="openssh")
        assert do(connection, Put("/root/by-openssh", "x" * 300_000))[0].status == 0
        assert do(connection, Run(("cat",), stdin="given\n"))[0].output == "given\n"
        connection.close()
    assert host.read("/root/by-openssh") == "x" * 300_000


# ------------------------------------------------------------------------------------------------ who we are


@contextmanager
def agent(folder: Path, *keys: Path) -> Iterator[str]:
    """An ssh-agent of our own that holds these keys."""
    path = folder / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        while not path.exists():
            time.sleep(0.01)
        environment = os.environ | {"SSH_AUTH_SOCK": str(path), "SSH_ASKPASS": "/bin/false"}
        for key in keys:
            subprocess.run(["ssh-add", "-q", str(key)], check=True, env=environment)
        yield str(path)
    finally:
        process.terminate()
        process.wait()


def test_keys_of_the_agent(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file; for a file with a passphrase; and never one that the document does not name."""
    host = lab["web1"]
    Slot.make_key(stranger := tmp_path / "stranger")
    locked = tmp_path / "locked"
    locked.write_bytes(lab.key.read_bytes())
    locked.chmod(0o600)
    locked.with_name("locked.pub").write_text(lab.slot.public_key)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "a passphrase", "-f", str(locked)], check=True, capture_output=True)
    with lab.inside():
        with pytest.raises(ConnectError, match=f"{locked}: needs a passphrase; add it to the agent"):
            ask(shell(host, identityFile=locked), "hostname")
        with agent(tmp_path, stranger, lab.key) as path:
            monkeypatch.setenv("SSH_AUTH_SOCK", path)
            assert ask(shell(host, identityFile=None), "hostname") == "web1\n"
            assert ask(shell(host, identityFile=locked), "hostname") == "web1\n"
            with pytest.raises(
                ConnectError, match=r"takes none of our keys \(\S*stranger: refused\)|of the agent: refused"
            ):
                ask(shell(host, identityFile=stranger), "hostname")
            many = [
                threading.Thread(target=lambda: seen.append(ask(shell(host, identityFile=None), "hostname")))
                for _ in range(8)
            ]
            seen: list[str] = []
            for one in many:
                one.start()
            for one in many:
                one.join()
            assert seen == ["web1\n"] * 8
        assert ask(shell(host), "hostname") == "web1\n"  # the agent is gone, its socket is not


def test_a_wrong_user_or_key_is_told_with_what_was_tried(lab: Lab, tmp_path: Path) -> None:
    host = lab["web1"]
    Slot.make_key(stranger := tmp_path / "stranger")
    (tmp_path / "junk").write_text("no key at all\n")
    with lab.inside():
        for settings, expected in (
            (
                {"user": "nobody-there"},
                rf"web1: nobody-there@{host.address} takes none of our keys \({lab.key}: refused\)",
            ),
            ({"identityFile": stranger}, f"{stranger}: refused"),
            ({"identityFile": tmp_path / "none"}, f"{tmp_path}/none: not there"),
            ({"identityFile": tmp_path / "junk"}, f"{tmp_path}/junk: not a private key that we can read"),
            ({"identityFile": None}, r"id_ed25519: not there"),
        ):
            with pytest.raises(ConnectError, match=expected):
                ask(shell(host, **settings), "echo in")


def test_becoming_root(lab: Lab) -> None:
    """sudo works for who may; who may not is told why; nothing waits for a password."""
    host = lab["web1"]
    with lab.inside():
        assert ask(shell(host, user="deploy", become="sudo"), "id -u") == "0\n"
        assert ask(shell(host, user="deploy"), "id -u") == "1001\n"
        assert ask(shell(host, user="deploy", become="sudo", client="openssh"), "id -u") == "0\n"
        with pytest.raises(ConnectError, match="web1: no shell: sudo: a password is required"):
            ask(shell(host, user="admin", become="sudo"), "id -u")
        with pytest.raises(ConnectError, match=r"[Aa]uthentication required"):
            ask(shell(host, user="admin", become="run0"), "id -u")
        with pytest.raises(ConnectError, match=r"doas: (command )?not found"):
            ask(shell(host, become="doas"), "id -u")


def test_a_talkative_login_does_not_spoil_answers(lab: Lab) -> None:
    host = lab["web2"]
    host.write("/root/.bashrc", "echo Welcome; echo a word to the wise >&2\n")
    with lab.inside():
        assert ask(shell(host), "hostname") == "web2\n"
    host.path("/root/.bashrc").unlink()


# ------------------------------------------------------------------------------------------------ what breaks


class Gate:
    """A TCP server on the lab's network before a host: drops connections, cuts them, or says nothing."""

    def __init__(
        self, lab: Lab, host: LabHost, drop: int = 0, cut_after: int = sys.maxsize, mute: bool = False
    ) -> None:
        self.host, self.drop, self.cut_after, self.mute = host, drop, cut_after, mute
        self.connections = self.passed = 0
        self._open: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.known = f"[127.0.0.1]:{self.port} {host.public_host_key}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                self.connections += 1
                self._open.append(client)
                if self.connections <= self.drop:
                    client.close()
                elif not self.mute:
                    server = socket.create_connection((self.host.address, 22))
                    self._open.append(server)
                    for pair in ((client, server), (server, client)):
                        threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while content := source.recv(4096):
                self.passed += len(content)
                if self.passed > self.cut_after:
                    self.cut()
                    return
                sink.sendall(content)
            sink.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """Break all that is open, as a router that forgets its connections."""
        while self._open:
            one = self._open.pop()
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def close(self) -> None:
        self._server.close()
        self.cut()


@pytest.fixture
def gate(lab: Lab, tmp_path: Path) -> Iterator[Callable[..., tuple[Gate, Shell]]]:
    made: list[Gate] = []

    def make(**behaviour: Any) -> tuple[Gate, Shell]:
        made.append(one := Gate(lab, lab["web1"], **behaviour))
        known = remembered(tmp_path, one.known)
        return one, shell(lab["web1"], address="127.0.0.1", port=one.port, knownHosts=known)

    with lab.inside():
        yield make
    for one in made:
        one.close()


def test_a_server_that_drops_the_first_connections(gate: Callable[..., tuple[Gate, Shell]]) -> None:
    """As sshd does while it starts, and beyond its MaxStartups."""
    door, connection = gate(drop=3)
    assert ask(connection, "hostname") == "web1\n"
    assert door.connections == 4


def test_what_cannot_be_reached_is_told_in_time(
    lab: Lab, gate: Callable[..., tuple[Gate, Shell]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A closed port, no such host, no such name, a server that never speaks, one that always hangs up."""
    monkeypatch.setattr(ssh, "CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(ssh, "PAUSES", (0.1, 0.1))
    host = lab["web1"]
    _, mute = gate(mute=True)
    _, rude = gate(drop=99)
    for connection, expected in (
        (shell(host, port=2), rf"^web1: cannot be reached: Connection refused \({host.address} port 2\)\.$"),
        (shell(host, address=f"10.77.{lab.slot.number}.250"), "no answer within|No route to host"),
        (shell(host, address="no-such-name.invalid"), r"its address is not known: no-such-name\.invalid \("),
        (mute, "no answer within 1 s|hangs up or is no SSH server"),
        (rude, "something answers, but hangs up or is no SSH server"),
    ):
        begun = time.monotonic()
        with pytest.raises(ConnectError, match=expected):
            ask(connection, "true")
        assert time.monotonic() - begun < 5


def test_a_connection_that_is_cut_while_a_host_works(gate: Callable[..., tuple[Gate, Shell]], lab: Lab) -> None:
    """What was reported counts, the rest is lost; the next use connects anew."""
    door, connection = gate()
    threading.Timer(0.5, door.cut).start()
    results = []
    with pytest.raises(ConnectionLost, match="web1: the session ended in the middle"):
        for result in connection.execute([Work("it", [Run(("echo", "one")), Run(("sleep", "60"))])], str):
            results.append(result)
    assert results == [StepResult("it", 0, 0, "one\n")]
    lab["web1"].run("pkill sleep")  # what has begun comes to its end
    assert connection.read([Script("hostname")])[0].text == "web1\n"
    door.cut()  # while nobody uses it
    assert connection.read([Script("hostname")])[0].text == "web1\n"
    connection.close()
    assert door.connections == 3


def test_a_message_that_is_cut_off_is_not_carried_out(gate: Callable[..., tuple[Gate, Shell]], lab: Lab) -> None:
    """Neither half a file nor half a script: the host notices that the end is missing."""
    host = lab["web1"]
    host.write("/root/whole", "as it was\n")
    door, connection = gate()
    assert connection.read([Script("hostname")])[0].text == "web1\n"
    door.cut_after = door.passed + 500_000
    with pytest.raises(ConnectionLost):
        do(connection, Put("/root/whole", "y" * 3_000_000))
    deadline = time.monotonic() + 5
    while "while read -r n k" in host.run("ps -eo args").stdout and time.monotonic() < deadline:
        time.sleep(0.05)
    assert host.read("/root/whole") == "as it was\n"
    assert host.run("ls -A /root | grep -c '^.reconciler'", check=False).stdout == "0\n"
    connection.close()


def test_a_host_that_falls_silent(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cable is pulled while it works: no packet says so, only time does."""
    monkeypatch.setattr(ssh, "SILENT_SECONDS", 4)
    host = lab["web2"]
    with lab.inside(), closing(shell(host)) as connection:
        connection.read([Script("true")])
        host.unplug()
        try:
            begun = time.monotonic()
            with pytest.raises(ConnectionLost):
                do(connection, Run(("sleep", "60")))
            assert time.monotonic() - begun < 15
        finally:
            host.plug()
        assert connection.read([Script("hostname")])[0].text == "web2\n"


# ------------------------------------------------------------------------------------------------ what goes through


def test_large_and_binary_output(lab: Lab) -> None:
    host = lab["web1"]
    every = bytes(range(256)) * 4
    with lab.inside(), closing(shell(host)) as connection:
        begun = time.monotonic()
        big, binary, after = connection.read(
            [
                Script("head -c 10000000 /dev/zero | tr '\\0' x"),
                Script('i=0; while [ $i -lt 256 ]; do printf "\\\\$(printf %03o $i)"; i=$((i+1)); done'),
                Script('printf %s "$1"; exit 7', ["last"]),
            ]
        )
        assert time.monotonic() - begun < 10
        assert big.text == "x" * 10_000_000
        assert binary.text.encode("utf-8", "surrogateescape") == bytes(range(256))
        assert (after.text, after.status) == ("last", 7)
        assert do(connection, Put("/root/every", every))[0].status == 0
        assert host.path("/root/every").read_bytes() == every
        text = "ü\n" * 2_500_000
        assert do(connection, Put("/root/big", text, "0600"))[0].status == 0
        assert host.path("/root/big").read_bytes() == text.encode()
        (noisy,) = do(connection, Sh("head -c 9000000 /dev/zero | tr '\\0' y; echo the end"))
        assert len(noisy.output) == MAX_OUTPUT
        assert noisy.output.endswith("y" * 100 + "the end\n")
        host.run("rm /root/every /root/big")


def test_two_thousand_files_in_one_probe(lab: Lab) -> None:
    """One connection, one exec, two round trips at most; and a host's limits on arguments do not matter."""
    host = lab["web1"]
    folder = "/srv/" + "many-files-in-a-folder-with-a-long-name" * 4
    host.run(f"mkdir -p {folder} && cd {folder} && seq -f 'file-%04g' 0 1999 | while read n; do echo $n >$n; done")
    kind = default().type_of("host.file")
    paths = [f"{folder}/file-{i:04}" for i in range(2000)]
    wanted = [kind("web1", path=p, content=f"{Path(p).name}\n", mode="0644") for p in paths]
    missing = [kind("web1", path=f"{p}.missing", content="x") for p in paths]
    host.reset_sessions()
    with lab.inside(), closing(shell(host)) as connection:
        begun = time.monotonic()
        states = probe_target([*wanted, *missing], default(), connection.read)
        assert time.monotonic() - begun < 10
    found = [states[r.address] for r in wanted]
    assert all(isinstance(s, dict) and s["content"] == f"{Path(p).name}\n" for s, p in zip(found, paths, strict=True))
    assert {states[r.address] for r in missing} == {None}
    assert host.sessions().connections == 1
    assert host.sessions().commands == 1
    host.run(f"rm -r {folder}")


def test_hostile_names_are_only_names(lab: Lab) -> None:
    """As arguments, as paths of files, and as words of programs."""
    host = lab["web1"]
    host.run("rm -rf /srv/hostile; mkdir /srv/hostile")
    kind = default().type_of("host.file")
    files = [kind("web1", path=f"/srv/hostile/{name}", content=f"{name}\n", mode="0640") for name in HOSTILE]
    with lab.inside(), closing(shell(host)) as connection:
        (reply,) = connection.read([Script('printf "%s\\n" "$@"', HOSTILE)])
        assert reply.text.splitlines() == list(HOSTILE)
        for name, file in zip(HOSTILE, files, strict=True):
            assert do(connection, Put(file.spec.path, file.spec.content, "0640"))[0].status == 0
            assert do(connection, Run(("printf", "%s", name)))[0].output == name
            assert do(connection, Sh('printf %s "$1$(cat)"', (name,), stdin=name))[0].output == name * 2
        states = probe_target(files, default(), connection.read)
    assert {name: host.read(f"/srv/hostile/{name}") for name in HOSTILE} == {name: f"{name}\n" for name in HOSTILE}
    for file in files:
        state = states[file.address]
        assert isinstance(state, dict)
        assert (state["content"], state["mode"]) == (file.spec.content, "0640")
    host.run("rm -r /srv/hostile")


def test_secrets_stand_neither_in_arguments_nor_in_output(lab: Lab) -> None:
    host = lab["web1"]
    with lab.inside(), closing(shell(host)) as connection:
        given = do(connection, Run(("sh", "-c", "cat /proc/*/cmdline | tr '\\0' ' '; cat"), stdin=SECRET))
        assert given[0].output == "(output withheld: this step handles a secret)"
        assert "hush hush" not in host.run("cat /proc/*/cmdline /proc/*/environ 2>/dev/null | tr '\\0' ' '").stdout
        assert do(connection, Put("/root/secret", SECRET, "0600"))[0].status == 0
    assert host.read("/root/secret") == "hush hush"
    host.run("rm /root/secret")


def test_a_path_that_we_may_not_see_is_not_an_absent_one(lab: Lab) -> None:
    kind = default().type_of("host.file")
    file = kind("web1", path="/root/.bashrc", mode="0644")
    with lab.inside(), closing(shell(lab["web1"], user="admin")) as connection:
        state = probe_target([file], default(), connection.read)[file.address]
    assert re.search(r"/root/.bashrc.*Permission denied\nLog in as root, or set become", getattr(state, "reason", ""))


# ------------------------------------------------------------------------------------------------ nothing is left


def test_nothing_is_left_on_the_host_or_here(lab: Lab) -> None:
    """No shell, no session, no thread, no file descriptor; also after errors."""
    host = lab["web1"]

    def here() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    def settled(look: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + 5
        while not look() and time.monotonic() < deadline:
            time.sleep(0.02)
        return look()

    with lab.inside():
        ask(shell(host), "true")
        before = here()
        for settings in (
            {},
            {"client": "openssh"},
            {"user": "deploy", "become": "sudo"},
            {"user": "nobody-there"},
            {"port": 2},
        ):
            with suppress(ConnectError):
                ask(shell(host, **settings), "true")
        with closing(shell(host)) as connection, suppress(ConnectError, ConnectionLost):
            for _ in connection.execute([Work("it", [Run(("true",)), Run(("true",))])], str):
                break  # the rest of the answer is never read
        assert settled(lambda: here() <= before), (before, here(), threading.enumerate())
    look = "ps -eo args | grep -E 'while read|sshd-session: [a-z]+@notty|sudo' | grep -v grep | wc -l"
    assert settled(lambda: host.run(look).stdout == "1\n"), host.run("ps -eo pid,args").stdout


def test_the_machine_itself(tmp_path: Path) -> None:
    """`connection: local`: the same shell, without a network; Ctrl-C on the terminal does not reach it."""
    connection = connect(Target("here", "local"))
    content = hashlib.sha256(b"x").hexdigest()
    results = list(connection.execute([Work("it", [Put(f"{tmp_path}/f", content, "0600"), Run(("false",))])], str))
    assert [r.status for r in results] == [0, 1]
    assert (tmp_path / "f").read_text() == content
    (reply,) = connection.read([Script("ps -o pgid= -p $$")])
    assert int(reply.text) != os.getpgrp()
    connection.close()
