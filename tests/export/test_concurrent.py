"""Two processes export into one folder: one of them does, the other says why not."""

import subprocess
import sys

import pytest

from ltbm.runtime.bundle import Bundle

COMMAND = [sys.executable, "-c", "import sys; from ltbm.runtime.cli import main; sys.exit(main())", "export"]


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--overwrite"]])
def test_one_wins_whole(qwen, tmp_path, flags):
    out = tmp_path / "bundle"
    command = [*COMMAND, str(qwen[0]), str(out), "--no-parity", *flags]
    exports = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [export.communicate(timeout=120)[1].splitlines()[-1] for export in exports]
    codes = [export.returncode for export in exports]
    Bundle.open(out, verify=True)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert 0 in codes
    if codes != [0, 0]:  # one after the other both succeed with --overwrite
        error = said[codes.index(1)]
        assert error.startswith(("ltbm: another export is writing", f"ltbm: {out} exists"))
    else:
        assert flags
