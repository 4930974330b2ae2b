"""Tells by its first bytes what a file is that is no table, and what to do with it."""

_PACKED = "; unpack it, and import what it holds"
_UTF16 = "is UTF-16 text; save it as UTF-8, for example with `iconv -f UTF-16 -t UTF-8`"
_SPREADSHEET = "is a spreadsheet; open it and save it as CSV (UTF-8)"
_OTHERS = {
    b"SQLite format 3\0": "is an SQLite database; import its table `requests` with `fraudctl import-db`",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": _SPREADSHEET,
    b"PAR1": f"is a Parquet file inside gzip{_PACKED}",
    b"\x1f\x8b": f"is packed twice with gzip{_PACKED}",
    b"BZh": f"is packed with bzip2{_PACKED}",
    b"\xfd7zXZ\0": f"is packed with xz{_PACKED}",
    b"\x28\xb5\x2f\xfd": f"is packed with Zstandard{_PACKED}",
    b"7z\xbc\xaf\x27\x1c": f"is a 7-Zip archive{_PACKED}",
    b"Rar!": f"is a RAR archive{_PACKED}",
    b"\xef\xbb\xbf" * 2: "begins with two byte order marks; save it as UTF-8 with one or none",
    b"\xff\xfe\0\0": "is UTF-32 text; save it as UTF-8, for example with `iconv -f UTF-32 -t UTF-8`",
    b"\xff\xfe": _UTF16,
    b"\xfe\xff": _UTF16,
}
_ZIP = b"PK\x03\x04"
_IN_SPREADSHEETS = (b"[Content_Types].xml", b"xl/", b"opendocument.spreadsheet")
_TAR, _TAR_PLACE = b"ustar", 257


def kind_of(begin: bytes) -> str | None:
    """Return what begins with these bytes, and what to do, as the rest of a sentence; None if it may be a table.

    >>> kind_of(b"amount,Class\\n1,0\\n") is None
    True
    >>> kind_of("amount,Class".encode("utf-16-le"))
    'is UTF-16 text; save it as UTF-8, for example with `iconv -f UTF-16 -t UTF-8`'
    """
    if begin.startswith(_ZIP):
        return _SPREADSHEET if any(part in begin for part in _IN_SPREADSHEETS) else f"is a ZIP archive{_PACKED}"
    if begin[_TAR_PLACE:].startswith(_TAR):
        return f"is a tar archive{_PACKED}"
    for start, meaning in _OTHERS.items():
        if begin.startswith(start):
            return meaning
    text = begin[:200]
    if 2 * max(text[0::2].count(0), text[1::2].count(0)) > len(text) / 2:  # every second byte of most letters is 0
        return _UTF16
    return None
