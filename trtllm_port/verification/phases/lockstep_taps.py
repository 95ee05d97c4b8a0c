"""Values by tap that a run of its own makes while somebody waits for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, MutableMapping
from typing import Generic, TypeVar

import torch
from torch import Tensor

from trtllm_port.verification.phases.openmp import end_own_workers
from trtllm_port.verification.taps.names import is_input, module_of, parent_of

V = TypeVar("V")


class _Stopped(BaseException):
    """Ends a run that nobody waits for any more; no `except Exception` on its way holds it up."""


class Awaited(MutableMapping[str, V], Generic[V]):
    """What a run puts here, in a thread that goes on only while a value is asked for that is not there yet.

    A value that will not come is missed once the module that holds its module has given its output.

    Args:
        work: the run; it puts its values into what it is given.
        rests: behind which taps the run may stop; None: all.
    """

    def __init__(
        self, work: Callable[[MutableMapping[str, V]], None], rests: Callable[[str], bool] | None = None
    ) -> None:
        self._rests = rests
        self._values: dict[str, V] = {}
        self._wanted: str | None = None
        self._error: BaseException | None = None
        self._stopped = self._ended = False
        self._may_run, self._has_paused = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[MutableMapping[str, V]], None]) -> None:
        self._may_run.acquire()
        try:
            if not self._stopped:
                work(self)
        except BaseException as error:
            self._error = error
        finally:
            self._ended = True
            end_own_workers()
            self._has_paused.release()

    def _go_on(self) -> bool:
        """Let the run go on until it pauses; whether there was anything left to run."""
        if self._ended:
            return False
        end_own_workers()
        self._may_run.release()
        self._has_paused.acquire()
        if self._error is not None and not self._stopped:
            raise self._error
        return True

    def finish(self) -> None:
        """Let the run go on to its end."""
        while self._go_on():
            pass

    def close(self) -> None:
        """End the run where it is."""
        self._stopped = True
        while not self._ended:
            self._go_on()
        self._thread.join()

    def __setitem__(self, tap: str, value: V) -> None:
        """Put a value there: called by the run, which stops when it is known what becomes of what is asked for."""
        self._values[tap] = value
        if self._stopped:
            raise _Stopped
        rests = self._rests is None or self._rests(tap)
        if rests and self._wanted is not None and (self._wanted in self._values or self._missed(self._wanted)):
            end_own_workers()
            self._has_paused.release()
            self._may_run.acquire()
            if self._stopped:
                raise _Stopped

    def __contains__(self, tap: object) -> bool:
        """Whether the value is there, or comes."""
        if not isinstance(tap, str):
            return False
        self._wanted = tap
        while tap not in self._values and not self._missed(tap):
            if not self._go_on():
                break
        self._wanted = None
        return tap in self._values

    def _missed(self, tap: str) -> bool:
        holder = module_of(tap) if is_input(tap) else parent_of(module_of(tap))
        while holder and holder not in self._values:
            holder = parent_of(holder)
        return bool(holder)

    def __getitem__(self, tap: str) -> V:
        if tap not in self:
            raise KeyError(tap)
        return self._values[tap]

    def __delitem__(self, tap: str) -> None:
        del self._values[tap]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class PassingTaps(Awaited[Tensor]):
    """Tensors that are read a known number of times; afterwards shape and dtype are left, on the meta device.

    Args:
        work: see `Awaited`.
        reads: how often a tap is read; None: it stays.

    Raises:
        AlteredError: on reading, where the model has written into the tensor since it gave it.
    """

    def __init__(
        self,
        work: Callable[[MutableMapping[str, Tensor]], None],
        reads: Callable[[str], int | None],
        rests: Callable[[str], bool] | None = None,
    ) -> None:
        self._reads = reads
        self._left: dict[str, int | None] = {}
        self._versions: dict[str, int] = {}
        super().__init__(work, rests)

    def __setitem__(self, tap: str, value: Tensor) -> None:
        self._left[tap], self._versions[tap] = self._reads(tap), value._version
        super().__setitem__(tap, value.detach())

    def __getitem__(self, tap: str) -> Tensor:
        value = super().__getitem__(tap)
        left = self._left[tap]
        if left is None or value.is_meta:
            return value
        if value._version != self._versions[tap]:
            raise AlteredError(tap)
        self._left[tap] = left - 1
        if left == 1:
            self._values[tap] = torch.empty_like(value, device="meta")
        return value


class AlteredError(RuntimeError):
    """A model writes into a tensor that it has given already."""
