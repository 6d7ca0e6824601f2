"""The reading of a run's curves: what they say in words, each statement with the numbers it rests on.

Rules, after the common practice of watching a training: accuracy that still rises asks for longer training; training
that gets better while validation gets worse is overfitting; no gap between the two is underfitting, as long as the
training data are not learned.
"""

import math
from dataclasses import dataclass

import numpy as np

WARNING, ADVICE, GOOD = "warning", "advice", "good"  # how a statement is meant

UPDATES = 1e-4, 1e-2  # healthy ||dw|| / ||w|| of a step: about 1e-3
_SHARE = 0.2  # of dead units, or saturated outputs, that is worth a word
_RECENT = 1 / 3  # the part of the epochs at the end that tells where a curve is going
_STEADY = 0.005  # accuracies closer than this are the same
_CLEAR = 2.0  # a trend is one if its slope is so many times its standard error
_GAP = 0.05  # accuracy on training data that is so much higher than elsewhere is a gap,
_NO_GAP = 0.02  # and one that is no higher than this is none
_LEARNED = 0.98  # training accuracy from which on there is nothing left to learn
_GUESSING = 0.99  # a loss of so much of that of guessing shows nothing learned
_WORSE, _FALLING = 1.05, 0.95  # a loss has risen, or falls, if it is so many times an earlier one


@dataclass(frozen=True)
class Statement:
    """One thing that curves say.

    Attributes
    ----------
    rule : str, the name of the rule that found it
    kind : {"warning", "advice", "good"}
    text : str, what was found, the numbers that say so, and what helps
    """

    rule: str
    kind: str
    text: str


def read(metrics, classes=None, first_loss=None, planned=None, evaluated_on="validation", kind="softmax"):
    """What the curves of a run say.

    Parameters
    ----------
    metrics : list of EpochMetrics, of all complete epochs
    classes : int or None
    first_loss : float or None, that of the first batch, before any update
    planned : int or None, the epochs that the run was to have
    evaluated_on : str, the name of the data that `eval_loss` and `eval_accuracy` are of
    kind : {"softmax", "hinge"}, the loss

    Returns
    -------
    list of Statement
    """
    found = [] if first_loss is None or classes is None else [read_first_loss(first_loss, classes, kind)]
    if planned is not None and len(metrics) < planned:
        text = f"{len(metrics)} of {planned} epochs are complete: the run is under way, or has ended early."
        found.append(Statement("incomplete", ADVICE, text))
    if not metrics:
        return found
    curves = _Curves(metrics, evaluated_on)
    lost = _diverged(curves, math.inf if classes is None else expected_loss(classes, kind))
    if lost:
        return [*found, lost]
    if len(metrics) < 3:
        text = f"{_count(len(metrics), 'epoch')} cannot show a trend; the curves can be read from three on."
        return [*found, Statement("too short", ADVICE, text)]
    rules = (_overfitting(curves), _underfitting(curves), _rising(curves), _plateau(curves))
    found += [statement for statement in rules if statement]
    return found if any(rules) else [*found, _settled(curves)]


def read_layers(records):
    """What the last record of a `Monitor` says of the layers; of updates, the last before the learning rate came down.

    Parameters
    ----------
    records : list of dicts, as `train.monitor` describes them

    Returns
    -------
    list of Statement
    """
    if not records:
        return []
    layers, weights = records[-1]["layers"], records[-1]["weights"]
    rates = [record["lr"] or 0 for record in records]
    fast = [record for record, rate in zip(records, rates, strict=True) if rate >= 0.5 * max(rates)]
    found = (
        _not_finite(layers, weights),
        _many(layers, "dead", "Dead units, which give 0 for all images", "a lower learning rate"),
        _many(layers, "saturated", "Saturated outputs, where the slope is nearly 0", "smaller weights to begin with"),
        _updates(fast[-1]),
    )
    return [statement for statement in found if statement]


def read_range_test(found):
    """What a `RangeTest` says."""
    text = (
        f"A range test: over {len(found.rates)} steps the learning rate rose from {found.rates[0]:.2g} to "
        f"{found.rates[-1]:.2g}. The loss begins to fall at {found.low:.2g}; well below where it rises again: "
        f"--lr {found.high:.2g}."
    )
    return Statement("range test", GOOD, text)


def read_first_loss(loss, classes, kind="softmax"):
    """Whether the loss of an untrained net is about that of equal scores: ln(classes), or classes - 1 of "hinge".

    Scores that know nothing of the labels add to it, on average; of standard deviation s about s^2/2 to ln(classes).
    Common initialisations give scores of a standard deviation up to 2, which `usual_first_loss` has as its upper end.
    Below the expected value the loss is by chance alone, for which there is some room.
    """
    expected, (low, high) = expected_loss(classes, kind), usual_first_loss(classes, kind)
    equal = f"ln {classes}" if kind == "softmax" else f"{classes} - 1"
    numbers = f"The first loss is {_number(loss)}; equal scores give {equal} = {expected:.3g}"
    if not math.isfinite(loss):
        text = f"{numbers}. Look for NaN or infinity in the images, or for weights that are far too large."
    elif loss > high:
        text = (
            f"{numbers}, at most {high:.3g} is usual. The scores are too large before anything is learned: "
            "standardise the images, or begin with smaller weights."
        )
    elif loss < low:
        text = (
            f"{numbers}, at least {low:.3g} is usual. An untrained net cannot know that much: it has been trained "
            "before, or most labels of the batch are of few classes, or there are fewer classes than said."
        )
    else:
        return Statement("first loss", GOOD, f"{numbers}, up to {high:.3g} is usual.")
    return Statement("first loss", WARNING, text)


