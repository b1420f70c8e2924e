"""An ArgumentParser that answers a typing error with the nearest option or verb."""

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that takes `--top-k` for `--top_k`, and names the nearest option, or verb, of one unknown."""

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Parse; an option that there is not is an error of this verb, with its own usage."""
        given = list(sys.argv[1:] if args is None else args)
        end = self._end_of_options(given)
        found, unknown = super().parse_known_args([*map(self._spelt, given[:end]), *given[end:]], namespace)
        if unknown:
            self.error(f"unexpected {unknown[0]!r}")
        return found, []

    def _end_of_options(self, given: Sequence[str]) -> int:
        """Where this parser's own options end: at `--`, or at the verb, after which they are the verb's.

        Before the first word where the rest is somebody else's.
        """
        if any(action.nargs == argparse.REMAINDER for action in self._actions):
            return 0
        verbs = [action for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        for place, word in enumerate(given):
            if word == "--":
                return place
            if verbs and not word.startswith("-"):
                if word not in verbs[0].choices:
                    self.error(f"there is no verb {word!r}{_did_you_mean(word, verbs[0].choices)}")
                return place
        return len(given)

    def _spelt(self, word: str) -> str:
        """An option as it was declared, whether with dashes or underscores; any other word as it is."""
        if not re.match(r"--[A-Za-z]", word):
            return word
        name, equals, value = word.partition("=")
        known = [option for option in self._option_string_actions if option.startswith("--")]
        declared = {option.replace("-", "_"): option for option in known}
        name = declared.get(name.replace("-", "_"), name)
        if name not in known:
            beginning = [option for option in known if option.startswith(name)]
            if len(beginning) != 1:
                self.error(f"there is no option {name}{_did_you_mean(name, known)}")
        return f"{name}{equals}{value}"


def _did_you_mean(name: str, names: Iterable[str]) -> str:
    """The hint of the library's errors, imported here: `--help` does not wait for the library."""
    from modeling_vit_cls.errors import did_you_mean

    return did_you_mean(name, names, "{}")
