"""The kernels on disk: compiled once, never out of date, in no one's way."""

import os
import shutil
import time

import pytest
from conftest import PACKAGE

from fastcnn.cpu import cache

# Runs kernels in some dtypes, checks what they give, and prints how many functions the compiler worked on.
RUN = """
    import sys
    import numpy as np
    from numba.core import event
    from fastcnn.cpu.activation import leaky_relu_forward, relu_forward, sigmoid_forward

    with event.install_recorder("numba:compile") as compiled:
        for dtype in {dtypes}:
            x = np.array([-2, 0, 3], dtype)
            np.testing.assert_array_equal(relu_forward(x), [{below_zero}, 0, 3])
            np.testing.assert_allclose(leaky_relu_forward(x, 0.5), [-1, 0, 3])
            np.testing.assert_allclose(sigmoid_forward(x), 1 / (1 + np.exp(-x)), rtol=1e-6)
    print(sum(record.is_start for _, record in compiled.buffer))
"""


def code(*dtypes, below_zero=0):
    return RUN.format(dtypes=dtypes, below_zero=below_zero)


@pytest.fixture
def compilations(run_python, tmp_path):
    """compilations(*dtypes, ...) -> how many functions a fresh process compiles, its kernels in tmp_path/cache."""

    def run(*dtypes, below_zero=0, **environment):
        environment = {"FASTCNN_CACHE_DIR": tmp_path / "cache", **environment}
        stdout, stderr = run_python(code(*dtypes, below_zero=below_zero), **environment)
        assert stderr == ""
        return int(stdout)

    return run


@pytest.fixture
def copy(tmp_path):
    """The folder with a copy of the package."""
    shutil.copytree(PACKAGE, tmp_path / "copy" / "fastcnn", ignore=shutil.ignore_patterns("__pycache__", "*.npz"))
    return tmp_path / "copy"


def edit(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_a_second_process_compiles_nothing(compilations):
    assert compilations("f4") > 0
    assert compilations("f4") == 0
    assert compilations("f4", NUMBA_NUM_THREADS=1, NUMBA_THREADING_LAYER="workqueue") == 0


def test_no_kernel_misses_the_cache(run_python):
    """All ops of the catalogue, with the kernels that the rest of the tests has left."""
    run_all = """
        import numpy as np
        from numba.core import event
        from fastcnn.catalogue import OPS

        with event.install_recorder("numba:compile") as compiled:
            for op in OPS.values():
                for case in op.cases_of("quick"):
                    op.function("cpu")(**op.arguments(np.random.default_rng(0), case, np.float32))
        print(sum(record.is_start for _, record in compiled.buffer))
    """
    run_python(run_all, timeout=500)
    stdout, _ = run_python(run_all)
    assert int(stdout) == 0


def test_an_edit_to_a_helper_is_seen_by_the_kernels_that_inline_it(compilations, copy):
    formulas = copy / "fastcnn" / "common" / "activation.py"
    before, after = "return type(x)(0) if x < 0 else x", "return type(x)(7) if x < 0 else x"
    assert compilations("f4", path=copy) > 0
    edit(formulas, before, after)
    assert compilations("f4", path=copy, below_zero=7) > 0
    edit(formulas, after, before)
    assert compilations("f4", path=copy) == 0  # both versions are kept


@pytest.mark.parametrize("switch", ["BOUNDSCHECK", "OPT", "CPU_NAME", "CPU_FEATURES", "ENABLE_AVX"])
def test_compiler_settings_have_kernels_of_their_own(monkeypatch, switch):
    usual = cache.source_digest()
    monkeypatch.setattr(cache.config, switch, "another")
    assert cache.source_digest.__wrapped__() != usual


def test_damaged_files_are_compiled_anew(compilations, tmp_path):
    all_of_them = compilations("f4", "f8")
    damages = [
        lambda content: b"",
        lambda content: b"not a kernel",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-2000] + bytes([content[-2000] ^ 4]) + content[-1999:],  # a bit of machine code
    ]
    files = sorted((tmp_path / "cache").glob("*/*.kernel"))
    assert len(files) > len(damages)
    for number, file in enumerate(files):
        file.write_bytes(damages[number % len(damages)](file.read_bytes()))
    assert compilations("f4", "f8") == all_of_them
    assert compilations("f4", "f8") == 0


