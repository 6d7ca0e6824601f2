"""What a study is, and what it finds."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """What an experiment showed.

    Parameters
    ----------
    seen : bool
        Whether the claim was seen in the numbers.
    text : str
        What was measured: a format string over `numbers`, so that no number in it is typed by hand.
    numbers : dict of name -> number, or list of numbers
    draw : function of a matplotlib figure that draws the picture into it
    """

    seen: bool
    text: str
    numbers: dict
    draw: Callable

    @property
    def sentence(self):
        """The verdict, and what it rests on."""
        return f"{'Seen' if self.seen else 'Not seen here'}: {self.text.format(**self.numbers)}"


@dataclass(frozen=True)
class Study:
    """A claim and the experiment that puts it to the test.

    Parameters
    ----------
    name : str
    claim : str, a sentence
    source : str, where the claim, or the best account of it, is found
    experiment : function(seed, size) -> Finding
        `size` is a function of the number of images, steps or whatever is counted at full size.
    """

    name: str
    claim: str
    source: str
    experiment: Callable

    def run(self, seed=0, scale=1.0):
        """The `Finding` of the experiment; with a `scale` below 1 of a smaller one, which may not show what it should.

        The same seed and scale give the same numbers.
        """
        return self.experiment(seed, lambda full, least=1: max(least, round(full * scale)))


def study(name, claim, source):
    """Makes a `Study` of the experiment that stands below."""
    return lambda experiment: Study(name, claim, source, experiment)
