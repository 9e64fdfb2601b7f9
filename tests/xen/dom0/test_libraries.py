"""Xen's libraries as they are in a dom0."""

import ctypes as c
import os

import pytest

from xenbridge.xen import libraries as module
from xenbridge.xen.domain import Domain
from xenbridge.xen.libraries import Libraries, XenError


def test_libxenctrl_and_the_hypervisor_are_of_one_release(libraries) -> None:
    version = libraries.control["xc_version"](0, None)
    assert f"{version >> 16}.{version & 0xFFFF}" == libraries.release == "4.17"


def test_a_domain_that_does_not_exist_is_refused_in_a_sentence(libraries, capfd) -> None:
    with pytest.raises(XenError, match=r"^there is no domain 4321$"):
        Domain(libraries, 4321)
    assert capfd.readouterr().err == ""


def test_dom0_itself_is_no_hvm_domain(libraries) -> None:
    with pytest.raises(XenError, match=r"^domain 0 is no HVM domain: "):
        Domain(libraries, 0)


def test_without_privilege_the_refusal_says_who_may(libraries) -> None:
    """In a child, which gives root up and tries anew."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        try:
            Libraries()
            said = "opened"
        except XenError as error:
            said = str(error)
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as answer:
        assert answer.read() == "Xen cannot be asked through /dev/xen/privcmd: root may open it"


def test_another_release_of_xen_is_refused_by_its_number(monkeypatch, tmp_path) -> None:
    (tmp_path / "major").write_text("4\n")
    (tmp_path / "minor").write_text("19\n")
    monkeypatch.setattr(module, "VERSION", tmp_path)
    with pytest.raises(XenError, match=r"^this Xen is 4.19: 4.17 is what"):
        Libraries()


def test_structures_have_the_sizes_of_the_public_headers() -> None:
    assert c.sizeof(module.CreateDomain) == 64
