"""The rules of the house, checked on the text of the package and on its modules."""

import ast
import gc
import importlib
import inspect
import itertools
import pathlib
import sys
import textwrap

import pytest
from numba.core.dispatcher import Dispatcher

import fastcnn
from fastcnn.catalogue import FLOORS, OPS
from fastcnn.cpu import jit
from fastcnn.cpu.cache import KernelCache

PACKAGE = pathlib.Path(fastcnn.__file__).resolve().parent
FILES = {file.relative_to(PACKAGE).as_posix(): file for file in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(file.read_text()) for name, file in FILES.items()}

# Modules of a floor that hold no ops: the tools that its families are made with.
TOOLS = {
    "cpu": {
        "jit",
        "cache",
        "apart",
        "arrays",
        "dots",
        "elementwise",
        "microkernel",
        "moves",
        "octets",
        "gemm",
        "random",
        "vectormath",
        "vectors",
        "ceilings",
    },
    "cuda": {
        "jit",
        "errors",
        "memory",
        "arrays",
        "pending",
        "vectors",
        "elementwise",
        "indices",
        "gemm",
        "tensorcores",
        "random",
        "reduce",
        "simulator",
        "staging",
        "ceilings",
        "gpu",
    },
    "reference": set(),
}
# Functions that a floor lacks: {(floor, "family.function"): reason}.
LACKING = {
    ("cuda", f"augment.{name}"): "batches are prepared on the host, beside training"
    for name in ("warp_images", "color_images", "noise_images", "erase_boxes", "mix_images")
}

# Arrows go down only: a part imports parts of a lower level, or itself.
LEVEL = {
    "common": 0, "shapes": 0,
    "reference": 1, "cpu": 1, "cuda": 1,
    "layers": 2,
    "catalogue": 3, "optim": 3, "data": 3,
    "nn": 4, "validate": 4,
    "train": 5, "compat": 5,
    "info": 6, "study": 6,
    "bench": 7,
    "cli": 8, "__main__": 9,
}  # fmt: skip
ROOT_MAY_IMPORT = {"layers"}  # `import fastcnn` stays light; the rest is imported when first used
CORE_DEPENDENCIES = {"numpy", "numba", "llvmlite"}  # llvmlite comes with numba
COMPILED = ("cpu/", "cuda/")  # floors that may import numba

FLOOR_FILES = (*COMPILED, "reference/", "common/")
CPU_FILES = [name for name in FILES if name.startswith("cpu/")]
MAKERS = {"jit", "parallel", "intrinsic"}  # what compiles on the CPU floor


def module_name(file):
    """fastcnn.cpu.conv for cpu/conv/__init__.py."""
    parts = ["fastcnn", *pathlib.PurePosixPath(file).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_function(node):
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))


def at_import(tree):
    """The nodes that run when a module is imported: all but the bodies of functions."""
    for node in ast.iter_child_nodes(tree):
        yield node
        if is_function(node) or isinstance(node, ast.Lambda):
            for part in (*getattr(node, "decorator_list", ()), node.args):
                yield part
                yield from at_import(part)
        else:
            yield from at_import(node)


def dotted(node):
    """ "a.b.c" for such an expression, or for the function of a call of it; else None."""
    if isinstance(node, ast.Call):
        return dotted(node.func)
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else None