def expected_loss(classes, kind="softmax"):
    """The loss of scores that are the same for all classes: "softmax" or "hinge"."""
    return math.log(classes) if kind == "softmax" else classes - 1.0


def usual_first_loss(classes, kind="softmax"):
    """The range in which the loss of an untrained net usually lies."""
    expected = expected_loss(classes, kind)
    return (expected - 0.5, expected + 2.0) if kind == "softmax" else (0.8 * expected, 2.0 * expected)


class _Curves:
    """The metrics as arrays, NaN where there is none.

    `recent` is the slice of the last epochs, enough of them for a trend, `late` that for averages.
    """

    def __init__(self, metrics, evaluated_on):
        self.evaluated_on, self.epochs = evaluated_on, [m.epoch for m in metrics]
        for name in ("lr", "train_loss", "train_accuracy", "eval_loss", "eval_accuracy"):
            values = [getattr(m, name) for m in metrics]
            setattr(self, name, np.array([math.nan if value is None else value for value in values]))
        self.evaluated = None not in [m.eval_loss for m in metrics]
        part = math.ceil(_RECENT * len(metrics))
        self.window, self.last = (min(len(metrics), max(least, part)) for least in (4, 2))
        self.recent, self.late = slice(-self.window, None), slice(-self.last, None)

    @property
    def accuracy(self):
        """Of the data that were not trained on, if any; with its name."""
        if self.evaluated:
            return self.eval_accuracy, f"{self.evaluated_on} accuracy"
        return self.train_accuracy, "training accuracy"

    @property
    def gap(self):
        """By how much training accuracy is the higher one at last."""
        return float(np.mean(self.train_accuracy[self.late] - self.eval_accuracy[self.late]))

    @property
    def flat(self):
        """Whether neither accuracy nor training loss changes any more."""
        accuracy, loss = self.accuracy[0][self.recent], self.train_loss[self.recent]
        return len(self.epochs) > self.window and np.ptp(accuracy) < 2 * _STEADY and loss[-1] > _FALLING * loss[0]

    def both(self):
        """The last accuracies in words."""
        train, held_out = (np.mean(a[self.late]) for a in (self.train_accuracy, self.eval_accuracy))
        return f"training {train:.1%}, {self.evaluated_on} {held_out:.1%} over the last {self.last} epochs"


def _diverged(curves, guessing):
    losses = {"training": curves.train_loss} | ({curves.evaluated_on: curves.eval_loss} if curves.evaluated else {})
    for name, loss in losses.items():
        lost = np.flatnonzero(~np.isfinite(loss))
        if lost.size:
            text = f"Diverged: the {name} loss is no number from epoch {curves.epochs[lost[0]]} on. "
            return Statement("diverged", WARNING, text + "Lower the learning rate, or clip the gradients.")
    loss, lowest = curves.train_loss[-1], curves.train_loss.min()
    if loss > 1.5 * lowest and loss - lowest > 0.1:
        before = f"{lowest:.3g} after epoch {curves.epochs[curves.train_loss.argmin()]}"
        text = f"Diverging: the training loss rose from {before} to {loss:.3g}. Lower the learning rate."
    elif loss > (_GUESSING if len(curves.epochs) > 1 else 1.0) * guessing:
        text = (
            f"Not learning: the training loss is {loss:.3g}, and that of guessing {guessing:.3g}. "
            "Lower the learning rate, and see whether the net can learn a few images by heart."
        )
    else:
        return None
    return Statement("diverged", WARNING, text)


def _overfitting(curves):
    if not curves.evaluated:
        return None
    name, best = curves.evaluated_on, int(curves.eval_loss.argmin())
    loss, train = curves.eval_loss, curves.train_loss
    advice = "Regularise (weight decay, dropout, augmentation) or add data"
    if min(loss[-2:]) > _WORSE * loss[best] and train[-1] < train[best]:
        text = (
            f"Overfitting: since epoch {curves.epochs[best]} the training loss fell from {train[best]:.3g} to "
            f"{train[-1]:.3g} while the {name} loss rose from {loss[best]:.3g} to {loss[-1]:.3g}; {curves.both()}. "
            f"{advice}; the weights of about epoch {curves.epochs[best]} had the lowest {name} loss."
        )
        return Statement("overfitting", WARNING, text)
    if curves.gap > _GAP:
        text = f"A gap of {_points(curves.gap)}: {curves.both()}. {advice}; a larger model would widen it."
        return Statement("gap", ADVICE, text)
    return None


