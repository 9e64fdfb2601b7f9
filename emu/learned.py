"""What the policy `learn` knows, as a file: JSON, written whole or not at all, and read with suspicion."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

from emu.gaps import AFTER_HALF_LIFE, EDGES, FORECASTERS, LONGER, PRECEDING, Distribution, Mean, Prior, SiteKnowledge
from emu.learner import MOST_SITES, Learner
from emu.vcpu import ExitCause, Site
from emu.wholefile import check_target, written_whole
from emu.x86.modes import Mode

FORMAT, VERSION = "v2e policy learn", 2
LARGEST = 64 << 20  #: bytes, the most of a file that is read
MOST_GAPS = 1 << 62
MOST_WEIGHT = 1e12
PRICES = 5
MOST_MONEY = 1e18  #: of losses and gains, in the unit of prices


class LearnedError(Exception):
    """One sentence: why a file cannot be written, or is none of what is known."""


def save(learner: Learner, path: Path) -> int:
    """Write what is known; the number of sites. Raises LearnedError, with an earlier file left as it was."""
    sites = [_site_out(site, known) for site, known in learner.sites.items()]
    kinds = [_site_out(site, known) for site, known in learner.kinds.items()]
    prices = _prices(learner)
    content = {
        "format": FORMAT, "version": VERSION, "classes": LONGER + 1, "prices": prices,
        "prior": [_within(count, MOST_WEIGHT) for count in learner.prior.counts],
        "sites": sites, "kinds": kinds, **_means_out(learner.all_sites),
    }  # fmt: skip
    if reason := check_target(path):
        raise LearnedError(f"{str(path)!r} {reason}")
    try:
        with written_whole(path) as file:
            file.write(json.dumps(content, separators=(",", ":")).encode())
    except OSError as error:
        raise LearnedError(f"cannot write {str(path)!r}: {error.strerror}") from None
    return len(sites)


def load(learner: Learner, path: Path) -> int:
    """Replace what is known by what the file says; the number of sites. Credit is not loaded, so that the bound holds
    of this run. What was lost and gained is forgotten if prices were others. Raises LearnedError, with nothing
    changed."""
    content = _read(path)
    try:
        if content.get("format") != FORMAT:
            raise _Unfit("it is no file of the policy learn")
        _is(content, "version", VERSION)
        _is(content, "classes", LONGER + 1)
        prior = Prior()
        prior.load([_number(count, MOST_WEIGHT) for count in _list(content, "prior", LONGER + 1)])
        prices = [_number(price, MOST_MONEY) for price in _list(content, "prices", PRICES)]
        same = prices == _prices(learner)
        all_sites = SiteKnowledge(prior)
        _means_in(content, all_sites, same)
        kinds = OrderedDict(_site_in(entry, prior, all_sites, same) for entry in _list(content, "kinds", None))
        sites = OrderedDict(_site_in(entry, prior, None, same) for entry in _list(content, "sites", None))
    except _Unfit as unfit:
        raise LearnedError(f"{str(path)!r} cannot be loaded: {unfit}") from None
    learner.restart()
    learner.know(prior, all_sites, kinds, sites)
    return len(learner.sites)


class _Unfit(Exception):
    """What is wrong with a file, to be said behind its name."""


def _is(content: Mapping[str, Any], name: str, wanted: int) -> None:
    """Raises _Unfit where `content` does not say `wanted` by that name."""
    if name not in content:
        raise _Unfit(f"it has no {name!r}, which must be {wanted}")
    if type(content[name]) is not int or content[name] != wanted:
        raise _Unfit(f"its {name!r} is {content[name]!r:.20}: this v2e reads {wanted}")


def _read(path: Path) -> Mapping[str, Any]:
    try:
        if path.exists() and not path.is_file():
            raise LearnedError(f"{str(path)!r} cannot be loaded: it is no regular file")
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise LearnedError(f"cannot read {str(path)!r}: {error.strerror}") from None
    if len(data) > LARGEST:
        raise LearnedError(f"{str(path)!r} cannot be loaded: it has more than {LARGEST >> 20} MiB")
    try:
        content = json.loads(data, parse_constant=_no_constant)
    except _Unfit as unfit:
        raise LearnedError(f"{str(path)!r} cannot be loaded: {unfit}") from None
    except (ValueError, RecursionError):
        raise LearnedError(f"{str(path)!r} cannot be loaded: it is not JSON") from None
    if not isinstance(content, dict):
        raise LearnedError(f"{str(path)!r} cannot be loaded: it is no file of the policy learn")
    return content


def _no_constant(name: str) -> None:
    raise _Unfit(f"{name} is no number that it can be")


def _prices(learner: Learner) -> list[float]:
    prices = learner.prices
    return [prices.exit, prices.hop_in, prices.hop_out, prices.emulated, prices.native]


def _site_out(site: Hashable, known: SiteKnowledge) -> dict[str, Any]:
    assert isinstance(site, Site)
    return {
        "cause": site.cause.value, "pc": site.pc, "where": site.where, "mode": site.mode.value,
        "gaps": min(known.gaps, MOST_GAPS),
        "last": known.last, "losses": [_within(loss, MOST_MONEY) for loss in known.losses], **_means_out(known),
        "all": _weights_out(known.all_gaps),
        "after": [[kind, _weights_out(after)] for kind, after in sorted(known.after.items())],
    }  # fmt: skip


def _means_out(known: SiteKnowledge) -> dict[str, list[float]]:
    """What trials have shown: each mean with the number of what it is of."""
    return {
        name: [_within(mean.value, MOST_MONEY, negative=True), min(mean.count, MOST_GAPS)]
        for name, mean in _means(known).items()
    }


def _weights_out(gaps: Distribution) -> list[tuple[int, float]]:
    return [(kind, _within(weight, MOST_WEIGHT)) for kind, weight in gaps.weights.items()]


def _within(value: float, most: float, *, negative: bool = False) -> float:
    """What `load` takes: numbers at its edges lead beyond them, and those that cancel each other out to anything."""
    return max(-most if negative else 0.0, min(value, most))


def _means(known: SiteKnowledge) -> dict[str, Mean]:
    return {"burst": known.burst, "lack": known.lack}


def _means_in(entry: Mapping[str, Any], known: SiteKnowledge, same_prices: bool) -> None:
    for name, mean in _means(known).items():
        value, count = _list(entry, name, 2)
        value, count = _number(value, MOST_MONEY, negative=True), _index(count)
        if not 0 <= count <= MOST_GAPS:
            raise _Unfit(f"{name!r} is of {count} trials, which is out of range")
        if same_prices:
            mean.load(value, count)


def _site_in(
    entry: Any, prior: Prior, parent: SiteKnowledge | None, same_prices: bool
) -> tuple[Hashable, SiteKnowledge]:
    if not isinstance(entry, dict):
        raise _Unfit("a site of it is no record")
    try:
        site = Site(ExitCause(entry.get("cause")), _whole(entry, "pc"), _whole(entry, "where"), Mode(entry.get("mode")))
    except (ValueError, TypeError):
        raise _Unfit(f"there is no exit site {entry.get('cause')!r} in mode {entry.get('mode')!r}") from None
    known = SiteKnowledge(prior, parent)
    known.gaps = _whole(entry, "gaps")
    if entry.get("last") is not None:
        known.last = _class(entry["last"])
    elif known.gaps:
        raise _Unfit(f"the last of {known.gaps} gaps is missing")
    known.all_gaps = known.all_gaps.with_weights(dict(_weights(_list(entry, "all", None))))
    for pair in _list(entry, "after", None):
        if not isinstance(pair, list) or len(pair) != 2 or not 0 <= (kind := _index(pair[0])) <= LONGER // PRECEDING:
            raise _Unfit("what came behind a gap is no pair")
        known.after[kind] = Distribution(AFTER_HALF_LIFE, prior, dict(_weights(_list({"": pair[1]}, "", None))))
    losses = [_number(loss, MOST_MONEY) for loss in _list(entry, "losses", len(FORECASTERS))]
    if same_prices:
        known.losses = losses
    _means_in(entry, known, same_prices)
    return site, known


def _weights(pairs: list[Any]) -> Iterator[tuple[int, float]]:
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2:
            raise _Unfit("a weight is no pair")
        yield _class(pair[0]), _number(pair[1], MOST_WEIGHT)


def _list(entry: Mapping[str, Any], name: str, length: int | None) -> list[Any]:
    value = entry.get(name)
    if not isinstance(value, list) or (length is not None and len(value) != length):
        raise _Unfit(f"{name or 'a distribution'!r} is missing, or has not {length or 'as'} many members as it should")
    if length is None and len(value) > MOST_SITES:
        raise _Unfit(f"{name!r} has {len(value)} members, more than {MOST_SITES}")
    return value


def _index(value: Any) -> int:
    if type(value) is not int:
        raise _Unfit(f"{value!r} is no whole number")
    return value


def _whole(entry: Mapping[str, Any], name: str) -> int:
    value = _index(entry.get(name))
    if not 0 <= value <= MOST_GAPS * 4:
        raise _Unfit(f"{name!r} is {value}, which is out of range")
    return value


def _class(value: Any) -> int:
    index = _index(value)
    if not 0 <= index <= len(EDGES):
        raise _Unfit(f"there is no class {index} of gaps")
    return index


def _number(value: Any, most: float, *, negative: bool = False) -> float:
    if type(value) not in (int, float) or not (-most if negative else 0) <= value <= most:  # not of a NaN
        raise _Unfit(f"{value!r} is no number that it can be")
    return float(value)
