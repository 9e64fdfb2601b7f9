"""Callers on the other side of virtual-8086 mode, in a real gdb with the helper."""

from __future__ import annotations

import re

import pytest

from repl.harness import Gdb
from v86_monitor import BEHIND_FAR, BEHIND_NEAR, MONITOR, REFUSED

#: What the frames of virtual-8086 code stand at, innermost first, and the code there.
CALLERS = ((REFUSED, "hlt"), (BEHIND_FAR, "pop    %si"), (BEHIND_NEAR, "jmp    0xf0200"))


#: The same with the code's stack in the shadowed BIOS area, as SeaBIOS has one there: gdb takes a caller whose frame
#: lies lower than the called one's for a corrupt stack, unless it is told better.
IN_BIOS_AREA = MONITOR.replace("push dword 0x5000 ", "push dword 0xf800 ")


@pytest.mark.boot(firmware=MONITOR)
def test_a_backtrace_in_a_monitor_of_virtual_8086_mode_goes_on_through_the_code_that_called_it(helped: Gdb) -> None:
    helped.cmd("v2e catch exception gp")
    helped.cmd("continue")
    assert (helped.value("$mode"), helped.value("$cpl")) == (32, 0)
    for inner in (1, 2):  # at the handler's first instruction, and in the function that it calls
        text = helped.cmd("backtrace")
        places = re.findall(r"^#\d+ +0x[0-9a-f]+ in (.*?) \(", text, re.MULTILINE)
        assert places[inner:] == ["f000:0221 [interrupted here]", "f000:0216", "f000:0203"], text
        assert len(places) == inner + 3
        for level, (offset, code) in enumerate(CALLERS, inner):
            helped.cmd(f"frame {level}")
            assert (helped.value("$mode"), helped.value("$ip")) == (16, offset)
            assert code in helped.cmd("x/i $pc")
            assert " VM " in helped.cmd("print $eflags")
            for name, selector in (("cs", 0xF000), ("ss", 0x5000), ("es", 0x1000), ("ds", 0x2000), ("fs", 0x3000)):
                assert helped.value(f"${name}") == selector
                assert helped.value(f"${name}_base") == selector << 4
                assert helped.value(f"${name}_limit") == 0xFFFF
                assert helped.value(f"(int)${name}_attr") == 0xF3
        helped.cmd("frame 0")
        helped.cmd("stepi 3")


@pytest.mark.slow
@pytest.mark.boot(firmware=IN_BIOS_AREA, options=("--machine", "isapc"))  # where that area is RAM
def test_the_code_that_called_has_its_stack_in_the_bios_area(helped: Gdb) -> None:
    helped.cmd("v2e catch exception gp")
    helped.cmd("continue")
    text = helped.cmd("backtrace")
    assert "corrupt" not in text
    assert re.findall("in (f000:.*?) ", text) == ["f000:0221", "f000:0216", "f000:0203"], text
    helped.cmd("up")
    assert helped.value("$ss_base") == 0xF8000
