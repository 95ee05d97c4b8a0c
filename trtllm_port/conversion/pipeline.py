"""Reads files in pieces and hands pieces to a thread that writes them: reading, checking and writing overlap.

At most `DEPTH` pieces wait, so memory does not depend on the size of the model.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from types import TracebackType

import xxhash

from trtllm_port.conversion.safetensors_writer import SafetensorsWriter
from trtllm_port.errors import CheckpointError
from trtllm_port.runtime.digests import digest_text

PIECE = 2 << 20
DEPTH = 4


class DigestingReader:
    """Reads regions of one file and computes the digest of the whole file on the way.

    Bytes are digested when they are read in order; a gap is read for the digest alone, and a region behind the
    digested part was digested already. Buffers go round: fresh memory for every piece costs more than reading it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        self._size = os.fstat(self._descriptor).st_size
        self._digest = xxhash.xxh3_128()
        self._digested = 0
        self._buffers = cycle([memoryview(bytearray(PIECE)) for _ in range(DEPTH + 3)])  # waiting, written, read, spare
        self._scratch = memoryview(bytearray(PIECE))  # for what is only digested

    def pieces(self, start: int, stop: int) -> Iterator[memoryview]:
        """Yield the bytes of a region, in pieces of at most `PIECE` bytes.

        A piece holds until `DEPTH` more were taken: hand it to a `WriterThread`, or copy it.

        Raises:
            CheckpointError: the file became shorter since its header was read.
        """
        self._digest_up_to(start)
        for offset in range(start, stop, PIECE):
            piece = self._read(next(self._buffers), offset, min(PIECE, stop - offset))
            if offset == self._digested:
                self._digest.update(piece)
                self._digested += piece.nbytes
            yield piece

    def finish(self) -> str:
        """Close the file and return the digest of all of it, as `trtllm_port.files.file_digest` would."""
        self._digest_up_to(self._size)
        self.close()
        return digest_text(self._digest)

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _digest_up_to(self, position: int) -> None:
        while self._digested < position:
            piece = self._read(self._scratch, self._digested, min(PIECE, position - self._digested))
            self._digest.update(piece)
            self._digested += piece.nbytes

    def _read(self, buffer: memoryview, offset: int, size: int) -> memoryview:
        buffer = buffer[:size]
        done = 0
        while done < size:
            count = os.preadv(self._descriptor, [buffer[done:]], offset + done)
            if count == 0:
                raise CheckpointError(f"`{self.path}` was cut off at byte {offset + done} while it was read")
            done += count
        return buffer


class WriterThread:
    """Writes pieces to their files in the order they were put; an error appears at the next call."""

    def __init__(self) -> None:
        self._pieces: queue.Queue[tuple[SafetensorsWriter, memoryview] | None] = queue.Queue(DEPTH)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="checkpoint writer", daemon=True)

    def put(self, writer: SafetensorsWriter, piece: memoryview) -> None:
        """Have a piece written. It must not be changed afterwards.

        Raises:
            OSError: an earlier piece could not be written.
        """
        self._raise()
        self._pieces.put((writer, piece))

    def __enter__(self) -> WriterThread:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self._error is None:
            self._error = error  # what still waits is not written
        self._pieces.put(None)
        self._thread.join()
        if kind is None:
            self._raise()

    def _run(self) -> None:
        while (item := self._pieces.get()) is not None:
            if self._error is not None:
                continue
            try:
                item[0].write(item[1])
            except BaseException as error:  # handed to the thread that puts
                self._error = error

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
