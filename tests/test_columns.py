import json
from datetime import UTC, date, datetime, timedelta, timezone
from fractions import Fraction
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from model_store.columns import (
    MANY_NUMBERS,
    BooleanFeature,
    CategoricalFeature,
    Category,
    DateFeature,
    Feature,
    encode,
    far_rows,
    out_of_range,
    read_columns,
    row_encoder,
)
from tests.toys import (
    AGE,
    ALL_KINDS,
    BUILT,
    COLOUR,
    FEATURES,
    FUEL,
    GRADE,
    HYBRID,
    KM,
    PORT,
    POWER,
    RPM,
    SOLD,
    TURBO,
    toy_rows,
)

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
HATS: Final = {"knots": (17501.0, 17600.5, 17865.875), "shares": (0.25, 0.5, 0.25)}
BENT = SOLD.model_copy(update={"clip": True, "clipped_mean": 0.125, **HATS})
CLIPPED = AGE.model_copy(update={"clip": True, "clipped_mean": -0.125})
KINDS: Final[list[Feature]] = [AGE, FILLED, FUEL, *ALL_KINDS, BENT, CLIPPED]
NAMES = [
    "age",
    "age or null",
    *(feature.name for feature in (FUEL, *ALL_KINDS)),
    "sold, bent",
    "age, clipped",
]
kinds = pytest.mark.parametrize("feature", KINDS, ids=NAMES)

MAY_MISS = {"age or null", "km", "port", "colour", "grade", "hybrid", "rpm"}
CATEGORIES = {
    "fuel type": {"petrol", "diesel", "a,b"},
    "port": {"Hafen", "NA", "Kai"},
    "colour": {"red", "None"},
    "grade": {"a,{b}"},
}
DATES = (
    *("2018-05-13", "20180513", "2018-W19-7", "0001-01-01", "9999-12-31", "2018-05-13T10", " 2018-05-13 "),
    *("2018-05-13T10:30", "2018-05-13 10:30:59.999999", "2018-05-13T10:30Z", "9999-12-31T23:59-12:00"),
)
NO_DATES = (
    *(
        "2018-02-29",
        "2018-13-01",
        "2018-05",
        "13.05.2018",
        "12:30",
        "now",
        "17500",
        "2018-05-13x",
        "0000-01-01",
    ),
    *("2018-05-13T25:00", "2018-05-13T10:30+99:00", "2018-05-13" + " " * 40 + "T", "２018-05-13", "1/2"),
)
WRITTEN = ("29/02/2000", "1/2/1999")

# Whatever JSON may hold, and what a careful parser makes of numbers that float64 cannot.
anything = st.one_of(
    st.floats(),
    st.integers(),
    st.integers(min_value=10**300, max_value=10**320),
    st.booleans(),
    st.none(),
    st.text(max_size=8),
    st.sampled_from(sorted(set[str]().union(*CATEGORIES.values()))),
    st.sampled_from([*DATES, *NO_DATES, *WRITTEN, "\ud800", "2018-05-13\ud80010:30"]),
    st.lists(st.integers(), max_size=1),
)


def is_taken(feature: Feature, value: Any) -> bool:
    """The oracle: the rule in the README's words."""
    if value is None:
        return NAMES[KINDS.index(feature)] in MAY_MISS
    if isinstance(feature, CategoricalFeature):
        is_open = feature in (PORT, COLOUR)
        return isinstance(value, str) and (
            value in CATEGORIES[feature.name] or (is_open and value != "" and "\ud800" not in value)
        )
    if isinstance(feature, DateFeature):
        return value in DATES if feature.name == "sold" else value in (*DATES, *WRITTEN)
    if isinstance(feature, BooleanFeature):
        return value is True or value is False
    return type(value) in {int, float} and repr(value)[-1].isdigit() and abs(Fraction(value)) < 2**1024


OFFSETS = st.integers(-23, 23).map(lambda hours: timezone(timedelta(hours=hours)))