def imports(nodes):
    """(module, name or None) for every import among the nodes."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from ((node.module, alias.name) for alias in node.names)


def decorators(function):
    return {dotted(decorator) for decorator in function.decorator_list}


def kernels(tree):
    """The functions of a module that are compiled."""
    return [node for node in tree.body if is_function(node) and decorators(node) & {"jit", "parallel"}]


def parameters(function):
    a = function.args
    return [argument.arg for argument in (*a.posonlyargs, *a.args, *a.kwonlyargs)]


# ---- floors


def families(floor):
    """{family: {name: function}} of a floor."""
    found = {}
    for path in sorted((PACKAGE / floor).iterdir()):
        family = path.stem
        if not family.startswith("_") and family not in TOOLS[floor] and (path.suffix == ".py" or path.is_dir()):
            own = f"fastcnn.{floor}.{family}"
            found[family] = {
                name: function
                for name, function in vars(importlib.import_module(own)).items()
                if inspect.isfunction(function) and f"{function.__module__}.".startswith(f"{own}.") and name[0] != "_"
            }
    return found


@pytest.mark.parametrize("floor", [floor for floor in FLOORS if floor != "reference"])
def test_floors_have_the_same_functions_with_the_same_signatures(floor):
    def signatures(name):
        return {
            f"{family}.{function}": str(inspect.signature(value))
            for family, functions in families(name).items()
            for function, value in functions.items()
        }

    reference, other = signatures("reference"), signatures(floor)
    assert {name for name in reference if name not in other} == {name for f, name in LACKING if f == floor}
    assert {name for name in other if name not in reference} == {name for f, name in LACKING if f == "reference"}
    assert {name: other[name] for name in other if name in reference} == {
        name: reference[name] for name in reference if name in other
    }
    assert all(LACKING.values())


@pytest.mark.parametrize("floor", FLOORS)
def test_every_function_of_a_floor_is_in_the_catalogue(floor):
    functions = [(family, name) for family, functions in families(floor).items() for name in functions]
    lacking = {tuple(name.split(".")) for f, name in LACKING if f == floor}
    assert sorted({*functions} | lacking) == sorted((op.family, op.name) for op in OPS.values())


def test_the_catalogue_names_each_op_once():
    names = [
        node.args[0].value
        for node in ast.walk(TREES["catalogue.py"])
        if isinstance(node, ast.Call) and dotted(node) in ("Op", "_update") and isinstance(node.args[0], ast.Constant)
    ]
    assert len(names) == len(set(names))
    assert set(names) <= set(OPS)


# ---- imports


def imports_upwards():
    """(file, module) for each import of what is not below the importer; a part without a level is an error."""
    for name, tree in TREES.items():
        part = name.split("/")[0].removesuffix(".py")
        for module, imported in imports(ast.walk(tree)):
            if module == "fastcnn" and imported in LEVEL:
                module = f"fastcnn.{imported}"
            target = module.split(".")[1] if module.startswith("fastcnn.") else part
            allowed = target in ROOT_MAY_IMPORT if part == "__init__" else LEVEL[target] < LEVEL[part]
            if target != part and not allowed:
                yield name, module


def test_arrows_go_down_only():
    parts = {name.split("/")[0].removesuffix(".py") for name in FILES}
    assert parts - {"__init__"} - set(LEVEL) == set(), "these need a level in this test"
    assert list(imports_upwards()) == []


def test_only_core_dependencies_are_imported_at_the_top():
    """Optional ones are imported inside the function that needs them; numba only by the compiled floors."""
    foreign, compilers = [], []
    for name, tree in TREES.items():
        top = {module.split(".")[0] for module, _ in imports(at_import(tree))}
        foreign += [(name, module) for module in top - set(sys.stdlib_module_names) - CORE_DEPENDENCIES - {"fastcnn"}]
        compilers += [name for _ in top & {"numba", "llvmlite"} if not name.startswith(COMPILED)]
    assert foreign == []
    assert compilers == []


def test_the_reference_needs_no_compiler(run_python):
    run_python("""
        import sys
        import numpy as np
        import fastcnn
        fastcnn.set_backend("reference")
        fastcnn.layers.relu_forward(np.ones(3))
        assert "numba" not in sys.modules
    """)


# ---- compiled code


def test_compiler_flags_live_in_one_place():
    makers = {"jit", "njit", "vectorize", "guvectorize", "stencil", "cfunc", "prange", "generated_jit"}
    dotted_makers = {f"{module}.{maker}" for module in ("numba", "nb", "cuda", "numba.cuda") for maker in makers}
    offences = []
    for name, tree in TREES.items():
        if name in ("cpu/jit.py", "cuda/jit.py"):
            continue
        offences += [
            (name, module, imported)
            for module, imported in imports(ast.walk(tree))
            if module.split(".")[0] == "numba" and imported in makers
        ]
        for node in ast.walk(tree):
            flag = isinstance(node, ast.keyword) and node.arg in ("fastmath", "error_model", "nogil", "nopython")
            if flag or isinstance(node, ast.Attribute) and dotted(node) in dotted_makers:
                offences.append((name, node.lineno))
    assert offences == []


def test_fast_math_keeps_nan_and_infinity():
    assert not jit.FASTMATH & {"fast", "nnan", "ninf"}
    flags = [node for node in ast.walk(TREES["cpu/jit.py"]) if isinstance(node, ast.keyword) and node.arg == "fastmath"]
    assert [ast.unparse(flag.value) for flag in flags] == ["set(FASTMATH)"]


def dispatchers():
    """{(module, name): dispatchers} of the CPU floor: its helpers, and what runs the tasks of its kernels.

    All that live, those within objects and functions too.
    """
    for name in CPU_FILES:
        importlib.import_module(module_name(name))
    found = {}
    for thing in gc.get_objects():
        if issubclass(type(thing), Dispatcher) and thing.py_func.__module__.startswith("fastcnn.cpu."):
            found.setdefault((thing.py_func.__module__, thing.py_func.__qualname__), []).append(thing)
    return found


def test_every_kernel_has_the_flags_of_its_floor():
    found = dispatchers()
    assert len(found) > 50
    for name, same in found.items():
        for options in (dispatcher.targetoptions for dispatcher in same):
            assert options["fastmath"] == jit.FASTMATH and options["nogil"] and options["error_model"] == "numpy", name


def test_no_two_kernels_share_a_cache_file():
    users = {}
    for dispatcher in itertools.chain.from_iterable(dispatchers().values()):
        if isinstance(dispatcher._cache, KernelCache):
            users.setdefault(dispatcher._cache._name, set()).add(dispatcher)
    assert len(users) > 40
    assert [name for name, kernels in users.items() if len(kernels) > 1] == []


def units(tree):
    """(name, nodes that run when it is called) of a module's functions and methods; a class is its `__init__`."""
    for node in filter(is_function, tree.body):
        yield node.name, list(ast.walk(node))
    for owner in tree.body:
        for node in filter(is_function, owner.body) if isinstance(owner, ast.ClassDef) else ():
            yield owner.name if node.name == "__init__" else f"{owner.name}.{node.name}", list(ast.walk(node))


