"""host.podmanSecret: a secret in Podman's store of root or of another account."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from pydantic import Field

from reconciler.model import (
    IDENTITY,
    UNOBSERVABLE,
    Change,
    Probe,
    ResourceType,
    Script,
    Secret,
    Sh,
    Sha256,
    State,
    Step,
)
from reconciler.probe import expect
from reconciler.types.host.podman import WORDS, Owned, PodmanName, account, by_user


class PodmanSecret(Owned):
    """A secret that Podman keeps and gives to containers."""

    name: Annotated[PodmanName, IDENTITY]
    value: Secret | None = Field(None, description="What it holds.")


# Values stay on the host: they go through pipes between built-in words and sha256sum. Podman's file driver keeps all of
# an account's in one file; a newer Podman shows one of any driver.
READ = (
    WORDS
    + r"""
[ -z "$OFFLINE" ] || { echo offline; exit 0; }
value() {
    if as podman secret inspect --showsecret --format x "$1" >/dev/null 2>&1; then
        as podman secret inspect --showsecret --format '{{.SecretData}}' "$1" | head -c -1
    else
        id=$(as podman secret inspect --format '{{.ID}}' "$1")
        file=$(as podman secret inspect --format '{{.Spec.Driver.Options.path}}' "$1")/secretsdata.json
        [ -f "$file" ] || return 1
        sed -n 's/.*"'"$id"'": *"\([^"]*\)".*/\1/p' <"$file" | base64 -d
    fi
}
while [ $# -gt 1 ]; do
    name=$1 wanted=$2
    shift 2
    who "$name" && stored || continue
    for secret in $wanted; do
        as podman secret inspect --format x "$secret" >/dev/null 2>&1 || continue
        printf '%s|%s|%s\n' "$name" "$secret" "$(value "$secret" | sha256sum | cut -d' ' -f1)"
    done
done
"""
)


def probe(secrets: Sequence[PodmanSecret]) -> Probe:
    """Digests, computed on the host."""
    wanted = by_user(secrets, "name")
    (reply,) = yield [Script(READ, [text for user, names in wanted.items() for text in (user, " ".join(names))])]
    text = expect(reply, "podman secret inspect")
    if text.strip() == "offline":
        return [{"value": UNOBSERVABLE} for _ in secrets]
    found: dict[tuple[str, str], State] = {}
    for line in text.splitlines():
        user, name, digest = line.split("|")
        found[user, name] = {"value": Sha256(digest)}
    return [found.get((secret.user, secret.name)) for secret in secrets]


# By removing it first, because an old Podman cannot replace one. What runs keeps what it got.
CREATE = (
    WORDS
    + r"""
[ -z "$OFFLINE" ] || { echo "nothing runs in an image"; exit 0; }
who "$1" || { echo "There is no user $1 on this host."; exit 1; }
able
as podman secret rm "$2" >/dev/null 2>&1 || :
as podman secret create "$2" - 2>&1
"""
)
REMOVE = (
    WORDS
    + r"""
[ -z "$OFFLINE" ] || exit 0
who "$1" && stored || exit 0
as podman secret inspect --format x "$2" >/dev/null 2>&1 || exit 0
as podman secret rm "$2" 2>&1
"""
)


def steps(change: Change[PodmanSecret]) -> Iterable[Step]:
    """Create it anew, or remove it."""
    secret = change.spec
    whose = "" if secret.user == "root" else f" of {secret.user}"
    if change.after is None:
        if change.seen.get("value") is not UNOBSERVABLE:
            title = f"remove the Podman secret {secret.name}{whose}"
            yield Sh(REMOVE, (secret.user, secret.name), title=title)
    elif secret.value is not None:
        title = f"set the Podman secret {secret.name}{whose}"
        yield Sh(CREATE, (secret.user, secret.name), secret.value, title=title)


TYPE: ResourceType[Any] = ResourceType(
    "host.podmanSecret",
    PodmanSecret,
    probe,
    steps,
    provides=lambda secret: (f"podmansecret:{secret.user}/{secret.name}",),
    needs=lambda secret: account(secret.user),
)
