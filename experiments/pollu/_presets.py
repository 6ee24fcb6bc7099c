"""How much each preset of the POLLU experiment computes."""

import dataclasses

from experiments.common.runner import Preset
from inojax.methods import INO, DriftSettings, LeastSquares, Point, Regression, SurrogateSettings
from inojax.nn import FNOSettings


@dataclasses.dataclass(frozen=True)
class Size:
    """How much a preset computes. Both methods get about the same training time.

    Attributes:
        simulations: For training.
        test_cases: To compare methods on.
        floor_cases: For the Bayes floor.
        correcting: Simulations that intervals are corrected with.
        calibration: Simulations that INO is calibrated with; 0 leaves that out, and the alarms.
        multi_start: Test cases that least squares inverts alone.
        alarms_each: Cases of each mechanism that lacks a reaction.
        regression: The plain baseline.
        ino: The method.
        refining: Least squares behind it.
        alone: Least squares alone.
    """

    simulations: int
    test_cases: int
    floor_cases: int
    correcting: int
    calibration: int
    multi_start: int
    alarms_each: int
    regression: Regression
    ino: INO
    refining: LeastSquares
    alone: LeastSquares


# The mean of the posterior has the least expected error. A hundredth of a unit of log density is
# less than any interval shows; weighing candidates would take longer than all the rest, for half a
# percent of coverage.
EXACT = LeastSquares(starts=1, max_steps=30, tolerance=0.01, point=Point.MEAN, candidates=0)
REFINING = {"refining": EXACT, "alone": dataclasses.replace(EXACT, starts=4, max_steps=60)}

SIZES = {
    Preset.SMOKE: Size(
        simulations=512,
        # As many as the solver advances together: fewer would make it compile once more.
        test_cases=128,
        floor_cases=48,
        correcting=256,
        calibration=0,
        # As many as are refined: another size would be compiled anew.
        multi_start=128,
        alarms_each=0,
        regression=Regression(width=64, depth=2, steps=400, batch=64),
        ino=INO(
            SurrogateSettings(FNOSettings(width=8, modes=8, blocks=1, hidden=32), 40, 32),
            DriftSettings(width=64, depth=2, steps=300, batch=64, pool=256),
            particles=2,
            moves=4,
        ),
        refining=LeastSquares(starts=1, max_steps=4, point=Point.MEAN, draws=16, candidates=0),
        alone=LeastSquares(starts=1, max_steps=4, point=Point.MEAN, draws=16, candidates=0),
    ),
    Preset.QUICK: Size(
        simulations=40_512,
        test_cases=1000,
        floor_cases=256,
        correcting=512,
        calibration=256,
        multi_start=48,
        alarms_each=60,
        regression=Regression(),
        ino=INO(),
        **REFINING,
    ),
    # 50,000 simulations, and as many epochs of them in each stage as published: 1000. Batches are
    # larger than the published 32, since a GPU would idle.
    Preset.PAPER: Size(
        simulations=50_512,
        test_cases=1000,
        floor_cases=1000,
        correcting=2000,
        calibration=1000,
        multi_start=1000,
        alarms_each=100,
        regression=Regression(width=1024, steps=24_400, batch=2048),
        ino=INO(
            SurrogateSettings(FNOSettings(width=64, modes=32, blocks=4), 12_200, 4096),
            DriftSettings(width=1024, steps=12_200, batch=4096, pool=32_768),
        ),
        **REFINING,
    ),
}
