"""What nasm has made of this folder's sources: the assembled files of the package."""

from __future__ import annotations

import os


def assembled(name: str) -> bytes:
    """The file `name` of emu/firmware. (`importlib.resources` would load half of what a run does, 15 ms.)"""
    with open(os.path.join(os.path.dirname(__file__), name), "rb") as file:
        return file.read()
