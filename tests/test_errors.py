import copy
import pickle
import re
from typing import Final

import pytest

from model_store import errors
from model_store.errors import StoreError


def kinds() -> set[type[StoreError]]:
    """Every kind of error that the file defines."""
    found = vars(errors).values()
    return {kind for kind in found if isinstance(kind, type) and issubclass(kind, StoreError)}


EXAMPLES: Final[list[StoreError]] = [
    StoreError("a sentence"),
    errors.InvalidName("../é"),
    errors.PathTaken("a/b"),
    errors.PathMissing("a/b"),
    errors.StoreUrlInvalid("ftp://x"),
    errors.ExtraMissing("s3://x"),
    errors.StorageFailed("a/b", "No space left on device"),
    errors.NotPermitted("a/b", "Permission denied"),
    errors.TooLarge("a/b", 65536),
    errors.ModelNotFound("toy", "models", ["other"]),
    errors.NotOneModel("models", ["other", "toy"]),
    errors.VersionNotFound("toy", 9, [1, 2]),
    errors.NothingPromoted("toy", "models", [1, 2]),
    errors.NothingToRollBackTo("toy", 1),
    errors.VersionInUse("toy", 1),
    errors.VersionPruned("toy", 1),
    errors.NoNumberLeft("models/toy", 9_999_999_999),
    errors.EntryInvalid("a/b/1.json", "it says it is generation 2"),
    errors.PromotionInvalid("a/b/1.json", "it says it is generation 2"),
    errors.VersionRefused("a/b", "it holds a file more"),
    errors.FileDiffers("a/b", "17 bytes, expected 16"),
    errors.ManifestInvalid("a/b", "name: a string is expected"),
    errors.TensorsInvalid("a/b", "a tensor is missing"),
    errors.GoldenDiffer("a/b", "golden row 3"),
]


def test_every_kind_of_error_is_drawn_in_the_docstring_and_has_an_example_here() -> None:
    drawn = re.findall("[├└]── ([A-Za-z]+) ", str(errors.__doc__))
    assert sorted(["StoreError", *drawn]) == sorted(kind.__name__ for kind in kinds())
    assert {type(error) for error in EXAMPLES} == kinds()


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_is_the_same_in_another_process(error: StoreError, protocol: int) -> None:
    again = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301  (its own bytes)
    assert type(again) is type(error)
    assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_a_copy_of_an_error_says_the_same(error: StoreError) -> None:
    assert (type(copy.copy(error)), str(copy.copy(error))) == (type(error), str(error))
