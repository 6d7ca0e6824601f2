"""What a training begins with: a net and a preprocessing made anew, or those of weights that there are."""

import numpy as np

import fastcnn
from fastcnn import data, nn
from fastcnn.train import recipe
from fastcnn.train.datasets import load_dataset, with_channels
from fastcnn.train.run import RunFolder, preprocessing
from fastcnn.train.weights import load_tensors, read_source


class Anew:
    """Random weights, and a preprocessing fitted to the training images: as the options of `fastcnn train` say."""

    def __init__(self, arguments):
        self.arguments = arguments

    def dataset(self):
        """The `data.Dataset`."""
        arguments = self.arguments
        return load_dataset(arguments.data, arguments.image_size, arguments.on_bad_image, arguments.seed)

    def net(self, dataset):
        """The net for the images of a data set.

        Returns
        -------
        network : dict, what config.json has about it
        net : nn.Module, where it is to compute
        preprocess : the preprocessing
        """
        preprocess = self._preprocess(dataset.x_train)
        network, net = self._net(
            dataset.x_train.shape[1:], dataset.class_names, self.arguments.seed, np.dtype(self.arguments.dtype).type
        )
        if self.arguments.backend == "cuda":
            fastcnn.to_device(net)
        return network, net, preprocess

    def groups(self, net):
        """Groups of parameters with options of their own, for the optimizer."""
        return ()

    def learned_stages(self, net):
        """That argument of a `Trainer`."""
        return None

    def describe(self, net):
        """Lines that say what the training begins with, beside the network."""
        return []

    def _preprocess(self, x):
        return preprocessing(self.arguments.preprocess).fit(x)

    def _net(self, shape, class_names, *seed_and_dtype):
        given = {"width": self.arguments.width, "drop": self.arguments.drop}
        network = recipe.network(self.arguments.net, shape, given, self.arguments.net_option or ())
        return network, recipe.build(shape, len(class_names), *seed_and_dtype, **network)


class FromWeights(Anew):
    """The net and the preprocessing of a `weights.Source`, as the options of `fastcnn finetune` say.

    Parameters
    ----------
    arguments : their namespace
    path : of the weights
    as_it_is : bool, whether the net is the one to be trained already, its head included
    """

    def __init__(self, arguments, path, as_it_is=False):
        super().__init__(arguments)
        self.path, self.as_it_is = path, as_it_is
        self.source = read_source(path, arguments.net, arguments.net_option or ())

    def dataset(self):
        arguments, size = self.arguments, self.arguments.image_size
        if size is None and arguments.data is not None and data.takes_size(arguments.data):
            size = self.source.image_size
        dataset = load_dataset(arguments.data, size, arguments.on_bad_image, arguments.seed)
        return with_channels(dataset, self.source.channels or dataset.x_train.shape[1])

    def groups(self, net):
        return () if self.arguments.lr_factor == 1 else nn.layerwise_rates(net, self.arguments.lr_factor)

    def learned_stages(self, net):
        count, freeze, after = len(nn.stages(net)), self.arguments.freeze, self.arguments.unfreeze_after
        begin = {"backbone": 1, "none": count}.get(freeze)
        if begin is None:
            if not freeze < count:
                raise ValueError(f"--freeze: expected fewer than the net's {count} stages, got {freeze}")
            begin = count - freeze

        def learned(epochs):
            if after is None:
                return begin
            if self.arguments.gradually:
                return min(count, begin + epochs // after)
            return begin if epochs < after else count

        return learned

    def describe(self, net):
        learned = sum(parameter.data.size for _, parameter in net.named_parameters() if parameter.trainable)
        head = "kept" if self._keeps_head else "new"
        return [f"weights from {self.path}, the head is {head}; {learned:,} parameters are learned at first"]

    def _preprocess(self, x):
        if self.arguments.preprocess is not None:
            return super()._preprocess(x)
        preprocess = self.source.preprocess or data.Standardize.fit(x)
        preprocess.apply(x[:1])  # what was fitted to images of another size may not fit
        return preprocess

    def _net(self, shape, class_names, *seed_and_dtype):
        network = self.source.network_for(shape)
        if self.arguments.head is None and not self.as_it_is:
            self.arguments.head = "keep" if self.source.has_classes(class_names) else "linear"
        head = self.arguments.head
        self._keeps_head = self.as_it_is or head == "keep"
        if not self._keeps_head:
            network["head"] = {}  # also of one affine layer: its numbers are not those that the source began with
            if head == "mlp":
                hidden, drop = self.arguments.head_hidden, self.arguments.head_drop
                network["head"] = {"hidden": hidden or [256], "drop": 0.5 if drop is None else drop}
        net = recipe.build(shape, len(class_names), *seed_and_dtype, **network)
        try:
            load_tensors(net, self.source.tensors, "load" if self._keeps_head else "skip")
        except ValueError as error:
            advice = "; --head linear puts a new one on" if self._keeps_head else ""
            raise ValueError(f"{self.path}: {error}{advice}") from error
        return network, net


def beginning(arguments, folder=None):
    """What the training of these options begins with; `folder`: of the run that goes on.

    That is its own weights once it has a checkpoint, without which it begins again with those that it began with.
    """
    weights = vars(arguments).get("weights")
    if weights is None:
        return Anew(arguments)
    if folder is None:
        return FromWeights(arguments, weights)
    if RunFolder.checkpoint_of(folder).is_file() and (folder / "weights.safetensors").is_file():
        return FromWeights(arguments, folder, as_it_is=True)
    try:
        return FromWeights(arguments, weights)
    except FileNotFoundError as error:
        message = f"{error}; the run in {folder}, stopped in its first epoch, needs these weights to go on"
        raise FileNotFoundError(message) from error
