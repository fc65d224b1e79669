"""Standard input as pictures: one picture of any kind, or a stream of JPEG, PNG and PGM frames.

The frames of a stream stand one after the other, as `rpicam-vid --codec mjpeg` writes them. From a
pipe, frames that come faster than they are answered are dropped, not queued.
"""

from __future__ import annotations

import os
import re
import stat
import threading
import time
from collections import deque
from typing import Callable, Iterator

from picture import MAX_BYTES, PGM_HEADER

MAX_WAITING = 8  # frames
CHUNK_BYTES = 2**16
PATIENCE_S = 1.0  # an input that is still open after this is a stream
FIRST_BYTES = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|P5\s")
OTHER_PICTURE = re.compile(rb"\x93NUMPY|P[12346]\s|BM|GIF8|RIFF|II\*\0|MM\0\*|....ftyp", re.DOTALL)
GAP = re.compile(rb"[\n\r \0]+")  # that some programs leave between frames
JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # behind a scan; the rest is of the scan


class Splitter:
    """Cuts frames off an input as it comes.

    Args:
        read: Gives the next bytes, b"" at the end.
    """

    def __init__(self, read: Callable[[], bytes]) -> None:
        self.read, self.buffer, self.ended = read, bytearray(), False

    def has(self, size: int) -> bool:
        """Read on until there are so many bytes; whether there are."""
        while len(self.buffer) < size and not self.ended:
            chunk = self.read()
            self.ended = not chunk
            self.buffer += chunk
        return len(self.buffer) >= size

    def find(self, pattern: re.Pattern[bytes], start: int) -> int:
        """Where a pattern is, or where the input ends; -1 if that is further than a frame."""
        while not (match := pattern.search(self.buffer, start)):
            start = max(start, len(self.buffer) - 7)
            if len(self.buffer) > MAX_BYTES:
                return -1
            if not self.has(len(self.buffer) + 1):
                return len(self.buffer)
        return match.start()

    def cut(self, size: int) -> bytes:
        """Take so many bytes off the front."""
        frame = bytes(self.buffer[:size])
        del self.buffer[:size]
        return frame

    def frames(self) -> Iterator[bytes]:
        """The frames, also damaged ones and what lies between; of any other input, all of it."""
        self.has(8)
        if not self.buffer or OTHER_PICTURE.match(self.buffer) or self.find_mpf():
            while self.has(len(self.buffer) + 1) and len(self.buffer) <= MAX_BYTES:
                pass
            yield self.cut(len(self.buffer))
            return
        count = 0
        while self.has(1):
            if count and (gap := GAP.match(self.buffer)):
                del self.buffer[: gap.end()]
                continue
            size = self.frame_size()
            if not 0 < size <= MAX_BYTES or not self.has(size):
                size = self.find(FIRST_BYTES, 1)  # damaged: go on where the next begins
                size = size if size > 0 else len(self.buffer)
                if count == 1 and not FIRST_BYTES.match(self.buffer) and not self.has(size + 1):
                    return  # what some cameras append to a picture
            count += 1
            yield self.cut(size)

    def find_mpf(self) -> bool:
        """Whether it is a JPEG that holds further pictures: one picture of a phone."""
        if self.buffer[:2] != b"\xff\xd8":
            return False
        size = self.jpeg_size(only_header=True)
        return size > 0 and b"MPF\0" in self.buffer[:size]

    def frame_size(self) -> int:
        """How many bytes the frame at the front has; 0 if it is damaged."""
        self.has(8)
        if self.buffer[:2] == b"\xff\xd8":
            return self.jpeg_size()
        if self.buffer[:4] == b"\x89PNG":
            return self.png_size()
        while not (header := PGM_HEADER.match(self.buffer)):
            if len(self.buffer) > 1000 or not self.has(len(self.buffer) + 1):
                return 0
        width, height, largest = map(int, header.groups())
        return header.end() + width * height * (1 if largest < 256 else 2)

    def jpeg_size(self, only_header: bool = False) -> int:
        """Marker by marker (ITU T.81, B.1.1): a thumbnail in a marker has an end of its own."""
        at = 2
        while at <= MAX_BYTES and self.has(at + 2) and self.buffer[at] == 0xFF:
            marker = self.buffer[at + 1]
            if marker == 0xD9:
                return at + 2
            if marker == 0xFF:
                at += 1
                continue
            if marker == 0xD8 or not self.has(at + 4):  # the next picture: this one is cut off
                return 0
            at += 2 + int.from_bytes(self.buffer[at + 2 : at + 4], "big")
            if marker == 0xDA:
                if only_header:
                    return at
                at = self.find(JPEG_MARKER, at)
        return 0

    def png_size(self) -> int:
        """Chunk by chunk (PNG, 5.3)."""
        at = 8
        while 0 < at <= MAX_BYTES and self.has(at + 8):
            kind = bytes(self.buffer[at + 4 : at + 8])
            if not kind.isalpha():
                return 0
            at += 12 + int.from_bytes(self.buffer[at : at + 4], "big")
            if kind == b"IEND":
                return at
        return 0


