"""The one exception that means "the input is wrong", as opposed to "the program is wrong"."""


class InputError(ValueError):
    """A user's input that cannot be used.

    The message is one line (or one list) that names the value, says what was expected and what to do.  The command
    line prints it without a traceback and exits with status 2.
    """
