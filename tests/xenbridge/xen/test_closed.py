"""What the libraries of Xen gave back, or never gave, is not touched: freed pointers, pages that are not mapped."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from xenbridge.xen.libraries import Handle, Libraries, XenError, _checked

ROOT = Path(__file__).parents[3]
#: A domain whose frames cannot be mapped: as privcmd leaves it, nothing is at the address then.
UNMAPPED = """
import ctypes
from types import SimpleNamespace

from emu.memory import Part, PhysicalMemory
from xenbridge.xen.guest_memory import GuestMemory
from xenbridge.xen.libraries import XenError

libc = ctypes.CDLL(None)
libc.munmap.argtypes = ctypes.c_void_p, ctypes.c_size_t

def map_over(domid, frames, protection, address, flags):
    if frames[0]:
        libc.munmap(address, len(frames) * 4096)
        return [-14] * len(frames)
    return [0] * len(frames)

memory = PhysicalMemory([Part(0, 0x200000, "ram", "ram")])
memory.write(0x1234, b"first")
memory.write(0x101234, b"second")
domain = SimpleNamespace(domid=1, populate=lambda frames: None, libraries=SimpleNamespace(map_over=map_over))
try:
    GuestMemory(domain, memory.regions)
except XenError as error:
    print(error)
print(memory.read(0x1234, 5), memory.read(0x101234, 6))
"""


def test_memory_that_cannot_be_mapped_is_this_process_s_again() -> None:
    done = subprocess.run([sys.executable, "-c", UNMAPPED], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "memory of domain 1 at 0x100000 cannot be mapped", "b'first' b'second'",
    ]  # fmt: skip


def freed(reached: list[int]) -> tuple[Handle, Callable[..., int]]:
    """A handle with a function of the library's that notes that it was reached."""

    def function(handle: ctypes.c_void_p, *arguments: int) -> int:
        reached.append(handle.value or 0)
        return 5

    return Handle(ctypes.CDLL(None), "xenevtchn", 0x1000), function


def test_a_call_behind_the_end_of_its_handle_is_refused_in_a_sentence() -> None:
    reached: list[int] = []
    handle, function = freed(reached)
    call = _checked(function, "event channel notify", handle)
    assert call(3) == 5
    handle.close(function)
    with pytest.raises(XenError, match=r"^xenevtchn has been closed$"):
        call(3)
    handle.close(function)
    assert reached == [0x1000, 0x1000], "one call and one end"


def test_what_is_mapped_when_the_libraries_are_closed_stays_so() -> None:
    """Nothing of them is called then, by whoever gives it back later."""
    reached: list[int] = []
    handle, function = freed(reached)
    libraries = Libraries.__new__(Libraries)
    libraries._fmem, libraries._unmap, libraries._unresource = handle, function, function
    libraries.unmap_pages(0x2000, 1)
    libraries.unmap_resource(ctypes.c_void_p(0x3000))
    assert reached == [0x1000, 0x1000]
    handle.close(function)
    libraries.unmap_pages(0x2000, 1)
    libraries.unmap_resource(ctypes.c_void_p(0x3000))
    assert reached == [0x1000] * 3, "two calls and one end"


def test_an_end_waits_for_the_call_that_another_thread_makes() -> None:
    handle, _ = freed([])
    begun, goes_on, order = threading.Event(), threading.Event(), []

    def slow(value: ctypes.c_void_p) -> int:
        begun.set()
        goes_on.wait()
        order.append("call")
        return 0

    caller = threading.Thread(target=handle.call, args=(slow,))
    caller.start()
    begun.wait()
    ender = threading.Thread(target=handle.close, args=(lambda value: order.append("end"),))
    ender.start()
    ender.join(0.05)
    assert ender.is_alive()
    goes_on.set()
    for thread in (caller, ender):
        thread.join()
    assert order == ["call", "end"]
