"""Builds a Lambda-like Python 3.13 image out of what is on this machine, for `sam local` without a registry.

It holds the interpreter that runs this script at /var/lang with the shared libraries it needs, the runtime client
and boto3 at /var/runtime, and busybox for the few commands `sam local` runs when it builds on top. The layout and
the variables are those of AWS's own image (Lambda developer guide, "Defined runtime environment variables").
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

IMAGE = "site-backup/lambda-python:3.13"
LABEL = "site-backup.contents"
DISTRIBUTIONS = ("awslambdaric", "boto3")
COMMANDS = ("sh", "mv", "cp", "rm", "chmod", "ls", "cat", "env")
NOT_NEEDED = ("__pycache__", "ensurepip", "idlelib", "site-packages", "dist-packages", "test", "tkinter")
# What wheels for manylinux may count on (PEP 600), and what the C library loads to resolve names.
SYSTEM_LIBRARIES = {
    *(
        "libgcc_s.so.1",
        "libstdc++.so.6",
        "libm.so.6",
        "libdl.so.2",
        "librt.so.1",
        "libpthread.so.0",
        "libutil.so.1",
    ),
    *("libresolv.so.2", "libnss_dns.so.2", "libnss_files.so.2"),
}

BOOTSTRAP = b"""#!/bin/sh
# What is in a layer comes before what the image has, as in Lambda.
export AWS_EXECUTION_ENV=AWS_Lambda_python3.13
export PYTHONPATH=/opt/python/lib/python3.13/site-packages:/opt/python:/var/runtime
exec /var/lang/bin/python3.13 -m awslambdaric "$_HANDLER"
"""
VARIABLES = {
    "LANG": "en_US.UTF-8",
    "LAMBDA_RUNTIME_DIR": "/var/runtime",
    "LAMBDA_TASK_ROOT": "/var/task",
    "LD_LIBRARY_PATH": "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/task:/var/task/lib:/opt/lib",
    "PATH": "/var/lang/bin:/usr/local/bin:/usr/bin:/bin:/opt/bin",
    "TZ": ":UTC",
}


class ImageError(Exception):
    """The image can't be built here; the message says why and what to do."""


def main() -> int:
    """Build the image unless it is there with these contents, and say so."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", default=IMAGE, help="its name (default: %(default)s)")
    options = parser.parse_args()
    try:
        built = build(options.image)
    except ImageError as error:
        print(f"The Lambda-like image can't be built: {error}", file=sys.stderr)
        return 1
    print(f"{options.image}: {'built' if built else 'up to date'}")
    return 0


def build(image: str) -> bool:
    """Whether it had to be built. Raises ImageError."""
    docker = _program("docker", "docker.io")
    with tempfile.TemporaryFile() as archive:
        write_root(archive)
        archive.seek(0)
        digest = hashlib.file_digest(archive, "sha256")
        digest.update(repr(VARIABLES).encode())
        contents = digest.hexdigest()
        inspect = [docker, "image", "inspect", "--format", f'{{{{index .Config.Labels "{LABEL}"}}}}', image]
        found = subprocess.run(inspect, capture_output=True, text=True, timeout=30, check=False)
        if found.returncode == 0 and found.stdout.strip() == contents:
            return False
        changes = [f"ENV {name}={value}" for name, value in VARIABLES.items()]
        changes += [f"LABEL {LABEL}={contents}", "WORKDIR /var/task", 'ENTRYPOINT ["/var/runtime/bootstrap"]']
        command = [
            docker,
            "import",
            *(word for change in changes for word in ("--change", change)),
            "-",
            image,
        ]
        archive.seek(0)
        done = subprocess.run(
            command, stdin=archive, capture_output=True, text=True, timeout=120, check=False
        )
    if done.returncode != 0:
        raise ImageError(f"docker import failed: {done.stderr.strip()}")
    return True


def write_root(archive: IO[bytes]) -> None:
    """Write the root file system as a tar that is the same for the same contents. Raises ImageError."""
    if sys.version_info[:2] != (3, 13):
        raise ImageError(
            f"it needs Python 3.13, the runtime of the functions; this is {platform.python_version()}."
        )
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise ImageError(
            f"it is made of this machine's own files and needs Linux on x86_64, not {platform.platform()}."
        )
    files = {**_python(), **_runtime()}
    files["bin/busybox"] = Path(_program("busybox", "busybox-static"))
    files |= _libraries(files.values())
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in sorted(files):
            tar.add(files[name].resolve(), name, recursive=False, filter=_uniform)
        _add(tar, "var/runtime/bootstrap", BOOTSTRAP, mode=0o755)
        _add(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
        _add(tar, "etc/nsswitch.conf", b"hosts: files dns\n")
        for command in COMMANDS:
            _add(tar, f"bin/{command}", link="busybox")
        for folder, mode in (("tmp", 0o1777), ("var/task", 0o755), ("opt", 0o755)):
            _add(tar, folder, mode=mode)


def _python() -> dict[str, Path]:
    """The interpreter and its standard library; the one installed, not the virtual environment's links to it."""
    executable = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib"))
    files = {"var/lang/bin/python3.13": executable}
    for path in _walk(library):
        files[f"var/lang/lib/python3.13/{path.relative_to(library)}"] = path
    return files


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in NOT_NEEDED and not name.startswith("config-3")]
        yield from (Path(root, name) for name in names if not name.startswith("_tkinter"))