def _underfitting(curves):
    if not curves.evaluated or curves.gap > _NO_GAP or np.mean(curves.train_accuracy[curves.late]) >= _LEARNED:
        return None
    advice = (
        "Use a larger model; longer training adds little." if curves.flat else "Train longer or use a larger model."
    )
    text = (
        f"Underfitting: there is no gap; {curves.both()}. {advice} (Training accuracy is taken while the weights "
        "change, with dropout and augmentation: it may be the lower one.)"
    )
    return Statement("underfitting", ADVICE, text)


def _rising(curves):
    accuracy, name = curves.accuracy
    if _trend(accuracy[curves.recent]) <= 0:
        return None
    first, last = accuracy[curves.recent][[0, -1]]
    text = (
        f"The {name} is still rising: from {first:.1%} to {last:.1%} over the last {curves.window} epochs. Train longer"
    )
    if curves.lr[-1] < 0.1 * curves.lr.max():
        text += f", with a schedule laid out for more epochs: the learning rate has come down to {curves.lr[-1]:.2g}"
    return Statement("rising", ADVICE, f"{text}.")


def _plateau(curves):
    if not curves.flat:
        return None
    (accuracy, name), loss = curves.accuracy, curves.train_loss[curves.recent]
    low, high = accuracy[curves.recent].min(), accuracy[curves.recent].max()
    text = (
        f"A plateau: over the last {curves.window} epochs the {name} stayed between {low:.1%} and {high:.1%}, and the "
        f"training loss went from {loss[0]:.3g} to {loss[-1]:.3g}. "
    )
    if curves.lr[-1] < 0.1 * curves.lr.max():
        text += f"The learning rate has come down to {curves.lr[-1]:.2g}: this is what the schedule gives."
    else:
        text += f"Lower the learning rate, {curves.lr[-1]:.2g}, or stop."
    return Statement("plateau", ADVICE, text)


def _not_finite(layers, weights):
    lost = [(kind, entry) for kind, entries in (("outputs", layers), ("gradient", weights)) for entry in entries]
    lost = [f"{kind} of {entry['name']} ({entry['nonfinite']:,})" for kind, entry in lost if entry["nonfinite"]]
    if lost:
        text = f"Values that are no numbers: {_listed(lost)}. Lower the learning rate, or clip the gradients."
        return Statement("not finite", WARNING, text)


def _many(layers, share, what, advice):
    """A warning of layers where a large share of the units is dead, or of the outputs saturated."""
    affected = [layer for layer in layers if (layer[share] or 0) > _SHARE]
    if affected:
        affected.sort(key=lambda layer: -layer[share])
        names = _listed([f"{layer[share]:.0%} of layer {layer['name']}" for layer in affected])
        text = f"{what}: {names}. What may help: {advice}, or batch normalisation."
        return Statement(share, WARNING if affected[0][share] > 0.5 else ADVICE, text)


def _updates(record):
    ratios = {weight["name"]: weight["update_ratio"] for weight in record["weights"]}
    ratios = {name: ratio for name, ratio in ratios.items() if ratio is not None}
    if not ratios:
        return None
    middle = float(np.median(list(ratios.values())))
    least, most = (f"{name} {ratios[name]:.1g}" for name in (min(ratios, key=ratios.get), max(ratios, key=ratios.get)))
    numbers = (
        f"In epoch {record['epoch']}, at a learning rate of {record['lr']:.2g}, a step changed the weights by "
        f"{middle:.1g} of their norm in the median layer ({least} to {most}); about 1e-3 is healthy"
    )
    low, high = UPDATES
    if low <= middle <= high:
        return Statement("updates", GOOD, f"{numbers}.")
    advice = "lower the learning rate" if middle > high else "the learning rate may be higher"
    return Statement("updates", ADVICE, f"{numbers}: {advice}.")


def _settled(curves):
    accuracy, name = curves.accuracy
    best = int(accuracy.argmax())
    text = f"Nothing stands out: the {name} is {accuracy[-1]:.1%}, at best {accuracy[best]:.1%} after epoch "
    return Statement("settled", GOOD, f"{text}{curves.epochs[best]}.")


def _trend(values):
    """By how much the values rise (or, below 0, fall) along the line that fits them best; 0 where it is not clear."""
    x = np.arange(len(values)) - (len(values) - 1) / 2
    slope = (x @ values) / (x @ x)
    rest = values - values.mean() - slope * x
    error = math.sqrt(rest @ rest / max(1, len(values) - 2) / (x @ x))
    rise = slope * (len(values) - 1)
    return float(rise) if abs(rise) > _STEADY and abs(slope) > _CLEAR * error else 0.0


def _listed(words, most=5):
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def _points(share):
    return f"{100 * share:.1f} percentage points"


def _number(value):
    return f"{value:.3g}" if math.isfinite(value) else "no number"


def _count(count, noun):
    return f"{count} {noun}" + "s" * (count != 1)
