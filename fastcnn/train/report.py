"""`report.html`: a page about a run, made from its folder; it holds all it shows and fetches nothing."""

import html
import math
import pathlib
from dataclasses import dataclass, field, replace

import numpy as np

import fastcnn
from fastcnn import data, nn
from fastcnn.layers import device
from fastcnn.train import files, monitor, reading, recipe
from fastcnn.train.datasets import dataset_of
from fastcnn.train.ensemble import Ensemble
from fastcnn.train.plots import Line, by_depth, image_grid, line_plot, picture, series, spread_plot
from fastcnn.train.range_test import RangeTest
from fastcnn.train.run import Run, load_run, read_config, read_metrics, read_range_test

FILE = "report.html"

_IMAGES = 10_000  # that the net classifies, at most, and within so many
_FLOPS = 2e12  # floating-point operations
_CLASSES = 20  # up to which the confusion matrix is shown
_WORST = 16
_FILTERS = 64
_STYLE = pathlib.Path(__file__).with_name("report.css")


@dataclass
class _Sources:
    """What there is of a run; `missing` says why a part of it is not there."""

    path: pathlib.Path
    config: dict
    metrics: list
    records: list
    rates: RangeTest | None
    run: Run | None
    dataset: data.Dataset | None
    missing: dict = field(default_factory=dict)

    @property
    def options(self):
        return self.config.get("options", {})

    @property
    def classes(self):
        return len(self.config.get("dataset", {}).get("classes", ())) or None

    @property
    def evaluated_on(self):
        return "validation" if self.options.get("validation") else "test"

    @property
    def loss(self):
        return self.options.get("loss", "softmax")

    @property
    def began_trained(self):
        """Whether the scores told of the classes before the first step: of weights whose head was kept."""
        return self.options.get("weights") is not None and self.options.get("head") == "keep"


def write_report(path, dataset=None):
    """Write `report.html` into the folder of a run; of a run that is under way, or was killed, from what there is.

    Parameters
    ----------
    path : folder of the run
    dataset : data.Dataset or None
        That of the run; by default it is loaded from where the run had it; if it is gone, what needs it is left out.

    Returns
    -------
    file : pathlib.Path
    statements : list of reading.Statement, the reading of the run

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no run in the folder, or its config.json is damaged.
    """
    sources = _gather(pathlib.Path(path), dataset)
    statements = _read(sources)
    file = sources.path / FILE
    files.replace(file, _page(sources, statements).encode())
    return file, statements


def command(arguments):
    """`fastcnn report`: write the page, print what the run says; returns the exit status."""
    if arguments.threads:
        fastcnn.set_num_threads(arguments.threads)
    config = read_config(arguments.folder)
    dataset = None if arguments.data is None else dataset_of(config, arguments.data)
    with fastcnn.backend(arguments.backend):
        file, statements = write_report(arguments.folder, dataset)
    for statement in statements:
        print(f"{statement.kind}: {statement.text}")
    print(file)
    return 0


def _read(sources):
    """The `reading.Statement`s about the run."""
    if sources.options.get("find_lr"):
        return [] if sources.rates is None else [reading.read_range_test(sources.rates)]
    first = next((r["loss"] for r in sources.records if (r["epoch"], r["step"]) == (1, 1)), None)
    if sources.began_trained:
        first = None
    settings = sources.classes, first, sources.options.get("epochs"), sources.evaluated_on, sources.loss
    error = sources.path / "error.txt"
    ended = (
        [reading.Statement("error", reading.WARNING, error.read_text(encoding="utf-8").strip())]
        if error.exists()
        else []
    )
    return ended + reading.read(sources.metrics, *settings) + reading.read_layers(sources.records)


def _gather(path, dataset):
    config, missing = read_config(path), {}

    def attempt(name, function, default, *arguments):
        try:
            return function(*arguments)
        except (OSError, ValueError, TypeError, KeyError, ImportError) as error:
            missing[name] = str(error)
            return default

    metrics = attempt("metrics", read_metrics, [], path)
    records = attempt("records", monitor.read_records, [], path)
    rates = attempt("rates", read_range_test, None, path) if config.get("options", {}).get("find_lr") else None
    run = attempt("run", load_run, None, path)
    if dataset is None:
        dataset = attempt("dataset", dataset_of, None, config)
    return _Sources(path, config, metrics, records, rates, run, dataset, missing)


