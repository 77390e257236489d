"""R5: what finitely many tables cost in a row, by the forms of S9 with RACE's kernel, and by the paper's form."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from socket_theory.bounds.ratio import (
    bernstein_ratio_radius,
    chebyshev_radius,
    empirical_bernstein_radius,
    fourth_moment_radius,
    hoeffding_ratio_radius,
    plug_in_radius,
)
from socket_theory.bounds.residual import ResidualMoments, spare_table_moments
from socket_theory.core.claim import Claim, Context, Measurement, combine, inequality
from socket_theory.core.table_sets import DELTA, Radius, misses_check, misses_control, table_sets
from socket_theory.race.bounds.rows import paper_row_radius
from socket_theory.race.claims.rows import (
    COPIED_SIGNS,
    CROWD,
    FAIR_SIGNS,
    MANY_COPIES,
    MANY_FAIR_SIGNS,
    MANY_TABLES,
    ONE_TABLE,
    RANDOM,
    RARELY_HIT,
    Row,
    random_row,
)

Float = NDArray[np.float64]
SPARE_TABLES, STANDARD_ERRORS, ROUNDING = 4000, 6.0, 1e-12


def _hoeffding(context: Context, row: Row, bounded: bool = True) -> Radius:
    bound, radius, mass = row.weight_bound if bounded else 1.0, row.value_radius, row.mass
    return lambda x, z: hoeffding_ratio_radius(DELTA, len(z), bound, radius, mass)


def _plug_in(context: Context, row: Row, divided: bool = True, rooted: bool = True) -> Radius:
    bound = row.residual_range if rooted else row.residual_range / len(row.keys) ** 0.5
    return lambda x, z: float(plug_in_radius(DELTA, len(z), bound, z.mean() if divided else 1.0))


def _empirical_bernstein(context: Context, row: Row, bounded: bool = True) -> Radius:
    weights, count = row.kernel.weight_range(), len(row.keys)

    def radius(x: Float, z: Float) -> float:
        shift = x.mean(axis=0) / z.mean()
        ends = weights if bounded else (0.0, float(z.max()) / count)
        return empirical_bernstein_radius(DELTA, x - z[:, None] * shift, z, ends, row.residuals - shift)

    return radius


def _moments(context: Context, row: Row) -> ResidualMoments:
    """From 4000 spare tables, plus 6 standard errors."""
    (spare, _), *_ = table_sets(context.split("spare")[0], row, SPARE_TABLES, 1)
    return spare_table_moments(spare, STANDARD_ERRORS)


def _bernstein(context: Context, row: Row, divided: bool = True) -> Radius:
    bound, second = row.residual_range, _moments(context, row).second
    return lambda x, z: float(bernstein_ratio_radius(DELTA, len(z), second, bound, z.mean() if divided else 1.0))


def _chebyshev(context: Context, row: Row, rooted: bool = True) -> Radius:
    second = _moments(context, row).second
    return lambda x, z: float(chebyshev_radius(DELTA, len(z), second, z.mean())) * (1.0 if rooted else DELTA**0.5)


def _fourth_moment(context: Context, row: Row, cross_terms: bool = True) -> Radius:
    exact = _moments(context, row)
    moments = exact if cross_terms else ResidualMoments(0.0, 0.0, exact.fourth)
    return lambda x, z: float(fourth_moment_radius(DELTA, len(z), moments, z.mean()))


def _entry_errors(kappa: Float, weights: Float, values: Float, error_left_out: bool) -> Measurement:
    """|O - O*| for these mean weights against the paper's form with their largest error of an entry."""
    target, found = kappa @ values / kappa.sum(), weights @ values / weights.sum()
    error, distance = np.max(np.abs(weights - kappa)), float(np.mean(np.linalg.norm(values - target, axis=-1)))
    mass = kappa.mean() + (error if error_left_out else 0.0)
    return inequality(np.linalg.norm(found - target), paper_row_radius(error, distance, mass) * (1 + ROUNDING))


def _one_against_many(error_left_out: bool) -> Measurement:
    """One token of value 1 is weighted too much, two hundred of value 0 too little."""
    kappa, signs = np.array([0.5] + 200 * [0.3]), np.array([1.0] + 200 * [-1.0])
    return _entry_errors(kappa, kappa + 0.2 * signs, (signs[:, None] + 1) / 2, error_left_out)


def _paper(context: Context) -> Measurement:
    row, parts = random_row(context), []
    for key, _ in context.batches(context.samples(20), 1):
        weights = row.draw_weights(400, key.generator()).mean(axis=0)
        parts.append(_entry_errors(row.kernel_values, weights, row.values, False))
    return combine(*parts, _one_against_many(False))


def _paper_control(context: Context) -> Measurement:
    return _one_against_many(True)


