from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from model_store.encoding import encode, out_of_range
from tests.toys import AGE, FEATURES, FUEL, POWER, toy_rows

ROWS: Final = toy_rows(100)


def toy_columns() -> dict[str, list[Any]]:
    return {feature.name: [row[feature.name] for row in ROWS] for feature in FEATURES}


def numbers(name: str) -> NDArray[np.float64]:
    return np.array([[row[name]] for row in ROWS], dtype=np.float64)


def test_numbers_are_standardised_as_by_scikit_learn() -> None:
    scaler = StandardScaler().fit(numbers("age"))
    age = AGE.model_copy(update={"mean": float(scaler.mean_[0]), "std": float(scaler.scale_[0])})
    encoded = encode([age], toy_columns())
    np.testing.assert_array_equal(encoded, scaler.transform(numbers("age")))
    assert encoded.mean() == pytest.approx(0, abs=1e-12)
    assert encoded.std() == pytest.approx(1, abs=1e-12)


def test_categories_are_one_hot_as_by_scikit_learn() -> None:
    fuels = [[row[FUEL.name]] for row in ROWS]
    oracle = OneHotEncoder(categories=[list(FUEL.values)], sparse_output=False)
    np.testing.assert_array_equal(encode([FUEL], toy_columns()), oracle.fit_transform(fuels))


def test_the_columns_stand_in_the_order_of_the_features() -> None:
    encoded = encode(FEATURES, toy_columns())
    assert encoded.shape == (100, 5)
    assert encoded.dtype == np.float64
    np.testing.assert_array_equal(encoded[:, [0]], (numbers("age") - 5.25) / 2.5)
    np.testing.assert_array_equal(encoded[:, [1]], (numbers(POWER.name) - 100.1) / 33.3)
    np.testing.assert_array_equal(encoded[0, 2:], [1, 0, 0])
    np.testing.assert_array_equal(encoded[1, 2:], [0, 1, 0])
    np.testing.assert_array_equal(encoded[2, 2:], [0, 0, 1])


def test_the_order_of_the_mapping_does_not_matter() -> None:
    columns = toy_columns()
    backwards = dict(reversed(columns.items()))
    np.testing.assert_array_equal(encode(FEATURES, backwards), encode(FEATURES, columns))


def test_a_column_that_is_no_feature_is_not_looked_at() -> None:
    columns = toy_columns()
    np.testing.assert_array_equal(encode(FEATURES, {"colour": ["red"], **columns}), encode(FEATURES, columns))


def test_lists_and_arrays_are_encoded_alike() -> None:
    columns = toy_columns()
    arrays = {name: np.array(values) for name, values in columns.items()}
    np.testing.assert_array_equal(encode(FEATURES, arrays), encode(FEATURES, columns))


def test_a_whole_number_is_the_float_of_the_same_value() -> None:
    np.testing.assert_array_equal(encode([AGE], {"age": [3]}), encode([AGE], {"age": [3.0]}))


def test_no_rows_make_a_matrix_without_rows() -> None:
    assert encode(FEATURES, {feature.name: [] for feature in FEATURES}).shape == (0, 5)


def test_a_missing_column_is_named() -> None:
    columns = toy_columns()
    del columns["age"]
    with pytest.raises(KeyError, match="age"):
        encode(FEATURES, columns)


@pytest.mark.parametrize("value", ["hydrogen", "", "Petrol", "petrol "])
def test_an_unknown_category_is_named(value: str) -> None:
    with pytest.raises(KeyError, match=f"'{value}'"):
        encode([FUEL], {FUEL.name: ["petrol", value]})


def test_a_word_is_not_a_number() -> None:
    with pytest.raises(ValueError, match="age is not numeric"):
        encode([AGE], {"age": [1.0, "old"]})


def test_only_rows_beyond_the_training_range_are_out_of_range() -> None:
    above, below = np.nextafter(10.0, 11), np.nextafter(0.5, 0)
    columns = {"age": [0.5, below, 10.0, above, 5.0], POWER.name: [100.0] * 5, FUEL.name: ["petrol"] * 5}
    assert out_of_range(FEATURES, columns) == {"age": [1, 3]}


def test_rows_within_the_training_range_have_no_entry() -> None:
    assert out_of_range(FEATURES, toy_columns()) == {}
