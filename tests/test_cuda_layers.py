"""The layer functions, nets and training on arrays of a GPU: the simulator's, against the same on the host."""

import json

import pytest
from test_cuda_values import simulate


def on_simulator(run_python, code, **options):
    """Run code on the simulator, with what most of these tests need."""
    head = """
        import numpy as np
        import fastcnn
        from fastcnn import layers, to_device, to_host
        from fastcnn.layers.device import is_device
        rng = np.random.default_rng(0)
        def normal(*shape):
            return rng.standard_normal(shape).astype(np.float32)
        def flat(value):
            if isinstance(value, (tuple, list)):
                return [item for part in value for item in flat(part)]
            return [value]
        def same(on_device, on_host, limit=1e-5):
            for ours, theirs in zip(flat(on_device), flat(on_host), strict=True):
                if isinstance(theirs, np.ndarray):
                    assert is_device(ours), type(ours)
                    assert ours.dtype == theirs.dtype and tuple(ours.shape) == theirs.shape
                    np.testing.assert_allclose(to_host(ours), theirs, rtol=limit, atol=limit)
                elif isinstance(theirs, float):
                    assert abs(float(ours) - theirs) < limit * max(1, abs(theirs))
    """
    return simulate(run_python, head.rstrip() + "\n" + code, **options)


