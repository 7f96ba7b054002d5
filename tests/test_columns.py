import json
from fractions import Fraction
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from model_store.columns import (
    CategoricalFeature,
    Feature,
    NumericFeature,
    encode,
    out_of_range,
    read_columns,
)
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


@pytest.mark.parametrize("value", ["old", "1.5", True, None, float("nan"), float("inf"), 10**400, [1.0]])
def test_a_value_that_is_no_number_is_refused_by_its_row(value: object) -> None:
    with pytest.raises(ValueError, match="age: row 1 is not a finite number"):
        read_columns([AGE], {"age": [1.0, value]})


def test_only_rows_beyond_the_training_range_are_out_of_range() -> None:
    above, below = np.nextafter(10.0, 11), np.nextafter(0.5, 0)
    columns = {"age": [0.5, below, 10.0, above, 5.0], POWER.name: [100.0] * 5, FUEL.name: ["petrol"] * 5}
    assert out_of_range(FEATURES, columns) == {"age": [1, 3]}


def test_rows_within_the_training_range_have_no_entry() -> None:
    assert out_of_range(FEATURES, toy_columns()) == {}


FILLED = AGE.model_copy(update={"fill": 5.0})
KINDS: Final[list[Feature]] = [AGE, FILLED, FUEL]
kinds = pytest.mark.parametrize("feature", KINDS, ids=["number", "number or null", "category"])

# Whatever JSON may hold, and what a careful parser makes of numbers that float64 cannot.
anything = st.one_of(
    st.floats(),
    st.integers(),
    st.integers(min_value=10**300, max_value=10**320),
    st.booleans(),
    st.none(),
    st.text(max_size=8),
    st.sampled_from(FUEL.values),
    st.lists(st.integers(), max_size=1),
)


def is_taken(feature: Feature, value: Any) -> bool:
    """The oracle: the rule in the README's words."""
    if isinstance(feature, CategoricalFeature):
        return value in ("petrol", "diesel", "a,b")
    if value is None:
        return feature.fill is not None
    return type(value) in {int, float} and repr(value)[-1].isdigit() and abs(Fraction(value)) < 2**1024


def taken_values(feature: Feature) -> st.SearchStrategy[list[Any]]:
    """Lists of what a feature takes."""
    if isinstance(feature, CategoricalFeature):
        return st.lists(st.sampled_from(feature.values), min_size=1, max_size=20)
    numbers = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(10**18), 10**18))
    return st.lists(numbers if feature.fill is None else numbers | st.none(), min_size=1, max_size=20)


@kinds
@given(values=st.lists(anything, max_size=20))
def test_a_kind_reads_exactly_what_it_accepts(feature: Feature, values: list[Any]) -> None:
    reading = feature.read(values)
    assert len(reading.column) == len(values)
    refused = [k for k, value in enumerate(values) if not is_taken(feature, value)]
    assert reading.refused.tolist() == refused
    assert [k for k, value in enumerate(values) if not feature.accepts(value)] == refused


@kinds
@given(value=anything)
def test_a_decoder_of_its_type_lets_through_what_a_kind_accepts(feature: Feature, value: Any) -> None:
    text = json.dumps(value)
    decode = msgspec.json.Decoder(feature.value_type).decode
    try:
        decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        assert not is_taken(feature, value)
    else:
        assert is_taken(feature, value)


@kinds
@given(data=st.data())
def test_a_row_is_encoded_with_the_bits_of_a_column(feature: Feature, data: st.DataObject) -> None:
    values = data.draw(taken_values(feature))
    column = feature.read(values).column
    alone = np.array([feature.row_encoder()(value) for value in values]).T
    assert alone.shape == (feature.width, len(values))
    assert alone.tobytes() == np.ascontiguousarray(feature.encode(column)).tobytes()


