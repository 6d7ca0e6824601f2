"""What a user installs: the sdist, the wheel made from it, and what works without the optional libraries."""

import os
import pathlib
import subprocess
import sys
import tarfile
import zipfile

import pytest
from conftest import TESTS

import fastcnn

PROJECT = TESTS.parent
OPTIONAL = ("tqdm", "matplotlib", "PIL", "safetensors")


def run(*arguments, **options):
    done = subprocess.run(arguments, text=True, capture_output=True, timeout=120, **options)
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(kind, source, folder):
    """Build an "sdist" or "wheel" as pip would, but without a fresh environment, which needs a network."""
    code = f"import hatchling.build, sys; hatchling.build.build_{kind}(sys.argv[1])"
    run(sys.executable, "-c", code, str(folder), cwd=source)
    (file,) = (file for file in folder.iterdir() if file.suffix == {"sdist": ".gz", "wheel": ".whl"}[kind])
    return file


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    pytest.importorskip("hatchling", reason="builds the package: pip install hatchling")
    return build("sdist", PROJECT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    source = tmp_path_factory.mktemp("source")
    with tarfile.open(sdist) as archive:
        archive.extractall(source, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (source,) = source.iterdir()
    return build("wheel", source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder that holds the installed wheel, and nothing else."""
    pytest.importorskip("pip", reason="installs the wheel")
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet", "--disable-pip-version-check"]
    run(*pip, "--target", str(folder), str(wheel))
    return folder


def package_files(folder):
    """The files of the package below a folder, without what Python and the kernel cache leave there."""
    files = (file.relative_to(folder).as_posix() for file in (folder / "fastcnn").rglob("*") if file.is_file())
    return {file for file in files if "__pycache__" not in file}


def test_sdist(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert package_files(PROJECT) <= names
    assert {"pyproject.toml", "README.md", "LICENSE", "tests/conftest.py", "tests/test_package.py"} <= names
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".kernel"))]


def test_wheel(wheel):
    assert wheel.name == f"fastcnn-{fastcnn.__version__}-py3-none-any.whl"
    info = f"fastcnn-{fastcnn.__version__}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = archive.read(f"{info}/entry_points.txt").decode()
        metadata = archive.read(f"{info}/METADATA").decode()
    assert {name for name in names if not name.startswith(info)} == package_files(PROJECT)
    assert {"fastcnn/data/fashion_mnist_10k.npz", "fastcnn/shapes/vgg16.txt", "fastcnn/__main__.py"} <= names
    licences = {name for name in names if name.startswith(f"{info}/licenses/")}
    assert {pathlib.PurePosixPath(name).name for name in licences} == {"LICENSE", "FASHION_MNIST_LICENSE"}
    assert "fastcnn = fastcnn.cli:main" in entry_points
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert [line.split()[1].split(">")[0] for line in required] == ["numba", "numpy"]


def test_installed_wheel_works(installed, run_python):
    """Away from the source tree: the shipped images, a net on them, and the shapes."""
    out, _ = run_python(
        """
        import pathlib
        import numpy as np
        import fastcnn
        from fastcnn import data, layers, nn, shapes

        images = data.load_fashion_mnist()
        assert images.x_train.shape == (8000, 1, 28, 28) and len(shapes.load("vgg16"))
        x = data.Standardize.fit(images.x_train[:50]).apply(images.x_test[:4])
        w, b = np.ones((2, 1, 3, 3), np.float32), np.zeros(2, np.float32)
        out, _ = layers.conv_forward(x, w, b, stride=1, pad=1)
        with fastcnn.backend("reference"):
            expected, _ = layers.conv_forward(x, w, b, stride=1, pad=1)
        np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
        print(pathlib.Path(fastcnn.__file__).parent)
        """,
        path=installed,
    )
    assert pathlib.Path(out.strip()) == (installed / "fastcnn").resolve()


@pytest.mark.skipif(os.name == "nt", reason="scripts have another form there")
def test_installed_command(installed, tmp_path):
    env = {**os.environ, "PYTHONPATH": str(installed)}
    assert run(str(installed / "bin" / "fastcnn"), "--version", env=env, cwd=tmp_path) == (
        f"fastcnn {fastcnn.__version__}\n"
    )


def test_core_without_optional_libraries(run_python):
    run_python(
        f"""
        import sys

        for name in {OPTIONAL!r}:
            sys.modules[name] = None
        import numpy as np
        from fastcnn import data, nn, optim, train
        from fastcnn.cli import main

        x = data.Standardize.fit(np.zeros((1, 1, 8, 8), np.uint8)).apply(np.ones((2, 1, 8, 8), np.uint8))
        assert nn.small_cnn((1, 8, 8), 3)(x).shape == (2, 3)
        assert main(["info"]) == 0
        """
    )


def test_public_names():
    assert set(fastcnn.__all__) <= set(dir(fastcnn))
    for name in fastcnn.__all__:
        assert getattr(fastcnn, name) is not None
    with pytest.raises(AttributeError, match="module 'fastcnn' has no attribute 'nothing'"):
        fastcnn.nothing  # noqa: B018
