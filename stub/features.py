"""What a client is told of a target: the answer to qSupported and target.xml, generated, never written by hand.

Formats: "Debugging with GDB", sections "General Query Packets" (qSupported) and "Target Description Format".
"""

from __future__ import annotations

from stub.markup import attribute
from stub.target import Description, EnumType, Feature, FlagsType, Register, StructType, Type, UnionType, VectorType

#: What is advertised, in words; for documents and nothing else, since what is advertised follows from the handlers.
MEANINGS = {
    "BreakpointCommands": "commands of breakpoints are run here, `dprintf` in agent style among them",
    "ConditionalBreakpoints": "conditions of breakpoints are evaluated here",
    "ConditionalTracepoints": "conditions of tracepoints are evaluated here",
    "DisconnectedTracing": "the packet `QTDisconnected`",
    "EnableDisableTracepoints": "the packets `QTEnable` and `QTDisable`",
    "InstallInTrace": "tracepoints can be defined while a trace runs",
    "PacketSize": "bytes of the longest packet, in hex",
    "QTBuffer:size": "the packet",
    "TracepointSource": "the packet `QTDPsrc`",
    "QNonStop": "the packet, and with it `vStopped` and `vCtrlC`",
    "QStartNoAckMode": "the packet",
    "multiprocess": "threads are named with their process, which is 1; said to clients that say it",
    "qXfer:features:read": "the target description",
    "qXfer:memory-map:read": "what is memory and what ROM",
    "qXfer:threads:read": "the threads",
    "qXfer:traceframe-info:read": "what a trace frame holds",
    "ReverseContinue": "the packet `bc`",
    "ReverseStep": "the packet `bs`",
    "binary-upload": "the packet `x`",
    "error-message": "errors are sentences (`E.text`); said to clients that say it",
    "hwbreak": "stop replies name hardware breakpoints, to clients that say it",
    "swbreak": "stop replies name software breakpoints, to clients that say it",
    "tracenz": "the instruction tracenz of agent expressions, which collects strings",
    "vContSupported": "the packet `vCont?`",
}


def supported(features: tuple[str, ...]) -> str:
    """The answer to qSupported, each feature once, in the given order."""
    return ";".join(dict.fromkeys(features))


def target_xml(description: Description) -> str:
    """The target description document, made once. Its lines are short: gdb refuses trace files with lines of 1000
    characters, and `tsave` writes the document into them."""
    if not description.texts:
        body = "".join(_feature(feature) for feature in description.features)
        description.texts.append(
            '<?xml version="1.0"?>\n<!DOCTYPE target SYSTEM "gdb-target.dtd">\n<target version="1.0">'
            f"<architecture>{description.architecture}</architecture>\n"
            # Without it gdb takes the guest for a process of its own host's operating system.
            f"<osabi>none</osabi>\n{body}</target>\n"
        )
    return description.texts[0]


def _feature(feature: Feature) -> str:
    types = "".join(_type(type) for type in feature.types)
    registers = "".join(_register(register) for register in feature.registers)
    return f"<feature name={attribute(feature.name)}>\n{types}{registers}</feature>\n"


def _register(register: Register) -> str:
    attributes = [
        f"name={attribute(register.name)}",
        f'bitsize="{register.bits}"',
        f"type={attribute(register.type)}",
    ]
    if register.group:
        attributes.append(f"group={attribute(register.group)}")
    if not register.saved:
        attributes.append('save-restore="no"')
    return f"<reg {' '.join(attributes)}/>\n"


def _type(type: Type) -> str:
    match type:
        case FlagsType():
            rows = "".join(f'<field name={attribute(b.name)} start="{b.low}" end="{b.high}"/>\n' for b in type.fields)
            return f'<flags id={attribute(type.id)} size="{type.size}">{rows}</flags>\n'
        case EnumType():
            rows = "".join(f'<evalue name={attribute(name)} value="{value}"/>\n' for name, value in type.values)
            return f'<enum id={attribute(type.id)} size="{type.size}">{rows}</enum>\n'
        case StructType():
            return f"<struct id={attribute(type.id)}>{_members(type)}</struct>\n"
        case UnionType():
            return f"<union id={attribute(type.id)}>{_members(type)}</union>\n"
        case VectorType():
            return f'<vector id={attribute(type.id)} type={attribute(type.type)} count="{type.count}"/>\n'


def _members(type: StructType | UnionType) -> str:
    return "".join(f"<field name={attribute(name)} type={attribute(kind)}/>\n" for name, kind in type.fields)