def calls_by_full_name(tree, module, nodes):
    """The functions that the nodes call, as "module.function", be they of this module or imported from another."""
    known = {alias: f"{source}.{alias}" for source, alias in imports(ast.walk(tree)) if alias}
    called = [dotted(node) or "" for node in nodes if isinstance(node, ast.Call)]
    return {known.get(name, f"{module}.{name}") for name in called}


def made_later(trees):
    """The functions that compile something, or call such a function, but do not run at import.

    One that makes several kernels of a kind is among them if it does not tell each its name.
    """
    makers, calls, roots = set(), {}, set()
    for file, tree in trees.items():
        module, outside = module_name(file), set(at_import(tree))
        roots |= calls_by_full_name(tree, module, outside)
        for name, nodes in units(tree):
            nodes = [node for node in nodes if node not in outside]
            calls[f"{module}.{name}"] = calls_by_full_name(tree, module, nodes)
            made = [node for node in nodes if isinstance(node, ast.Call) and dotted(node) in MAKERS]
            if made or any(decorators(node) & MAKERS for node in filter(is_function, nodes)):
                makers.add(f"{module}.{name}")
            for node in made:
                if dotted(node) == "parallel" and len(node.args) < 2 and "name" not in {k.arg for k in node.keywords}:
                    yield f"{module}.{name}"
    while more := {name for name, called in calls.items() if called & makers} - makers:
        makers |= more
    at_once = makers & roots
    while more := makers & {name for maker in at_once for name in calls[maker]} - at_once:
        at_once |= more
    yield from makers - at_once


def test_kernels_are_made_at_import():
    """By no function that runs later, for such a kernel misses the cache or is compiled again and again."""
    assert sorted(made_later({name: tree for name, tree in TREES.items() if name != "cpu/jit.py"})) == []


