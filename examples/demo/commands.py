"""`ltbm demo`."""


def add_commands(commands) -> None:
    pass
