"""What a fleet of hosts costs the machine that controls it: ours, a floor, and peers, side by side as a table.

    python -m tests.bench.hosts [--hosts 20] [--rounds 3] [--floor] [--peers pyinfra,bundlewrap,ansible]

Twenty objects a host (two accounts, four folders, ten files of about 1 KiB, two links, two rendered templates) on SSH
endpoints of this machine; the same desired state for everybody, and looked at from the outside after each run. The
floor is a script of 60 lines by the same SSH library that reads, compares and writes, and does nothing else. Peers are
installed into virtual environments in the cache folder.
"""

from __future__ import annotations

import argparse
import json
import os
import stat
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench import as_installed
from tests.lab.endpoints import Endpoint, Endpoints

USERS = {"benchu1": 3001, "benchu2": 3002}
FOLDERS = {
    "/opt/bench": ("0755", "root"),
    "/opt/bench/conf": ("0750", "root"),
    "/opt/bench/conf/sub": ("0750", "root"),
    "/opt/bench/data": ("0700", "benchu1"),
}
LINKS = {"/opt/bench/current": "/opt/bench/conf/f01", "/opt/bench/cfg": "/opt/bench/conf"}
TEMPLATES = ("/opt/bench/conf/t1", "/opt/bench/conf/t2")
RENDERED = "port = 8080\nworkers = 4\nname = a\nname = b\nname = c\n"
CASES = ("check", "first", "second", "change")
TITLES = {"check": "no-op plan", "first": "first apply", "second": "second apply", "change": "one file changed"}
OBJECTS = len(USERS) + len(FOLDERS) + 10 + len(LINKS) + len(TEMPLATES)


def files(revision: int) -> dict[str, str]:
    """Path -> content; a new revision changes the first file only."""
    return {
        f"/opt/bench/conf/f{i:02}": "".join(
            f"key_{i:02}_{k:02} = value-{k:04}-rev{revision if i == 1 else 1}\n" for k in range(36)
        )
        for i in range(1, 11)
    }


# ------------------------------------------------------------------------------------------------ the world


def bare(endpoint: Endpoint) -> None:
    """Take everything away again, from the outside."""
    root = endpoint.root
    subprocess.run(["rm", "-rf", str(root / "opt/bench")], check=True)
    for name in ("passwd", "shadow", "group", "gshadow", "subuid", "subgid"):
        for file in (root / f"etc/{name}", root / f"etc/{name}-"):
            if file.exists():
                kept = [line for line in file.read_text().splitlines(True) if not line.startswith("benchu")]
                file.write_text("".join(kept))


def wrong(endpoint: Endpoint, revision: int) -> list[str]:
    """What on an endpoint is not as it should be, seen from the outside."""
    root, found = endpoint.root, []
    accounts = {line.split(":")[0]: line.strip().split(":") for line in (root / "etc/passwd").read_text().splitlines()}
    numbers = {"root": 0, **USERS}
    for name, number in USERS.items():
        if name not in accounts or (accounts[name][2], accounts[name][6]) != (str(number), "/bin/bash"):
            found.append(name)

    def inspect(path: str, kind: Callable[[int], bool], mode: str, owner: str) -> bool:
        try:
            seen = (root / path.lstrip("/")).lstat()
        except OSError:
            found.append(f"{path} is missing")
            return False
        if not kind(seen.st_mode) or (stat.S_IMODE(seen.st_mode), seen.st_uid) != (int(mode, 8), numbers[owner]):
            found.append(path)
        return True

    for path, (mode, owner) in FOLDERS.items():
        inspect(path, stat.S_ISDIR, mode, owner)
    for path, content in {**files(revision), **dict.fromkeys(TEMPLATES, RENDERED)}.items():
        there = inspect(path, stat.S_ISREG, "0640", "root")
        # Some template engines eat the last line end.
        if there and (root / path.lstrip("/")).read_text().rstrip() != content.rstrip():
            found.append(f"{path}: content")
    for path, to in LINKS.items():
        link = root / path.lstrip("/")
        if not link.is_symlink() or str(link.readlink()) != to:
            found.append(path)
    return found