@pytest.mark.parametrize(
    "code, offences",
    [
        ("def make():\n    return jit(len)\nf = make()", []),
        ("def make():\n    return jit(len)\ndef make_all():\n    return make()\nf = make_all()", []),
        ("class A:\n    def __init__(self):\n        self.f = jit(len)\na = A()", []),
        ("def make():\n    return jit(len)", ["make"]),
        ("def make():\n    return jit(len)\nf = make()\ndef forward():\n    make()", ["forward"]),
        (
            "def make():\n    @intrinsic\n    def f(): pass\n    return f\ndef forward():\n    make()",
            ["forward", "make"],
        ),
        ("class A:\n    def run(self):\n        return jit(len)\na = A()", ["A.run"]),
        ("def make():\n    return parallel(len)\nf = make()", ["make"]),
        ("def make():\n    return parallel(len, 'len')\nf = make()", []),
        ("from fastcnn.cpu.other import make\ndef forward():\n    make()", ["forward"]),
    ],
)
def test_a_kernel_that_is_made_later_is_noticed(code, offences):
    other = ast.parse("def make():\n    return jit(len)\nf = make()")
    found = made_later({"cpu/some.py": ast.parse(code), "cpu/other.py": other})
    assert sorted(found) == [f"fastcnn.cpu.some.{name}" for name in offences]


def test_no_kernel_takes_a_function_as_an_argument():
    """Such a kernel misses the cache every time, too."""
    offences = []
    for name in CPU_FILES:
        for kernel in kernels(TREES[name]):
            called = {dotted(node) for node in ast.walk(kernel) if isinstance(node, ast.Call)}
            offences += [(name, kernel.name, argument) for argument in called & set(parameters(kernel))]
    assert offences == []


def test_random_numbers_have_a_seed():
    """No floor draws from NumPy's streams; elsewhere only what promises NumPy's global stream uses that."""
    offences = []
    for name, tree in TREES.items():
        allowed = {"default_rng", "Generator", "Philox"} | (
            {"seed", "rand"} if name.startswith(("layers/", "compat/")) else set()
        )
        allowed = set() if name.startswith(FLOOR_FILES) else allowed
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and dotted(node.value) in ("np.random", "numpy.random"):
                if node.attr not in allowed:
                    offences.append((name, node.lineno, node.attr))
    assert offences == []


def test_nothing_is_remembered_by_identity():
    """No `id(`; and no cache on a function that takes arguments, arrays among them, on the floors and in the layers."""
    offences = []
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and dotted(node) == "id":
                offences.append((name, node.lineno, "id"))
            if is_function(node) and name.startswith((*FLOOR_FILES, "layers/")):
                caches = {str(d).split(".")[-1] for d in decorators(node)} & {"cache", "lru_cache", "cached_property"}
                if caches and parameters(node):
                    offences.append((name, node.lineno, node.name))
    assert offences == []


def intrinsics(tree):
    """(intrinsic, whether it has a stand-in): at a module's top, and within functions that make and return one.

    A stand-in `f_python` has the parameters of its intrinsic `f`; what others use is one of the two, by
    `f_python if config.DISABLE_JIT else f` or `either(f, f_python)`. That is returned, or at the top, where the
    intrinsic is `_f`, called `f`.
    """
    for scope in (tree, *filter(is_function, ast.walk(tree))):
        functions = {node.name: node for node in scope.body if is_function(node)}
        for name, function in functions.items():
            if "intrinsic" not in decorators(function):
                continue
            stand_in = functions.get(f"{name}_python")
            alike = stand_in and parameters(stand_in) == parameters(function)[1:]  # all but the typing context
            if scope is tree:
                target = name.removeprefix("_")
                chosen = [n.value for n in scope.body if isinstance(n, ast.Assign) and dotted(n.targets[0]) == target]
            else:
                chosen = [node.value for node in scope.body if isinstance(node, ast.Return)]
            forms = f"{name}_python if config.DISABLE_JIT else {name}", f"either({name}, {name}_python)"
            yield name, bool(alike) and [ast.unparse(value) in forms for value in chosen] == [True]


