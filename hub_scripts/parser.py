"""An ArgumentParser that suggests the nearest option or verb for a misspelt one, and the options of every verb."""

import argparse
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any


class Formatter(argparse.HelpFormatter):
    """Help that names an option once, with underscores, and its value once: N, X or TEXT, by its type."""

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        return {int: "N", float: "X"}.get(action.type, "TEXT")  # pyright: ignore[reportArgumentType, reportCallIssue]

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        names = dict.fromkeys(re.sub(r"(?<=\w)-", "_", name) for name in action.option_strings)
        return f"{', '.join(names)} {self._format_args(action, self._get_default_metavar_for_optional(action))}"


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that accepts `--top-k` for `--top_k`, and suggests the nearest option or verb in an error."""

    def __init__(self, *args: Any, formatter_class: Any = Formatter, **kwargs: Any):
        super().__init__(*args, formatter_class=formatter_class, **kwargs)

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Parse arguments. An unknown option is an error with the usage of the verb."""
        words = list(sys.argv[1:] if args is None else args)
        end = self._end_of_options(words)
        parsed, unknown = super().parse_known_args([*map(self._spelt, words[:end]), *words[end:]], namespace)
        if unknown:
            self.error(f"unexpected {unknown[0]!r}")
        return parsed, []

    def _end_of_options(self, words: Sequence[str]) -> int:
        """Number of words before `--` or the verb: the options after a verb belong to the verb's parser.

        0 for a parser that passes on all of its words.
        """
        if any(action.nargs == argparse.REMAINDER for action in self._actions):
            return 0
        verbs = [action for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        for index, word in enumerate(words):
            if word == "--":
                return index
            if verbs and not word.startswith("-"):
                if word not in verbs[0].choices:
                    self.error(f"there is no verb {word!r}{_did_you_mean(word, verbs[0].choices)}")
                return index
        return len(words)

    def _spelt(self, word: str) -> str:
        """An option in its declared spelling, with dashes or underscores; other words are unchanged."""
        if not re.match(r"--[A-Za-z]", word):
            return word
        name, equals, value = word.partition("=")
        options = [option for option in self._option_string_actions if option.startswith("--")]
        declared = {option.replace("-", "_"): option for option in options}
        name = declared.get(name.replace("-", "_"), name)
        if name not in options:
            matching = [option for option in options if option.startswith(name)]
            if len(matching) != 1:
                self.error(f"there is no option {name}{_did_you_mean(name, options)}")
        return f"{name}{equals}{value}"


def add_verb(verbs: Any, name: str, runs: str, *, help: str, description: str, example: str) -> argparse.ArgumentParser:
    """The parser of a new verb, with the options that all verbs have; the caller adds its other arguments."""
    parser = verbs.add_parser(name, help=help, description=description, epilog=f"example: vit-cls {example}")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.set_defaults(runs=runs)
    return parser


def add_model(parser: Any, name: str = "model", help: str = "a folder or a Hub id", **more: Any) -> None:
    """Add the argument of a model, and its revision; `more` goes to `add_argument`."""
    parser.add_argument(name, type=os.path.expanduser, help=help, **more)
    add_revision(parser)


def add_revision(parser: Any) -> None:
    """Add the revision of a model on the Hub."""
    parser.add_argument("--revision", help="branch, tag or commit of a model on the Hub (default: main)")


def _did_you_mean(name: str, names: Iterable[str]) -> str:
    """The hint of the library's errors, imported here so that `--help` does not import the library."""
    from modeling_vit_cls.errors import did_you_mean

    return did_you_mean(name, names, "{}")
