"""Independent calls spread over joblib's workers, which leave Ctrl-C to the process that started them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any


def results_of(work: Sequence[Any], n_jobs: int | None = None, *, ordered: bool = True) -> Iterator[Any]:
    """The results of `work`, calls made by `joblib.delayed`, in its order or each as soon as it is known.

    No backend is named, so `joblib.parallel_config` decides where the calls run; `n_jobs` None leaves the number of
    workers to it too. No more workers are started than there are calls. A backend that cannot hand over results one by
    one, as those made from `multiprocessing`, hands over all at the end.
    """
    from joblib import Parallel, effective_n_jobs

    if effective_n_jobs(n_jobs) > len(work):
        n_jobs = max(1, len(work))
    try:
        parallel = Parallel(n_jobs=n_jobs, return_as="generator" if ordered else "generator_unordered")
    except ValueError:
        yield from Parallel(n_jobs=n_jobs)(work)
        return
    with _children_ignore_interrupts():
        results = parallel(work)
    yield from results


@contextmanager
def _children_ignore_interrupts() -> Iterator[None]:
    """Processes started within never see SIGINT or SIGHUP; one that arrives here is raised at the end.

    Ctrl-C and a closed terminal reach every process of it, and one that is importing answers with a traceback. The mask
    is what children inherit; any other thread of this process may still be given the signal, so it is recorded.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGINT, signal.SIGHUP]
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    # It unblocks SIGINT when it starts its process, and only then.
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    arrived: list[int] = []
    handlers = {number: signal.signal(number, lambda given, _: arrived.append(given)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    if arrived:
        signal.raise_signal(arrived[0])