def test_every_intrinsic_has_a_python_stand_in():
    found = [(file, name, right) for file in CPU_FILES for name, right in intrinsics(TREES[file])]
    assert len(found) > 30
    assert [(file, name) for file, name, right in found if not right] == []
    everywhere = [node for file in CPU_FILES for node in ast.walk(TREES[file]) if is_function(node)]
    assert len(found) == sum("intrinsic" in decorators(node) for node in everywhere), "one is in a class or a branch"


@pytest.mark.parametrize(
    "stand_in, choice, right",
    [
        ("def _f_python(x): pass", "f = either(_f, _f_python)", True),
        ("def _f_python(x): pass", "f = _f_python if config.DISABLE_JIT else _f", True),
        ("def _f_python(x): pass", "f = either(_f_python, _f)", False),
        ("def _f_python(x): pass", "f = _f", False),
        ("def _f_python(x): pass", "g = either(_f, _f_python)", False),
        ("def _f_python(y): pass", "f = either(_f, _f_python)", False),
        ("def _g_python(x): pass", "f = either(_f, _f_python)", False),
    ],
)
def test_an_intrinsic_without_a_stand_in_is_noticed(stand_in, choice, right):
    code = f"@intrinsic\ndef _f(typingctx, x): pass\n{stand_in}\n"
    assert list(intrinsics(ast.parse(f"{code}{choice}"))) == [("_f", right)]
    maker = ast.parse("def make():\n" + textwrap.indent(f"{code}return {choice.split(' = ')[1]}", "    "))
    assert list(intrinsics(maker)) == [("_f", right or choice.startswith("g"))]


# ---- texts


def test_everything_public_has_a_docstring():
    bare = [(name, "the module") for name, tree in TREES.items() if tree.body and not ast.get_docstring(tree)]
    for name, tree in TREES.items():
        for node in tree.body:
            public = (is_function(node) or isinstance(node, ast.ClassDef)) and not node.name.startswith("_")
            if public and not ast.get_docstring(node):
                bare.append((name, node.name))
    assert bare == []


def test_public_functions_stand_before_kernels():
    offences = []
    for name in CPU_FILES:
        kernel_met = False
        for node in filter(is_function, TREES[name].body):
            kernel_met |= node in kernels(TREES[name])
            if kernel_met and not node.decorator_list and not node.name.startswith("_"):
                offences.append((name, node.name))
    assert offences == []


# ---- importing


def test_importing_compiles_nothing_and_changes_nothing(run_python):
    """All modules of the package, in a fresh process: the compiler's settings and threads are as before."""
    run_python("""
        import gc, os, pkgutil, importlib, sys
        import numba
        import numba.np.ufunc.parallel as threading_layer
        from numba.core import config, event
        from numba.core.dispatcher import Dispatcher

        def settings():
            return {name: repr(value) for name, value in vars(config).items() if name.isupper()}

        before, environment, switch = settings(), dict(os.environ), sys.getswitchinterval()
        with event.install_recorder("numba:compile") as compiled:
            import fastcnn
            for module in pkgutil.walk_packages(fastcnn.__path__, "fastcnn."):
                if not module.name.endswith("__main__"):
                    importlib.import_module(module.name)
        assert not compiled.buffer, compiled.buffer
        kernels = [k for k in gc.get_objects() if isinstance(k, Dispatcher) and "fastcnn" in k.py_func.__module__]
        assert len(kernels) > 50 and not any(kernel.overloads for kernel in kernels)
        assert settings() == before
        assert os.environ == environment and sys.getswitchinterval() == switch
        assert not threading_layer._is_initialized
        optional = {"tqdm", "rich", "matplotlib", "PIL", "safetensors", "scipy", "torch", "pandas", "sklearn"}
        assert not optional & set(sys.modules), optional & set(sys.modules)
    """)


def test_importing_is_light(run_python):
    """`import fastcnn` alone loads neither the compiler nor the floors, nets and data behind it."""
    run_python("""
        import sys
        import fastcnn
        loaded = {name.split(".")[1] for name in sys.modules if name.startswith("fastcnn.")}
        assert loaded <= {"layers", "common"}, loaded
        assert "numba" not in sys.modules
        assert fastcnn.layers.relu_forward
        assert set(dir(fastcnn)) >= set(fastcnn.__all__)
    """)
