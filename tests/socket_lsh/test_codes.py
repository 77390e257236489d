"""Packed codes on the GPU hold every bit of the reference's, where the kernels look for them."""

import numpy as np
import pytest

from socket_gpu.socket_lsh.codes import CodeLayout
from socket_theory import Key

SHAPES = [(60, 10), (60, 8), (7, 16), (5, 1), (200, 11), (3, 5), (1, 12), (64, 9)]


@pytest.mark.parametrize(("num_tables", "num_planes"), SHAPES)
@pytest.mark.parametrize("slots", [1, 32, 77])
def test_packing_round_trips(num_tables, num_planes, slots):
    layout = CodeLayout(num_tables, num_planes)
    codes = Key.from_seed(1).generator().integers(0, 2**num_planes, (2, 3, num_tables, slots)).astype(np.uint16)
    words = layout.pack(codes)
    assert words.shape == (2, 3, -(-slots // 32), layout.rings, num_planes, 32)
    np.testing.assert_array_equal(layout.unpack(words, slots), codes)


@pytest.mark.parametrize(("num_tables", "num_planes"), SHAPES)
def test_at_every_step_the_lanes_of_a_block_look_at_different_tables(num_tables, num_planes):
    layout = CodeLayout(num_tables, num_planes)
    tables = np.arange(32 * layout.rings)
    codes = np.broadcast_to(tables[:num_tables, None] % 2**num_planes, (num_tables, 32)).astype(np.uint16)
    words = layout.pack(codes)
    for ring, field, lane in np.ndindex(layout.rings, 32, 32):
        bits = int.from_bytes(np.ascontiguousarray(words[0, ring, :, lane]).astype("<u4").tobytes(), "little")
        table = 32 * ring + (field ^ lane)
        expected = table % 2**num_planes if table < num_tables else 0
        assert bits >> field * num_planes & (2**num_planes - 1) == expected


@pytest.mark.parametrize(("num_tables", "num_planes"), SHAPES)
def test_every_plane_has_one_column(num_tables, num_planes):
    columns = CodeLayout(num_tables, num_planes).column_planes
    assert sorted(columns[columns >= 0].tolist()) == list(range(num_tables * num_planes))


def test_the_papers_setting_takes_eighty_bytes_a_token():
    assert CodeLayout(60, 10).bits_per_token == 640