def taken_values(feature: Feature) -> st.SearchStrategy[list[Any]]:
    """Lists of what a feature takes."""
    values: st.SearchStrategy[Any]
    if isinstance(feature, CategoricalFeature):
        values = st.sampled_from(feature.values)
        values = values | st.text(min_size=1) if feature.other is not None else values
    elif isinstance(feature, DateFeature):
        values = st.datetimes(timezones=st.none() | OFFSETS).map(datetime.isoformat)
        values |= st.dates().map(date.isoformat) | st.sampled_from(WRITTEN if feature == BUILT else DATES)
    elif isinstance(feature, BooleanFeature):
        values = st.booleans()
    else:
        values = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(10**18), 10**18))
    return st.lists(values | st.none() if feature.accepts(None) else values, min_size=1, max_size=20)


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
        decoded = decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        assert not is_taken(feature, value)
    else:
        assert feature.accepts(decoded) == is_taken(feature, value)
        assert is_taken(feature, value) or not feature.type_decides


@kinds
@given(data=st.data())
def test_a_row_is_encoded_with_the_bits_of_a_column(feature: Feature, data: st.DataObject) -> None:
    values = data.draw(taken_values(feature))
    column = feature.read(values).column
    together = np.ascontiguousarray(feature.encode(column))
    alone = np.array([np.atleast_1d(feature.row_encoder()(value)) for value in values]).T
    sparse = [with_zeros(feature.sparse_row_encoder(3)(value), 3 + feature.width) for value in values]
    assert alone.shape == together.shape == (feature.width, len(values))
    assert alone.tobytes() == together.tobytes() == np.array(sparse).T[3:].tobytes()


def with_zeros(inputs: Any, width: int) -> NDArray[np.float64]:
    """An encoded row, (width,), that may be encoded by the positions of its inputs alone, which ascend."""
    if not isinstance(inputs, dict):
        return np.array(inputs)
    assert inputs
    assert list(inputs) == sorted(inputs)
    row = np.zeros(width)
    row[list(inputs)] = list(inputs.values())
    return row


def many_numbers(count: int) -> list[Feature]:
    """So many numbers, each with a mean and a std of its own."""
    return [
        AGE.model_copy(update={"name": f"x{k}", "mean": 5.25 / (k + 1), "std": 2.5 / (k + 3)})
        for k in range(count)
    ]


def with_all_kinds_between(numbers: list[Feature]) -> list[Feature]:
    """The numbers with one of every other kind after each of the first, and at both ends."""
    between = [feature for pair in zip(numbers, ALL_KINDS, strict=False) for feature in pair]
    return [FUEL, *between, *numbers[len(ALL_KINDS) :], FILLED]


@pytest.mark.parametrize(
    "features",
    [
        many_numbers(MANY_NUMBERS - 1),
        many_numbers(MANY_NUMBERS),
        with_all_kinds_between(many_numbers(MANY_NUMBERS - 1)),
        with_all_kinds_between(many_numbers(MANY_NUMBERS)),
        [*many_numbers(2), *ALL_KINDS],
    ],
    ids=["numbers", "many numbers", "all kinds", "all kinds and many numbers", "few numbers, many zeros"],
)
@settings(max_examples=30)
@given(data=st.data())
def test_a_whole_row_is_encoded_with_the_bits_of_columns(
    features: list[Feature], data: st.DataObject
) -> None:
    any_number = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**18), 10**18)
    count = sum(feature.name.startswith("x") for feature in features)
    drawn = iter(data.draw(st.lists(any_number, min_size=count, max_size=count)))
    row = [
        next(drawn) if feature.name.startswith("x") else data.draw(taken_values(feature))[0]
        for feature in features
    ]
    pairs = list(zip(features, row, strict=True))
    columns = {feature.name: feature.read([value]).column for feature, value in pairs}
    alone = with_zeros(row_encoder(features)(row), sum(feature.width for feature in features))
    assert alone.tobytes() == encode(features, columns).tobytes()


def test_a_number_beyond_all_measure_is_encoded_as_an_infinity_without_a_warning() -> None:
    features = many_numbers(MANY_NUMBERS)
    row = [-1.7e308] * MANY_NUMBERS
    columns = {feature.name: np.array([-1.7e308]) for feature in features}
    assert encode(features, columns)[0, -1] == np.array(row_encoder(features)(row))[-1] == -np.inf


