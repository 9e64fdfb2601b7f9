"""Every packet that clients try on a stub, asked of the machine: answered as documented, or by the empty packet."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from emu.debugger import Debugger
from emu.machine import MachineConfig, build_machine
from emu.worker import Worker
from machines import rom
from stub.adapter import DebuggerTarget
from stub.session import Session
from stub_fakes import GDB_FEATURES, Client

#: What a client may ask, and what is said to it. "" is the empty packet: not supported, ask otherwise.
PROBES = {
    "vMustReplyEmpty": "", "!": "OK", "?": "T05.*thread:1;core:0;.*", "Hg0": "OK", "Hc-1": "OK", "Hg1": "OK",
    "qC": "QC1", "qAttached": "1", "qAttached:1": "1", "T1": "OK", "T2": r"E\.there is no thread 2.*",
    "qfThreadInfo": "m1", "qsThreadInfo": "l", "qThreadExtraInfo,1": "(?:[0-9a-f]{2})+", "qL1160000000000000000": "",
    "g": "(?:[0-9a-f]{2}|xx)+", "p0": "[0-9a-f]{8}", "p28": "(?:[0-9a-f]{2})+", "P0=78563412": "OK",
    "pffff": r"E\..*", "m7c00,10": "[0-9a-f]{32}", "m7c00,10000": "[0-9a-f]{131072}", "m7c00,0": "",
    "x7c00,4": "b.{4,8}", "x7c00,0": "b", "X7c00,0:": "OK", "M7c00,0:": "OK", "M7c00,2:55aa": "OK",
    "mffffffffffff0000,10": r"E\..*", "mfee00000,4": r"E\..*", "Mfee00000,4:00000000": r"E\..*",
    "Z0,7c00,1": "OK", "z0,7c00,1": "OK", "Z1,7c00,1": "OK", "z1,7c00,1": "OK", "Z2,7c00,10": "OK", "z2,7c00,10": "OK",
    "Z3,7c00,4": "OK", "z3,7c00,4": "OK", "Z4,7c00,4": "OK", "z4,7c00,4": "OK", "Z0,7c00,1;X3,220127": "OK",
    "z0,7c00,1 ": r"E\..*", "Z5,7c00,1": "", "Z0,7c00,1;X1,22": r"E\..*",
    "qSearch:memory:7c00;1000;\x55\xaa": "1,7c00", "qCRC:7c00,10": "C[0-9a-f]+",
    "qv2e.Memory:7c00,2;fee00000,4": "m[0-9a-f]{4};", "qv2e.Memory:": r"E\..*",
    "qXfer:features:read:target.xml:0,ffb": "m<.*", "qXfer:features:read:other.xml:0,ffb": "E.*",
    "qXfer:features:write:target.xml:0:": "", "qXfer:memory-map:read::0,ffb": "l<.*",
    "qXfer:threads:read::0,ffb": "l<.*", "qXfer:siginfo:read::0,ffb": "", "qXfer:libraries:read::0,ffb": "",
    "qXfer:exec-file:read:1:0,ffb": "", "qXfer:osdata:read::0,ffb": "", "qXfer:auxv:read::0,ffb": "",
    "qRcmd,7063": "O.*", "qSymbol::": "OK", "vCont?": "vCont;c;C;s;S;t;r", "vCtrlC": "OK",
    "QNonStop:1": "OK", "QNonStop:0": "OK", "QNonStop:2": r"E\..*", "vStopped": "OK",
    "QThreadEvents:1": "", "QAgent:1": "", "QAllow:x:1": "",
    "qTStatus": "T0;tnotrun:0;.*", "qTfV": "1:0:1:[0-9a-f]+", "qTsV": "l", "qTfP": "l", "QTinit": "OK",
    "QTDP:1:7c00:E:0:0-": "OK", "QTDP:-1:7c00:R1": "OK", "QTDP:2:7c00:E:5:0": "OK",
    "QTDP:2:7c00:E:0:0:F5": r"E\..*",
    "QTDP:-1:7c00:SR1": "OK", "QTDP:-1:7c00:L": r"E\..*", "QTDP:-9:7c00:R1": r"E\..*", "QTro:0,1000": "OK",
    "QTEnable:1:7c00": "OK", "QTStart": "OK", "QTStop": "OK", "QTFrame:0": "F-1", "QTFrame:ffffffff": "OK",
    "qTP:1:7c00": "V0:0", "qTV:7": "U", "qTBuffer:0,10": "l", "QTSave:61": "", "qTMinFTPILen": "", "qTfSTM": "",
    "QTBuffer:size:0": r"E\..*", "QTBuffer:size:-1": "OK", "QTBuffer:circular:1": "OK",
    "qXfer:traceframe-info:read::0,ffb": "E.*",
    "bs": "", "bc": "",
    "Qbtrace:bts": "", "QDisableRandomization:1": "", "QStartupWithShell:1": "", "QSetWorkingDir:": "",
    "QEnvironmentReset": "", "QPassSignals:e;10": "", "QProgramSignals:0": "", "QCatchSyscalls:0": "",
    "qMemTags:0,1:1": "", "qIsAddressTagged:0": "", "qGetTIBAddr:1": "", "qGetTLSAddr:1,0,0": "", "qOffsets": "",
    "qP0000001f0000000000000001": "", "vFile:setfs:0": "", "vFile:open:61,0,0": "", "vFlashErase:0,10": "",
    "vFlashDone": "", "r": "", "B7c00,S": "", "b9600": "", "d": "", "t0,0,0": "", "i": "", "I": "", "A0,0,0": "",
    "qqemu.sstepbits": "ENABLE=1,NOIRQ=2,NOTIMER=4", "Qqemu.sstepbits": "ENABLE=1,NOIRQ=2,NOTIMER=4",
    "qqemu.sstep": "0x7", "qqemu.PhyMemMode": "0", "qqemu.Supported": "sstepbits;sstep;PhyMemMode",
    # LLDB's
    "qHostInfo": "", "qProcessInfo": "", "qMemoryRegionInfo:7c00": "", "qRegisterInfo0": "", "QEnableErrorStrings": "",
    "jThreadsInfo": "", "QThreadSuffixSupported": "", "QListThreadsInStopReply": "", "qVAttachOrWaitSupported": "",
    "qGDBServerVersion": "", "_M1000,rwx": "", "QSaveRegisterState": "",
}  # fmt: skip


@pytest.fixture(scope="module")
def asker() -> Iterator[Client]:
    debugger = Debugger(build_machine(MachineConfig(machine="pc", memory=1 << 20, firmware=rom("l: jmp l"))))
    worker = Worker(debugger)
    worker.start()
    errors: list[Exception] = []
    client = Client(Session(DebuggerTarget(debugger, worker), on_error=errors.append))
    one = client.ask
    client.ask = lambda payload: worker.call(lambda: one(payload), 20)  # type: ignore[method-assign]
    client.ask(GDB_FEATURES + ";error-message+")
    yield client
    worker.close()
    debugger.machine.close()
    assert errors == []


@pytest.mark.parametrize("packet", PROBES)
def test_is_answered_or_properly_empty(packet: str, asker: Client) -> None:
    answers = asker.ask(packet)
    assert answers, "silence makes a client wait"
    assert re.fullmatch(PROBES[packet], answers[0].decode("latin-1"), re.DOTALL), answers[0][:200]
