"""How experiments are started."""

import shutil
from pathlib import Path

from tests.experiments.runs import ROOT, python


def test_a_script_does_not_run_with_the_modules_of_another_clone(tmp_path: Path):
    script = tmp_path / "experiments" / "measured" / "boehm.py"
    script.parent.mkdir(parents=True)
    shutil.copy(ROOT / "experiments" / "measured" / "boehm.py", script)
    done = python(str(script), "--preset", "smoke", "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert f"would run with the modules of {ROOT}" in done.stderr
    assert "pip install -e ." in done.stderr
    assert not (tmp_path / "out").exists()
