"""A second device for machines that have none.

Its tensors say that they are on `GPU`, hold real numbers all the same, and refuse to meet tensors of the CPU. Code that
forgets to move a tensor fails here as it would on a GPU, and what it computes can be compared. Torch's own fake tensors
cannot do that for "cuda" without a CUDA build: neither gradients nor indices nor moves work there.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import cache
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

GPU = torch.device("privateuseone", 0)
AVAILABLE = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")  # an experiment of new torches

_ATEN = torch.ops.aten
_MOVES = {_ATEN._to_copy, _ATEN.to, _ATEN.copy_}
_PRODUCTS = {_ATEN.mm.default, _ATEN.bmm.default, _ATEN.addmm.default, _ATEN.baddbmm.default}


class Elsewhere(Tensor):
    """A tensor on the pretended device; its numbers are in `inner`."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> Elsewhere:
        return Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            layout=inner.layout, device=GPU, requires_grad=False,
        )  # fmt: skip

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    def __repr__(self) -> str:
        return f"Elsewhere({tuple(self.shape)})"

    def tolist(self) -> list:
        return self.cpu().tolist()

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, op, types, args=(), kwargs=None):
        return _run(op, args, kwargs or {})


class Pretending(TorchDispatchMode):
    """While it is on, torch can make tensors on `GPU`.

    `dtype` is what numbers are rounded to before they are multiplied, as TF32 would.
    """

    on = False  # to all who ask in between there is no accelerator: other tests must not change their ways

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        _prepare()
        self.dtype = dtype

    def __enter__(self):
        with ExitStack() as stack:
            stack.enter_context(patch.object(Pretending, "on", True))
            # A view would have to be of its own kind, and a gradient would look for a thread of the device.
            stack.enter_context(patch.object(torch, "inference_mode", torch.no_grad))
            stack.enter_context(torch.autograd.set_multithreading_enabled(False))
            # torch.tensor(…, device=…) would fill its memory behind our back.
            stack.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
            torch._C._set_only_lift_cpu_tensors(True)
            self._undo = stack.pop_all()
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._undo.close()

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        if op in _PRODUCTS and self.dtype is not None:
            args = pytree.tree_map_only(Tensor, lambda one: one.to(self.dtype).to(one.dtype), args)
        return _run(op, args, kwargs or {})


@cache
def _prepare() -> None:
    class Module(backend_registration._DummyBackendModule):
        def is_available(self) -> bool:
            return Pretending.on

    class Hook(backend_registration._DummyPrivateUse1Hook):
        def is_available(self) -> bool:
            return Pretending.on

    backend_registration._setup_privateuseone_for_python_backend("pretended", Module(), Hook())


def _run(op, args, kwargs):
    tensors = [one for one in pytree.tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    there = [one for one in tensors if isinstance(one, Elsewhere)]
    # Like CUDA, single numbers of the CPU are welcome. Unlike CUDA, indices are not: each would be a hidden transfer.
    here = [one for one in tensors if not isinstance(one, Elsewhere) and one.dim()]
    if there and here and op.overloadpacket not in _MOVES:
        raise RuntimeError(f"{op} was given tensors on two devices")
    to = kwargs.get("device")
    lands = bool(there) if to is None else torch.device(to) == GPU
    if op is _ATEN.copy_.default:
        lands = isinstance(args[0], Elsewhere)
    inner_args, inner = pytree.tree_map_only(Elsewhere, lambda one: one.inner, (args, kwargs))
    found = op(*inner_args, **(inner if to is None else inner | {"device": "cpu"}))
    if not lands:
        return found
    found = pytree.tree_map_only(Tensor, lambda one: one if isinstance(one, Elsewhere) else Elsewhere(one), found)
    if here and to is not None:
        return found  # it went from one device to the other: nothing is shared
    return return_and_correct_aliasing(op, args, kwargs, found)