@kinds
@given(data=st.data())
def test_a_row_is_out_of_range_where_a_column_is(feature: Feature, data: st.DataObject) -> None:
    values = data.draw(taken_values(feature))
    is_outside = feature.row_ranger() or (lambda _value: False)
    outside = [k for k, value in enumerate(values) if is_outside(value)]
    assert feature.outside(feature.read(values).column).tolist() == outside


@kinds
@given(data=st.data())
def test_a_row_is_far_outside_where_a_column_is_and_never_within(
    feature: Feature, data: st.DataObject
) -> None:
    values = data.draw(taken_values(feature))
    column = feature.read(values).column
    is_far = feature.far_ranger() or (lambda _value: False)
    far = [k for k, value in enumerate(values) if is_far(value)]
    assert feature.far(column, feature.outside(column).tolist()).tolist() == far


# The borders, a tenth of the range beyond it: 14 and 326; -0.45 and 10.95; 17464.5125 and 17902.3625 days,
# 2017-10-25 at 12:18 and 2019-01-06 at 8:42; 2317.2 and 18334.8 days, on 1976-05-06 and 2020-03-13.
@pytest.mark.parametrize(
    ("feature", "near", "far"),
    [
        (POWER, [14.0, 39.9, 300.1, 326.0], [np.nextafter(14.0, 0), np.nextafter(326.0, 400), -1e308, 1e308]),
        (KM, [None, -0.449, 10.949], [-0.451, 10.951]),
        (
            SOLD,
            ["2017-10-25T12:18:01", "2018-04-10T11:00:00", "2019-01-06T08:41:59"],
            ["2017-10-25T12:17:59", "2019-01-06T08:42:01", "2019-04-10", "1970-01-01", "9999-12-31"],
        ),
        (BUILT, ["07/05/1976", "2020-03-13"], ["06/05/1976", "14/03/2020"]),
        (PORT, [None, "Werft"], []),
        (COLOUR, [None, "mauve"], []),
        (HYBRID, [None], []),
    ],
    ids=["number", "filled", "moment", "date", "rare category", "level not in training", "boolean"],
)
def test_far_outside_is_beyond_by_more_than_a_tenth_of_the_range(
    feature: Feature, near: list[Any], far: list[Any]
) -> None:
    column = feature.read([*near, *far]).column
    rows = far_rows([feature], {feature.name: column}, out_of_range([feature], {feature.name: column}))
    assert sorted(rows.tolist()) == list(range(len(near), len(near) + len(far)))
    is_far = feature.far_ranger() or (lambda _value: False)
    assert [bool(is_far(value)) for value in [*near, *far]] == [False] * len(near) + [True] * len(far)


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


MOMENTS = [datetime(2018, 5, 13, 10, 30, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, 500_000, tzinfo=UTC)]
TEXTS = ["2018-05-13T10:30", "1969-12-31T23:59:59.5"]


@pytest.mark.parametrize(
    "values",
    [
        TEXTS,
        ["2018-05-13T12:30+02:00", "1969-12-31T23:59:59,500Z"],
        MOMENTS,
        [moment.replace(tzinfo=None) for moment in MOMENTS],
        [moment.astimezone(timezone(timedelta(hours=-7))) for moment in MOMENTS],
        np.array(TEXTS, "datetime64[ns]"),
        np.array(TEXTS, "datetime64[ms]"),
        np.array(TEXTS),
        np.array(MOMENTS, dtype=object),
        pd.Series(MOMENTS),
        pa.array(MOMENTS, pa.timestamp("us", "UTC")),
        pa.array(MOMENTS, pa.timestamp("ms")),
        pa.array(TEXTS),
    ],
    ids=lambda values: f"{type(values).__name__} {getattr(values, 'dtype', getattr(values, 'type', ''))}",
)
def test_moments_that_came_parsed_are_read_whatever_holds_them(values: Any) -> None:
    reading = SOLD.read(values)
    assert not reading.refused.size
    assert list(reading.column) == [17664 + 10.5 / 24, -0.5 / 86400]


@pytest.mark.parametrize(
    "values",
    [
        ["2018-05-13"],
        [date(2018, 5, 13)],
        np.array(["2018-05-13"], "datetime64[D]"),
        pa.array([17664], pa.date32()),
    ],
)
def test_a_date_is_its_midnight(values: Any) -> None:
    assert list(SOLD.read(values).column) == [17664.0]


