"""Where tensors are computed: the CPU, or a GPU that is there and computes what a CPU would."""

from __future__ import annotations

import re

import torch

from fedrec.errors import require


def usable_device(name: str) -> torch.device:
    """The device called `name`: cpu, cuda or cuda:N. Refuses, with `SpecError`, one that cannot be used.

    Guarantee: it is there, and products of float32 are computed in float32, so that results agree with a CPU's up to
    rounding.
    """
    known = re.fullmatch(r"cpu|cuda(:\d+)?", name) is not None
    require(known, "a device is cpu, cuda or cuda:N", remedy="Use cpu, cuda or cuda:0.", device=name)
    device = torch.device("cpu") if name == "cpu" else _gpu(name)
    remedy = 'Unset TORCH_ALLOW_TF32_CUBLAS_OVERRIDE, or call torch.set_float32_matmul_precision("highest").'
    rule = "float32 is computed as float32, not as TF32 or bfloat16"
    require(exact(device), rule, remedy=remedy, device=name)
    return device


def exact(device: torch.device) -> bool:
    """Whether a product of float32 keeps all 24 bits of a number, rather than the 11 of TF32 or the 8 of bfloat16.

    Asked of the arithmetic itself: torch has two sets of switches for it, and the environment can overrule both.
    """
    one, many = torch.eye(64, device=device), torch.full((64, 64), 1 + 2**-23, device=device)
    return torch.equal(many @ one, many) and torch.equal(one @ many, many)


def gpus() -> tuple[str, ...]:
    """Names of the GPUs that torch can compute on."""
    return tuple(torch.cuda.get_device_name(index) for index in range(_count()))


def _gpu(name: str) -> torch.device:
    index, seen = int(name.partition(":")[2] or 0), _count()
    remedy = "Use cpu, or install a torch built for CUDA and a driver that is recent enough for it."
    require(seen > 0, "a GPU is used where torch sees one", remedy=remedy, device=name, torch=torch.__version__)
    require(index < seen, "GPUs are numbered from 0", remedy=f"Use cuda:{seen - 1} or less.", device=name, seen=seen)
    return torch.device("cuda", index)


def _count() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 0