# ---- the page


def _page(sources, statements):
    title = _title(sources.config)
    sections = [(name, make(sources)) for name, make in _SECTIONS]
    links = "".join(f'<a href="#{_anchor(name)}">{name}</a>' for name, _ in sections)
    body = "".join(f'<section><h2 id="{_anchor(name)}">{name}</h2>{content}</section>' for name, content in sections)
    items = "".join(f'<li class="{s.kind}"><b>{s.kind}</b> {_escape(s.text)}</li>' for s in statements)
    nothing = "The range test is not complete." if sources.options.get("find_lr") else "No epoch is complete yet."
    said = f'<ul class="reading">{items}</ul>' if items else _missing(nothing)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_escape(title)}</title><style>\n{_STYLE.read_text(encoding='utf-8')}</style></head><body>\n"
        f'<h1>{_escape(title)}</h1><p class="faint">{_escape(_state(sources))}</p><nav>{links}</nav>\n'
        f'<section><h2 id="reading">What the run says</h2>{said}{_facts(sources)}</section>\n{body}</body></html>\n'
    )


def _title(config):
    return f"{config.get('net', {}).get('name', 'net')} on {config.get('dataset', {}).get('name', 'images')}"


def _state(sources):
    if sources.options.get("find_lr"):
        return f"{sources.path.resolve().name}: a range test of learning rates, instead of training"
    epochs, planned = len(sources.metrics), sources.options.get("epochs")
    return f"run {sources.path.resolve().name}: {epochs} of {planned or epochs} epochs are complete"


def _facts(sources):
    """Settings and results, as a list of names and values."""
    config, metrics, options = sources.config, sources.metrics, sources.options
    described, facts = config.get("dataset", {}), {}
    facts["net"] = _with_net(config.get("net", {}))
    facts["parameters"] = f"{config.get('parameters', 0):,}"
    shape = " x ".join(map(str, described.get("image_shape", ())))
    facts["data"] = f"{described.get('name')}, images of {shape}, {sources.classes} classes"
    facts["images"] = f"{described.get('training_images', 0):,} training, {described.get('test_images', 0):,} test"
    facts["preprocessing"] = config.get("preprocess", {}).get("name")
    facts["optimizer"] = _with_options(config.get("optimizer", {}))
    for name in ("schedule", "warm_up", "loss", "label_smoothing", "batch_size", "augment", "validation", "patience"):
        if options.get(name):
            facts[name.replace("_", " ")] = options[name]
    facts["seed"], facts["dtype"], facts["backend"] = (options.get(name) for name in ("seed", "dtype", "backend"))
    if metrics:
        last = metrics[-1]
        facts["training"] = f"{last.train_accuracy:.2%} accuracy, loss {last.train_loss:.4g} in the last epoch"
        evaluated = [m for m in metrics if m.eval_accuracy is not None]
        if evaluated:
            best = max(evaluated, key=lambda m: m.eval_accuracy)
            facts[f"best {sources.evaluated_on}"] = f"{best.eval_accuracy:.2%} accuracy, after epoch {best.epoch}"
            facts[f"last {sources.evaluated_on}"] = f"{evaluated[-1].eval_accuracy:.2%} accuracy"
        seconds = sum(m.seconds for m in metrics)
        facts["time"] = (
            f"{_duration(seconds)} of training, {np.median([m.images_per_second for m in metrics]):,.0f} images/s"
        )
    facts["fastcnn"] = config.get("fastcnn")
    rows = (f"<div><dt>{_escape(k)}</dt><dd>{_escape(v)}</dd></div>" for k, v in facts.items() if v not in (None, ""))
    return f"<dl>{''.join(rows)}</dl>"


def _with_net(network):
    """The net with its options, and the head that it was given."""
    own = {name: value for name, value in network.items() if name != "head"}
    return f"{_with_options(own)}{recipe.head_in_words(network)}"


