from pathlib import Path

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from training.data import DataError, describe_features, describe_target, read_table, split


def table_file(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_statistics_are_those_of_scikit_learns_standard_scaler(tmp_path: Path) -> None:
    values = np.random.default_rng(0).lognormal(3, 2, size=500)
    lines = "\n".join(f"{value!r},{value * 2!r}" for value in values.tolist())
    table = read_table(table_file(tmp_path, f"x,y\n{lines}\n"), "y", ["x"])
    scaler = StandardScaler().fit(values.reshape(-1, 1))
    (feature,) = describe_features(table)
    assert feature.mean == pytest.approx(scaler.mean_[0], rel=1e-13)
    assert feature.std == pytest.approx(scaler.scale_[0], rel=1e-13)
    assert (feature.minimum, feature.maximum) == (values.min(), values.max())
    assert feature.deciles == pytest.approx(np.percentile(values, range(10, 100, 10)))
    assert feature.example in values


def test_numbers_are_read_to_the_last_bit(tmp_path: Path) -> None:
    texts = ["0.1", "2.2250738585072014e-308", "1.7976931348623157e308", "-0.30000000000000004"]
    path = table_file(tmp_path, "x,y\n" + "\n".join(f"{text},{row}" for row, text in enumerate(texts)))
    table = read_table(path, "y", ["x"])
    assert table.columns["x"].tolist() == [float(text) for text in texts]


def test_rows_with_an_empty_cell_are_left_out_and_counted(tmp_path: Path) -> None:
    path = table_file(tmp_path, "x,y,z\n1,2,\n,3,1\n2,,1\n,,1\n5,6,\n")
    table = read_table(path, "y", ["x"])
    assert table.columns["x"].tolist() == [1, 5]
    assert table.target.tolist() == [2, 6]
    assert table.dropped == {"x": 2, "y": 2}


def test_a_byte_order_mark_does_not_hide_the_first_column(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b"\xef\xbb\xbfx,y\n1,2\n3,4\n")
    assert read_table(path, "y", ["x"]).rows == 2


@pytest.mark.parametrize(
    ("text", "inputs", "sentence"),
    [
        ("", ["x"], "is empty"),
        ("x,y\n", ["x"], "has 0 rows"),
        ("x,y\n1,2\n", ["x"], "has 1 rows"),
        ("Price,Kilometers\n1,2\n2,3\n", ["kilometers"], "did you mean 'Kilometers'"),
        ("x;y\n1;2\n", ["x"], "no column 'x'"),
        ("x,y\n1,2\nred,3\n", ["x"], "row 2 has 'red'"),
        ("x,y\n1,2\ninf,3\n", ["x"], "cannot be read as a finite number"),
        ("x,x,y\n1,2,3\n", ["x"], "has 2 columns named 'x'"),
        ("x,y\n1,2\n3,4\n", ["x", "x"], "asked for twice"),
        ("x,y\n1,2\n3,4\n", ["y"], "asked for twice"),
        ('"x""",y\n1,2\n3,4\n', ['x"'], "rename it"),
        ('x,y\n1,2\n"3,4\n', ["x"], "cannot be read as a CSV file"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_a_sentence(
    tmp_path: Path, text: str, inputs: list[str], sentence: str
) -> None:
    with pytest.raises(DataError) as refusal:
        read_table(table_file(tmp_path, text), "y", inputs)
    assert sentence in str(refusal.value)
    assert "table.csv" in str(refusal.value) or "column" in str(refusal.value)


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.csv").write_bytes(b"x,y\n\xff\xfe,\x00\n")
    for path in (tmp_path / "nowhere.csv", tmp_path, tmp_path / "binary.csv"):
        with pytest.raises(DataError, match="cannot be read as a CSV file"):
            read_table(path, "y", ["x"])


def test_a_constant_column_is_refused_by_name(tmp_path: Path) -> None:
    table = read_table(table_file(tmp_path, "x,y\n0.1,1\n0.1,2\n0.1,3\n"), "y", ["x"])
    with pytest.raises(DataError, match="constant: all 3 rows have 0"):
        describe_features(table)
    constant_target = read_table(table_file(tmp_path, "x,y\n1,7\n2,7\n"), "y", ["x"])
    with pytest.raises(DataError, match="the column 'y'"):
        describe_target(constant_target)


def test_a_split_takes_every_row_once_and_depends_on_the_seed() -> None:
    fit_rows, held_rows = split(1001, 0.2, seed=3)
    assert len(held_rows) == 200
    assert sorted([*fit_rows, *held_rows]) == list(range(1001))
    assert np.array_equal(split(1001, 0.2, seed=3)[1], held_rows)
    assert not np.array_equal(split(1001, 0.2, seed=4)[1], held_rows)
