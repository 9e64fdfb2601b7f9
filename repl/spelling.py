"""Which word a person may have meant: the one that is a slip or two of the fingers away."""

from __future__ import annotations

from collections.abc import Iterable


def slips(typed: str, word: str) -> int:
    """How many letters were left out, added, changed, or exchanged with their neighbour to make `typed` of `word`: the
    optimal string alignment distance (F. Damerau, "A technique for computer detection and correction of spelling
    errors", 1964)."""
    before: list[int] = []
    last = list(range(len(word) + 1))
    for row, letter in enumerate(typed, 1):
        this = [row]
        for column, other in enumerate(word, 1):
            least = min(last[column] + 1, this[-1] + 1, last[column - 1] + (letter != other))
            if row > 1 and column > 1 and letter == word[column - 2] and typed[row - 2] == other:
                least = min(least, before[column - 2] + 1)
            this.append(least)
        before, last = last, this
    return last[-1]


def nearest(typed: str, words: Iterable[str]) -> str:
    """The word of at least two letters that `typed` is one slip from, two where it has five letters or more; of several
    the one with as many letters, then with its first letter, then the first of the alphabet. "" where there is none."""
    most = 1 if len(typed) < 5 else 2
    near = [
        (count, len(word) != len(typed), word[0] != typed[0], word)
        for word in set(words)
        if len(word) > 1 and abs(len(word) - len(typed)) <= most and (count := slips(typed, word)) <= most
    ]
    return min(near)[-1] if near else ""
