"""From trained inverse maps to the rows of the tables."""

from collections.abc import Collection

import numpy as np

from experiments.common.evaluation import Row
from experiments.fitzhugh_nagumo._maps import NOISY, MapSpec, MapStudy
from experiments.fitzhugh_nagumo._tables import (
    PAIRS,
    PUBLISHED_COVARIANCES,
    PUBLISHED_JOINT,
    PUBLISHED_MAPS,
    PUBLISHED_SERIES,
    SERIES_ERRORS,
    covariance_errors,
    kind_of,
    laplace_guess,
    map_row,
    prior_guess,
    prior_row,
    series_errors,
)


def accuracy_rows(
    study: MapStudy,
    specs: dict[str, list[MapSpec]],
    floors: dict[str, Row],
    letters: Collection[str],
) -> list[Row]:
    """Those of the tables a and b that are wanted."""
    most, rows = specs["ours"][0].simulations, []
    for letter, some in (
        ("a", [*specs["dense"], *(c for c in specs["cnn"] if c.simulations == most)]),
        ("b", specs["cnn"]),
        ("b", specs["ours"]),
    ):
        if letter not in letters:
            continue
        for trained, tested in PAIRS:
            for spec in some:
                if spec.train_noise != trained or (letter == "a" and trained != tested):
                    continue
                floor = floors["strong"] if tested == NOISY else None
                answers = study.answers(spec)
                row = map_row(letter, spec, answers, study.neuron, tested, floor)
                theirs = PUBLISHED_MAPS.get(spec.simulations, {}).get(kind_of(row))
                if spec.method == "cnn" and theirs is not None:
                    row["published"] = dict(zip(("median_ape", "r2"), theirs, strict=True))
                rows.append(row)
    return rows


def series_rows(
    study: MapStudy,
    specs: dict[str, list[MapSpec]],
    laplace: np.ndarray,
    floors: dict[str, Row],
) -> list[Row]:
    """Table c, with the prior's mean before it and the Bayes floor at its end."""
    neuron = study.neuron
    truth = neuron.truth.thetas
    good = np.isfinite(laplace).all(axis=(1, 2))
    limit = series_errors(neuron, laplace_guess(truth[good], laplace[good]), good)
    blind = series_errors(neuron, prior_guess(neuron))
    rows = [prior_row("c", neuron) | dict(zip(SERIES_ERRORS, blind, strict=True))]
    for trained, tested in PAIRS:
        for spec in (*specs["cnn"], specs["ours"][0]):
            if spec.simulations != specs["ours"][0].simulations or spec.train_noise != trained:
                continue
            answers = study.answers(spec)
            floor = floors["strong"] if tested == NOISY else None
            row = map_row("c", spec, answers, study.neuron, tested, floor)
            errors = [series_errors(study.neuron, a.values(tested)) for a in answers]
            row |= over_seeds(SERIES_ERRORS, errors)
            row["published"] = dict(
                zip(SERIES_ERRORS[:2], PUBLISHED_SERIES[kind_of(row)], strict=True)
            )
            rows.append(row)
    floor = floors["strong"] | {"table": "c", "method": "bayes_floor"}
    return [*rows, floor | dict(zip(SERIES_ERRORS, limit, strict=True))]


def joint_rows(
    study: MapStudy, specs: dict[str, list[MapSpec]], floors: dict[str, Row]
) -> list[Row]:
    """Table d."""
    floor = floors.get("joint")
    rows = [prior_row("d", study.joint) | {"inputs": "-"}]
    for spec in (*specs["joint"], *specs["joint_ours"]):
        answers = study.answers(spec)
        row = map_row("d", spec, answers, study.joint, NOISY, floor)
        theirs = PUBLISHED_JOINT.get(spec.simulations, {}).get(row["inputs"])
        if spec.method != "ours" and theirs is not None:
            row["published"] = {"r2": theirs}
        rows.append(row)
    return rows


def covariance_rows(
    study: MapStudy,
    specs: dict[str, list[MapSpec]],
    laplace: np.ndarray,
    floors: dict[str, Row],
) -> list[Row]:
    """Table e."""
    names, rows = ("mean_error", "covariance_error"), []
    truth = study.neuron.truth.thetas
    for spec in (*specs["covariance"], specs["ours"][0]):
        for trained, tested in PAIRS:
            if spec.train_noise != trained:
                continue
            answers = study.answers(spec)
            floor = floors["strong"] if tested == NOISY else None
            row = map_row("e", spec, answers, study.neuron, tested, floor)
            errors = [covariance_errors(a, tested, truth, laplace) for a in answers]
            row |= over_seeds(names, errors)
            row["published"] = dict(zip(names, PUBLISHED_COVARIANCES[kind_of(row)], strict=True))
            rows.append(row)
    return rows


def over_seeds(names: tuple[str, ...], values: list[tuple[float, ...]]) -> Row:
    """Median over seeds of several numbers, and their smallest and largest value."""
    columns = zip(names, np.array(values).T, strict=True)
    found: Row = {}
    for name, column in columns:
        found |= {name: float(np.median(column)), f"{name}_range": [column.min(), column.max()]}
    return found
