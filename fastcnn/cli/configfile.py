"""Options of a command from a file, in the place of its command line."""

import argparse
import contextlib
import difflib
import importlib
import io
import json
import pathlib

_OF_ONE_RUN = ("out", "resume", "weights")  # options in a run's config.json that are none of a run like it


def expanded(argv, make_parser):
    """The arguments, with those of the file that ``--config FILE`` names put before the others, which thus win.

    Parameters
    ----------
    argv : list of str, beginning with the command
    make_parser : function that makes the parser of all commands

    Raises
    ------
    ValueError
        If the file is damaged, or an option in it is unknown or has no value that it could have.
    """
    if not argv or "config" not in (options := options_of(make_parser(), argv)):
        return argv
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", nargs="?")
    file = finder.parse_known_args(argv[1:])[0].config
    if file is None:
        return argv
    words = []
    for name, value in _flat(read(file)):
        option = name.replace("_", "-")
        if option not in options or option in ("config", "resume", "help"):
            near = difflib.get_close_matches(option, options, 1)
            guess = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{file}: {argv[0]} has no option {name!r} for a file{guess}")
        words += _words(file, name, options[option], value)
    errors, checker = io.StringIO(), make_parser()
    for action in _actions(checker, argv):
        action.required = False  # on the command line it will be there
    try:
        with contextlib.redirect_stderr(errors):
            checker.parse_args([argv[0], *words])
    except SystemExit:
        raise ValueError(f"{file}: {errors.getvalue().strip().splitlines()[-1].rpartition('error: ')[2]}") from None
    return [argv[0], *words, *argv[1:]]


def options_of(parser, argv):
    """The options of the command that argv begins with, by their long names without dashes."""
    found = _actions(parser, argv)
    return {option[2:]: action for action in found for option in action.option_strings if option.startswith("--")}


def _actions(parser, argv):
    """All that the command takes that argv begins with."""
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    command = commands.choices.get(argv[0] if argv else None)
    return command._actions if command else ()


def read(file):
    """The contents of a .toml, .yaml or .json file, a dict; of the config.json of a run, the options for a like one."""
    path = pathlib.Path(file)
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".toml":
            found = _library("tomllib", "tomli").loads(text)
        elif path.suffix in (".yaml", ".yml"):
            found = _yaml(text)
        elif path.suffix == ".json":
            found = json.loads(text)
        else:
            raise ValueError("expected a file whose name ends with .toml, .yaml, .yml or .json")
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file}: expected names with values, got {type(found).__name__}")
    if path.suffix == ".json" and isinstance(found.get("options"), dict):
        return {name: value for name, value in found["options"].items() if name not in _OF_ONE_RUN}
    return found


def _yaml(text):
    library = _library("yaml")
    try:
        return library.safe_load(text) or {}
    except library.YAMLError as error:
        raise ValueError(f"not readable as YAML ({error})") from error


def _library(*modules):
    """The first of these modules that is installed."""
    for module in modules:
        with contextlib.suppress(ImportError):
            return importlib.import_module(module)
    package = {"yaml": "PyYAML"}.get(modules[-1], modules[-1])
    raise ImportError(f"{package} is not installed; install it with: pip install 'fastcnn[train]'")


def _flat(values):
    """(name, value) of all options; tables that are no option's value are sections."""
    for name, value in values.items():
        if isinstance(value, dict) and name not in ("net-option", "net_option"):
            yield from _flat(value)
        elif value is not None:
            yield name, value


def _words(file, name, action, value):
    """What an option and its value are on a command line."""
    option = action.option_strings[-1]
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise ValueError(f"{file}: {name}: expected true or false, got {value!r}")
        return [option] * value
    if isinstance(value, bool):
        raise ValueError(f"{file}: {name}: expected a value of its own, not {str(value).lower()}")
    if isinstance(value, dict):
        value = [f"{key}={json.dumps(entry)}" for key, entry in value.items()]
    values = list(map(str, value if isinstance(value, list) else [value]))
    if isinstance(action, argparse._AppendAction):
        return [f"{option}={entry}" for entry in values]
    return [option, *values] if action.nargs else [f"{option}={','.join(values)}"]
