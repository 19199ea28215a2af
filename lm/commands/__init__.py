"""What each command of `lm` takes and does: a dataclass whose fields are its options, called to do it.

Nothing heavy is imported to show help: a command imports what it needs when it is called.
"""
