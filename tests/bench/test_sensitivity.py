"""The bench of the learner's constant runs the learner with each value, and leaves it as it was."""

from __future__ import annotations

import pytest

from bench.sensitivity import PRICES, main, ratios
from emu import learner


def test_each_constant_is_the_one_that_is_played(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = learner.DEARER_HALF
    played: list[float] = []

    class Playing(learner.Learner):
        def __init__(self, *arguments: object) -> None:
            played.append(learner.DEARER_HALF)
            super().__init__(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(learner, "Learner", Playing)
    found = ratios(PRICES["ledger"], (0.0, usual), 60)
    assert len(found) == 2 and set(played) == {0.0, usual}
    assert all(1 < mean <= worst < 3 for worst, mean in found)
    assert usual == learner.DEARER_HALF


def test_prices_that_are_none_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["dearest"])
    assert "there are no prices 'dearest': ledger, cheap hops, dear hops" in capsys.readouterr().err
