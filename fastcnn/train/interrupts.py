"""Signals that end a training, held back until a step is done."""

import signal
import threading


class Interrupted(KeyboardInterrupt):
    """A signal ended the training between two steps; what was learned is whole.

    Attributes
    ----------
    status : int, the exit status that a command has then: 130 after Ctrl-C, 143 after SIGTERM
    """

    def __init__(self, number):
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.status = 128 + number


class Interrupts:
    """Within the block SIGINT (Ctrl-C) and SIGTERM are noted instead of ending the process; a second one does end it.

    Outside of the main thread, which alone hears of signals, it changes nothing; nor where a signal is ignored.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self):
        self.number, self._before = None, {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                before = signal.getsignal(number)
                if before not in (None, signal.SIG_IGN):
                    self._before[number] = before
                    signal.signal(number, self._note)
        return self

    def __exit__(self, *error):
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}

    def _note(self, number, frame):
        self.number = number
        self.__exit__()

    def check(self):
        """Raise `Interrupted` if there was a signal."""
        if self.number is not None:
            raise Interrupted(self.number)
