"""The licence of every package is found, and only permitted ones pass."""

import re
from importlib.metadata import distribution
from pathlib import Path

import pytest

from generate import third_party_notices
from generate.third_party_notices import (
    EXCEPTIONS,
    IMAGES,
    LicenceRefused,
    Package,
    identifiers,
    image_licences,
    packages,
)
from tests.support.project import ROOT

COPYLEFT = re.compile(r"lib(gfortran|quadmath|gomp|stdc\+\+|gcc_s|keyutils|crypt-|ldap|pq-)")


@pytest.fixture
def declares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Declares":
    """Install an empty package that declares what a test says."""
    monkeypatch.syspath_prepend(tmp_path)
    return Declares(tmp_path)


class Declares:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, *lines: str) -> Package:
        folder = self._folder / "example-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("\n".join(["Metadata-Version: 2.4", "Name: example", "Version: 1.0", *lines]))
        return Package("example", "1.0")


@pytest.mark.parametrize(
    ("lines", "used"),
    [
        (["License-Expression: MIT"], {"MIT"}),
        (["License-Expression: Apache-2.0 AND MIT"], {"Apache-2.0", "MIT"}),
        (["License-Expression: GPL-3.0-only OR BSD-3-Clause"], {"BSD-3-Clause"}),
        (["License: Apache 2.0"], {"Apache-2.0"}),
        (["Classifier: License :: OSI Approved :: MIT License"], {"MIT"}),
        (["License: whatever", "Classifier: License :: OSI Approved :: Apache Software License"], {"Apache-2.0"}),
    ],
)
def test_a_licence_is_read_from_what_a_package_declares(declares: Declares, lines: list[str], used: set[str]) -> None:
    assert identifiers(declares(*lines)) == used


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["License-Expression: GPL-3.0-only"], "example is under GPL-3.0-only, which is not allowed: use another"),
        (["License-Expression: MIT AND AGPL-3.0-or-later"], "example is under MIT AND AGPL-3.0-or-later"),
        (["License-Expression: MPL-2.0"], "add the licence to EXCEPTIONS .* with the reason"),
        (["License-Expression: LGPL-3.0-only"], "example is under LGPL-3.0-only"),
        (["Classifier: License :: OSI Approved :: BSD License"], "example declares no licence: read its text"),
        ([], "example declares no licence"),
    ],
)
def test_another_licence_is_refused(declares: Declares, lines: list[str], message: str) -> None:
    with pytest.raises(LicenceRefused, match=message):
        identifiers(declares(*lines))


def test_every_exception_is_needed() -> None:
    used = {(package.name, each) for image in IMAGES for package in packages(image) for each in identifiers(package)}

    assert set(EXCEPTIONS) - used == set()


@pytest.mark.parametrize("image", IMAGES)
def test_a_bundled_library_under_other_terms_has_its_licence_named(image: str) -> None:
    bundling = {
        package.name
        for package in packages(image)
        for file in distribution(package.name).files or []
        if file.parts[0].endswith(".libs") and COPYLEFT.match(file.name)
    }

    assert bundling - set(third_party_notices._BUNDLED) == set()


def test_a_lock_line_for_another_system_is_left_out() -> None:
    names = [package.name for package in packages("jobs")]

    assert "numpy" in names
    assert "pywin32" not in names
    assert len(names) == len(set(names))


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_says_under_which_licences_it_comes(image: str) -> None:
    label = f'org.opencontainers.image.licenses="{image_licences(image)}"'

    assert label in (ROOT / f"Dockerfile.{image}").read_text(encoding="utf-8")
    assert "LGPL-3.0-only" in label
