"""Data parallelism: every process takes its share of the sequences, and sums are reduced once a pass over them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import distributed

from yaqa_runner.sketches.launched import launched_processes, number_on_this_machine


@dataclass(frozen=True)
class Ranks:
    """This process among those that ``torchrun`` started; alone where it did not.

    Every method that talks must be called by all processes in the same order.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def share(self, sequences: int) -> tuple[int, int]:
        """First and last (exclusive) of the sequences that are this process's."""
        return sequences * self.rank // self.count, sequences * (self.rank + 1) // self.count

    def add_up(self, total: torch.Tensor) -> torch.Tensor:
        """The sum of all processes' ``total``, on the device it is on."""
        if self.count == 1:
            return total
        # NCCL reduces what is on its GPU only; factors may be kept in host memory.
        shared = total.to(self.device).contiguous()
        if shared.data_ptr() == total.data_ptr():
            shared = shared.clone()
        distributed.all_reduce(shared)
        return shared.to(total.device)

    def add_up_number(self, value: float) -> float:
        """The sum of all processes' ``value``."""
        if self.count == 1:
            return value
        return float(self.add_up(torch.tensor([value], dtype=torch.float64))[0])

    def agree(self, value: bool) -> bool:
        """The leader's ``value``."""
        return bool(self.add_up_number(float(value) if self.leads else 0.0))

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            distributed.barrier()


ALONE = Ranks()


def own_device(wanted: torch.device) -> torch.device:
    """``wanted``, or the GPU of this process's number on its machine."""
    if wanted.type != "cuda" or launched_processes() == 1:
        return wanted
    return torch.device("cuda", number_on_this_machine())


@contextmanager
def joined_ranks(device: torch.device) -> Iterator[Ranks]:
    """The processes that ``torchrun`` started, joined over NCCL on GPUs and gloo elsewhere; alone without it."""
    if launched_processes() == 1:
        yield Ranks(device=device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size(), device)
    finally:
        distributed.destroy_process_group()
