"""Finds NaN and infinity in weights at memory speed, and collects where."""

from __future__ import annotations

import torch

from trtllm_port.errors import CheckpointError

SHOWN = 10


class FiniteCheck:
    """Looks at every piece of every tensor; `report` raises everything at once."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}

    def look(self, name: str, before: torch.Tensor, after: torch.Tensor) -> None:
        """Note a tensor of which some values are not finite.

        Args:
            name: of the tensor.
            before: as it was read.
            after: as it will be written.
        """
        if name in self._found or not after.is_floating_point() or after.numel() == 0 or _is_finite(after):
            return
        if not _is_finite(before):
            self._found[name] = "NaN" if bool(before.isnan().any()) else "infinity"
        else:
            dtype = str(after.dtype).removeprefix("torch.")
            self._found[name] = f"values beyond {dtype} (up to {float(before.abs().max()):.3g})"

    def report(self) -> None:
        """Raise if anything was found.

        Raises:
            CheckpointError: names the tensors.
        """
        if not self._found:
            return
        shown = [f"`{name}` has {what}" for name, what in list(self._found.items())[:SHOWN]]
        more = f"\n  and {len(self._found) - SHOWN} more" if len(self._found) > SHOWN else ""
        overflow = any(what.startswith("values") for what in self._found.values())
        raise CheckpointError(
            "weights are not finite:\n  " + "\n  ".join(shown) + more,
            hint="convert with `--dtype bfloat16` or `--dtype float32`"
            if overflow
            else "the file is damaged or the training diverged: fetch it again",
        )


def _is_finite(tensor: torch.Tensor) -> bool:
    if bool(torch.isfinite(tensor.sum())):  # the fastest pass; NaN and infinity survive it
        return True
    low, high = torch.aminmax(tensor)  # a sum of finite values can overflow: look again
    return bool(torch.isfinite(low)) and bool(torch.isfinite(high))
