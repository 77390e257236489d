"""N7: how many rows tiles read that draw by themselves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from socket_theory.core.claim import Claim, Context, Measurement, combine, inequality
from socket_theory.santa.claims.problems import Float, largest_gap, one_uniform, problems
from socket_theory.santa.claims.tiles import TILE, equal_budgets, tile_places
from socket_theory.santa.cost import tiled_inclusion
from socket_theory.santa.law import systematic_law
from socket_theory.santa.samplers import Int, split_tiles
from socket_theory.santa.tiles import largest_remainder, tile_masses, tiled_counts

Inclusion = Callable[[Float, int, Int], Float]


def _inclusion(context: Context, form: Inclusion) -> Measurement:
    """The probability that a row is read, by cells, with equal budgets and with rounded ones, some of them 0."""
    parts = []
    for problem in problems(context):
        for spend in (equal_budgets, largest_remainder):
            budgets = spend(tile_masses(problem.weights, TILE), problem.samples)
            points, probability = one_uniform(tile_places(problem.weights, TILE, budgets), len(budgets))
            read = tiled_counts(problem.weights, TILE, budgets, points) > 0
            parts.append(largest_gap(probability @ read, form(problem.weights, TILE, budgets)))
    return combine(*parts)


def _every_draw_another_row(weights: Float, tile_len: int, budgets: Int) -> Float:
    masses = split_tiles(weights, tile_len).sum(axis=1)
    return np.asarray(weights * np.repeat(budgets / np.where(masses > 0, masses, 1), tile_len)[: len(weights)])


def _flash_rows(context: Context, independent: bool) -> Measurement:
    """1 against the fewest rows of a tile at any offset; the control carries the phase through as many draws."""
    parts = []
    for problem in problems(context):
        masses = tile_masses(problem.weights, TILE)
        budgets = equal_budgets(masses, problem.samples)
        points, _ = one_uniform(tile_places(problem.weights, TILE, budgets), len(budgets))
        counts = tiled_counts(problem.weights, TILE, budgets, points)
        drawn = counts if independent else systematic_law(problem.weights, int(budgets.sum())).counts
        rows = np.add.reduceat(drawn > 0, np.arange(0, len(problem.weights), TILE), axis=1, dtype=int)
        parts.append(inequality(1, rows[:, masses > 0].min()))
    return combine(*parts)


CLAIMS = (
    Claim(
        id="N7.inclusion",
        title="Distinct rows of tiles",
        statement="Row j of tile t is read with probability min(1, k_t p_(j|t)), k_t the budget of the tile.",
        source="own proof",
        kind="identity",
        wrong="every draw of a tile charged as another row",
        check=partial(_inclusion, form=tiled_inclusion),
        control=partial(_inclusion, form=_every_draw_another_row),
    ),
    Claim(
        id="N7.rows",
        title="Rows of flash",
        statement="Every draw of flash reads at least one row of each tile of positive mass.",
        source="own proof",
        kind="inequality",
        wrong="as many draws with the phase carried, which may skip a tile",
        check=partial(_flash_rows, independent=True),
        control=partial(_flash_rows, independent=False),
    ),
)
