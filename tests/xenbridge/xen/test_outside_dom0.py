"""What is said where there is no Xen."""

import pytest

from xenbridge.xen import libraries
from xenbridge.xen.libraries import Libraries, XenError, check_dom0


def test_outside_of_dom0_the_refusal_is_a_sentence(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(libraries, "CAPABILITIES", tmp_path / "capabilities")
    with pytest.raises(XenError, match=r"^this is no dom0 of Xen: .*capabilities cannot be read$"):
        Libraries()


def test_a_domain_without_control_is_refused(monkeypatch, tmp_path) -> None:
    (tmp_path / "capabilities").write_text("\n")
    monkeypatch.setattr(libraries, "CAPABILITIES", tmp_path / "capabilities")
    with pytest.raises(XenError, match=r"^this domain of Xen may not control others: it has to be dom0$"):
        check_dom0()
