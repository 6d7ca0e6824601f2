"""Choices that hold within a ``with`` block, for each thread and each asynchronous task by itself."""


class Choice:
    """A context manager that sets a context variable, as often as it is entered, and sets it back.

    A subclass names the variable, `variable`.
    """

    variable = None

    def __init__(self, value):
        self._value, self._tokens = value, []

    def __enter__(self):
        self._tokens.append(self.variable.set(self._value))
        return self._value

    def __exit__(self, *exception):
        self.variable.reset(self._tokens.pop())
