"""Less memory, the same answers: what is saved, in which order, and that nothing else changes."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from monai.networks.nets import DynUNet, SegResNet, UNet
from torch import Tensor, nn

from medadv.labels import BRATS_2018
from medadv.victims.head import Softmax
from medadv.victims.memory import is_full
from medadv.victims.segmentation import Segmenter, weights_digest
from medadv.victims.thrift import (
    SAVINGS,
    Visiting,
    checkpointed,
    one_window_at_a_time,
    volumes_elsewhere,
)
from medadv.victims.window import SlidingWindow

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "UNet": lambda: UNet(3, 2, 4, (4, 8, 16), (2, 2), num_res_units=2),
    "SegResNet": lambda: SegResNet(init_filters=8, in_channels=2, out_channels=4, blocks_down=(1, 1), blocks_up=(1,)),
    "DynUNet": lambda: DynUNet(3, 2, 4, (3, 3, 3), (1, 2, 2), (2, 2), filters=(4, 8, 16)),
}


def victim(name: str, batch: int = 2) -> Segmenter:
    torch.manual_seed(0)
    network = NETWORKS[name]().double().eval()
    return Segmenter(network, Softmax(BRATS_2018), ("t1", "t2"), inference=SlidingWindow((8, 8, 8), batch=batch))


def image() -> Tensor:
    torch.manual_seed(1)
    return torch.rand(1, 2, 12, 8, 10, dtype=torch.float64) + 1


def gradient(of: Segmenter, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(of(leaf).sin().sum(), leaf)
    return found


def kept(network: nn.Module, x: Tensor) -> int:
    """How many numbers the graph of one answer holds."""
    sizes: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        network(x.clone().requires_grad_())
    return sum(sizes)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_checkpointed_network_answers_the_same_and_keeps_less(name: str) -> None:
    full, x = victim(name), image()
    thrifty = checkpointed(full)
    assert thrifty is not None
    assert torch.equal(thrifty(x), full(x))
    torch.testing.assert_close(gradient(thrifty, x), gradient(full, x), rtol=0, atol=1e-12)
    window = x[..., :8, :8, :8]
    assert kept(thrifty.network, window) < 0.6 * kept(full.network, window)


def test_the_weights_are_shared_and_the_network_itself_is_let_be() -> None:
    full = victim("UNet")
    before = [module.forward for module in full.network.modules()]
    thrifty = checkpointed(full)
    assert thrifty is not None
    assert weights_digest(thrifty.network) == weights_digest(full.network)
    pointers = [{p.data_ptr() for p in v.network.parameters()} for v in (full, thrifty)]
    assert pointers[0] == pointers[1]
    assert [module.forward for module in full.network.modules()] == before


def test_a_saving_is_made_once() -> None:
    once = checkpointed(victim("UNet"))
    assert once is not None
    assert checkpointed(once) is None
    single = one_window_at_a_time(victim("UNet"))
    assert single is not None
    assert single.inference == replace(victim("UNet").inference, batch=1)
    assert one_window_at_a_time(single) is None


def test_nothing_is_saved_where_nothing_can_be() -> None:
    flat = replace(victim("UNet"), network=nn.Conv3d(2, 4, 1).double())
    assert checkpointed(flat) is None


def test_windows_by_themselves_answer_alike() -> None:
    grouped, x = victim("UNet"), image()
    for saving in SAVINGS:
        thrifty = saving.apply(grouped)
        if thrifty is not None:
            torch.testing.assert_close(thrifty(x), grouped(x), rtol=0, atol=1e-12)


def test_only_windows_visit_a_device() -> None:
    """On the one device that every machine has; a second one is not needed to see that nothing else goes there."""
    full, x = victim("UNet"), image()
    visited: list[tuple[int, ...]] = []
    network = Visiting(full.network, torch.device("cpu"))
    network.network.register_forward_pre_hook(lambda _m, inputs: visited.append(tuple(inputs[0].shape)))
    elsewhere = replace(full, network=network)
    torch.testing.assert_close(gradient(elsewhere, x), gradient(full, x), rtol=0, atol=1e-12)
    assert {shape[2:] for shape in visited} == {(8, 8, 8)}
    assert volumes_elsewhere(full) is None  # a victim on the CPU has nowhere to visit from


def test_a_device_that_fills_while_it_is_visited_is_not_called_the_wrong_one() -> None:
    class Full(nn.Conv3d):
        def forward(self, x: Tensor) -> Tensor:
            raise torch.OutOfMemoryError(f"CUDA out of memory, on {x.device}")

    away = Visiting(Full(2, 4, 1, device="meta"), torch.device("meta"))
    with pytest.raises(torch.OutOfMemoryError, match="on meta"):
        replace(victim("UNet"), network=away)(image())


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("unable to mmap 4096 bytes from file <w>: Cannot allocate memory (12)"), True),
        (RuntimeError("itk::ERROR: Image: Failed to allocate memory for image."), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (RuntimeError("The size of tensor a (4) must match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_a_full_memory_is_known_from_other_errors(error: BaseException, full: bool) -> None:
    assert is_full(error) is full


def test_the_cpu_allocators_own_error_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_full(caught.value)