# ------------------------------------------------------------------------------------------------ contestants


@dataclass
class Contestant:
    """A program and how it is called: case -> argv, after `prepare(revision)` wrote what it reads."""

    name: str
    prepare: Callable[[int], None]
    command: Callable[[str], list[str]]
    environment: Mapping[str, str]
    statuses: tuple[int, ...] = (0,)


def ours(fleet: Endpoints, count: int, folder: Path) -> Contestant:
    """The command line, as a user calls it."""
    desired, state = folder / "desired", folder / "state"
    desired.mkdir()

    def prepare(revision: int) -> None:
        documents: list[dict[str, Any]] = []
        for endpoint in list(fleet)[:count]:
            spec = {"address": endpoint.address, "user": "root"}
            spec |= {"identityFile": str(fleet.key), "knownHosts": str(fleet.known_hosts)}
            documents.append(_document("Host", endpoint.name, spec))
        items: list[dict[str, Any]] = [
            {"path": path, "directory": {}, "mode": mode, "owner": owner, "group": "root"}
            for path, (mode, owner) in FOLDERS.items()
        ]
        items += [
            {"path": path, "content": content, "mode": "0640", "owner": "root", "group": "root"}
            for path, content in {**files(revision), **dict.fromkeys(TEMPLATES, RENDERED)}.items()
        ]
        items += [{"path": path, "link": to} for path, to in LINKS.items()]
        people = [
            {"name": name, "uid": number, "shell": "/bin/bash", "group": "nogroup", "createHome": False}
            for name, number in USERS.items()
        ]
        profile = {"hosts": {"matchLabels": {}}, "files": items, "users": people}
        documents.append(_document("HostProfile", "bench", profile))
        (desired / "bench.yaml").write_text("---\n".join(f"{json.dumps(d, indent=2)}\n" for d in documents))

    def command(case: str) -> list[str]:
        words = ["plan"] if case == "check" else ["apply", "--yes"]
        program = [sys.executable, "-m", "reconciler.cli.main"]
        return [*program, words[0], str(desired), *words[1:], "--state", str(state)]

    return Contestant("reconciler", prepare, command, {})


