"""The one exception for what a user got wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Bad input: the message is one line that says what was wrong and what to do. The CLI prints it and exits with 2.

    Example:
        >>> from unialign_gen.mixing import mix
        >>> mix([])
        Traceback (most recent call last):
        unialign_gen.errors.InputError: nothing to mix: give at least one prompt
    """


@contextmanager
def as_input_error(message: str, *kinds: type[BaseException]) -> Iterator[None]:
    """Turns errors of these kinds, raised in the block, into an `InputError`; one that is an `InputError` stays as it is.

    Args:
        message: its line; `{error}` in it stands for what the error says, `{short}` for 200 characters of that, `{first}` for
            its first line, `{reason}` for what the system says, without the file's name, `{kind}` for the error's class.

    Example:
        >>> with as_input_error("three cannot be read: {error}", ValueError):
        ...     int("three")
        Traceback (most recent call last):
        unialign_gen.errors.InputError: three cannot be read: invalid literal for int() with base 10: 'three'
    """
    try:
        yield
    except InputError:
        raise
    except kinds as error:
        whole = " ".join(str(error).split())
        reason = getattr(error, "strerror", None) or whole
        parts = {"error": whole, "short": whole[:200], "first": first_line(error), "reason": reason}
        for name, part in {**parts, "kind": type(error).__name__}.items():
            message = message.replace(f"{{{name}}}", part)
        raise InputError(message) from error


def first_line(error: BaseException) -> str:
    """An error's message, or its name where it has none, cut to one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__).rstrip(".")
