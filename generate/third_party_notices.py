"""Write THIRD_PARTY_NOTICES: every package that the locks of the images name, with its licence."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.licenses import canonicalize_license_expression
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
IMAGES = ("api", "jobs")
OWN_LICENCE = "Apache-2.0"
# Where the images run; a lock also names what Windows or another version of Python needs.
_ENVIRONMENT = {
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": "3.11.0",
    "python_version": "3.11",
    "sys_platform": "linux",
}
ALLOWED = {
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MIT-CMU",
    "PSF-2.0",
    "ZPL-2.1",
    "Zlib",
}
GCC_RUNTIME = "GPL-3.0-or-later WITH GCC-exception-3.1"
EXCEPTIONS = {
    ("certifi", "MPL-2.0"): "the list of certificate authorities; only a changed list would have to be published",
    ("tqdm", "MPL-2.0"): "used unchanged; only changed files would have to be published",
    ("psycopg", "LGPL-3.0-only"): "imported unchanged, replaceable, and only with PostgreSQL",
    ("psycopg-binary", "LGPL-3.0-only"): "imported unchanged, replaceable, and only with PostgreSQL",
    ("psycopg-binary", "LGPL-2.1-or-later"): "libcrypt and libkeyutils, bundled as shared libraries",
    ("psycopg-binary", "OLDAP-2.8"): "libldap, bundled; permissive",
    ("psycopg-binary", "PostgreSQL"): "libpq, bundled; permissive",
    ("pyrage", "Unicode-3.0"): "tinystr, linked into it; permissive",
    ("numpy", GCC_RUNTIME): "libgfortran, bundled; the exception allows any program to link it",
    ("numpy", "LGPL-2.1-or-later"): "libquadmath, bundled as a shared library",
    ("scipy", GCC_RUNTIME): "libgfortran, bundled; the exception allows any program to link it",
    ("scipy", "LGPL-2.1-or-later"): "libquadmath, bundled as a shared library",
    ("scikit-learn", GCC_RUNTIME): "libgomp, bundled; the exception allows any program to link it",
}
"""Licences outside ALLOWED, each for one package, with the reason."""
_BUNDLED = {
    "numpy": f"{GCC_RUNTIME} AND LGPL-2.1-or-later",
    "psycopg-binary": "LGPL-2.1-or-later AND OLDAP-2.8 AND PostgreSQL",
    "pyrage": "Apache-2.0 AND BSD-3-Clause AND Unicode-3.0",
    "scikit-learn": GCC_RUNTIME,
    "scipy": f"{GCC_RUNTIME} AND LGPL-2.1-or-later",
}
"""Licences of libraries in the .libs folder of a wheel, or linked into it, which the package does not declare."""
_READ = {
    "contourpy": "BSD-3-Clause",
    "cycler": "BSD-3-Clause",
    "gitdb": "BSD-3-Clause",
    "huey": "MIT",
    "itsdangerous": "BSD-3-Clause",
    "jinja2": "BSD-3-Clause",
    "kiwisolver": "BSD-3-Clause",
    "pyasn1-modules": "BSD-2-Clause",
    "pyrage": "MIT",
    "pysqlite3": "Zlib",
    "scipy": "BSD-3-Clause",
    "skops": "MIT",
    "sqlparse": "BSD-3-Clause",
}
"""Read from the licence text of packages whose metadata names no licence, or no more than "BSD"."""
_NAMES = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache License v2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "MIT License": "MIT",
    "MIT license": "MIT",
    "Python Software Foundation License": "PSF-2.0",
}
"""SPDX identifiers of what packages write in older fields of their metadata."""
_HEAD = """\
Third-party packages in the images of fraud-detection

Generated from requirements/api.txt and requirements/jobs.txt; write it again with `make generate`.

fraud-detection itself is under {own} (LICENSE). The images add the packages below to a base image of Python, which
carries notices of its own. A wheel brings its licence text and those of bundled libraries: the last column names the
text in the folder NAME-VERSION.dist-info of /opt/venv/lib/python3*/site-packages. psycopg is a separate, replaceable
package under the LGPL; its source is at https://github.com/psycopg/psycopg.

