"""`ltbm` in this process; its changes to files are counted, and before one of them it ends as by kill -9.

    python killed_command.py FOLDER CHANGE REPORT ARGUMENTS...

FOLDER: changes below it count; CHANGE: the number of that before which the process ends, 0 for none
REPORT: gets the count so far, from the first change on
`ltbm build` runs over the fake TensorRT.
"""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a script, for tests.support

import pytest

WRITES = os.O_WRONLY | os.O_RDWR
RENAMES = ("os.rename", "os.link", "os.symlink")
CHANGES = (*RENAMES, "os.remove", "os.rmdir", "os.mkdir", "os.chmod")  # as sys.audit names them


class Changes:
    """An audit hook that counts the changes to files below `folder`."""

    def __init__(self, folder: str, last: int, report: Path):
        self._folder = folder
        self._last = last
        self._report = os.open(report, os.O_WRONLY | os.O_CREAT)
        self.count = 0

    def __call__(self, event: str, args: tuple) -> None:
        if event == "open":
            path, _, flags = args
            is_change = bool(flags & WRITES)
        else:
            path = args[0] if args else None
            is_change = event in CHANGES
        if is_change and isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(self._folder):
            self._add()

    def _add(self) -> None:
        self.count += 1
        os.pwrite(self._report, b"%d" % self.count, 0)
        if self.count == self._last:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    folder, last, report, *arguments = sys.argv[1:]
    from ltbm.runtime.cli import main

    if arguments[0] == "build":
        from tests.support.fake_device import Device

        Device(pytest.MonkeyPatch())
    sys.addaudithook(Changes(folder, int(last), Path(report)))
    return main(arguments)


if __name__ == "__main__":
    sys.exit(main())