CASES = {  # (the layer, its arguments)
    "affine": ("affine", "normal(3, 2, 4), normal(8, 5), normal(5)"),
    "affine_relu": ("affine_relu", "normal(3, 2, 4), normal(8, 5), normal(5)"),
    "conv": ("conv", "normal(2, 2, 5, 4), normal(3, 2, 3, 3), normal(3), dict(stride=1, pad=1)"),
    "conv_relu": ("conv_relu", "normal(1, 2, 5, 4), normal(3, 2, 3, 3), normal(3), dict(stride=2, pad=1)"),
    "conv_bn_relu": (
        "conv_bn_relu",
        "normal(2, 2, 3, 4), normal(3, 2, 3, 3), normal(3), normal(3), normal(3), dict(stride=1, pad=1), "
        "dict(mode='train')",
    ),
    "max_pool": ("max_pool", "normal(2, 2, 6, 4), dict(pool_height=2, pool_width=2, stride=2)"),
    "avg_pool": ("avg_pool", "normal(2, 2, 6, 4), dict(pool_height=3, pool_width=2, stride=2)"),
    "global_avg_pool": ("global_avg_pool", "normal(2, 3, 4, 5)"),
    "relu": ("relu", "normal(2, 3, 4)"),
    "leaky_relu": ("leaky_relu", "normal(2, 3, 4), 0.2"),
    "prelu": ("prelu", "normal(2, 3, 4), normal(3)"),
    "elu": ("elu", "normal(7)"),
    "gelu": ("gelu", "normal(7), 'tanh'"),
    "sigmoid": ("sigmoid", "normal(7)"),
    "tanh": ("tanh", "normal(7)"),
    "maxout": ("maxout", "normal(2, 6, 3), 2"),
    "add": ("add", "normal(2, 3), normal(2, 3)"),
    "add_relu": ("add_relu", "normal(2, 3), normal(2, 3)"),
    "flatten": ("flatten", "normal(2, 3, 4)"),
    "batchnorm": ("batchnorm", "normal(5, 3), normal(3), normal(3), dict(mode='train')"),
    "batchnorm in test mode": ("batchnorm", "normal(5, 3), normal(3), normal(3), dict(mode='test')"),
    "spatial_batchnorm": ("spatial_batchnorm", "normal(2, 3, 4, 2), normal(3), normal(3), dict(mode='train')"),
    "layernorm": ("layernorm", "normal(5, 6), normal(6), normal(6), {}"),
    "spatial_groupnorm": (
        "spatial_groupnorm", "normal(2, 4, 3, 3), normal(1, 4, 1, 1), normal(1, 4, 1, 1), 2, {}",
    ),
    "dropout by key": ("dropout", "normal(40), dict(p=0.5, mode='train', key=7)"),
    "dropout without a mask": ("dropout", "normal(40), dict(p=0.5, mode='train', key=7, save_mask=False)"),
    "dropout by seed": ("dropout", "normal(40), dict(p=0.5, mode='train', seed=7)"),
    "vanilla dropout": ("dropout", "normal(40), dict(p=0.5, mode='train', key=7, inverted=False)"),
    "vanilla dropout in test mode": ("dropout", "normal(9), dict(p=0.5, mode='test', inverted=False)"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_layer_gives_on_the_gpu_what_it_gives_on_the_host(name, run_python):
    """Forward and backward, and what is written into a dictionary of parameters."""
    layer, arguments = CASES[name]
    on_simulator(
        run_python,
        f"""
        forward, backward, given = layers.{layer}_forward, layers.{layer}_backward, ({arguments},)
        there = [to_device(a) if isinstance(a, np.ndarray) else dict(a) if isinstance(a, dict) else a for a in given]
        expected, host_cache = forward(*given)
        found, cache = forward(*there)
        same(found, expected)
        dout = normal(*expected.shape)
        same(backward(to_device(dout), cache), backward(dout, host_cache), 1e-4)
        for ours, theirs in zip(there, given):
            if isinstance(theirs, dict):
                assert ours.keys() == theirs.keys()
                same(list(ours.values()), list(theirs.values()))
    """,
    )


def test_losses(run_python):
    on_simulator(
        run_python,
        """
        x, y = normal(5, 4), np.array([0, 3, 2, 1, 1])
        soft = rng.dirichlet(np.ones(4), 5).astype(np.float32)
        for function, target in ((layers.softmax_loss, y), (layers.softmax_loss, soft), (layers.svm_loss, y),
                                 (layers.softmax_loss, y.astype(np.uint8))):
            same(function(to_device(x), to_device(target)), function(x, target))
        binary = (soft > 0.3).astype(np.int32)
        loss = layers.binary_cross_entropy_loss
        same(loss(to_device(x), to_device(binary)), loss(x, binary))
        loss, dx = layers.softmax_loss(to_device(x), to_device(y + 1))  # is not read here
        try:
            float(loss)
        except ValueError as error:
            assert str(error).startswith("y: expected labels in [0, 4)"), error
        else:
            raise AssertionError("a label out of range was not noticed")
    """,
    )


def test_update_rules(run_python):
    on_simulator(
        run_python,
        """
        for rule in (layers.sgd, layers.sgd_momentum, layers.nesterov, layers.adagrad, layers.rmsprop, layers.adam,
                     layers.adamw):
            w, dw, ours, theirs = normal(9), normal(9), {}, {}
            there = to_device(w), to_device(dw)
            for _ in range(2):
                same(rule(*there, ours)[0], rule(w, dw, theirs)[0])
            assert ours.keys() == theirs.keys()
            same(list(ours.values()), list(theirs.values()))
    """,
    )


def test_out_and_strided_inputs(run_python):
    on_simulator(
        run_python,
        """
        x = normal(4, 6)
        there, out = to_device(x), to_device(np.full((4, 6), np.nan, np.float32))
        found, _ = layers.relu_forward(there, out=out)
        assert found is out
        same(out, np.maximum(x, 0))
        layers.relu_forward(there, out=there)  # in place
        same(there, np.maximum(x, 0))
        wide = to_device(normal(4, 12))
        host = to_host(wide)
        same(layers.relu_forward(wide[:, ::2])[0], np.maximum(host[:, ::2], 0))
        same(layers.relu_forward(wide.T)[0], np.maximum(host.T, 0))
        columns = wide[:, ::2]
        layers.relu_forward(to_device(x), out=columns)  # a result goes to memory of any layout
        same(wide[:, ::2], np.maximum(x, 0))
        same(wide[:, 1::2], host[:, 1::2])  # and nowhere else
        shifted = to_device(normal(1, 9))
        host = to_host(shifted)
        layers.softmax_loss(shifted[:, :8], to_device(np.zeros(1, int)), out=shifted[:, 1:])  # over its own input
        same(shifted[:, 1:], layers.softmax_loss(host[:, :8], np.zeros(1, int))[1])
    """,
    )


@pytest.mark.parametrize(
    "call, error, message",
    [
        ("layers.affine_forward(there, x, x[0])", "TypeError", "w: expected an array on the GPU, as the others"),
        ("layers.affine_forward(x, there, x[0])", "TypeError", "x: expected an array on the GPU, as the others"),
        ("layers.softmax_loss(there, np.zeros(4, int))", "TypeError", "y: expected an array on the GPU, as x"),
        ("layers.softmax_loss(x, to_device(np.zeros(4, int)))", "TypeError", "y: expected an array in the memory of"),
        ("layers.relu_forward(there, out=x)", "TypeError", "out: expected an array on the GPU"),
        ("layers.relu_forward(x, out=there)", "TypeError", "out: expected an array of float32"),
        ("layers.relu_forward(to_device(np.zeros(3, int)))", "TypeError", "x: expected float32 or float64, got int64"),
        ("layers.conv_forward(there, there, None)", "ValueError", "x: expected shape (N, C, H, W), got (4, 4)"),
        ("layers.softmax_loss(there, to_device(np.zeros(3, int)))", "ValueError", "y: expected shape (4,), got (3,)"),
    ],
)
def test_errors(call, error, message, run_python):
    on_simulator(
        run_python,
        f"""
        x = normal(4, 4)
        there = to_device(x)
        try:
            {call}
        except {error} as raised:
            assert {message!r} in str(raised), raised
        else:
            raise AssertionError("nothing was raised")
    """,
    )


def test_mixed_dtypes_are_computed_in_float64(run_python):
    on_simulator(
        run_python,
        """
        x, w, b = normal(3, 4).astype(np.float64), normal(4, 5), normal(5)
        same(layers.affine_forward(*map(to_device, (x, w, b)))[0], layers.affine_forward(x, w, b)[0], 1e-12)
    """,
    )


def test_a_net_is_moved_copied_and_saved(run_python):
    on_simulator(
        run_python,
        """
        import copy, pickle
        from fastcnn import nn
        def make():
            seed = np.random.default_rng(1)
            return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, bias=False, rng=seed), nn.BatchNorm2d(2, relu=True),
                                 nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3, rng=seed))
        host, net = make(), to_device(make())
        assert all(is_device(array) for array in net.state_dict().values())
        x = normal(2, 1, 4, 4)
        expected = host(x)
        same(net(to_device(x)), expected)
        dout = normal(2, 3)
        host.backward(dout), net.backward(to_device(dout))
        same([p.grad for _, p in net.named_parameters()], [p.grad for _, p in host.named_parameters()], 1e-4)
        same(list(net.state_dict().values()), list(host.state_dict().values()))
        host.eval(), net.eval()
        expected = host(x).copy()
        for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), net.inference()):
            same(twin(to_device(x)), expected)
        other = to_device(make())
        other.load_state_dict(host.state_dict())
        same(other.eval()(to_device(x)), expected)
        np.testing.assert_allclose(fastcnn.to_host(net)(x), expected, rtol=1e-5, atol=1e-5)
        try:
            to_device(make())(x)
        except TypeError as error:
            assert "on the GPU" in str(error), error
        else:
            raise AssertionError("host images went through a net on the GPU")
    """,
    )


def test_stateful_layers(run_python):
    """Output, gradients of parameters and input: on the GPU as on the host."""
    on_simulator(
        run_python,
        """
        import copy
        from fastcnn import nn
        images, rows = normal(2, 4, 3, 2), normal(3, 6)
        layers = [(nn.LayerNorm(6), rows), (nn.GroupNorm(2, 4), images), (nn.InstanceNorm2d(4), images),
                  (nn.PReLU(4), images), (nn.PReLU(), rows), (nn.GELU(), rows), (nn.Sigmoid(), rows),
                  (nn.Maxout(2), images), (nn.Identity(), rows)]
        for host, x in layers:
            there = to_device(copy.deepcopy(host))
            for gradients in (True, False):
                expected = host.eval(gradients)(x)
                same(there.eval(gradients)(to_device(x)), expected)
            host.train()(x), there.train()(to_device(x))
            dout = normal(*expected.shape)
            same(there.backward(to_device(dout)), host.backward(dout), 1e-4)
            same([p.grad for _, p in there.named_parameters()], [p.grad for _, p in host.named_parameters()], 1e-4)
        a, b = normal(3, 4), normal(3, 4)
        add = nn.Add()
        same(add(to_device(a), to_device(b), to_device(a)), a + b + a)
        same(list(add.backward(to_device(b))), [b] * 3)
    """,
    )


GROUPS = "groups=[optim.Group(optim.vectors, weight_decay=0), optim.Group('0.*', frozen=True)]"


@pytest.mark.parametrize(
    "options",
    [
        "momentum=0.9, nesterov=True, weight_decay=0.1",
        "clip_norm=0.5, l1=0.01",
        "clip_norm=0.5, clip_value=0.02, weight_decay=0.1",
        f"clip_norm=0.5, momentum=0.9, weight_decay=0.1, {GROUPS}",
    ],
)
def test_training_steps(options, run_python):
    on_simulator(
        run_python,
        f"""
        from fastcnn import nn, optim
        def make():
            seed = np.random.default_rng(1)
            return nn.Sequential(nn.Linear(6, 5, relu=True, rng=seed), nn.ReLU(), nn.Dropout(0.3, key=3),
                                 nn.Linear(5, 3, rng=seed))
        host, net = make(), to_device(make())
        flats = nn.FlatParameters(host), nn.FlatParameters(net)
        optimizers = [optim.SGD(flat, 0.1, {options}) for flat in flats]
        x, y = normal(4, 6), np.array([0, 2, 1, 1])
        for _ in range(3):
            for model, optimizer, images, labels in ((host, optimizers[0], x, y),
                                                     (net, optimizers[1], to_device(x), to_device(y))):
                loss, dscores = layers.softmax_loss(model(images), labels)
                model.backward(dscores, need_dx=False)
                optimizer.step()
        same(flats[1].data, flats[0].data, 1e-4)
        same(list(optimizers[1].state.values()), list(optimizers[0].state.values()), 1e-4)
        optimizers[1].load_state_dict(optimizers[0].state_dict())
        same(list(optimizers[1].state.values()), list(optimizers[0].state.values()), 0)
    """,
    )


def test_the_command_trains_on_the_gpu(run_python, tmp_path):
    """`fastcnn train --backend cuda` on a handful of small images; a later run on the host gives nearly the same.

    Stopped in the middle of an epoch and resumed, it gives the same.
    """
    losses = {}
    for backend, stopped in (("cpu", False), ("cuda", False), ("cuda", True)):
        folder = tmp_path / f"{backend}{stopped}"
        simulate(
            run_python,
            f"""
            import numpy as np
            rng = np.random.default_rng(0)
            images, labels = rng.integers(0, 255, (12, 1, 8, 8), np.uint8), np.arange(12) % 3
            np.savez(r"{tmp_path / "images.npz"}", x_train=images, y_train=labels, x_test=images[:6], y_test=labels[:6])
            import os, signal
            from fastcnn.cli import main
            from fastcnn.train import command
            def stop(self, trainer, step, *batch):
                if step == 1:
                    os.kill(os.getpid(), signal.SIGTERM)
            folder = r"{folder}"
            status = 0
            if {stopped}:
                command._Records.after_backward, status = stop, 143
            assert main(["train", "--backend", {backend!r}, "--data", r"{tmp_path / "images.npz"}", "--epochs", "1",
                         "--batch-size", "4", "--width", "2", "--no-progress", "--out", folder]) == status
            if {stopped}:
                del command._Records.after_backward
                assert main(["train", "--resume", folder]) == 0
        """,
        )
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        assert "of 6 test images correctly" in (folder / "report.html").read_text()
        losses[backend, stopped] = [json.loads(line)["train_loss"] for line in lines]
    assert losses["cuda", False] == pytest.approx(losses["cpu", False], rel=1e-4)
    assert losses["cuda", False] == losses["cuda", True]
    same = [(tmp_path / f"cuda{stopped}" / "weights.safetensors").read_bytes() for stopped in (False, True)]
    assert same[0] == same[1]


def test_fine_tuning_and_prediction_on_the_gpu(run_python, tmp_path):
    """The commands give nearly the same on both floors: frozen layers, new heads, ensembles, averaged weights."""
    simulate(
        run_python,
        f"""
        import contextlib, io, json, pathlib
        import numpy as np
        import fastcnn
        from fastcnn import nn
        from fastcnn.cli import main
        from fastcnn.train import load_run, load_weights
        rng = np.random.default_rng(0)
        folder = pathlib.Path(r"{tmp_path}")
        for name, classes in (("base", 2), ("more", 3)):
            x, y = rng.integers(0, 255, (9, 1, 8, 8), np.uint8), np.arange(9) % classes
            np.savez(folder / f"{{name}}.npz", x_train=x[:6], y_train=y[:6], x_test=x[6:], y_test=y[6:])
        common = ["--epochs", "2", "--batch-size", "6", "--no-progress", "--no-monitor"]

        def run(*arguments):
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                assert main([*map(str, arguments)]) == 0
            return out.getvalue()

        run("train", "--data", folder / "base.npz", "--width", "2", *common, "--out", folder / "base")
        losses = {{}}
        for backend in ("cpu", "cuda"):
            out = folder / backend
            options = ["--freeze", "1", "--keep-checkpoints", "2", "--backend", backend, "--out", out]
            run("finetune", folder / "base", "--data", folder / "more.npz", *common, *options)
            ours, theirs = (load_run(path).net.state_dict() for path in (out, folder / "base"))
            assert all(np.array_equal(ours[name], theirs[name]) for name in ours if name[0] in "01")
            assert not np.array_equal(ours["3.weight"], theirs["3.weight"])
            found = json.loads(run("evaluate", folder / "cpu", "--checkpoints", "2", "--backend", backend, "--json"))
            losses[backend] = [row["cross_entropy"] for row in found]
        assert len(losses["cpu"]) == 4 and np.allclose(losses["cpu"], losses["cuda"], rtol=1e-4)
        ours, theirs = (load_run(folder / backend).net.state_dict() for backend in ("cpu", "cuda"))
        assert all(np.allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-5) for name in ours)

        source, net = nn.vgg11(3, width=1), fastcnn.to_device(nn.vgg11(2, width=1, seed=1))
        from safetensors.numpy import save_file
        save_file(nn.torchvision.state_dict(source), folder / "vgg.safetensors")
        before = fastcnn.to_host(net.layers[-1].weight.data)
        load_weights(net, folder / "vgg.safetensors", head="skip")
        assert np.array_equal(fastcnn.to_host(net.layers[-1].weight.data), before)
        assert np.array_equal(fastcnn.to_host(net.layers[0].weight.data), source.layers[0].weight.data)
        nn.replace_head(net, 4, (3,))
        scores = net.eval()(fastcnn.to_device(np.ones((1, 3, 32, 32), np.float32)))
        assert fastcnn.to_host(scores).shape == (1, 4)
    """,
    )


def test_without_a_gpu(run_python):
    """One clear error of ours, and the host computes on."""
    run_python(
        """
        import numpy as np
        import fastcnn
        try:
            fastcnn.to_device(np.ones(3))
        except RuntimeError as error:
            assert type(error).__name__ == "CudaUnavailableError", type(error)
            assert "numba-cuda" in str(error) or "no CUDA device" in str(error), error
        else:
            raise AssertionError("there is a GPU")
        assert fastcnn.layers.relu_forward(np.ones(3))[0].sum() == 3
    """,
        NUMBA_ENABLE_CUDASIM=None,
        CUDA_VISIBLE_DEVICES="-1",
    )
