import pytest

from model_store._spelling import meant, spellings

KNOWN = ("Hafen", "Kai", "Diesel", "diesel oil", "cats", "cat", "X")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("hafen", "Hafen"),
        (" HAFEN ", "Hafen"),
        ("Hafn", "Hafen"),
        ("Haffen", "Hafen"),
        ("Hefen", "Hafen"),
        ("Hafne", "Hafen"),
        ("CAT", "cat"),
        ("Cats", "cats"),
        ("diesel-oil", "diesel oil"),
        ("Kei", "Kai"),
        ("x", "X"),
        ("y", None),
        ("", None),
        ("petrol", None),
        ("Diesel engine", None),
    ],
)
def test_a_text_that_is_near_is_found(given: str, text: str | None) -> None:
    assert meant(given, KNOWN) == text


def test_only_the_start_of_long_texts_and_the_first_of_many_are_looked_at() -> None:
    known = tuple(f"{index:04} " + "engine " * 1000 for index in range(100_000))
    assert meant("0007 " + "engine " * 100_000, known) == known[7]
    assert meant(known[99_999].upper(), known) is None
    assert len(list(spellings(known[0]))) <= 41