def _document(kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "reconciler/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


FLOOR = r'''
import base64, hashlib, json, shlex, socket, sys
from concurrent.futures import ThreadPoolExecutor
import paramiko
work = json.load(open(sys.argv[1]))
key = paramiko.Ed25519Key.from_private_key_file(work["key"])
known = paramiko.HostKeys(work["known_hosts"])
quote = lambda words: " ".join(map(shlex.quote, words))
paths = [p for p, *_ in work["paths"]]
regular = [p for p, kind, *_ in work["paths"] if kind == "file"]
links = [p for p, kind, *_ in work["paths"] if kind == "link"]
probe = f"""
stat -c '%a %U %n' -- {quote(paths)} 2>/dev/null; echo ==
sha256sum -- {quote(regular)} 2>/dev/null; echo ==
for p in {quote(links)}; do readlink -- $p || echo; done; echo ==
getent passwd {quote(work['users'])}
exit 0
"""
class Prompt:
    def __init__(self, inner): self.inner = inner
    def recv(self, size):
        content = self.inner.recv(size)
        self.inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return content
    def __getattr__(self, name): return getattr(self.inner, name)
def sh(transport, text):
    channel = transport.open_session()
    channel.exec_command("sh -s")
    channel.sendall(text.encode())
    channel.shutdown_write()
    out = b""
    while chunk := channel.recv(65536): out += chunk
    assert channel.recv_exit_status() == 0, out
    return out.decode()
def host(address):
    inner = socket.create_connection((address, 22))
    inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    transport = paramiko.Transport(Prompt(inner))
    transport.start_client()
    assert known.check(address, transport.get_remote_server_key())
    transport.auth_publickey("root", key)
    metas, sums, tos, people = (part.splitlines() for part in sh(transport, probe).split("==\n"))
    metas = {line.split(" ", 2)[2]: line.split(" ", 2)[:2] for line in metas}
    sums = {line.split("  ")[1]: line.split("  ")[0] for line in sums}
    tos = dict(zip(links, tos))
    people = {line.split(":")[0]: line.split(":")[2] for line in people}
    todo = []
    for user, number in work["users"].items():
        if people.get(user) != str(number):
            todo.append(f"useradd -u {number} -g nogroup -s /bin/bash -d /home/{user} -M {user}")
    for path, kind, mode, owner, content in work["paths"]:
        if kind == "link":
            if tos.get(path) != content: todo.append(f"ln -sfnT -- {content} {path}")
            continue
        access = f"chmod {mode} {path} && chown {owner} {path}"
        if kind == "file" and sums.get(path) != hashlib.sha256(content.encode()).hexdigest():
            raw = base64.b64encode(content.encode()).decode()
            todo.append(f"echo {raw} | base64 -d >{path}.t && sync {path}.t && mv {path}.t {path} && {access}")
        elif metas.get(path) != [mode.lstrip("0"), owner]:
            todo.append((f"mkdir -p {path} && " if kind == "folder" else "") + access)
    if todo and sys.argv[2] != "check": sh(transport, "set -e\n" + "\n".join(todo) + "\n")
    transport.close()
    return len(todo)
with ThreadPoolExecutor(20) as executor: print(sum(executor.map(host, work["hosts"])), "changes")
'''


def floor(fleet: Endpoints, count: int, folder: Path) -> Contestant:
    """The least that does the same work: one connection, one exec to look, one to change."""
    work = folder / "work.json"
    (folder / "floor.py").write_text(FLOOR)

    def prepare(revision: int) -> None:
        contents = {**files(revision), **dict.fromkeys(TEMPLATES, RENDERED)}
        paths = [(p, "folder", mode, owner, "") for p, (mode, owner) in FOLDERS.items()]
        paths += [(p, "file", "0640", "root", content) for p, content in contents.items()]
        paths += [(p, "link", "", "", to) for p, to in LINKS.items()]
        values = {"key": str(fleet.key), "known_hosts": str(fleet.known_hosts), "users": USERS, "paths": paths}
        work.write_text(json.dumps(values | {"hosts": [e.address for e in list(fleet)[:count]]}))

    return Contestant("floor", prepare, lambda case: [sys.executable, str(folder / "floor.py"), str(work), case], {})


# ------------------------------------------------------------------------------------------------ peers

CACHE = Path(os.environ.get("RECONCILER_BENCH_CACHE", "~/.cache/reconciler-bench")).expanduser()
SPEC = """\
import json
with open({path!r}) as file:
    globals().update(json.load(file))
"""


def program(package: str, name: str) -> str:
    """A peer's program; installed if it is not there."""
    folder = CACHE / package
    if not (folder / "bin" / name).exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(folder / "bin/pip"), "install", "--quiet", package], check=True)
    return str(folder / "bin" / name)


def _values(fleet: Endpoints, count: int, folder: Path, revision: int) -> None:
    contents = {**files(revision), **dict.fromkeys(TEMPLATES, RENDERED)}
    hosts = {e.name: e.address for e in list(fleet)[:count]}
    values = {"USERS": USERS, "FOLDERS": FOLDERS, "FILES": contents, "LINKS": LINKS, "HOSTS": hosts}
    (folder / "spec.json").write_text(json.dumps(values))
    (folder / "spec.py").write_text(SPEC.format(path=str(folder / "spec.json")))