CLAIMS = (
    Claim(
        id="R5.hoeffding",
        title="Rows: Hoeffding form",
        statement="With B = N_i ((1 + tanh(beta)^2)/2)^P, D = max |v_j - O*_i| and Z_i = sum_j kappa_ij: if "
        "L >= 2 B^2 ln(2/delta)/Z_i^2, then |O_i - O*_i| <= (2 B D/Z_i) sqrt(2 ln(4/delta)/L) with probability "
        "1 - delta.",
        source="S9.hoeffding with the weights of R1 and their means by R2",
        kind="tail",
        wrong="B = 1, on 16 copies of two opposite keys",
        check=partial(misses_check, random=MANY_TABLES, extremal=MANY_COPIES, tightest=FAIR_SIGNS, form=_hoeffding),
        control=partial(misses_control, extremal=MANY_COPIES, form=partial(_hoeffding, bounded=False)),
    ),
    Claim(
        id="R5.plug-in",
        title="Rows: plug-in form",
        statement="|O_i - O*_i| <= (R/Z-bar_i) sqrt(2 ln(2/delta)/L) with probability 1 - delta, at any L, R the range "
        "of |X| by S9.plug-in with weights in [((1 - T^2)/2)^P, ((1 + T^2)/2)^P], T = tanh beta.",
        source="S9.plug-in; R4.hoeffding",
        kind="tail",
        wrong="no division by Z-bar, on two opposite keys rarely hit; sqrt N left out, on copies of fair signs",
        check=partial(misses_check, random=RANDOM, extremal=RARELY_HIT, tightest=COPIED_SIGNS, form=_plug_in),
        control=partial(
            misses_control,
            extremal=RARELY_HIT,
            form=partial(_plug_in, divided=False),
            tightest=COPIED_SIGNS,
            shorter=partial(_plug_in, rooted=False),
        ),
    ),
    Claim(
        id="R5.empirical-bernstein",
        title="Rows: empirical Bernstein form",
        statement="S9's empirical form, from the L tables of the row alone, holds with RACE's range of a weight and "
        "the values of the keys that the row sees.",
        source="S9.empirical-bernstein",
        kind="tail",
        wrong="the largest realised sum of weights as B, on a crowd that most sets of tables never hit",
        check=partial(
            misses_check, random=MANY_TABLES, extremal=CROWD, tightest=MANY_FAIR_SIGNS, form=_empirical_bernstein
        ),
        control=partial(misses_control, extremal=CROWD, form=partial(_empirical_bernstein, bounded=False)),
    ),
    Claim(
        id="R5.bernstein",
        title="Rows: Bernstein form",
        statement="With s^2 = E|X|^2, X = sum_j w_ij (v_j - O*_i), and R of R5.plug-in, P(|X-bar| >= t) <= "
        "2 exp(-L t^2 / (2 (s^2 + R t/3))), and |O_i - O*_i| = |X-bar|/Z-bar_i.",
        source="S9.bernstein; s^2 from 4000 spare tables plus 6 standard errors",
        kind="tail",
        wrong="no division by Z-bar, on two opposite keys that are rarely hit",
        check=partial(misses_check, random=RANDOM, extremal=RARELY_HIT, tightest=MANY_FAIR_SIGNS, form=_bernstein),
        control=partial(misses_control, extremal=RARELY_HIT, form=partial(_bernstein, divided=False)),
    ),
    Claim(
        id="R5.chebyshev",
        title="Rows: Chebyshev form",
        statement="|O_i - O*_i| <= s/(Z-bar_i sqrt(L delta)) with probability 1 - delta, at any L.",
        source="S9.chebyshev; s^2 from 4000 spare tables plus 6 standard errors",
        kind="tail",
        wrong="sqrt(delta) left out, on 16 copies of two opposite keys",
        check=partial(misses_check, random=RANDOM, extremal=MANY_COPIES, tightest=ONE_TABLE, form=_chebyshev),
        control=partial(misses_control, extremal=MANY_COPIES, form=partial(_chebyshev, rooted=False)),
    ),
    Claim(
        id="R5.fourth-moment",
        title="Rows: fourth-moment form",
        statement="|O_i - O*_i| <= (E|X-bar|^4/delta)^(1/4)/Z-bar_i with probability 1 - delta, with "
        "E|X-bar|^4 = [E|X|^4 + (L - 1)(s^4 + 2 tr Cov(X)^2)]/L^3.",
        source="S9.fourth-moment; moments from 4000 spare tables plus 6 standard errors",
        kind="tail",
        wrong="E|X|^4/L^3 alone, the cross terms forgotten, on 16 copies of two opposite keys",
        check=partial(misses_check, random=RANDOM, extremal=MANY_COPIES, tightest=ONE_TABLE, form=_fourth_moment),
        control=partial(misses_control, extremal=MANY_COPIES, form=partial(_fourth_moment, cross_terms=False)),
    ),
    Claim(
        id="R5.paper",
        title="Rows: the paper's form",
        statement="If |w-bar_ij - kappa_ij| <= epsilon for the N keys of a row with Z_i >= C_1 N, C_1 > epsilon, then "
        "|O_i - O*_i| <= epsilon sum_j |v_j - O*_i| / ((C_1 - epsilon) N).",
        source="own proof, in the form of Joshi et al. 2025, Theorem 1; S9.identity",
        kind="inequality",
        wrong="C_1 N in the denominator, where one token is weighted too much and 200 too little",
        check=_paper,
        control=_paper_control,
    ),
)