def test_processes_that_compile_at_once_do_not_disturb_each_other(run_pythons, compilations, tmp_path):
    environment = {"FASTCNN_CACHE_DIR": tmp_path / "cache"}
    outputs = run_pythons([(code(*dtypes), environment) for dtypes in (("f4",), ("f8",), ("f8", "f4"))])
    assert all(stderr == "" for _, stderr in outputs)
    assert compilations("f4", "f8") == 0
    assert [file for file in (tmp_path / "cache").rglob("*.*") if file.suffix != ".kernel"] == []


# ---- where nothing can be written (chmod would not stop root: a path below a regular file does)


def test_an_unusable_folder_costs_one_line_of_warning(run_python, tmp_path):
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "cache"
    stdout, stderr = run_python(code("f4", "f8"), FASTCNN_CACHE_DIR=folder)
    assert int(stdout) > 0
    assert len(stderr.splitlines()) == 1 and f"cannot write {folder}; kernels are compiled anew" in stderr


@pytest.mark.skipif(os.name != "posix", reason="HOME and XDG_CACHE_HOME say where it is")
def test_an_unusable_home_falls_back_to_the_package_and_then_to_nothing(run_python, tmp_path, copy):
    (tmp_path / "file").touch()
    home = {"FASTCNN_CACHE_DIR": None, "NUMBA_CACHE_DIR": None, "XDG_CACHE_HOME": None, "HOME": tmp_path / "file"}
    fallback = copy / "fastcnn" / "__pycache__" / "kernels"
    for expect_compilation in (True, False):
        stdout, stderr = run_python(code("f4"), path=copy, **home)
        assert bool(int(stdout)) == expect_compilation
        assert len(stderr.splitlines()) == 1 and f"compiled kernels are kept in {fallback}" in stderr
    shutil.rmtree(fallback)
    fallback.touch()
    stdout, stderr = run_python(code("f4"), path=copy, **home)
    assert int(stdout) > 0
    assert len(stderr.splitlines()) == 1 and "kernels are compiled anew" in stderr


def test_where_kernels_are_kept(monkeypatch, tmp_path):
    for name in ("FASTCNN_CACHE_DIR", "NUMBA_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cache.config, "CACHE_DIR", "")
    *_, package = cache._candidates()
    assert package == PACKAGE / "__pycache__" / "kernels"
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # no home: nothing is left in the working folder
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    assert cache._candidates() == [package]
    monkeypatch.setattr(cache.config, "CACHE_DIR", str(tmp_path / "numba"))
    assert cache._candidates() == [tmp_path / "numba" / "fastcnn"]
    monkeypatch.setenv("FASTCNN_CACHE_DIR", str(tmp_path))
    assert cache._candidates() == [tmp_path]


# ---- tidying up


def test_kernels_of_a_month_ago_are_removed_and_nothing_else(monkeypatch, tmp_path):
    def folder(name, days, files=("a.kernel",)):
        path = tmp_path / name
        path.mkdir()
        for file in files:
            (path / file).touch()
        os.utime(path, (time.time() - days * 86400,) * 2)
        return path

    old, young = folder("0123456789abcdef", 31, ["a.kernel", "b.kernel.1.2"]), folder("fedcba9876543210", 29)
    others = folder("my-old-documents", 99), folder("0000000000000000", 99, ["thesis.txt"])
    monkeypatch.setenv("FASTCNN_CACHE_DIR", str(tmp_path))
    made = cache.cache_folder.__wrapped__()
    assert made.parent == tmp_path and made.is_dir()
    assert not old.exists()
    assert (young / "a.kernel").exists()
    assert all(any(path.iterdir()) for path in others)
