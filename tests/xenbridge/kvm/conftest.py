"""What tests of the kvm engine share: the backend as probed, and a vCPU; without KVM they skip with the reason."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from native_cpu import Native, native_cpu
from xenbridge.kvm import hop
from xenbridge.kvm.abi import KvmError
from xenbridge.kvm.backend import Backend
from xenbridge.kvm.probe import probe


@pytest.fixture(scope="session")
def backend() -> Backend:
    try:
        return probe()
    except KvmError as error:
        pytest.skip(str(error))


@pytest.fixture(params=["library", "python"])
def native(backend: Backend, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Native]:
    """A vCPU whose state the C library moves, and one without it."""
    if request.param == "python":
        monkeypatch.setattr(hop, "LIBRARY", None)
    elif hop.LIBRARY is None:
        pytest.skip("the C library of xenbridge.kvm was not built")
    machine = native_cpu(backend)
    yield machine
    machine.cpu.close()
