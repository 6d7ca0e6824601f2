"""The switch between floors."""

from threading import Thread

import numpy as np
import pytest

from fastcnn.layers.backend import DEFAULT, backend, floor, get_backend, set_backend

HOST = np.ones(3)


def test_switch_nests_and_restores():
    before = get_backend()
    with backend("reference") as name:
        assert name == get_backend() == "reference"
        assert floor("conv", HOST).__name__ == "fastcnn.reference.conv"
        with backend("cpu"):
            assert floor("conv", HOST).__name__ == "fastcnn.cpu.conv"
        assert get_backend() == "reference"
        with pytest.raises(ZeroDivisionError), backend("cpu"):
            raise ZeroDivisionError
        assert get_backend() == "reference"
    assert get_backend() == before


def test_one_switch_may_be_used_again():
    reference = backend("reference")
    with backend("cpu"), reference, backend("cpu"), reference:
        assert get_backend() == "reference"
    with reference:
        pass


def test_setter():
    with backend("cpu"):
        set_backend("reference")
        assert get_backend() == "reference"


@pytest.mark.parametrize("choose", [backend, set_backend])
def test_unknown_names(choose):
    before = get_backend()
    with pytest.raises(ValueError, match="^unknown backend 'gpu'; there are 'reference', 'cpu'"):
        choose("gpu")
    assert get_backend() == before


def test_host_arrays_are_refused_where_the_gpu_is_to_compute():
    with backend("cuda"), pytest.raises(TypeError, match="the backend is 'cuda'.*fastcnn.to_device copies them"):
        floor("conv", HOST)


def test_threads_choose_for_themselves():
    seen = []

    def work():
        seen.append(get_backend())
        set_backend("reference")
        seen.append(get_backend())

    with backend("cpu"):
        thread = Thread(target=work)
        thread.start()
        thread.join()
        assert get_backend() == "cpu"
    assert seen == [DEFAULT, "reference"]


def test_environment_sets_the_default(run_python):
    code = """
        from fastcnn.layers.backend import get_backend
        try:
            print(get_backend())
        except ValueError as error:
            print(error)
    """
    assert run_python(code, FASTCNN_BACKEND="reference")[0] == "reference\n"
    assert run_python(code, FASTCNN_BACKEND="")[0] == run_python(code, FASTCNN_BACKEND=None)[0] == "cpu\n"
    assert run_python(code, FASTCNN_BACKEND="abacus")[0].startswith("unknown backend 'abacus'")


def test_the_reference_needs_no_compiler(run_python):
    code = """
        import sys
        import numpy as np
        from fastcnn import layers
        layers.conv_forward(np.ones((1, 1, 3, 3)), np.ones((1, 1, 3, 3)), None)
        print("numba" in sys.modules)
    """
    assert run_python(code, FASTCNN_BACKEND="reference")[0] == "False\n"