@pytest.mark.parametrize(
    "values",
    [
        np.array(["2018-05-13", "NaT"], "datetime64[s]"),
        pa.array([17664, None], pa.date32()),
        [date(2018, 5, 13), pd.NaT],
        ["2018-05-13", 17664.0],
        np.array(["2018-05-13", ""]),
    ],
)
def test_what_came_parsed_and_is_no_date_is_refused_by_position(values: Any) -> None:
    assert SOLD.read(values).refused.tolist() == [1]


def test_days_are_a_column_as_they_are() -> None:
    days = SOLD.read(TEXTS).column
    np.testing.assert_array_equal(SOLD.encode(np.array(days)), SOLD.encode(TEXTS))


@pytest.mark.parametrize(
    "values",
    [
        [True, False],
        np.array([True, False]),
        np.array([True, False], dtype=object),
        pa.array([True, False]),
        torch.tensor([True, False]),
    ],
)
def test_booleans_that_came_parsed_are_read_whatever_holds_them(values: Any) -> None:
    for feature in (HYBRID, TURBO):
        reading = feature.read(values)
        assert not reading.refused.size
        assert list(reading.column) == [1.0, 0.0]


@pytest.mark.parametrize("values", [[True, None], pa.array([True, None]), np.array([True, None])])
def test_a_missing_boolean_is_read_where_it_may_miss(values: Any) -> None:
    assert TURBO.read(values).refused.tolist() == [1]
    reading = HYBRID.read(values)
    assert not reading.refused.size
    np.testing.assert_array_equal(HYBRID.encode(reading.column), [[1, 5 / 16], [0, 1]])


@pytest.mark.parametrize("values", [["Kai", None], pa.array(["Kai", None]), np.array(["Kai", None])])
def test_a_missing_category_is_read_where_it_may_miss(values: Any) -> None:
    assert FUEL.read(values).refused.tolist() == [0, 1]
    reading = PORT.read(values)
    assert not reading.refused.size
    np.testing.assert_array_equal(PORT.encode(reading.column).T, [[0, 0, 1, 0, 0], [0, 0, 0, 1, 0]])


CELLS: Final[list[tuple[Feature, list[str], list[Any], list[int]]]] = [
    (PORT, ["Kai", "", "NA", "null", "Werft", "\udcff"], ["Kai", None, "NA", "null", "Werft", "\udcff"], [5]),
    (GRADE, ["", "a,{b}", " "], [None, "a,{b}", " "], [2]),
    (FUEL, ["diesel", "", "NA"], ["diesel", "", "NA"], [1, 2]),
    (HYBRID, ["True", "FALSE", " true ", "", "NA", "yes", "1"], [1.0, 0.0, 1.0] + [np.nan] * 4, [5, 6]),
    (TURBO, ["false", "", "NA"], [0.0, np.nan, np.nan], [1, 2]),
    (SOLD, ["2018-05-13", " 2018-05-13T12 ", "", "NA"], [17664.0, 17664.5, np.nan, np.nan], [2, 3]),
    (BUILT, ["13/5/2018", "2018-05-13", "05/13/2018"], [17664.0, 17664.0, np.nan], [2]),
]


@pytest.mark.parametrize(("feature", "cells", "values", "refused"), CELLS)
def test_cells_are_read_as_their_kind_writes_them(
    feature: Feature, cells: list[str], values: list[Any], refused: list[int]
) -> None:
    reading = feature.read_cells(cells)
    assert reading.refused.tolist() == refused
    np.testing.assert_array_equal(np.array(reading.column), np.array(values))


def test_hats_are_named_by_their_knots_which_are_told_apart() -> None:
    assert RPM.labels == (
        "rpm",
        *(f"rpm near {knot}" for knot in ("800", "2,000", "3,000", "4,500", "7,000")),
        "rpm is missing",
    )
    days = ("2017-12-01", "2018-03-10T12:00", "2018-11-30T21:00")
    assert BENT.labels[:4] == ("sold", *(f"sold near {day}" for day in days))
    close = RPM.model_copy(update={"knots": (2000.0, 2000.0001), "shares": (0.5, 0.5)})
    assert close.labels[1:3] == ("rpm near 2000.0", "rpm near 2000.0001")


