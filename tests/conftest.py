"""What the tests share."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import fastcnn

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # several test processes share the cores: waiting must not use them

TESTS = pathlib.Path(__file__).resolve().parent
PACKAGE = pathlib.Path(fastcnn.__file__).resolve().parent


def start_python(script, code, path=PACKAGE.parent, **env):
    """Start a fresh process on `code`, written to the file `script`; the arguments are those of `run_python`."""
    script.write_text(textwrap.dedent(code))
    # Not the folder that the tests were started in: fastcnn is the one at `path`, and test helpers can be imported.
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (path, TESTS))), **env}
    return subprocess.Popen(
        [sys.executable, script],
        env={name: str(value) for name, value in env.items() if value is not None},
        cwd=script.parent,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def finish_python(process, timeout):
    """Wait for a process of `start_python` and all its children; its (stdout, stderr) if it ends well."""
    try:
        stdout, stderr = process.communicate(timeout=timeout)
        end = f"ended with status {process.returncode}"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its forked children hold the pipes, too
        stdout, stderr = process.communicate()
        end = f"did not end within {timeout} s"
    if process.returncode != 0:
        pytest.fail(f"the process {end}\n--- stdout\n{stdout}\n--- stderr\n{stderr}", pytrace=False)
    return stdout, stderr


@pytest.fixture
def run_python(tmp_path_factory):
    """run_python(code, timeout=120, path=..., **environment) -> (stdout, stderr) of `code` in a fresh process.

    The test fails, showing the output, if the process fails, dies by a signal or hangs. `path` is the folder that
    fastcnn is imported from; a variable given as None is removed from the environment.
    """

    def run(code, timeout=120, **options):
        return finish_python(start_python(tmp_path_factory.mktemp("python") / "script.py", code, **options), timeout)

    return run


@pytest.fixture
def run_pythons(tmp_path_factory):
    """The same for several codes at once, with one environment each: [(code, environment), ...] -> list of outputs."""

    def run(jobs, timeout=120):
        folder = tmp_path_factory.mktemp("python")
        started = [start_python(folder / f"script{i}.py", code, **env) for i, (code, env) in enumerate(jobs)]
        try:
            return [finish_python(process, timeout) for process in started]
        finally:
            for process in started:
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)

    return run


@pytest.fixture
def empty_weights(monkeypatch):
    """Weights of zeros, whose memory the system gives when it is touched: nets of any size cost nothing."""
    for name in ("kaiming", "xavier"):
        monkeypatch.setattr(f"fastcnn.nn.initialisers.{name}", lambda rng, shape, dtype: np.zeros(shape, dtype))
