"""Plans over pages that a serving engine owns: replayed graphs follow its tokens and its block table."""

import numpy as np
import pytest

from socket_theory import Budget, Key, PagedRows, Santa, Socket

pytestmark = pytest.mark.gpu
KEY = Key.from_seed(17)
PAGE, TOKENS = 16, 60


class Engine:
    """Two sequences in pages of 16 slots, of which the engine has handed out those that hold tokens."""

    def __init__(self, device, dtype=np.float16):
        draw = KEY.generator()
        self.device = device
        self.query = device.put(draw.standard_normal((2, 4, 64)).astype(dtype))
        self.whole = [draw.standard_normal((2, 2, 96, 64)).astype(dtype) for _ in range(2)]
        self.pages = [device.cupy.full((20, 2, PAGE, 64), np.nan, dtype=dtype) for _ in range(2)]
        self.table, self.free = np.full((2, 6), 0), list(KEY.fold_in("pages").generator().permutation(20))
        self.length = 0
        self.grow(TOKENS)

    def grow(self, count):
        """Write the next tokens of both sequences, in new pages where the old ones are full."""
        for slot in range(self.length, self.length + count):
            for row in range(2):
                if slot % PAGE == 0:
                    self.table[row, slot // PAGE] = self.free.pop()
                for pages, whole in zip(self.pages, self.whole, strict=True):
                    token = self.device.put(whole[row, :, slot])
                    pages[int(self.table[row, slot // PAGE]), :, slot % PAGE] = token
        self.length += count

    @property
    def rows(self):
        return PagedRows(*self.pages, self.table)

    def plan(self, method, rows, **prepared):
        step = {"budget": Budget(tokens=24, sink=4, window=4)} if "budget" in method.takes else {"key": KEY}
        keys = rows if isinstance(rows, tuple) else (rows,)
        return method.prepare(*keys, kv_len=TOKENS, backend=self.device.engine, **prepared).plan(4, **step)


@pytest.fixture
def engine(device):
    return Engine(device)


METHODS = [Socket(num_tables=20, value_weight=True), Santa(30), Santa(30, "flash", 32)]


def copies(engine, method, sample):
    keys, values = (engine.device.put(array) for array in engine.whole)
    return engine.plan(method, (keys, values), **({} if sample is None else {"sample": sample}))


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_replayed_graph_reads_what_the_engine_writes_and_where(engine, method):
    device, cupy = engine.device, engine.device.cupy
    drawn = {} if method.sample_type is None else {"key": KEY}
    plan = engine.plan(method, engine.rows, **drawn)
    whole = copies(engine, method, plan.cache.sample)
    engine.grow(1)
    plan.append(engine.rows, tokens=1)
    plan.run(engine.query)
    rows, stream = engine.rows, cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()
    with stream:
        stream.begin_capture()
        plan.append(rows, tokens=1)
        plan.run(engine.query)
        graph = stream.end_capture()
    whole.append(*(device.put(array[:, :, 60:61].copy()) for array in engine.whole))
    whole.run(engine.query)
    for _ in range(9):
        engine.grow(1)
        plan.rows.table[...] = device.put(engine.table.astype(np.int32))
        graph.launch(cupy.cuda.get_current_stream())
        at = engine.length - 1
        whole.append(*(device.put(array[:, :, at : at + 1].copy()) for array in engine.whole))
        whole.run(engine.query)
        for name in ("value", "lse"):
            np.testing.assert_array_equal(device.get(getattr(plan, name)), device.get(getattr(whole, name)))
    plan.check()
    assert device.get(plan.spans).tolist() == [[0, 70]] * 2


@pytest.mark.parametrize("method", METHODS[:2], ids=str)
def test_runs_and_appends_over_pages_allocate_nothing(engine, method):
    cupy = engine.device.cupy
    if not hasattr(cupy.cuda, "using_allocator"):
        pytest.skip("memory is NumPy's here.")
    plan = engine.plan(method, engine.rows, **({} if method.sample_type is None else {"key": KEY}))
    engine.grow(3)
    plan.append(engine.rows, tokens=1)
    plan.run(engine.query)

    def refuse(size):
        raise MemoryError(f"{size} bytes were asked for.")

    with cupy.cuda.using_allocator(refuse):
        plan.append(engine.rows, tokens=1)
        plan.run(engine.query)
    plan.check()


@pytest.mark.parametrize(("named", "read"), [(10**6, 19), (-5, 0)])
def test_a_page_that_does_not_exist_is_read_as_the_nearest(engine, named, read):
    for pages in engine.pages:
        pages[engine.device.cupy.isnan(pages)] = 0
    plan = engine.plan(Santa(30), engine.rows)
    outputs = []
    for page in (named, read):
        plan.steps[...] = 0
        plan.rows.table[:, 2] = page
        plan.run(engine.query)
        outputs.append([engine.device.get(array).copy() for array in (plan.value, plan.lse)])
    for left, right in zip(*outputs, strict=True):
        np.testing.assert_array_equal(left, right)
