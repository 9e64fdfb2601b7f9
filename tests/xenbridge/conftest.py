"""What tests of the bridges share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from xenbridge.signals import Signals


@pytest.fixture(params=("model", "kvm"))
def kind(request: pytest.FixtureRequest) -> str:
    """Whose devices they are."""
    return str(request.param)


@pytest.fixture
def signals() -> Iterator[Signals]:
    with Signals() as found:
        yield found
