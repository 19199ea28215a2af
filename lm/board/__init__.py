"""The board: web pages over a results folder, for this machine alone. It reads and never writes."""

from lm.board.app import board, serve

__all__ = ["board", "serve"]