def pyinfra(fleet: Endpoints, count: int, folder: Path) -> Contestant:
    """pyinfra with its paramiko connector."""
    start = f"import sys; sys.path.insert(0, {str(folder)!r})\nimport spec\n"
    login = {"ssh_user": "root", "ssh_key": str(fleet.key), "ssh_known_hosts_file": str(fleet.known_hosts)}
    login |= {"ssh_strict_host_key_checking": "yes", "ssh_config_file": "/dev/null"}
    (folder / "inventory.py").write_text(f"{start}hosts = [(a, {login!r}) for a in spec.HOSTS.values()]\n")
    (folder / "deploy.py").write_text(
        start + "from io import StringIO\nfrom pyinfra.operations import files, server\n"
        "for u, n in spec.USERS.items():\n    server.user(user=u, uid=n, group='nogroup', shell='/bin/bash',"
        " home=f'/home/{u}', create_home=False)\n"
        "for p, (m, o) in spec.FOLDERS.items():\n"
        "    files.directory(path=p, mode=m.lstrip('0'), user=o, group='root')\n"
        "for p, c in spec.FILES.items():\n    files.put(src=StringIO(c), dest=p, mode='640', user='root', group='root',"
        " create_remote_dir=False)\n"
        "for p, t in spec.LINKS.items():\n    files.link(path=p, target=t, create_remote_dir=False)\n"
    )
    argv = [program("pyinfra", "pyinfra"), str(folder / "inventory.py"), str(folder / "deploy.py"), "--parallel", "20"]

    def command(case: str) -> list[str]:
        return [*argv, "--dry" if case == "check" else "-y"]

    return Contestant("pyinfra", lambda revision: _values(fleet, count, folder, revision), command, {})


def bundlewrap(fleet: Endpoints, count: int, folder: Path) -> Contestant:
    """bundlewrap, with OpenSSH's connection sharing, as its documentation advises."""
    for endpoint in fleet:
        # It asks file(1) what a file holds before it replaces it; the endpoints have no such program.
        stand_in = endpoint.root / "usr/bin/file"
        stand_in.write_text("#!/bin/sh\necho ASCII text\n")
        stand_in.chmod(0o755)
    start = f"import sys; sys.path.insert(0, {str(folder)!r})\nimport spec\n"
    (folder / "bundles/bench").mkdir(parents=True)
    (folder / "groups.py").write_text("groups = {'bench': {'bundles': ('bench',)}}\n")
    (folder / "nodes.py").write_text(
        start
        + "nodes = {n: {'hostname': a, 'os': 'debian', 'os_version': (13,), 'username': 'root', 'groups': ('bench',),"
        " 'cmd_wrapper_outer': 'sh -c {}'} for n, a in spec.HOSTS.items()}\n"
    )
    (folder / "bundles/bench/items.py").write_text(
        start
        + "users = {u: {'uid': n, 'gid': 'nogroup', 'shell': '/bin/bash', 'home': f'/home/{u}', 'password_hash': '*'}"
        " for u, n in spec.USERS.items()}\n"
        "directories = {p: {'mode': m, 'owner': o, 'group': 'root'} for p, (m, o) in spec.FOLDERS.items()}\n"
        "files = {p: {'content': c, 'content_type': 'text', 'mode': '0640', 'owner': 'root', 'group': 'root'}"
        " for p, c in spec.FILES.items()}\n"
        "symlinks = {p: {'target': t, 'owner': 'root', 'group': 'root'} for p, t in spec.LINKS.items()}\n"
    )
    argv = [program("bundlewrap", "bw")]
    shared = f"-F {fleet.ssh_config} -o ControlMaster=auto -o ControlPath={folder}/%C -o ControlPersist=5"
    environment = {"BW_SSH_ARGS": shared, "BW_SCP_ARGS": shared, "BW_REPO_PATH": str(folder), "BW_COLORS": "0"}

    def command(case: str) -> list[str]:
        return [*argv, "verify" if case == "check" else "apply", "-p", "20", "-P", "4", "bench"]

    return Contestant("bundlewrap", lambda revision: _values(fleet, count, folder, revision), command, environment)