def _with_options(described):
    """A name with its options: what config.json says of a net or an optimizer."""
    options = {k: v for k, v in described.items() if k not in ("name", "options")} | described.get("options", {})
    named = {k.replace("_", " "): v for k, v in options.items() if v not in (None, False, [], "")}
    said = ", ".join(k if v is True else f"{k} {v}" for k, v in named.items())
    return f"{described.get('name')}{f' ({said})' if said else ''}"


def _duration(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


# ---- curves


def _curves(sources):
    metrics = sources.metrics
    if sources.options.get("find_lr"):
        return _range_test(sources)
    if not metrics:
        return _missing(sources.missing.get("metrics", "No epoch is complete yet."))
    epochs, plots = [m.epoch for m in metrics], []
    for quantity in ("loss", "accuracy"):
        lines = [Line("training", epochs, [getattr(m, f"train_{quantity}") for m in metrics], series(0))]
        evaluated = [getattr(m, f"eval_{quantity}") for m in metrics]
        if any(value is not None for value in evaluated):
            lines.append(Line(sources.evaluated_on, epochs, evaluated, series(1)))
        plots.append(_figure(line_plot(lines, "epoch", quantity, limits=(0,) if quantity == "loss" else ())))
    rates = Line("learning rate", epochs, [m.lr for m in metrics], series(2))
    plots.append(_figure(line_plot([rates], "epoch", "learning rate", limits=(0,), legend=False)))
    steps = [r for r in sources.records if r["loss"] is not None]
    if steps:
        losses = Line("loss", [r["at"] for r in steps], [r["loss"] for r in steps], series(3))
        lines = [losses]
        if sources.classes:
            ends = [steps[0]["at"], max(steps[-1]["at"], 1)]
            equal = reading.expected_loss(sources.classes, sources.loss)
            lines.append(Line("of equal scores", ends, [equal] * 2, "var(--faint)"))
        plots.append(_figure(line_plot(lines, "epochs passed", "loss of single batches", limits=(0,))))
    text = "Training values are averages over an epoch, while the weights change; the others are taken after it."
    return f"<p>{text}</p>{_plots(plots, 'curves')}"


def _range_test(sources):
    """The loss over the learning rates."""
    if sources.rates is None:
        return _missing(sources.missing["rates"])
    powers = np.log10(sources.rates.rates).tolist()
    lines = [
        Line("loss of a batch", powers, sources.rates.losses, series(3)),
        Line("smoothed", powers, sources.rates.smoothed, series(0)),
    ]
    top = 2 * sources.rates.smoothed[0]  # past which a loss that has no bounds would hide the others
    lines = [replace(line, y=[loss if loss <= top else None for loss in line.y]) for line in lines]
    plot = line_plot(lines, "learning rate, as a power of 10", "loss", (1160, 300), limits=(0,))
    return f"<p>A copy of the net is trained while the rate rises from step to step.</p>{_figure(plot)}"


# ---- layers


def _activations(sources):
    records = sources.records
    if not records:
        return _no_records(sources)
    text = (
        "What each layer gives, for one batch in each epoch. Outputs should neither fade to nothing nor grow from one "
        "layer to the next. The panels show how outputs are spread (the middle half dark, 90 % light, the median a "
        "line) over the epochs passed, and at the right their last histogram."
    )
    overview = _plot_over_depth(records, "layers", "std", "standard deviation")
    return f"<p>{text}</p>{_figure(overview)}{_panels(records, 'layers', _layer_caption)}"


def _gradients(sources):
    records = sources.records
    if not records:
        return _no_records(sources)
    text = (
        "Gradients of the loss for the weights, before clipping and without weight decay, of the same batches. They "
        "should be of a similar size from the first layer to the last: neither vanish nor explode."
    )
    overview = _plot_over_depth(records, "weights", "gradient_norm", "norm of the gradient")
    return f"<p>{text}</p>{_figure(overview)}{_panels(records, 'weights', _weight_caption)}"


def _plot_over_depth(records, kind, key, ylabel):
    """A line over the layers, or weights, for the first record, one in the middle, and the last."""
    names, lines = [entry["name"] for entry in records[-1][kind]], []
    for color, i in enumerate(sorted({0, len(records) // 2, len(records) - 1})):
        values = {entry["name"]: entry[key] for entry in records[i][kind]}  # of what was learned then
        label = f"epoch {records[i]['epoch']}, step {records[i]['step']}"
        lines.append(Line(label, range(len(names)), [values.get(name) for name in names], series(color)))
    return line_plot(lines, "layers in forward order", ylabel, (1160, 270), log=True, names=names)


def _panels(records, kind, caption):
    """A small plot of each layer's, or weight's, histograms over time."""
    panels = []
    for last in records[-1][kind]:
        found = [(r["at"], e) for r in records for e in r[kind] if e["name"] == last["name"]]
        times, entries = zip(*found, strict=True)
        panels.append(_figure(spread_plot(times, [e["histogram"] for e in entries]), caption(last)))
    return _plots(panels, "small")


def _layer_name(layer):
    return f"{layer['name']} {layer['kind']}"


def _layer_caption(layer):
    return f"{_layer_name(layer)}: mean {_number(layer['mean'])}, std {_number(layer['std'])}"


def _weight_caption(weight):
    return f"{weight['name']}: norm {_number(weight['gradient_norm'])}"


def _updates(sources):
    records = sources.records
    if not records:
        return _no_records(sources)
    low, high = reading.UPDATES
    lines = _over_time(records, "weights", "update_ratio")
    band = (low, high, "healthy: about 1e-3")
    plot = _plot_over_time(lines, "||dw|| / ||w|| of a step", log=True, band=band)
    text = (
        "How far one step changes the weights of each layer, relative to their norm; from the first layer (blue) to "
        "the last (red). Ratios fall with the learning rate; above the band it is probably too high, below it too low."
    )
    return f"<p>{text}</p>{_figure(plot)}"


def _inactive(sources):
    records = sources.records
    if not records:
        return _no_records(sources)
    content = ""
    for key, text in (
        (
            "dead",
            "Units (channels or neurons) after a ReLU that give 0 for every image of the batch: they learn nothing.",
        ),
        ("saturated", "Outputs at the ends of a sigmoid or tanh, where the slope is nearly 0: little gradient passes."),
    ):
        lines = _over_time(records, "layers", key)
        if not lines:
            continue
        content += f"<p>{text} "
        if not any(value for line in lines for value in line.y):
            content += "There were none.</p>"
            continue
        worst = max((layer for layer in records[-1]["layers"] if layer[key] is not None), key=lambda layer: layer[key])
        content += f"At the last look the largest share is {worst[key]:.1%}, that of {_layer_name(worst)}.</p>"
        content += _figure(_plot_over_time(lines, f"{key} share", limits=(0, 1)))
    return content or _missing("The net has neither ReLU nor sigmoid or tanh.")


def _over_time(records, kind, key):
    """A line for each layer, or weight, over the records; those without any value are left out."""
    names = [entry["name"] for entry in records[-1][kind]]
    values = {name: [next((e[key] for e in r[kind] if e["name"] == name), None) for r in records] for name in names}
    values = {name: row for name, row in values.items() if any(value is not None for value in row)}
    times = [record["at"] for record in records]
    return [Line(name, times, row, by_depth(i, len(values))) for i, (name, row) in enumerate(values.items())]


def _plot_over_time(lines, ylabel, **options):
    return line_plot(lines, "epochs passed", ylabel, (1160, 300), legend=len(lines) <= 6, **options)


def _all_numbers(sources):
    """A table of the last record."""
    if not sources.records:
        return _no_records(sources)
    last = sources.records[-1]
    layers = [
        [layer["name"], layer["kind"], layer["units"], *(_number(layer[k]) for k in ("mean", "std")),
         *("" if layer[k] is None else f"{layer[k]:.1%}" for k in ("dead", "saturated"))]
        for layer in last["layers"]
    ]  # fmt: skip
    keys = ("norm", "gradient_norm", "update_ratio")
    weights = [[weight["name"], *(_number(weight[k]) for k in keys)] for weight in last["weights"]]
    outputs = _table(("layer", "kind", "units", "mean", "std", "dead", "saturated"), layers, text=2)
    changes = _table(("weight", "norm", "gradient's norm", "update / weight"), weights)
    about = f"Epoch {last['epoch']}, step {last['step']}, learning rate {_number(last['lr'])}"
    return f'<details><summary>{about}</summary><div class="side wide">{outputs}{changes}</div></details>'


def _no_records(sources):
    return _missing(
        sources.missing.get("records", f"The run has no {monitor.Monitor.FILE}: nobody watched the layers.")
    )


# ---- the net on images


def _filters(sources):
    if sources.run is None:
        return _missing(sources.missing["run"])
    filters = first_filters(sources.run.net, sources.run.image_shape)
    if filters is None:
        return _missing("The first layer's weights are no images.")
    count, height, width, channels = filters.shape
    shown = (
        filters[:_FILTERS]
        if channels in (1, 3)
        else np.moveaxis(filters, 3, 1).reshape(-1, height, width, 1)[:_FILTERS]
    )
    scale = max(1, 56 // width)
    which = f"The {count} filters" if len(shown) >= count else f"{len(shown)} of the {count} filters"
    apart = "" if channels in (1, 3) else ", each channel by itself"
    text = (
        f"{which} of the first layer, {height} x {width} pixels{apart}; each from its least value, black, to its "
        "largest, white. Smooth and varied patterns are a good sign; noise speaks for too little training, or too "
        "little regularisation."
    )
    columns = min(16, len(shown), 1100 // (width * scale + 4))
    return f'<p>{text}</p><div class="tiles">{image_grid(_stretched(shown), columns, scale, gap=4)}</div>'


def first_filters(net, image_shape):
    """The weights of the first layer that has such, as images (N, H, W, C); None if they cannot be."""
    layer = next((module for module in net.modules() if isinstance(module, (nn.Conv2d, nn.Linear))), None)
    if isinstance(layer, nn.Conv2d):
        return np.moveaxis(device.to_host(layer.weight.data), 1, 3)
    if layer is not None and layer.weight.data.shape[0] == math.prod(image_shape):
        return np.moveaxis(device.to_host(layer.weight.data).T.reshape(-1, *image_shape), 1, 3)
    return None


def _stretched(images):
    """Each image from its least value, 0, to its largest, 255; uint8."""
    axes = (1, 2, 3)
    images = np.nan_to_num(images.astype(np.float64))
    low, high = images.min(axis=axes, keepdims=True), images.max(axis=axes, keepdims=True)
    return (255 * ((images - low) / np.where(high > low, high - low, 1))).astype(np.uint8)


def _mistakes(sources):
    run, dataset = sources.run, sources.dataset
    if run is None or dataset is None:
        return _missing(sources.missing["run" if run is None else "dataset"])
    x, y = _held_out(sources)
    if not len(x) or x.shape[1:] != run.image_shape:
        return _missing(f"There are no {sources.evaluated_on} images for this net.")
    chosen = np.unique(np.linspace(0, len(x) - 1, min(_affordable(run), len(x))).astype(int))
    x, y = x[chosen], y[chosen]
    if fastcnn.get_backend() == "cuda":
        fastcnn.to_device(run.net)
    with np.errstate(invalid="ignore"):  # of a net that diverged
        probabilities = Ensemble([run]).predict(x)
    lost = np.count_nonzero(~np.isfinite(probabilities).all(axis=1))
    if lost:
        return _missing(
            f"For {lost:,} of {len(y):,} {sources.evaluated_on} images the scores of the net are no numbers."
        )
    answers, names = probabilities.argmax(axis=1), run.class_names
    matrix = np.zeros((len(names), len(names)), int)
    np.add.at(matrix, (y, answers), 1)
    right = np.trace(matrix) / len(y)
    text = f"The weights of the folder classify {right:.2%} of {len(y):,} {sources.evaluated_on} images correctly."
    content = f'<p>{text}</p><div class="side">'
    if len(names) <= _CLASSES:
        content += _matrix(matrix, names)
    content += _confused(matrix, names) + "</div>"
    own = probabilities[np.arange(len(y)), y]
    worst = [i for i in np.argsort(own, kind="stable")[:_WORST] if answers[i] != y[i]]
    if worst:
        figures = [_figure(_thumbnail(x[i]), _verdict(names, y[i], answers[i], probabilities[i])) for i in worst]
        content += f"<p>The images whose own class the net finds the least probable:</p>{_plots(figures, 'images')}"
    return content


def _affordable(run):
    """How many images the net may classify for the page: less than half a minute of work."""
    flops = sum(row.flops for row in run.net.summary(run.image_shape).rows)
    return max(100, min(_IMAGES, int(_FLOPS / max(1, flops))))


def _held_out(sources):
    """The images and labels that the curves were evaluated on: those held out, or the test data."""
    fraction, dataset = sources.options.get("validation"), sources.dataset
    if not fraction:
        return dataset.x_test, dataset.y_test
    _, *held_out = dataset.split_validation(fraction, sources.options.get("seed", 0))
    return held_out


def _matrix(matrix, names):
    """The confusion matrix; the stronger a cell's colour, the larger its share of the row."""
    head = "".join(f"<th><span>{_escape(name)}</span></th>" for name in names)
    rows = ""
    for name, row in zip(names, matrix, strict=True):
        cells = "".join(f'<td style="{_tint(n / max(1, row.sum()))}">{n or ""}</td>' for n in row)
        rows += f'<tr><th class="text">{_escape(name)}</th>{cells}</tr>'
    table = f'<table class="matrix"><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table>'
    return f'<div class="wide"><p>Rows are true classes, columns the answers of the net.</p>{table}</div>'


def _tint(share):
    return f"background: rgba(var(--cell), {math.sqrt(share) * 0.7:.2f})"


def _confused(matrix, names, count=10):
    """The pairs that are mistaken for each other most often."""
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    pairs = [np.unravel_index(i, wrong.shape) for i in order]
    rows = [(names[a], names[b], wrong[a, b], f"{wrong[a, b] / matrix[a].sum():.1%}") for a, b in pairs if wrong[a, b]]
    table = _table(("true class", "taken for", "images", "of the class"), rows, text=2)
    return f"<div><p>Most frequent mistakes:</p>{table}</div>" if rows else ""


def _thumbnail(image):
    """An image (C, H, W) of about 112 pixels."""
    pixels = np.moveaxis(image, 0, 2) if len(image) in (1, 3) else image[0, :, :, None]
    step, scale = max(1, round(pixels.shape[1] / 112)), max(1, 112 // pixels.shape[1])
    pixels = pixels[::step, ::step].repeat(scale, axis=0).repeat(scale, axis=1)
    return picture(pixels, "image")


def _verdict(names, own, answer, probabilities):
    return f"{names[own]} ({probabilities[own]:.1%}), taken for {names[answer]} ({probabilities[answer]:.1%})"


_SECTIONS = (
    ("Curves", _curves),
    ("Activations", _activations),
    ("Dead and saturated units", _inactive),
    ("Gradients", _gradients),
    ("Updates", _updates),
    ("First-layer filters", _filters),
    ("Mistakes", _mistakes),
    ("All numbers of the last look", _all_numbers),
)


# ---- pieces of HTML


def _figure(content, caption=""):
    return f"<figure>{content}{f'<figcaption>{_escape(caption)}</figcaption>' if caption else ''}</figure>"


def _plots(figures, kind):
    return f'<div class="plots {kind}">{"".join(figures)}</div>'


def _table(head, rows, text=1):
    """A table whose first `text` columns are text, the others numbers."""

    def cells(tag, row):
        return "".join(f"<{tag}{' class=text' if i < text else ''}>{_escape(v)}</{tag}>" for i, v in enumerate(row))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{cells('th', head)}</tr></thead><tbody>{body}</tbody></table>"


def _missing(why):
    return f'<p class="missing">{_escape(why)}</p>'


def _number(value):
    return "-" if value is None else f"{value:.3g}"


def _anchor(name):
    return name.lower().replace(" ", "-")


def _escape(value):
    return html.escape(str(value))
