"""The report's words: both languages say all of it."""

from __future__ import annotations

from string import Formatter

from app.comparison.report.words import LANGUAGES, WORDS
from app.comparison.scores.measures import MEASURES


def test_both_languages_have_the_same_words_with_the_same_places() -> None:
    places = [
        {
            key: sorted(name for _, name, _, _ in Formatter().parse(text) if name)
            for key, text in WORDS[language].items()
        }
        for language in LANGUAGES
    ]

    assert places[0] == places[1]


def test_each_measure_and_unit_has_a_name() -> None:
    names = {f"measure_{name}" for name in MEASURES} | {measure.unit for measure in MEASURES.values() if measure.unit}

    assert names - set(WORDS["zh"]) == set()
