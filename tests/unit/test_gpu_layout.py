"""Packed codes on the GPU hold every bit of the reference's, where the kernels look for them."""

import numpy as np
import pytest

from socket_gpu.layout import CodeLayout
from socket_theory import Key

SHAPES = [(60, 10), (60, 8), (7, 16), (5, 1), (200, 11), (3, 5), (1, 12)]


@pytest.mark.parametrize(("num_tables", "num_planes"), SHAPES)
@pytest.mark.parametrize("slots", [1, 32, 77])
def test_packing_round_trips(num_tables, num_planes, slots):
    layout = CodeLayout(num_tables, num_planes)
    codes = Key.from_seed(1).generator().integers(0, 2**num_planes, (2, 3, num_tables, slots)).astype(np.uint16)
    words = layout.pack(codes)
    assert words.shape == (2, 3, -(-slots // 32), layout.words4, 32, 4)
    np.testing.assert_array_equal(layout.unpack(words, slots), codes)
    token, table = slots - 1, num_tables - 1
    word = words[1, 2, token // 32, table // layout.per_word // 4, token % 32, table // layout.per_word % 4]
    assert int(word) >> table % layout.per_word * num_planes & (2**num_planes - 1) == codes[1, 2, table, token]


@pytest.mark.parametrize(("num_tables", "num_planes"), SHAPES)
def test_every_plane_has_one_column_and_every_table_one_slab(num_tables, num_planes):
    layout = CodeLayout(num_tables, num_planes)
    used = layout.column_planes[layout.column_planes >= 0]
    assert sorted(used.tolist()) == list(range(num_tables * num_planes))
    assert sum(tables for _, _, tables in layout.slabs()) == num_tables
    assert layout.chunks * layout.chunk_bits >= num_planes
    assert layout.chunk_bits <= 5


def test_the_papers_setting_takes_eighty_bytes_a_token():
    layout = CodeLayout(60, 10)
    assert (layout.bits_per_token, layout.words, layout.per_word) == (640, 20, 3)
