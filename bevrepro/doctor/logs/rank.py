"""Which of several failures is the root: what explains others before what only passes them on."""

from collections.abc import Iterable
from dataclasses import dataclass

from bevrepro.doctor.logs.failures import Tier
from bevrepro.doctor.logs.match import Hit


@dataclass(frozen=True)
class Ranked:
    """A hit in its place. `explained_by`: the id of the failure that it is a consequence of."""

    hit: Hit
    explained_by: str | None
    because: str


def rank(hits: Iterable[Hit]) -> tuple[Ranked, ...]:
    """The root first; evidence left out, each failure once, at its first valid place."""
    hits = tuple(hits)
    ids = {hit.failure.id for hit in hits}
    firsts: dict[str, Hit] = {}
    for hit in hits:
        if hit.failure.tier is Tier.EVIDENCE or not _valid(hit, ids):
            continue
        known = firsts.get(hit.failure.id)
        if known is None or hit.numbers < known.numbers:
            firsts[hit.failure.id] = hit
    explained = _explained(firsts)
    if any(hit.failure.tier <= Tier.WRAPPER for hit in firsts.values()):
        firsts = {id: hit for id, hit in firsts.items() if not _beside_the_point(hit, explained)}
    order = sorted(
        firsts.values(),
        key=lambda hit: (hit.failure.id in explained, hit.failure.tier, hit.numbers[0], hit.failure.id),
    )
    return tuple(
        Ranked(hit, explained.get(hit.failure.id), _because(hit, order, explained.get(hit.failure.id)))
        for hit in order
    )


def _valid(hit: Hit, ids: set[str]) -> bool:
    return set(hit.matcher.having) <= ids and ids.isdisjoint(hit.matcher.lacking)


def _explained(firsts: dict[str, Hit]) -> dict[str, str]:
    """Consequence -> its cause. Where two claim each other, the one with the earlier line keeps the claim."""
    explained: dict[str, str] = {}
    for hit in sorted(firsts.values(), key=lambda each: (each.failure.tier, each.numbers[0])):
        for other in hit.failure.follows:
            if other in firsts and other != hit.failure.id and explained.get(hit.failure.id) != other:
                explained.setdefault(other, hit.failure.id)
    return explained


def _beside_the_point(hit: Hit, explained: dict[str, str]) -> bool:
    """A hint in the log of a run that broke, unless the hint is why."""
    return hit.failure.tier is Tier.HINT and hit.failure.id not in explained.values()


def _because(hit: Hit, order: list[Hit], explained_by: str | None) -> str:
    if explained_by:
        return f"a consequence of {explained_by}"
    if hit.failure.tier is Tier.WRAPPER:
        return "only says that something failed" + (
            "" if hit is order[0] else f"; {order[0].failure.id} says what"
        )
    if hit is not order[0]:
        return "found as well"
    if len(order) == 1:
        return "the only failure known to us in this log"
    return "the first in the log that nothing else in it explains"
