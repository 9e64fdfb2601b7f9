"""What is made once in a run of the tests, whichever of its processes asks first.

pytest-xdist's workers have a temporary folder each, in one folder of the run, which no later run has again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")


def folder_of_the_run(factory: pytest.TempPathFactory) -> Path:
    """The temporary folder that all workers of this run share."""
    own = factory.getbasetemp()
    return own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], T]) -> T:
    """What `make` gives, in a folder of its own that stays as long as the run does; made by whoever asks first, while
    others that ask wait. It has to be something that can be pickled. What raises is made again by the next one."""
    key = hashlib.sha256(name.encode()).hexdigest()[:16]
    place = folder_of_the_run(factory) / f"once-{key}"
    place.mkdir(exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = place / "made"
        if kept.exists():
            return pickle.loads(kept.read_bytes())  # type: ignore[no-any-return]
        files = place / "files"
        files.mkdir(exist_ok=True)
        made = make(files)
        part = place / "part"
        part.write_bytes(pickle.dumps(made))
        part.rename(kept)
        return made
