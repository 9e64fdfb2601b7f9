"""A command's result as text: each view by the function that renders its kind."""

from __future__ import annotations

from typing import Any

from repl import render_cpu, render_machine, render_runs
from repl.command import Result
from repl.style import Renderer, Style

_RENDERERS: dict[type, Renderer] = {**render_cpu.RENDERERS, **render_runs.RENDERERS, **render_machine.RENDERERS}


def view_lines(view: object, style: Style) -> list[str]:
    """One view, or a tuple of equal views as one table, as lines."""
    views: tuple[Any, ...] = view if isinstance(view, tuple) else (view,)
    return _RENDERERS[type(views[0])](views, style) if views else []


def result_text(result: Result, style: Style) -> str:
    """A command's result as text, without a newline at its end."""
    lines = [line for view in result.views for line in view_lines(view, style)]
    return "\n".join([*lines, *([result.text] if result.text else [])])
