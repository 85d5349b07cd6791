"""The functions' surroundings as Lambda has them: the layer that `sam build` makes, and the runtime client."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import files
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

from benchmarks.servers import ROOT

LAYER = ROOT / "layers/common"


@dataclass(frozen=True)
class Deployed:
    """How Python is started, the folders it imports from, and what to say of them."""

    python: Sequence[str]
    layer: Path
    runtime: Path
    size: str

    @property
    def path(self) -> str:
        """PYTHONPATH, with the benchmarks themselves at its end."""
        return os.pathsep.join(map(str, (self.layer, self.runtime, ROOT)))


def deploy(folder: Path, source: Path = LAYER) -> Deployed:
    """Makes the layer in `folder`, of what is in `source`.

    Raises RuntimeError where its wheels, which are Lambda's, can't run.
    """
    if sys.version_info[:2] != (3, 13) or sys.platform != "linux" or os.uname().machine != "x86_64":
        raise RuntimeError("The benchmarks run the layer as Lambda does: on Linux, x86-64 and Python 3.13.")
    make = ["make", "--silent", "-C", str(source), "build-CommonLayer", f"PYTHON={sys.executable}"]
    made = subprocess.run(
        [*make, f"ARTIFACTS_DIR={folder / 'layer'}"], capture_output=True, text=True, timeout=180, check=False
    )
    if made.returncode != 0:
        raise RuntimeError(f"the layer can't be made: {made.stderr[-1000:]}")
    runtime = folder / "runtime"
    runtime.mkdir()
    for distribution in ("awslambdaric", "snapshot-restore-py", "simplejson"):
        for name in {file.parts[0] for file in files(distribution) or () if ".." not in file.parts}:
            if not (runtime / name).exists() and not name.endswith(".dist-info"):
                (runtime / name).symlink_to(_site_packages(distribution) / name)
    return Deployed((sys.executable, "-S"), folder / "layer/python", runtime, _size(folder / "layer"))


def _site_packages(distribution: str) -> Path:
    found = files(distribution)
    assert found
    return Path(found[0].locate()).parents[len(found[0].parts) - 1]


def _size(layer: Path) -> str:
    bytes_ = sum(file.stat().st_size for file in layer.rglob("*") if file.is_file())
    archive = layer.with_suffix(".zip")
    with ZipFile(archive, "w", ZIP_DEFLATED) as target:
        for file in layer.rglob("*"):
            target.write(file, file.relative_to(layer))
    packed = archive.stat().st_size
    archive.unlink()
    return f"{bytes_ / 1e6:.0f} MB, zipped {packed / 1e6:.0f} MB"
