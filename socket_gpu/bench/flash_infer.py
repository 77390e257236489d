"""FlashInfer's decode kernels as a dense peer: one request, and a batch over pages planned before the timing."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any

from socket_gpu.bench.peers import Call, Tensors
from socket_gpu.bench.shape import Shape

PAGE = 16
WORKSPACE_BYTES = 256 * 2**20


def flash_infer_calls(tensors: Tensors, shape: Shape) -> list[Call]:
    """Each kernel with and without tensor cores; the single-request one for a batch of one.

    Raises
    ------
    ImportError
        If FlashInfer is not installed.
    """
    library = import_module("flashinfer")
    calls = []
    for tensor_cores in (False, True):
        suffix = "tensor cores" if tensor_cores else "no tensor cores"
        calls.append(Call(f"paged NHD, {suffix}", _Paged(library, tensors, shape, tensor_cores)))
        if shape.batch == 1:
            keys, values = (array[0] for array in tensors.heads_first)
            attend = partial(library.single_decode_with_kv_cache, tensors.query[0], keys, values)
            calls.append(Call(f"single HND, {suffix}", partial(attend, kv_layout="HND", use_tensor_cores=tensor_cores)))
    return calls


class _Paged:
    """A batch decode over consecutive pages, planned at its first run."""

    def __init__(self, library: Any, tensors: Tensors, shape: Shape, tensor_cores: bool) -> None:
        self.library, self.query, self.shape, self.tensor_cores = library, tensors.query, shape, tensor_cores
        self.pages = shape.batch * shape.kv_len // PAGE
        size = (self.pages, PAGE, shape.num_kv_heads, shape.head_dim)
        self.cache = tuple(array.transpose(1, 2).view(size) for array in tensors.tokens_first)
        self.wrapper: Any = None

    def __call__(self) -> Any:
        self.wrapper = self.wrapper or self._plan()
        return self.wrapper.run(self.query, self.cache)

    def _plan(self) -> Any:
        torch, shape = import_module("torch"), self.shape
        integers = {"dtype": torch.int32, "device": self.query.device}
        workspace = torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device=self.query.device)
        wrapper = self.library.BatchDecodeWithPagedKVCacheWrapper(workspace, "NHD", use_tensor_cores=self.tensor_cores)
        wrapper.plan(
            indptr=torch.arange(shape.batch + 1, **integers) * (self.pages // shape.batch),
            indices=torch.arange(self.pages, **integers),
            last_page_len=torch.full((shape.batch,), PAGE, **integers),
            num_qo_heads=shape.num_qo_heads,
            num_kv_heads=shape.num_kv_heads,
            head_dim=shape.head_dim,
            page_size=PAGE,
            q_data_type=self.query.dtype,
            kv_data_type=self.query.dtype,
        )
        return wrapper