def test_the_means_of_what_is_clipped_and_of_hats_are_part_of_the_average_row() -> None:
    assert RPM.baseline.tolist() == [-0.0625, 0.125, 0.25, 0.25, 0.25, 0.125, 0.125]
    assert BENT.baseline[:4].tolist() == [0.125, 0.25, 0.5, 0.25]
    assert CLIPPED.baseline.tolist() == [-0.125]


@kinds
def test_the_encoded_training_rows_have_the_baseline_for_their_mean(feature: Feature) -> None:
    assert feature.baseline.shape == (feature.width,) == (len(feature.labels),)
    if isinstance(feature, CategoricalFeature):
        known = [category.value for category in feature.categories for _ in range(category.rows)]
        rows = [*known, *[None] * (feature.missing or 0), *["rare"] * (feature.other or 0)]
        np.testing.assert_allclose(feature.encode(rows).mean(axis=1), feature.baseline, rtol=1e-15)
    if isinstance(feature, BooleanFeature):
        truths = [True] * feature.trues + [False] * feature.falses + [None] * (feature.missing or 0)
        np.testing.assert_allclose(feature.encode(truths).mean(axis=1), feature.baseline, rtol=1e-15)


def test_a_level_that_was_not_in_training_is_encoded_as_the_average_row_and_out_of_range() -> None:
    for feature, values in ((COLOUR, [None, "mauve"]), (SOLD, ["2018-04-10T11:00"])):
        encoded = feature.encode(values)
        start = 1 if feature is SOLD else 0
        np.testing.assert_array_equal(
            encoded[start : start + 11].T, [feature.baseline[start : start + 11]] * len(values)
        )
        assert feature.outside(values).tolist() == list(range(len(values)))


def test_a_rare_category_that_was_merged_is_out_of_range_and_a_missing_one_is_not() -> None:
    assert PORT.outside([None, "Kai", "Werft"]).tolist() == [2]


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("hafen", ": did you mean 'Hafen'?"),
        ("Hafn", ": did you mean 'Hafen'?"),
        ("Kay", ": did you mean 'Kai'?"),
        ("Schiff", ""),
        ("", ""),
        (None, ""),
        (4, ""),
    ],
)
def test_a_misspelt_category_gets_a_hint(given: object, hint: str) -> None:
    closed = PORT.model_copy(update={"other": None})
    assert not closed.accepts(given) or given is None
    assert closed.hint(given) == hint


@pytest.mark.parametrize(
    ("feature", "changes", "message"),
    [
        (FUEL, {"categories": FUEL.categories[:1], "example": "petrol"}, "fewer than two categories"),
        (GRADE, {"missing": 0}, "fewer than two categories"),
        (FUEL, {"example": "wood"}, "is none of its categories"),
        (GRADE, {"categories": (Category(value="", rows=1),), "example": ""}, "a missing value of grade"),
        (KM, {"fill": None}, "nothing to fill them with"),
        (RPM, {"clipped_mean": None}, "rpm is clipped without a mean of that"),
        (RPM, {"clip": False}, "has one and is not clipped"),
        (RPM, {"clipped_mean": 3.5}, "clipped_mean"),
        (RPM, {"knots": RPM.knots[:1], "shares": (1.0,)}, "knots of rpm are not two or more that ascend"),
        (RPM, {"knots": (800.0, *RPM.knots[:-1])}, "knots of rpm are not two or more that ascend"),
        (RPM, {"knots": RPM.knots[::-1]}, "knots of rpm are not two or more that ascend"),
        (RPM, {"knots": (*RPM.knots[:-1], float("inf"))}, "knots.4"),
        (RPM, {"knots": (-1.7e308, 1.7e308), "shares": (0.5, 0.5)}, "not two or more that ascend"),
        (RPM, {"shares": RPM.shares[:-1]}, "rpm has not a share for each knot"),
        (RPM, {"shares": (*RPM.shares[:-1], 0.125 + 1e-8)}, "which sum to 1"),
        (RPM, {"shares": (-0.125, 0.5, *RPM.shares[2:])}, "shares.0"),
        (RPM, {"knots": ()}, "rpm has not a share for each knot"),
        (SOLD, HATS | {"shares": ()}, "sold has not a share for each knot"),
        (SOLD, {"example": "2018-02-30"}, "day is out of range"),
        (SOLD, {"example": "13/05/2018"}, "example"),
        (SOLD, {"parts": {"month": (1,) * 11}}, "the rows of each month of sold are not 12 numbers"),
        (SOLD, {"parts": {"hour": (0,) * 24}}, "the rows of each hour of sold are not 24 numbers"),
        (SOLD, {"parts": {"minute": (1,) * 60}}, "minute"),
        (BUILT, {"format": "%c"}, "format"),
        (BUILT, {"format": "%Y-%d-%m"}, "reads what is ISO 8601 as another date"),
        (HYBRID, {"falses": 0}, "falses"),
        (HYBRID, {"example": 1}, "example"),
    ],
)
def test_a_kind_that_contradicts_itself_is_refused(
    feature: Feature, changes: dict[str, Any], message: str
) -> None:
    fields = {name: getattr(feature, name) for name in type(feature).model_fields}
    with pytest.raises(ValueError, match=message):
        type(feature)(**fields | changes)


