"""A sample of the bad files that `make soak` reads a million of, bounded by their number; machines loaded from some."""

from __future__ import annotations

import pytest

from xen_fuzzing import case, look, places, run, seeds
from xen_loading import Loader, load_cases
from xen_own import KINDS, own_streams

PART = 10_000
WHOLE = 1_000_000


@pytest.mark.slow
@pytest.mark.parametrize("part", range(6))
def test_bad_files_are_looked_at_or_refused_with_the_place_and_cost_no_memory(part: int) -> None:
    outcomes = run(part * PART, PART)
    # both ways are taken by many: neither is the changes too weak nor too wild
    assert outcomes["refused"] > PART // 10 < outcomes["read"]


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.parametrize("part", range(10))
def test_a_million_bad_files_are_looked_at_or_refused(part: int) -> None:
    run(part * WHOLE // 10, WHOLE // 10)


@pytest.mark.slow
def test_a_case_is_the_same_each_time_and_cases_differ() -> None:
    first = [case(number) for number in range(50)]
    assert [case(number) for number in range(50)] == first
    assert len({bytes(data) for data in first}) > 45
    assert all(look(seed) == "read" for seed in seeds())
    assert all(len(places(seed)) > 20 for seed in range(len(seeds())))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(3))
def test_a_machine_is_loaded_from_a_bad_stream_and_runs_or_is_as_it_was(part: int) -> None:
    outcomes = load_cases(part * 1000, 1000)
    assert outcomes["refused"] > 50
    assert outcomes["LIMIT"] > 200


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.parametrize("part", range(10))
def test_a_hundred_thousand_bad_streams_are_loaded_or_refused(part: int) -> None:
    load_cases(part * WHOLE // 100, WHOLE // 100)


@pytest.mark.slow
def test_a_stream_that_is_not_changed_is_loaded_into_each_kind_of_machine() -> None:
    """And leaves no trace in it for the next."""
    loader = Loader()
    for kind in KINDS:
        fresh = loader.machines[kind].save()
        for data in (seeds()[3], *own_streams()):
            assert loader.load(data, kind) in ("LIMIT", "REQUEST")
            assert loader.machines[kind].save() == fresh
    loader.close()