class Newest:
    """Reads the frames of a pipe in a thread of its own, and drops those that are out of date.

    The first few and the last few all wait their turn, so that a short input loses nothing. In
    between, only the newest frame is answered.
    """

    def __init__(self, descriptor: int) -> None:
        self.waiting: deque[bytes] = deque(maxlen=MAX_WAITING)
        self.changed, self.ended = threading.Condition(), False
        threading.Thread(target=self.work, args=(descriptor,), daemon=True).start()

    def work(self, descriptor: int) -> None:
        """Read to the end."""
        try:
            for frame in Splitter(lambda: os.read(descriptor, CHUNK_BYTES)).frames():
                with self.changed:
                    self.waiting.append(frame)
                    while len(self.waiting) > 1 and sum(map(len, self.waiting)) > MAX_BYTES:
                        self.waiting.popleft()
                    self.changed.notify()
        finally:
            with self.changed:
                self.ended = True
                self.changed.notify()

    def frames(self) -> Iterator[bytes]:
        """The frames to answer."""
        answered = 0
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.waiting or self.ended)
                if not self.waiting:
                    return
                while len(self.waiting) > 1 and not self.ended and answered >= MAX_WAITING:
                    self.waiting.popleft()
                frame = self.waiting.popleft()
            answered += 1
            yield frame

    def has_more(self) -> bool:
        """Whether there is another frame, or the input is still open after a moment."""
        with self.changed:
            self.changed.wait_for(lambda: self.waiting or self.ended, PATIENCE_S)
            return bool(self.waiting) or not self.ended


def read_frames(
    descriptor: int, say: Callable[[str], None]
) -> Iterator[tuple[bytes, Callable[[], bool]]]:
    """Each picture of an input (b"" of an empty one), and what tells whether it is one of several.

    Args:
        descriptor: Of standard input. Of a file every frame is read, none is dropped.
        say: Prints a line about the state of the machine, while it is a stream.
    """
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        splitter = Splitter(lambda: os.read(descriptor, CHUNK_BYTES))
        frames, has_more = splitter.frames(), lambda: splitter.has(1)
    else:
        newest = Newest(descriptor)
        frames, has_more = newest.frames(), newest.has_more
    watch = Watch(say)
    for i, frame in enumerate(frames):
        if i > 0:
            watch.look()
            has_more = lambda: True  # noqa: E731
        yield frame, has_more


class Watch:
    """Says how the machine is, once and when that changes."""

    EVERY_S = 2.0

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say, self.told, self.due_s = say, "", 0.0

    def look(self) -> None:
        """Look, if it is time to."""
        from bench.machine import name_flags, read_throttled

        if time.monotonic() < self.due_s:
            return
        self.due_s = time.monotonic() + self.EVERY_S
        bits = read_throttled()
        if bits is None:  # this machine does not tell
            self.due_s = float("inf")
            return
        now = name_flags(bits)
        if now != self.told:
            self.say(f"this machine: {now or 'neither throttled nor under-voltage'}")
        self.told = now
