"""How a full memory announces itself: every library has words of its own."""

from __future__ import annotations

import errno

import torch

_FULL = (
    "out of memory",  # CUDA, MPS
    "out_of_memory",  # oneDNN, cuDNN
    "can't allocate memory",  # torch on the CPU
    "cannot allocate memory",  # the system, through mmap
    "failed to allocate memory",  # ITK
    "bad_alloc",
    "alloc_failed",  # cuBLAS, cuDNN
    "not enough memory",
)


def is_full(error: BaseException) -> bool:
    """Whether an error says that memory is spent: of CUDA, of the CPU's allocators, of Python or of the system."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _FULL)
