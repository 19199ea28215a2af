"""Looking at results in a browser."""

from __future__ import annotations

from dataclasses import dataclass

from lm.commands.options import Shared


@dataclass(frozen=True, kw_only=True)
class Board(Shared):
    """Show experiments, runs and their curves in a browser on this machine. Reads only.

    lm board --results results
    """

    results: str = "results"
    """The folder that runs and reports are kept in."""
    host: str = "127.0.0.1"
    """A name of this machine's own loopback: 127.0.0.1, ::1 or localhost."""
    port: int = 8008
    """Where to listen; 0: any free port."""

    def __call__(self) -> int:
        from lm.errors import UserError

        try:
            from lm.board import serve
        except ImportError as error:
            raise UserError(f"the board isn't installed ({error}); install it with: pip install 'lm[board]'") from None
        serve(self.results, self.host, self.port)
        return 0
