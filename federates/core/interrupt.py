"""Ctrl-C from within: another thread of this process ends what the main thread does."""

from __future__ import annotations

import signal
import threading


def interrupt_main() -> None:
    """Raise KeyboardInterrupt in the main thread, also within a blocking call.

    Shells start background jobs with SIGINT ignored; the command line hears SIGTERM in any case.
    """
    usual = signal.SIGINT, signal.SIGTERM
    heard = [s for s in usual if signal.getsignal(s) is signal.default_int_handler]
    signal.pthread_kill(threading.main_thread().ident or 0, (*heard, signal.SIGINT)[0])