ANY_OTHER = "Any other is answered too, and named in out_of_range."
OFFSETS_SAID = "A time with an offset is converted to UTC, one without is taken as it is."
SAID: Final[dict[str, tuple[str, str]]] = {
    "age": ("In training 0.5 to 10 years.", "a finite number (in training 0.5 to 10 years)"),
    "age or null": ("In training 0.5 to 10 years.", "a finite number or null (in training 0.5 to 10 years)"),
    "fuel type": ("One of 3 categories.", "one of 'petrol', 'diesel', 'a,b'"),
    "km": ("In training 0.5 to 10.", "a finite number or null (in training 0.5 to 10)"),
    "port": (
        f"In training one of 3 categories: 'Hafen', 'NA', 'Kai'. {ANY_OTHER}",
        "a text or null (in training one of 'Hafen', 'NA', 'Kai')",
    ),
    "colour": (
        f"In training one of 2 categories: 'red', 'None'. {ANY_OTHER}",
        "a text or null (in training one of 'red', 'None')",
    ),
    "grade": ("One of 2 categories.", "one of 'a,{b}' or null"),
    "sold": (
        f"In training 2017-12-01 to 2018-11-30T21:00. {OFFSETS_SAID}",
        "a date and time (ISO 8601, in training 2017-12-01 to 2018-11-30T21:00)",
    ),
    "built": (
        "In training 1980-01-01 to 2016-07-18.",
        "a date (ISO 8601 or %d/%m/%Y, in training 1980-01-01 to 2016-07-18)",
    ),
    "hybrid": ("In training true 25.0%, false 55.0%, (missing) 20.0%.", "true, false or null"),
    "turbo": ("In training true 10.0%, false 90.0%.", "true or false"),
    "rpm": ("In training 800 to 7000 1/min.", "a finite number or null (in training 800 to 7000 1/min)"),
}


@kinds
def test_json_schema_and_words_tell_what_is_taken_with_an_example_that_is(feature: Feature) -> None:
    schema = feature.json_schema
    (example,) = schema["examples"]
    assert feature.accepts(example)
    assert example == feature.plain_example
    nullable = {"type": "null"} in schema.get("anyOf", [])
    assert nullable == feature.accepts(None)
    said = NAMES[KINDS.index(feature)].partition(", ")[0]
    assert (schema["description"], feature.takes) == SAID[said]


def test_json_schema_names_the_form() -> None:
    assert FUEL.json_schema["enum"] == ["petrol", "diesel", "a,b"]
    assert SOLD.json_schema["format"] == "date-time"
    assert BUILT.json_schema["format"] == "date"
    assert TURBO.json_schema["type"] == "boolean"
    assert GRADE.json_schema["anyOf"][0] == {"type": "string", "enum": ["a,{b}"]}
    described = TURBO.model_copy(update={"description": "With a turbocharger"}).json_schema["description"]
    assert described == "With a turbocharger. In training true 10.0%, false 90.0%."
