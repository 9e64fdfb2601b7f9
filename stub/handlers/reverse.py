"""bs, bc: backwards. For targets that can; what answers to `vCont` applies here too, a stop reply among it."""

from __future__ import annotations

from stub import messages
from stub.handlers.base import Answer, Context, Handler, Running, constant
from stub.offers import offers
from stub.target import Reverses


def reverse(context: Context, message: messages.Reverse) -> Answer:
    target = context.target
    assert offers(target, Reverses)
    if message.steps:
        target.reverse_step(context.thread)
    else:
        target.reverse_resume()
    return Running()


HANDLERS = (
    Handler(
        (("bs", "one instruction back"), ("bc", "back to the stop before")),
        messages.Reverse,
        reverse,
        (Reverses,),
        constant("ReverseStep+", "ReverseContinue+"),
    ),
)
