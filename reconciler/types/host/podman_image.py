"""host.podmanImage: an image in the storage of root or of another account."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from reconciler.fields import AbsolutePath
from reconciler.model import CONTROL, IDENTITY, UNOBSERVABLE, Change, Probe, ResourceType, Script, Sh, State, Step
from reconciler.probe import expect
from reconciler.tools.podman.pod import ImageReference
from reconciler.types.host.podman import WORDS, Owned, account, by_user


class PodmanImage(Owned):
    """A container image. It stays when its document goes: `podman image prune` removes what nothing uses."""

    reference: Annotated[ImageReference, IDENTITY]
    stored: Literal[True] | None = Field(True, description="It is in the account's storage.")
    archive: Annotated[AbsolutePath | None, CONTROL] = Field(
        None, description="A file on the host that it is loaded from, in place of a registry."
    )
    pull: Annotated[Literal["missing", "never"], CONTROL] = Field("missing", description="Ask a registry, or never.")


LIST = (
    WORDS
    + r"""
[ -z "$OFFLINE" ] || { echo offline; exit 0; }
for name; do
    who "$name" && stored || continue
    printf 'user|%s\n' "$name"
    as podman images --no-trunc --format '{{.ID}}|{{.Repository}}|{{.Tag}}|{{.Digest}}|{{.RepoDigests}}' || exit 1
done
"""
)
"""Everything in the storage of these accounts."""


def images_of(text: str) -> dict[str, dict[str, str]]:
    """Account -> reference -> id of the image, of what `LIST` printed. Each image goes by its tags and its digests."""
    found: dict[str, dict[str, str]] = {}
    images: dict[str, str] = {}
    for line in text.splitlines():
        fields = line.split("|")
        if fields[0] == "user":
            images = found.setdefault(fields[1], {})
        elif len(fields) == 5:
            number, repository, tag, digest, digests = fields
            number = number.removeprefix("sha256:")
            for reference in (f"{repository}:{tag}", f"{repository}@{digest}", *digests.strip("[]").split()):
                images[reference] = number
    return found


def probe(images: Sequence[PodmanImage]) -> Probe:
    """One `podman images` for each account."""
    (reply,) = yield [Script(LIST, list(by_user(images, "reference")))]
    text = expect(reply, "podman images")
    if text.strip() == "offline":
        return [{"stored": UNOBSERVABLE} for _ in images]
    found = images_of(text)
    return [_state(image, found) for image in images]


def _state(image: PodmanImage, found: dict[str, dict[str, str]]) -> State | None:
    return {"stored": True} if image.reference in found.get(image.user, {}) else None


# $1 = account, $2 = reference, $3 = archive, $4 = policy.
FETCH = (
    WORDS
    + r"""
[ -z "$OFFLINE" ] || { echo "nothing runs in an image"; exit 0; }
who "$1" || { echo "There is no user $1 on this host."; exit 1; }
able
reference=$2 digest=
case $2 in *@*) digest=${2#*@} ;; esac
if [ -n "$3" ]; then
    [ -f "$3" ] || { echo "There is no file $3 on this host."; exit 1; }
    # By root, because the account need not be able to read it.
    loaded=$(as podman load -q <"$3" 2>&1) || { printf '%s\n' "$loaded" | tail -n 3; exit 1; }
    if [ -n "$digest" ] && ! as podman image exists "$reference"; then
        # It may be there under another name.
        id=$(as podman images --no-trunc --format '{{.ID}} {{.Digest}}' | sed -n "s/^\(.*\) $digest\$/\1/p" | head -n 1)
        [ -z "$id" ] || as podman tag "$id" "${reference%@*}:${digest#sha256:}"
    fi
    as podman image exists "$reference" || {
        case $reference in *@*) name=${reference%@*} ;; *) name=${reference%:*} ;; esac
        echo "$3 does not hold this image. What it holds:"
        printf '%s\n' "$loaded" | sed -n 's/^Loaded image[^:]*: *//p' | while read -r held; do
            as podman image inspect --format "$held is $name@{{.Digest}}" "$held"
        done
        exit 1
    }
elif [ "$4" = never ]; then
    echo "The image is not on this host, and nothing says where it comes from. Name an archive, or leave pull out."
    exit 1
else
    as podman pull -q "$reference" 2>&1 || exit 1
fi
"""
)


def steps(change: Change[PodmanImage]) -> Iterable[Step]:
    """Load it, or pull it."""
    image = change.spec
    if change.after is None:
        return
    whence = f" from {image.archive}" if image.archive else ""
    verb = "load" if image.archive else "pull" if image.pull == "missing" else "look for"
    title = f"{verb} the image {image.reference}{whence}" + ("" if image.user == "root" else f" for {image.user}")
    yield Sh(FETCH, (image.user, image.reference, image.archive or "", image.pull), title=title)


def needs(image: PodmanImage) -> Iterable[str]:
    """What Podman needs, and the archive."""
    return (*account(image.user), *((f"path:{image.archive}",) if image.archive else ()))


TYPE: ResourceType[Any] = ResourceType(
    "host.podmanImage",
    PodmanImage,
    probe,
    steps,
    provides=lambda image: (f"podmanimage:{image.user}/{image.reference}",),
    needs=needs,
)
