"""host.subordinateIds: the numbers that an account may give to users inside its containers (subuid(5), subgid(5))."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Final

from pydantic import Field

from reconciler.fields import Account, Rule
from reconciler.model import IDENTITY, Change, Probe, ResourceType, Risk, Script, Sh, Spec, State, Step
from reconciler.probe import expect

LAST: Final = 4_294_967_294
ENOUGH: Final = 65_536
"""So many numbers every image can count on."""

Range = Annotated[
    str, Rule(r"enough|[1-9][0-9]{2,9}:[1-9][0-9]{0,9}", '"FIRST:COUNT", such as "200000:65536", or enough', 21)
]


class SubordinateIds(Spec):
    """The numbers of users and groups in containers of an account."""

    user: Annotated[Account, IDENTITY]
    uids: Range | None = Field(None, description="FIRST:COUNT; `enough` takes any that are there, or free ones.")
    gids: Range | None = Field(None, description="The same for groups.")


READ = r"""
for file in subuid subgid; do
    [ -r "$ROOT/etc/$file" ] || continue
    awk -F: -v file="$file" 'BEGIN { for (i = 2; i < ARGC; i++) { wanted[ARGV[i]]; ARGV[i] = "" } }
        $1 in wanted { print file "|" $1 "|" $2 ":" $3 }' "$ROOT/etc/$file" "$@"
done
"""


def probe(ranges: Sequence[SubordinateIds]) -> Probe:
    """Both files once."""
    (reply,) = yield [Script(READ, [one.user for one in ranges])]
    found: dict[tuple[str, str], list[str]] = {}
    for line in expect(reply, "the probe of subordinate ids").splitlines():
        file, user, given = line.split("|")
        found.setdefault((user, file), []).append(given)
    return [_state(one, found) for one in ranges]


def _state(one: SubordinateIds, found: dict[tuple[str, str], list[str]]) -> State | None:
    uids, gids = found.get((one.user, "subuid"), []), found.get((one.user, "subgid"), [])
    return {"uids": _seen(one.uids, uids), "gids": _seen(one.gids, gids)} if uids or gids else None


def _seen(wanted: str | None, given: Sequence[str]) -> str | None:
    if wanted == "enough" and any(count.isdigit() and int(count) >= ENOUGH for _, _, count in map(_cut, given)):
        return "enough"
    return ",".join(given) or None


def _cut(given: str) -> tuple[str, str, str]:
    return given.partition(":")


# $1 = account, $2 = subuid or subgid, $3 = what is wanted; nothing removes its lines. Ranges of two accounts that
# overlap would let one into the containers of the other, so that is refused.
SET = r"""
file=/etc/$2
inside "$file"
[ -e "$ROOT$file" ] || : >"$ROOT$file"
text=$(awk -F: -v user="$1" -v wanted="$3" '
    $1 == user { next }
    NF == 3 { first[++n] = $2; count[n] = $3; who[n] = $1; if ($2 + $3 > top) top = $2 + $3 }
    { print }
    END {
        if (wanted == "") exit
        if (wanted == "enough") wanted = (top > 100000 ? top : 100000) ":65536"
        split(wanted, part, ":")
        for (i = 1; i <= n; i++)
            if (part[1] < first[i] + count[i] && first[i] < part[1] + part[2]) {
                print "the range " wanted " overlaps that of " who[i] ", " first[i] ":" count[i] >"/dev/stderr"
                exit 1
            }
        print user ":" wanted
    }' "$ROOT$file")
{ [ -z "$text" ] || printf '%s\n' "$text"; } | base64 | put "$file" "" "" ""
"""


def steps(change: Change[SubordinateIds]) -> Iterable[Step]:
    """Rewrite the account's lines."""
    one = change.spec
    for file, name, wanted in (("subuid", "uids", one.uids), ("subgid", "gids", one.gids)):
        if change.after is None:
            yield Sh(SET, (one.user, file, ""), title=f"remove {one.user} from /etc/{file}", quick=True)
        elif wanted is not None and name in change.changed:
            yield Sh(SET, (one.user, file, wanted), title=f"give {one.user} {wanted} in /etc/{file}", quick=True)


def risk(change: Change[SubordinateIds]) -> Risk | None:
    """Files of containers keep the numbers that they have."""
    if change.before is None:
        return None
    return Risk("data-loss", "volumes and images keep the old numbers: containers cannot use them any more")


def provides(one: SubordinateIds) -> Iterable[str]:
    """The ranges; their lines are a part of two files that others write, too."""
    yield f"subids:{one.user}"


TYPE = ResourceType(
    "host.subordinateIds",
    SubordinateIds,
    probe,
    steps,
    provides=provides,
    needs=lambda one: (f"user:{one.user}",),
    risk=risk,
)
