"""Every bound of SANTA, N5, N8 and N13, with what it is compared with."""

from __future__ import annotations

from functools import partial

import numpy as np
from scipy.optimize import brentq

from socket_theory.bounds.importance import SamplingSpread, plain_spread
from socket_theory.evaluate.tightness.entry import DELTA, Compared, Entry
from socket_theory.evaluate.tightness.santa_setting import SantaSetting
from socket_theory.santa.bounds import (
    bennett_failure,
    flash_spread,
    koksma_radius,
    prop_spread,
    rounded_mass,
    rounded_mass_bound,
    stratified_spread,
    two_term_radius,
)
from socket_theory.santa.law import tile_means


def _plain(s: SantaSetting) -> SamplingSpread:
    return plain_spread(s.law, s.values)


def _hoeffding(s: SantaSetting) -> Compared:
    return _plain(s).hoeffding(DELTA, s.num_samples), s.iid


def _bernstein(s: SantaSetting) -> Compared:
    return _plain(s).bernstein(DELTA, s.num_samples), s.iid


def _bennett(s: SantaSetting) -> Compared:
    """Its radius: where the failure probability is delta."""
    spread, top = _plain(s), _plain(s).bernstein(DELTA, s.num_samples)
    excess = lambda t: float(bennett_failure(t, s.num_samples, spread)) - DELTA  # noqa: E731
    return brentq(excess, 0.0, top * (1 + 1e-9)), s.iid


def _two_terms(s: SantaSetting) -> Compared:
    return two_term_radius(DELTA, s.num_samples, _plain(s)), s.iid


def _strata(s: SantaSetting) -> Compared:
    return stratified_spread(s.law, s.values, s.num_samples).bernstein(DELTA, s.num_samples), s.strata


def _flash(s: SantaSetting) -> Compared:
    return flash_spread(s.law, s.values, s.num_samples, s.tile_len).bernstein(DELTA, 1), s.flash


def _prop(s: SantaSetting) -> Compared:
    return prop_spread(s.law, s.values, s.num_samples, s.tile_len).bernstein(DELTA, 1), s.prop


def _koksma(s: SantaSetting) -> Compared:
    """The largest error of 10 times as many offsets as trials."""
    return koksma_radius(s.values, s.num_samples), s.systematic.max()


def _mass(s: SantaSetting) -> Compared:
    return rounded_mass_bound(len(s.masses), s.num_samples), rounded_mass(s.masses, s.num_samples)


def _bias(s: SantaSetting) -> Compared:
    means = tile_means(s.law, s.values, s.tile_len)
    apart = np.linalg.norm(means[:, None] - means, axis=-1).max()
    return rounded_mass(s.masses, s.num_samples) * apart, np.linalg.norm(s.bias)


_FAR_ROW = (
    "All draws may be the furthest row, whose distance counts in full, and few rows are that far and that likely."
)
_FEW = "A tile or a stratum is counted as if its furthest row could come in full; its second term is then the larger."
BOUNDS = "santa.bounds"
_entry = partial(Entry[SantaSetting], "N13.draws")

SANTA_ENTRIES: tuple[Entry[SantaSetting], ...] = (
    Entry(
        "N5.koksma",
        "systematic draws, any offset",
        f"{BOUNDS}.koksma_radius",
        "value",
        _koksma,
        "It adds up the steps between all neighbouring values, which are long where the values have no order.",
    ),
    Entry(
        "N8.bound",
        "mass that rounding moves",
        f"{BOUNDS}.rounded_mass_bound",
        "value",
        _mass,
        "With fewer draws than tiles most quotas are below 1/2 and are no coin flips.",
    ),
    Entry(
        "N8.bound",
        "bias of prop",
        f"{BOUNDS}.rounded_mass",
        "value",
        _bias,
        "It places the tiles rounded up and the others at the two ends of all tile means, while their means are mixed.",
    ),
    Entry(
        "S10.hoeffding",
        "iid draws, Hoeffding",
        "bounds.importance.SamplingSpread.hoeffding",
        "tail",
        _hoeffding,
        _FAR_ROW,
    ),
    _entry("iid draws, B.1", f"{BOUNDS}.sampling_failure", "tail", _bernstein, _FAR_ROW),
    _entry("iid draws, Bennett", f"{BOUNDS}.bennett_failure", "tail", _bennett, _FAR_ROW),
    _entry("iid draws, the paper's two terms", f"{BOUNDS}.two_term_radius", "tail", _two_terms, _FAR_ROW),
    _entry("strata, B.1", f"{BOUNDS}.stratified_spread", "tail", _strata, _FEW),
    _entry("flash, B.1", f"{BOUNDS}.flash_spread", "tail", _flash, _FEW),
    _entry("prop about its mean, B.1", f"{BOUNDS}.prop_spread", "tail", _prop, _FEW),
)
