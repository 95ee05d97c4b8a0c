"""Reads files in pieces and hands pieces to a thread that writes them: reading, checking and writing overlap.

A buffer belongs to one stage at a time: the reader takes a free one from the pool, and waits for it if there is none;
whoever is done with the piece in it gives it back, and nobody looks at it afterwards. A piece that is written as it is
goes on to the writer, which gives it back once it is in all files. So memory does not depend on the size of the model,
and no stage can change what another one still needs, however slow the disk is.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import xxhash

from trtllm_port.conversion.safetensors_writer import SafetensorsWriter
from trtllm_port.errors import CheckpointError
from trtllm_port.foundation.digests import digest_text

PIECE = 2 << 20
DEPTH = 4


class BufferPool:
    """Buffers of `PIECE` bytes that go round: fresh memory for every piece costs more than reading it.

    The one that was put back last is taken first: it is still in the processor's cache.
    """

    def __init__(self) -> None:
        self._free: queue.LifoQueue[memoryview] = queue.LifoQueue()
        for _ in range(DEPTH + 2):  # those that wait, the one that is written, the one that is read
            self._free.put(memoryview(bytearray(PIECE)))

    def take(self) -> memoryview:
        """Wait for a free buffer; it belongs to the caller until it is put back."""
        return self._free.get()

    def put_back(self, buffer: memoryview) -> None:
        """Give a buffer up."""
        self._free.put(buffer)


class Piece:
    """Some bytes on their way from a file to others, and the buffer of a pool that they lie in, if any.

    Attributes:
        data: the bytes. Whoever holds the piece may read them until it releases the piece.
    """

    def __init__(self, data: memoryview, buffer: memoryview | None = None, pool: BufferPool | None = None) -> None:
        self.data = data
        self._buffer = buffer
        self._pool = pool

    def release(self) -> None:
        """Give the buffer back to its pool; once."""
        self.data = memoryview(b"")
        if self._pool is not None and self._buffer is not None:
            self._pool.put_back(self._buffer)
        self._pool = self._buffer = None


class DigestingReader:
    """Reads regions of one file and computes the digest of the whole file on the way.

    Bytes are digested when they are read in order; a gap is read for the digest alone, and a region behind the
    digested part was digested already.

    Args:
        path: the file.
        pool: where the buffers of pieces come from; the readers of several files may share one.
    """

    def __init__(self, path: Path, pool: BufferPool) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        self._size = os.fstat(self._descriptor).st_size
        self._digest = xxhash.xxh3_128()
        self._digested = 0
        self._pool = pool

    def pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """Yield the bytes of a region, in pieces of at most `PIECE` bytes.

        Each piece belongs to the caller, who releases it or hands it to a `WriterThread`.

        Raises:
            CheckpointError: the file became shorter since its header was read.
        """
        self._digest_up_to(start)
        for offset in range(start, stop, PIECE):
            buffer = self._pool.take()
            yield Piece(self._read_next(buffer[: min(PIECE, stop - offset)], offset), buffer, self._pool)

    def read_into(self, target: memoryview, start: int) -> None:
        """Fill `target` with the bytes from `start` on.

        Raises:
            CheckpointError: as `pieces`.
        """
        self._digest_up_to(start)
        for done in range(0, target.nbytes, PIECE):
            self._read_next(target[done : done + PIECE], start + done)

    def finish(self) -> str:
        """Close the file and return the digest of all of it, as `digests.file_digest` would."""
        self._digest_up_to(self._size)
        self.close()
        return digest_text(self._digest)

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _digest_up_to(self, position: int) -> None:
        if self._digested >= position:
            return
        buffer = self._pool.take()
        while self._digested < position:
            self._read_next(buffer[: min(PIECE, position - self._digested)], self._digested)
        self._pool.put_back(buffer)

    def _read_next(self, target: memoryview, offset: int) -> memoryview:
        """Fill `target`, and digest it if it follows what was digested."""
        read_all(self._descriptor, target, offset, self.path)
        if offset == self._digested:
            self._digest.update(target)
            self._digested += target.nbytes
        return target


def read_all(descriptor: int, target: memoryview, offset: int, path: Path) -> None:
    """Fill `target` with a file's bytes from `offset` on.

    Raises:
        CheckpointError: the file ends before.
    """
    done = 0
    while done < target.nbytes:
        count = os.preadv(descriptor, [target[done:]], offset + done)
        if count == 0:
            raise CheckpointError(f"`{path}` was cut off at byte {offset + done} while it was read")
        done += count


class WriterThread:
    """Writes pieces to their files in the order they were put; an error appears at the next call."""

    def __init__(self) -> None:
        self._pieces: queue.Queue[tuple[Sequence[SafetensorsWriter], Piece] | None] = queue.Queue(DEPTH)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="checkpoint writer", daemon=True)

    def put(self, writers: Sequence[SafetensorsWriter], piece: Piece) -> None:
        """Have a piece written to the end of each file. It is the thread's from now on, which releases it.

        Raises:
            OSError: an earlier piece could not be written.
        """
        self._raise()
        self._pieces.put((writers, piece))

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
            writers, piece = item
            try:
                if self._error is None:
                    for writer in writers:
                        writer.write(piece.data)
            except BaseException as error:  # handed to the thread that puts
                self._error = error
            finally:
                piece.release()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