"""


class LicenceRefused(Exception):
    """A package without a known licence, or with one that is not allowed; the message says what to decide."""


@dataclass(frozen=True)
class Package:
    """One package of a lock."""

    name: str
    version: str

    @property
    def licence(self) -> str:
        """The SPDX expression of the package and of the libraries that its wheel bundles.

        Raises LicenceRefused.
        """
        own = _declared(self.name, distribution(self.name))
        return canonicalize_license_expression(" AND ".join(filter(None, (own, _BUNDLED.get(self.name)))))

    @property
    def text(self) -> str:
        """Where the licence text stands in the installed package, or what to read instead."""
        files = [path for path in distribution(self.name).files or [] if _LICENCE_FILE.match(path.name)]
        if not files:
            return f"not in the wheel; see the source of {self.name}"
        shortest = min(files, key=lambda path: (".dist-info" not in path.parts[0], len(path.parts), str(path)))
        return str(shortest).partition(".dist-info/")[2] or f"../{shortest}"


_LICENCE_FILE = re.compile(r"(?i)(licen[cs]e|copying)")


def third_party_notices() -> str:
    """Return the text of THIRD_PARTY_NOTICES.

    Raises LicenceRefused.
    """
    images = {image: packages(image) for image in IMAGES}
    rows = [("Package", "Version", "Images", "Licence", "Text")]
    for package in sorted({package for listed in images.values() for package in listed}, key=lambda each: each.name):
        identifiers(package)
        where = ", ".join(image for image, listed in images.items() if package in listed)
        rows.append((package.name, package.version, where, package.licence, package.text))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = (
        "  ".join((*(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)), f"{row[3]}  [{row[4]}]"))
        for row in rows
    )
    return _HEAD.format(own=OWN_LICENCE) + "\n".join(lines) + "\n"


def image_licences(image: str) -> str:
    """Return the SPDX expression of everything that an image adds to its base.

    Raises LicenceRefused.
    """
    found = {identifier for package in packages(image) for identifier in identifiers(package)}
    return " AND ".join(sorted(found | {OWN_LICENCE}))


def packages(image: str) -> list[Package]:
    """Return what the lock of an image installs on Linux."""
    return list(_locked((ROOT / "requirements" / f"{image}.txt").read_text(encoding="utf-8")))


def _locked(lock: str) -> Iterator[Package]:
    for line in re.findall(r"(?m)^\w[^\\\n]*", lock):
        requirement = Requirement(line.strip())
        if requirement.marker is None or requirement.marker.evaluate(_ENVIRONMENT):
            (specifier,) = requirement.specifier
            yield Package(requirement.name, specifier.version)


def identifiers(package: Package) -> set[str]:
    """Return the licences under which a package is used: of "A OR B" the first that is allowed.

    Raises LicenceRefused.
    """
    for alternative in package.licence.split(" OR "):
        parts = set(alternative.split(" AND "))
        if all(part in ALLOWED or (package.name, part) in EXCEPTIONS for part in parts):
            return parts
    raise LicenceRefused(
        f"{package.name} is under {package.licence}, which is not allowed: use another package, "
        "or add the licence to EXCEPTIONS in generate/third_party_notices.py with the reason"
    )


def _declared(name: str, of: Distribution) -> str:
    def field(header: str) -> list[str]:
        return of.metadata.get_all(header) or []

    older = [text for text in field("License") if "\n" not in text]  # else it is the whole licence
    older += [each.rpartition(" :: ")[2] for each in field("Classifier") if each.startswith("License :: ")]
    for text in (*field("License-Expression"), *filter(None, [_READ.get(name)]), *older):
        try:
            return canonicalize_license_expression(_NAMES.get(text, text))
        except ValueError:  # words for people, such as "BSD"
            continue
    raise LicenceRefused(f"{name} declares no licence: read its text and add it to _READ in {Path(__file__).name}")
