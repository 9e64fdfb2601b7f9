"""What tests of the gdb room share: sessions on real machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from stub_rig import Rig


@pytest.fixture
def rigs() -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(firmware: bytes, **config: object) -> Rig:
        made.append(Rig(firmware, **config))
        return made[-1]

    yield make
    for rig in made:
        rig.worker.close()
        assert rig.errors == []
