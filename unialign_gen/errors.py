"""The one exception for what a user got wrong."""


class InputError(ValueError):
    """Bad input: the message is one line that says what was wrong and what to do. The CLI prints it and exits with 2.

    Example:
        >>> from unialign_gen.mixing import mix
        >>> mix([])
        Traceback (most recent call last):
        unialign_gen.errors.InputError: nothing to mix: give at least one prompt
    """