def _runtime() -> dict[str, Path]:
    """The runtime client and boto3 with all they need, as installed beside this interpreter."""
    files: dict[str, Path] = {}
    waiting, seen = list(DISTRIBUTIONS), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            raise ImageError(f"{name} is not installed beside {sys.executable}: run `make setup`.") from None
        for file in distribution.files or ():
            if file.suffix != ".pyc" and ".." not in file.parts:
                files[f"var/runtime/{file}"] = Path(str(distribution.locate_file(file)))
        required = [one for one in distribution.requires or () if "extra ==" not in one]
        waiting += [re.split(r"[^A-Za-z0-9._-]", one, maxsplit=1)[0] for one in required]
    return files


def _libraries(files: Iterable[Path]) -> dict[str, Path]:
    """The shared libraries of these files under the names they are looked up by, and the loader.

    Raises ImageError for a library that is missing on this machine.
    """
    binaries = [str(path) for path in files if path.suffix == ".so" or os.access(path, os.X_OK)]
    listing = subprocess.run(
        ["ldd", *binaries], capture_output=True, text=True, timeout=60, check=False
    ).stdout
    known = subprocess.run(
        [_program("ldconfig", "libc-bin"), "-p"], capture_output=True, text=True, timeout=10, check=False
    ).stdout
    lines = [
        *listing.splitlines(),
        *(line for line in known.splitlines() if line.split()[0] in SYSTEM_LIBRARIES),
    ]
    libraries: dict[str, Path] = {}
    for line in lines:
        if "not found" in line:
            raise ImageError(f"a shared library that Python needs is missing here: {line.strip()}.")
        if match := re.match(r"\s+(\S+) .*=> (/\S+)", line):
            libraries.setdefault(f"lib64/{match[1]}", Path(match[2]))
        elif match := re.match(r"\s+(/\S*/ld-linux\S+)", line):
            libraries[f"lib64/{Path(match[1]).name}"] = Path(match[1])
    return libraries


def _add(
    tar: tarfile.TarFile, name: str, data: bytes | None = None, *, mode: int = 0o644, link: str | None = None
) -> None:
    """A file, a symbolic link, or without either a folder."""
    entry = tarfile.TarInfo(name)
    entry.mode = mode
    if link is not None:
        entry.type, entry.linkname = tarfile.SYMTYPE, link
    elif data is None:
        entry.type = tarfile.DIRTYPE
    else:
        entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data or b""))


def _uniform(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = "root"
    entry.mode |= 0o444
    return entry


def _program(name: str, package: str) -> str:
    """Its path. Raises ImageError."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        raise ImageError(f"{name} is not installed (Debian: {package}).")
    return path


if __name__ == "__main__":
    sys.exit(main())
