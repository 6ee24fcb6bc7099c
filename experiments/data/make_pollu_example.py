"""Makes pollu_example.csv: readings of POLLU that owe nothing to the library.

The equations are a stoichiometric table of their own, solved by SciPy's Radau. The rates are
drawn away from the center of the prior, the times are irregular (only the first is an output time
of the library's model), two species are not measured at all and three readings are lost.

    python experiments/data/make_pollu_example.py

writes the readings and, beside them, the rates behind them (pollu_example_truth.csv).

Source:
    Verwer (1994), SIAM J. Sci. Comput. 15(5), 1243-1250, for reactions, rates and initial state.
"""

import csv
from pathlib import Path

import numpy as np
from scipy.integrate import solve_ivp

HERE = Path(__file__).parent
SEED = 7
TIMES = (4.2, 19.7, 51.3)  # min
NOT_MEASURED = ("CO2", "CH3O")
LOST = ((4.2, "PAN"), (19.7, "SO2"), (51.3, "O3P"))
NOISE = 1e-3  # in units of the spread below

# Reaction, nominal rate in min^-1 or ppm^-1 min^-1. What stands on the left sets the rate law;
# species that the model does not follow (O2, N2, H2O) are left out.
REACTIONS = (
    ("NO2 -> NO + O3P", 0.35),
    ("NO + O3 -> NO2", 26.6),
    ("HO2 + NO -> NO2 + OH", 1.23e4),
    ("HCHO -> 2 HO2 + CO", 8.6e-4),
    ("HCHO -> CO", 8.2e-4),
    ("HCHO + OH -> HO2 + CO", 1.5e4),
    ("ALD -> MEO2 + HO2 + CO", 1.3e-4),
    ("ALD + OH -> C2O3", 2.4e4),
    ("C2O3 + NO -> NO2 + MEO2 + CO2", 1.65e4),
    ("C2O3 + NO2 -> PAN", 9.0e3),
    ("PAN -> C2O3 + NO2", 2.2e-2),
    ("MEO2 + NO -> CH3O + NO2", 1.2e4),
    ("CH3O -> HCHO + HO2", 1.88),
    ("NO2 + OH -> HNO3", 1.63e4),
    ("O3P -> O3", 4.8e6),
    ("O3 -> O1D", 3.5e-4),
    ("O3 -> O3P", 1.75e-2),
    ("O1D -> 2 OH", 1.0e8),
    ("O1D -> O3P", 4.44e11),
    ("SO2 + OH -> SO4 + HO2", 1.24e3),
    ("NO3 -> NO", 2.1),
    ("NO3 -> NO2 + O3P", 5.78),
    ("NO2 + O3 -> NO3", 4.74e-2),
    ("NO3 + NO2 -> N2O5", 1.78e3),
    ("N2O5 -> NO3 + NO2", 3.12),
)
INITIAL = {"NO": 0.2, "O3": 0.04, "HCHO": 0.1, "CO": 0.3, "ALD": 0.01, "SO2": 0.007}  # ppm
# Prior predictive standard deviation of each species, ppm, to which the noise is relative.
SPREAD = {
    "NO2": 7.26e-3, "NO": 9.89e-3, "O3P": 1.78e-9, "O3": 2.16e-3, "HO2": 1.37e-7,
    "OH": 8.23e-8, "HCHO": 7.56e-3, "CO": 8.27e-3, "ALD": 9.58e-4, "MEO2": 1.37e-8,
    "C2O3": 9.28e-9, "CO2": 8.52e-4, "PAN": 1.21e-4, "CH3O": 1.33e-5, "HNO3": 2.92e-3,
    "O1D": 2.74e-18, "SO2": 4.30e-5, "SO4": 4.30e-5, "NO3": 9.23e-7, "N2O5": 3.87e-5,
}  # fmt: skip
SPECIES = tuple(SPREAD)


def side(text: str) -> np.ndarray:
    """How often each species stands on one side of a reaction."""
    counts = np.zeros(len(SPECIES))
    for term in text.split("+"):
        *number, name = term.split()
        counts[SPECIES.index(name)] += int(number[0]) if number else 1
    return counts


SIDES = [text.split("->") for text, _ in REACTIONS]
CONSUMED = np.array([side(left) for left, _ in SIDES])
PRODUCED = np.array([side(right) for _, right in SIDES])
NOMINAL = np.array([rate for _, rate in REACTIONS])


def slope(time: float, state: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Mass action kinetics."""
    del time
    fluxes = rates * np.prod(state[None, :] ** CONSUMED, axis=1)
    return (PRODUCED - CONSUMED).T @ fluxes


def jacobian(time: float, state: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Derivative of `slope` with respect to the state: drop one reactant at a time."""
    del time
    partial = np.zeros(CONSUMED.shape)
    for species in range(len(SPECIES)):
        rest = CONSUMED.copy()
        rest[:, species] -= CONSUMED[:, species] > 0
        flux = rates * np.prod(state[None, :] ** rest, axis=1)
        partial[:, species] = flux * CONSUMED[:, species]
    return (PRODUCED - CONSUMED).T @ partial


def solve(rates: np.ndarray, times: tuple[float, ...]) -> np.ndarray:
    """Trajectory at some times, far more exact than the noise in every species."""
    start = np.array([INITIAL.get(name, 0.0) for name in SPECIES])
    solution = solve_ivp(
        slope, (0.0, max(times)), start, "Radau", times, args=(rates,), jac=jacobian,
        rtol=1e-10, atol=1e-28,
    )  # fmt: skip
    if not solution.success:
        raise RuntimeError(solution.message)
    return solution.y.T


def main() -> None:
    """Write the two files."""
    random = np.random.default_rng(SEED)
    rates = NOMINAL * random.uniform(0.6, 1.4, len(NOMINAL))
    clean = solve(rates, TIMES)
    readings = clean + NOISE * np.array(list(SPREAD.values())) * random.normal(size=clean.shape)
    measured = [name for name in SPECIES if name not in NOT_MEASURED]
    with (HERE / "pollu_example.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["time", *measured])
        for time, row in zip(TIMES, readings, strict=True):
            known = dict(zip(SPECIES, row, strict=True))
            fields = ["" if (time, n) in LOST else f"{known[n]:.8g}" for n in measured]
            writer.writerow([time, *fields])
    with (HERE / "pollu_example_truth.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["parameter", "value"])
        writer.writerows((f"k{i}", f"{rate:.8g}") for i, rate in enumerate(rates, start=1))


if __name__ == "__main__":
    main()
