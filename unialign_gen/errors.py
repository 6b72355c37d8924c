"""The one exception for what a user got wrong."""


class InputError(ValueError):
    """Bad input: the message is one line that says what was wrong and what to do. The CLI prints it and exits with 2."""
