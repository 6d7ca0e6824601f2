"""Making things ahead of their use, on a background thread."""

import contextvars
import os
import queue
import threading


def ahead(make, first, last, depth):
    """Yield make(i) for first <= i < last; up to `depth` of them are made ahead, by one background thread.

    The thread ends with the iterator, also if that is dropped halfway; what `make` raises is raised to the consumer.
    It sees the backend that was in use when the first item was asked for, and runs kernels on no thread but itself. A
    forked child, where the thread does not exist, makes the rest itself.

    Parameters
    ----------
    make : function of i, which must give the same whoever calls it
    first, last : int
    depth : int, at least 1
    """
    maker, owner = _Maker(make, range(first, last), depth), os.getpid()
    try:
        for i in range(first, last):
            yield maker.take() if os.getpid() == owner else make(i)
    finally:
        if os.getpid() == owner:
            maker.stop()


class _Maker:
    def __init__(self, make, items, depth):
        self.make, self.items = make, items
        self.made, self.room, self.stopped = queue.SimpleQueue(), threading.Semaphore(depth), False
        run = contextvars.copy_context().run
        self.thread = threading.Thread(target=run, args=(self.work,), name="fastcnn prefetch", daemon=True)
        self.thread.start()

    def work(self):
        from fastcnn.cpu.jit import on_one_thread  # numba is loaded when first needed

        with on_one_thread():
            for i in self.items:
                self.room.acquire()
                if self.stopped:
                    return
                try:
                    self.made.put((self.make(i), None))
                except BaseException as error:
                    self.made.put((None, error))
                    return

    def take(self):
        item, error = self.made.get()
        self.room.release()
        if error is not None:
            raise error
        return item

    def stop(self):
        self.stopped = True
        self.room.release()
        self.thread.join()
