"""Ctrl-C while Rust works: an answer at once, even if the step it is in takes seconds.

Python delivers a signal to the main thread, which is in Rust until the next step; then the run ends in order
and keeps what was measured. A thread that sleeps until a signal comes says so meanwhile, and a second signal
ends the process where it stands.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EXIT_INTERRUPTED = 130


@contextmanager
def interruption_announced(say: Callable[[str], object]) -> Iterator[None]:
    """Within it, the first SIGINT is answered with a line to ``say``, a second one ends the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    read, write = os.pipe()
    os.set_blocking(write, False)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)

    def watch() -> None:
        count = 0
        while numbers := os.read(read, 16):
            count += numbers.count(signal.SIGINT)
            if count >= 2:
                os._exit(EXIT_INTERRUPTED)
            if count == 1:
                say("interrupted: finishing the current step; once more stops at once and saves nothing")

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(write)
        watcher.join()
        os.close(read)
