"""The two ways in which a run ends early; apart from `types` so that no import of JAX is needed."""

import signal


class UserError(Exception):
    """A problem the user can mend: one sentence that names the field or file and the remedy.

    `main` prints the message without a traceback and exits with code 2.
    """


class Interrupted(Exception):
    """The run stopped early at a safe point; the same command continues it.

    Attributes:
      exit_code: 128 + signal number, 130 for Ctrl-C and 143 for SIGTERM.
    """

    def __init__(self, signal_number: int):
        self.exit_code = 128 + signal_number
        super().__init__(signal.Signals(signal_number).name)
