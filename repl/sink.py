"""Where what the guest sends goes: stdout, or a file that is none of the run's images."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable

from repl.options import UsageError, refuse_input


class Sink:
    """Where a serial line or debug console goes. A failing write is kept for the end, never thrown into the guest."""

    def __init__(self, option: str, target: str, at_prompt: bool) -> None:
        """`target`: `stdio` or a file's path. Nothing is opened yet."""
        self.option, self._target, self._at_prompt = option, target, at_prompt
        self._stream: io.FileIO | None = None
        self.error: str | None = None

    def open(self, inputs: Iterable[str]) -> None:
        """Raises UsageError when the file cannot be written, or is one of `inputs`; then it is untouched."""
        if self._target == "stdio":
            # At a prompt sys.stdout is one that keeps the line being typed below the output.
            self._stream = None if self._at_prompt else io.FileIO(1, "wb", closefd=False)
            return
        refuse_input(self.option, self._target, inputs)
        try:
            self._stream = io.FileIO(self._target, "wb")
        except OSError as error:
            raise UsageError(f"{self.option} {self._target!r} cannot be written: {error.strerror}") from None

    def __call__(self, data: bytes) -> None:
        if self.error is not None:
            return
        try:
            if self._stream is not None:
                self._stream.write(data)
            else:
                sys.stdout.write(data.decode("latin-1"))
        except (OSError, ValueError) as error:
            self.error = f"{self.option}: {getattr(error, 'strerror', None) or error}"

    def close(self) -> None:
        if self._stream is not None and self._stream.fileno() > 2:
            self._stream.close()
