"""`exact` beside what others computed: scikit-learn, and NIST's certified values for ill-conditioned data."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression

from model_store.columns import Matrix, NumericFeature
from model_store.manifest import Linear
from training.blocks import Blocks
from training.least_squares import solve
from training.network import FeedForward
from training.reading import read_table
from training.recipe import make_recipe
from training.train import Model, train

# NIST Statistical Reference Datasets, Longley: y, then x1 to x6.
LONGLEY = """\
y,x1,x2,x3,x4,x5,x6
60323,83.0,234289,2356,1590,107608,1947
61122,88.5,259426,2325,1456,108632,1948
60171,88.2,258054,3682,1616,109773,1949
61187,89.5,284599,3351,1650,110929,1950
63221,96.2,328975,2099,3099,112075,1951
63639,98.1,346999,1932,3594,113270,1952
64989,99.0,365385,1870,3547,115094,1953
63761,100.0,363112,3578,3350,116219,1954
66019,101.2,397469,2904,3048,117388,1955
67857,104.6,419180,2822,2857,118734,1956
68169,108.4,442769,2936,2798,120445,1957
66513,110.8,444546,4681,2637,121950,1958
68655,112.6,482704,3813,2552,123366,1959
69564,114.2,502601,3931,2514,125368,1960
69331,115.7,518173,4806,2572,127852,1961
70551,116.9,554894,4007,2827,130081,1962
"""
# Filippelli's polynomial of degree 10: y and x of each row.
FILIP = """
.8116 -6.860120914; .9072 -4.324130045; .9052 -4.358625055; .9039 -4.358426747; .8053 -6.955852379; .8377
-6.661145254; .8667 -6.355462942; .8809 -6.118102026; .7975 -7.115148017; .8162 -6.815308569; .8515
-6.519993057; .8766 -6.204119983; .8885 -5.853871964; .8859 -6.109523091; .8959 -5.79832982; .8913
-5.482672118; .8959 -5.171791386; .8971 -4.851705903; .9021 -4.517126416; .909 -4.143573228; .9139
-3.709075441; .9199 -3.499489089; .8692 -6.300769497; .8872 -5.953504836; .89 -5.642065153; .891
-5.031376979; .8977 -4.680685696; .9035 -4.329846955; .9078 -3.928486195; .7675 -8.56735134; .7705
-8.363211311; .7713 -8.107682739; .7736 -7.823908741; .7775 -7.522878745; .7841 -7.218819279; .7971
-6.920818754; .8329 -6.628932138; .8641 -6.323946875; .8804 -5.991399828; .7668 -8.781464495; .7633
-8.663140179; .7678 -8.473531488; .7697 -8.247337057; .77 -7.971428747; .7749 -7.676129393; .7796
-7.352812702; .7897 -7.072065318; .8131 -6.774174009; .8498 -6.478861916; .8741 -6.159517513; .8061
-6.835647144; .846 -6.53165267; .8751 -6.224098421; .8856 -5.910094889; .8919 -5.598599459; .8934
-5.290645224; .894 -4.974284616; .8957 -4.64454848; .9047 -4.290560426; .9129 -3.885055584; .9209
-3.408378962; .9219 -3.13200249; .7739 -8.726767166; .7681 -8.66695597; .7665 -8.511026475; .7703
-8.165388579; .7702 -7.886056648; .7761 -7.588043762; .7809 -7.283412422; .7961 -6.995678626; .8253
-6.691862621; .8602 -6.392544977; .8809 -6.067374056; .8301 -6.684029655; .8664 -6.378719832; .8834
-6.065855188; .8898 -5.752272167; .8964 -5.132414673; .8963 -4.811352704; .9074 -4.098269308; .9119
-3.66174277; .9228 -3.2644011
"""
PONTIUS = """
.11019 .21956 .32949 .43899 .54803 .65694 .76562 .87487 .98292 1.09146 1.20001 1.30822 1.41599 1.52399
1.63194 1.73947 1.84646 1.95392 2.06128 2.16844 .11052 .22018 .32939 .43886 .54798 .65739 .76596 .87474
.98300 1.09150 1.20004 1.30818 1.41613 1.52408 1.63159 1.73965 1.84696 1.95445 2.06177 2.16829
"""
WAMPLER_3 = """
760 -2042 2111 -1684 3888 1858 11379 17560 39287 64382 113159 175108 273291 400186 581243 811568 1121004
1506550 2002767 2611612 3369180
"""


@dataclass(frozen=True)
class Certified:
    """Inputs (n, k) and target (n,); NIST's coefficients, their standard deviations, the constant's last,
    the residual sum of squares, and how many digits of these are to come out.
    """

    inputs: Matrix
    target: Matrix
    coefficients: list[float]
    errors: list[float]
    squares: float
    digits: float


def numbers(text: str) -> Matrix:
    return np.array([float(word) for word in text.replace(";", " ").split()])


def powers(x: Matrix, degree: int) -> Matrix:
    return np.column_stack([x**power for power in range(1, degree + 1)])


def longley() -> Certified:
    rows = np.array([[float(cell) for cell in line.split(",")] for line in LONGLEY.split()[1:]])
    return Certified(
        rows[:, 1:],
        rows[:, 0],
        [
            *(15.0618722713733, -0.358191792925910e-01, -2.02022980381683, -1.03322686717359),
            *(-0.511041056535807e-01, 1829.15146461355, -3482258.63459582),
        ],
        [
            *(84.9149257747669, 0.334910077722432e-01, 0.488399681651699, 0.214274163161675),
            *(0.226073200069370, 455.478499142212, 890420.383607373),
        ],
        836424.055505915,
        11,
    )


def filip() -> Certified:
    target, x = numbers(FILIP).reshape(-1, 2).T
    return Certified(
        powers(x, 10),
        target,
        [
            *(-2772.17959193342, -2316.37108160893, -1127.97394098372, -354.478233703349),
            *(-75.1242017393757, -10.8753180355343, -1.06221498588947, -0.670191154593408e-01),
            *(-0.246781078275479e-02, -0.402962525080404e-04, -1467.48961422980),
        ],
        [
            *(559.779865474950, 466.477572127796, 227.204274477751, 71.6478660875927),
            *(15.2897178747400, 2.23691159816033, 0.221624321934227, 0.142363763154724e-01),
            *(0.535617408889821e-03, 0.896632837373868e-05, 298.084530995537),
        ],
        0.795851382172941e-03,
        # Powers rounded to float64 leave 7.6 digits to a solution in rational arithmetic.
        6.5,
    )


def pontius() -> Certified:
    return Certified(
        powers(np.tile(np.arange(1, 21) * 150_000.0, 2), 2),
        numbers(PONTIUS),
        [0.732059160401003e-06, -0.316081871345029e-14, 0.673565789473684e-03],
        [0.157817399981659e-09, 0.486652849992036e-16, 0.107938612033077e-03],
        0.155761768796992e-05,
        9,
    )


def wampler(noise: float = 1.0) -> Certified:
    """The third of Wampler's data; with 10,000 times the noise, the fifth."""
    x = np.arange(21.0)
    exact = 1 + powers(x, 5).sum(axis=1)
    errors = [2363.55173469681, 779.343524331583, 101.475507550350, 5.64566512170752, 0.112324854679312]
    return Certified(
        powers(x, 5),
        exact + noise * (numbers(WAMPLER_3) - exact),
        [1.0] * 6,
        [noise * error for error in (*errors, 2152.32624678170)],
        83554268.0 * noise**2,
        9 if noise == 1 else 5.5,
    )