def ansible(fleet: Endpoints, count: int, folder: Path) -> Contestant:
    """Ansible with pipelining, connection sharing and 20 forks; one task with a loop for each sort of object."""

    def prepare(revision: int) -> None:
        hosts = "".join(f"{e.name} ansible_host={e.address}\n" for e in list(fleet)[:count])
        (folder / "inventory").write_text(hosts)
        contents = {**files(revision), **dict.fromkeys(TEMPLATES, RENDERED)}
        tasks: list[dict[str, Any]] = [
            _task("user", [{"n": u, "u": n} for u, n in USERS.items()], name="{{ item.n }}", uid="{{ item.u }}",
                  group="nogroup", shell="/bin/bash", create_home=False),
            _task("file", [{"p": p, "m": m, "o": o} for p, (m, o) in FOLDERS.items()], path="{{ item.p }}",
                  state="directory", mode="{{ item.m }}", owner="{{ item.o }}", group="root"),
            _task("copy", [{"p": p, "c": c} for p, c in contents.items()], dest="{{ item.p }}",
                  content="{{ item.c }}", mode="0640", owner="root", group="root"),
            _task("file", [{"p": p, "t": t} for p, t in LINKS.items()], path="{{ item.p }}", src="{{ item.t }}",
                  state="link"),
        ]  # fmt: skip
        play = [{"hosts": "all", "gather_facts": False, "tasks": tasks}]
        (folder / "play.yml").write_text(json.dumps(play))

    (folder / "ansible.cfg").write_text(
        "[defaults]\nforks = 20\nremote_user = root\nstdout_callback = default\n"
        f"[ssh_connection]\npipelining = True\nssh_args = -F {fleet.ssh_config} -o ControlMaster=auto "
        f"-o ControlPersist=5 -o ControlPath={folder}/%C\n"
    )
    argv = [program("ansible-core", "ansible-playbook"), "-i", str(folder / "inventory"), str(folder / "play.yml")]
    environment = {"ANSIBLE_CONFIG": str(folder / "ansible.cfg"), "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3"}
    return Contestant("ansible", prepare, lambda case: [*argv, *(["--check"] if case == "check" else [])], environment)


def _task(module: str, loop: Sequence[Mapping[str, Any]], **arguments: Any) -> dict[str, Any]:
    return {f"ansible.builtin.{module}": arguments, "loop": loop}


MAKERS = {"ours": ours, "floor": floor, "pyinfra": pyinfra, "bundlewrap": bundlewrap, "ansible": ansible}


# ------------------------------------------------------------------------------------------------ measuring


@dataclass
class Row:
    """One run. Seconds; MiB; connections and sessions as the first endpoint counted them."""

    name: str
    case: str
    hosts: int
    wall: float
    cpu: float
    memory: float
    connections: int
    sessions: int
    problem: str = ""


