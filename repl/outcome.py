"""What v2e says when it ends: the exit statuses that are ours, and notices on stderr."""

from __future__ import annotations

import sys

STATUS_OK, STATUS_USAGE, STATUS_DIED, STATUS_BUDGET = 0, 2, 4, 6
#: An error in v2e itself (sysexits.h: EX_SOFTWARE); even, as all of ours.
STATUS_INTERNAL = 70


def notice(text: str) -> None:
    """One line on stderr."""
    print(f"v2e: {text}", file=sys.stderr, flush=True)