@kinds
@given(data=st.data())
def test_a_row_is_out_of_range_where_a_column_is(feature: Feature, data: st.DataObject) -> None:
    values = data.draw(taken_values(feature))
    is_outside = feature.row_ranger() or (lambda _value: False)
    outside = [k for k, value in enumerate(values) if is_outside(value)]
    assert feature.outside(feature.read(values).column).tolist() == outside


@pytest.mark.parametrize(
    "values",
    [
        np.array([1, 2, 3], np.int8),
        np.array([1, 2, 3], np.uint64),
        np.array([1, 2, 3], np.float16),
        np.array([1.0, 2.0, 3.0], ">f4"),
        np.array([1, 2.0, 3], dtype=object),
        (1, 2.0, 3),
        torch.tensor([1.0, 2.0, 3.0]),
        torch.tensor([1, 2, 3]),
        pa.array([1, 2, 3], pa.int32()),
        pa.chunked_array([[1.0, 2.0], [3.0]]),
    ],
    ids=lambda values: f"{type(values).__name__} {getattr(values, 'dtype', getattr(values, 'type', ''))}",
)
def test_numbers_that_came_parsed_are_read_whatever_holds_them(values: Any) -> None:
    reading = AGE.read(values)
    assert isinstance(reading.column, np.ndarray)
    assert reading.column.dtype == np.float64
    assert list(reading.column) == [1.0, 2.0, 3.0]
    assert not reading.refused.size


@pytest.mark.parametrize(
    ("values", "refused"),
    [
        (np.array([1.0, np.nan, np.inf]), [1, 2]),
        (np.array([True, False]), [0, 1]),
        (np.array(["1", "2"]), [0, 1]),
        (np.array([1 + 0j]), [0]),
        (pa.array([1.0, None, 2.0]), [1]),
        (pa.array(["1"]), [0]),
        (torch.tensor([True]), [0]),
    ],
    ids=["not finite", "booleans", "texts", "complex", "null", "Arrow's texts", "torch's booleans"],
)
def test_what_came_parsed_and_is_no_number_is_refused_by_position(values: Any, refused: list[int]) -> None:
    assert AGE.read(values).refused.tolist() == refused


def test_a_missing_number_is_read_where_it_may_miss() -> None:
    for values in ([1.0, None], np.array([1.0, np.nan]), pa.array([1.0, None])):
        reading = FILLED.read(values)
        assert not reading.refused.size
        np.testing.assert_array_equal(
            FILLED.encode(reading.column), [[(1.0 - 5.25) / 2.5, (5.0 - 5.25) / 2.5]]
        )


@pytest.mark.parametrize(
    "values",
    [
        ["petrol", "a,b"],
        np.array(["petrol", "a,b"]),
        np.array(["petrol", "a,b"], dtype=object),
        pa.array(["petrol", "a,b"]),
        pa.chunked_array([["petrol"], ["a,b"]]),
        pa.array(["petrol", "a,b"]).dictionary_encode(),
    ],
    ids=["list", "numpy", "objects", "Arrow", "chunks", "dictionary"],
)
def test_categories_that_came_parsed_are_read_whatever_holds_them(values: Any) -> None:
    reading = FUEL.read(values)
    assert not reading.refused.size
    np.testing.assert_array_equal(FUEL.encode(reading.column), [[1, 0], [0, 0], [0, 1]])


@kinds
def test_json_schema_tells_what_is_taken_with_an_example_that_is(feature: Feature) -> None:
    schema = feature.json_schema
    (example,) = schema["examples"]
    assert feature.accepts(example)
    assert example == feature.plain_example
    nullable = {"type": "null"} in schema.get("anyOf", [])
    assert nullable == feature.accepts(None)
    if isinstance(feature, NumericFeature):
        assert "In training 0.5 to 10 years" in schema["description"]
        assert "in training 0.5 to 10 years" in feature.takes
    else:
        assert schema["enum"] == ["petrol", "diesel", "a,b"]
        assert feature.takes == "one of 'petrol', 'diesel', 'a,b'"