CERTIFIED = {
    "Longley": longley(),
    "Filip": filip(),
    "Pontius": pontius(),
    "Wampler3": wampler(),
    "Wampler5": wampler(10_000.0),
}
EACH = pytest.mark.parametrize("known", CERTIFIED.values(), ids=CERTIFIED)


def digits(actual: Matrix, certified: list[float]) -> float:
    """How many digits agree, in the worst of the values."""
    return float(-np.log10(np.abs(actual / certified - 1).max() + 1e-16))


@EACH
def test_the_solver_gives_nists_coefficients_and_their_standard_deviations(known: Certified) -> None:
    width = known.inputs.shape[1]
    rows = Blocks([np.column_stack([known.inputs, known.target])], width + 1)
    line = solve(FeedForward(Linear(), width, 0), rows)
    weights = line.network.tensors()
    actual = np.append(weights["layers.0.weight"][0], weights["layers.0.bias"])
    assert digits(actual, known.coefficients) > known.digits
    assert digits(line.errors.numpy(), known.errors) > known.digits
    assert line.cost * len(known.target) == pytest.approx(known.squares, rel=1e-6)
    assert line.rank == width + 1


@pytest.mark.parametrize("normalize", ["z-score", "none"])
@EACH
def test_exact_gives_nists_coefficients_and_cost_with_and_without_z_scores(
    known: Certified, normalize: str, tmp_path: Path
) -> None:
    names = [f"x{power}" for power in range(1, known.inputs.shape[1] + 1)]
    table = pd.DataFrame(known.inputs, columns=names).assign(y=known.target)
    table.to_csv(tmp_path / "known.csv", index=False)
    model = exact_line(tmp_path / "known.csv", "y", names, normalize)
    assert digits(coefficients(model), known.coefficients) > known.digits
    assert model.fitted.cost * len(table) == pytest.approx(known.squares, rel=1e-6)
    std = np.array([feature.std for feature in model.features if isinstance(feature, NumericFeature)])
    assert digits(model.line.errors[:-1].numpy() / std, known.errors[:-1]) > known.digits


def exact_line(path: Path, target: str, inputs: list[str], normalize: str = "z-score") -> Model:
    recipe = make_recipe(
        {
            "target": {"name": target},
            "features": [{"name": name} for name in inputs],
            "schedule": {"optimizer": "exact", "normalize": normalize},
        }
    )
    return train(recipe, read_table(path, recipe))


def coefficients(model: Model) -> Matrix:
    """Those of the raw inputs, the constant last."""
    tensors = model.fitted.network.tensors()
    weight, bias = tensors["layers.0.weight"][0], tensors["layers.0.bias"][0]
    numeric = [feature for feature in model.features if isinstance(feature, NumericFeature)]
    mean, std = np.array([(feature.mean, feature.std) for feature in numeric]).T
    return np.append(weight / std, bias - np.sum(weight * mean / std))


def test_exact_gives_scikit_learns_coefficients_on_its_diabetes_data(tmp_path: Path) -> None:
    table: pd.DataFrame = load_diabetes(as_frame=True).frame
    table.to_csv(tmp_path / "diabetes.csv", index=False)
    inputs = table.drop(columns="target")
    oracle = LinearRegression().fit(inputs.to_numpy(), table["target"].to_numpy())
    expected = np.append(oracle.coef_, oracle.intercept_)
    actual = coefficients(exact_line(tmp_path / "diabetes.csv", "target", list(inputs.columns)))
    assert actual == pytest.approx(expected, rel=1e-9)