def measure(contestant: Contestant, case: str, fleet: Endpoints, count: int, revision: int) -> Row:
    """Run one case, and look at what came of it."""
    endpoints = list(fleet)[:count]
    for endpoint in endpoints:
        endpoint.reset_sessions()
    group = fleet.slot.cgroup / "controller"
    group.mkdir(exist_ok=True)
    before = _cpu(group)
    join = 'echo $$ >"$0/cgroup.procs"; exec "$@"'
    argv = ["sh", "-c", join, str(group), *fleet.command(contestant.command(case))]
    environment = {**os.environ, "HOME": str(fleet.slot.folder), "NO_COLOR": "1", **contestant.environment}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # what counts is the second start of an installed program
    with tempfile.TemporaryFile() as output:
        begun = time.perf_counter()
        process = subprocess.Popen(
            argv, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
        cpu = _cpu(group) - before
        output.seek(0)
        said = output.read().decode(errors="replace")
    seen = [endpoint.sessions() for endpoint in endpoints]
    problem = ""
    if process.returncode not in contestant.statuses:
        problem = f"exit status {process.returncode}: {said[-300:]}"
    bad = [f"{e.name}: {w}" for e in endpoints for w in wrong(e, revision)]
    if bad:
        problem += f" {len(bad)} objects wrong, such as {bad[0]}"
    most = max(seen, key=lambda s: (s.connections, s.sessions))
    return Row(
        contestant.name, case, count, wall, cpu, usage.ru_maxrss / 1024, most.connections, most.sessions, problem
    )


def _cpu(group: Path) -> float:
    """CPU seconds of all processes that were ever in a cgroup."""
    values = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
    return int(values["usage_usec"]) / 1e6


def one_round(name: str, fleet: Endpoints, count: int) -> list[Row]:
    """All cases of a contestant, from bare endpoints on."""
    rows = []
    for endpoint in list(fleet)[:count]:
        bare(endpoint)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        contestant = MAKERS[name](fleet, count, Path(folder))
        for case in ("first", "second", "check", "change"):
            revision = 2 if case == "change" else 1
            contestant.prepare(revision)
            rows.append(measure(contestant, case, fleet, count, revision))
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def table(rows: Sequence[Row], hosts: int) -> Iterator[str]:
    """Medians, and of CPU the least, because what other programs add to it is not ours; as a Markdown table."""
    head = ("", "case", "wall s", "CPU s", "CPU ms a further host", "connections / sessions", "peak RSS MiB", "state")
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for name in dict.fromkeys(r.name for r in rows):
        for case in CASES:
            many = [r for r in rows if (r.name, r.case, r.hosts) == (name, case, hosts)]
            if not many:
                continue
            marginal = further(rows, name, case, hosts)
            state = next((r.problem for r in many if r.problem), "ok")
            cells = [
                name,
                TITLES[case],
                f"{_median(many, 'wall'):.2f}",
                f"{_least(many):.2f}",
                "" if marginal is None else f"{1000 * marginal:.1f}",
                f"{max(r.connections for r in many)} / {max(r.sessions for r in many)}",
                f"{_median(many, 'memory'):.0f}",
                state,
            ]
            yield f"| {' | '.join(cells)} |"


def further(rows: Sequence[Row], name: str, case: str, hosts: int) -> float | None:
    """CPU seconds that each host after the first one costs."""
    one = [r for r in rows if (r.name, r.case, r.hosts) == (name, case, 1)]
    many = [r for r in rows if (r.name, r.case, r.hosts) == (name, case, hosts)]
    if not one or not many or hosts == 1:
        return None
    return (_least(many) - _least(one)) / (hosts - 1)


def _median(rows: Sequence[Row], attribute: str) -> float:
    return float(statistics.median(getattr(r, attribute) for r in rows))


def _least(rows: Sequence[Row]) -> float:
    return min(r.cpu for r in rows)


def main() -> int:
    """Run what the arguments ask for, and print the table."""
    as_installed()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hosts", type=int, default=20, help="how many endpoints")
    parser.add_argument("--rounds", type=int, default=3, help="how often; the table shows medians")
    parser.add_argument("--floor", action="store_true", help="also the floor, and how far we are from it")
    parser.add_argument("--peers", default="", help="pyinfra, bundlewrap, ansible; separated by commas")
    arguments = parser.parse_args()
    names = ["ours", *(["floor"] if arguments.floor else []), *filter(None, arguments.peers.split(","))]
    rows: list[Row] = []
    with Endpoints(arguments.hosts) as fleet:
        # In turns, so that what else this machine does hits all alike.
        for turn in range(arguments.rounds):
            for name in names:
                if turn and name not in ("ours", "floor"):
                    continue
                for count in sorted({1, arguments.hosts}):
                    rows += one_round(name, fleet, count)
    print(f"{OBJECTS} objects a host, {arguments.hosts} hosts, medians of {arguments.rounds} (peers: 1)\n")
    print("\n".join(table(rows, arguments.hosts)))
    if arguments.floor and arguments.hosts > 1:
        print("\ncontroller CPU of a further host, ours / floor:")
        for case in CASES:
            mine, least = (further(rows, name, case, arguments.hosts) for name in ("reconciler", "floor"))
            if mine is not None and least:
                print(f"  {TITLES[case]}: {1000 * mine:.1f} ms / {1000 * least:.1f} ms = {mine / least:.2f}")
    return 1 if any(r.problem for r in rows if r.name == "reconciler") else 0


if __name__ == "__main__":
    sys.exit(main())
