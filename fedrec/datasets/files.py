"""Files on the way in: zip, gzip, delimited text, Parquet and JSON lines, and the exact place of what is wrong."""

from __future__ import annotations

import csv
import gzip
import json
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, NoReturn

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from fedrec.errors import DataError

BLOCK = 1 << 24  # bytes of text that are parsed at a time: what bounds memory


@dataclass(frozen=True)
class Layout:
    """How a text file separates values. `names` are the columns of a file without a header."""

    delimiter: str = ","
    quoted: bool = True
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """What a file is called, and how its record numbers (from 0) become the rows (from 1) that an editor shows."""

    name: str
    rows: Callable[[Sequence[int]], Sequence[int]]


CSV = Layout()
TSV = Layout("\t")


@contextmanager
def unpacked(path: Path, names: Sequence[str]) -> Iterator[Path]:
    """A folder that holds `names`: `path` itself, a folder in it, or a zip archive unpacked for the duration."""
    archive = _archive(path, names)
    if archive is None:
        yield _folder(path, names)
        return
    with tempfile.TemporaryDirectory() as scratch:
        _extract(archive, names, Path(scratch))
        yield _folder(Path(scratch), names)


def _archive(path: Path, names: Sequence[str]) -> Path | None:
    if path.is_file():
        return path
    if any(all((folder / name).exists() for name in names) for folder in _folders(path)):
        return None
    return next(iter(sorted(path.glob("*.zip"))), None)


def _folders(path: Path) -> list[Path]:
    return [path, *sorted(child for child in path.glob("*") if child.is_dir())]


def _folder(path: Path, names: Sequence[str]) -> Path:
    for folder in _folders(path):
        missing = [name for name in names if not (folder / name).exists()]
        if not missing:
            return folder
        if len(missing) < len(names):
            raise DataError("the data set's folder is not complete", folder=str(folder), missing=missing)
    raise DataError("the files of the data set are not here", path=str(path), expected=list(names))


def _extract(archive: Path, names: Sequence[str], folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as packed:
            for member in packed.namelist():
                if Path(member).name in names:
                    # Writing under the bare name keeps a hostile archive inside the folder.
                    with packed.open(member) as source, (folder / Path(member).name).open("wb") as sink:
                        while block := source.read(BLOCK):
                            sink.write(block)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DataError(
            "a zip archive must be whole", remedy="Download it again.", file=str(archive), reason=str(error)
        ) from None


def nonempty(path: Path) -> Path:
    """`path`, or a `DataError` when it is missing, is no file or has no bytes."""
    if not path.is_file():
        raise DataError("there is no such file", file=str(path))
    if path.stat().st_size == 0:
        raise DataError("a data file is not empty", remedy="Download or export it again.", file=str(path))
    return path


def batches(path: Path, layout: Layout = CSV) -> Iterator[pa.Table]:
    """The rows of a UTF-8 text file in blocks of bounded size; every column is a string."""
    names, failure = list(layout.names) or header(path, layout), ""
    try:
        with pyarrow.csv.open_csv(
            str(nonempty(path)),
            pyarrow.csv.ReadOptions(column_names=names, skip_rows=0 if layout.names else 1, block_size=BLOCK),
            pyarrow.csv.ParseOptions(
                delimiter=layout.delimiter,
                quote_char='"' if layout.quoted else False,
                newlines_in_values=layout.quoted,
            ),
            pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        ) as reader:
            for batch in reader:
                yield pa.Table.from_batches([batch])
    except pa.ArrowInvalid as error:
        failure = type(error).__name__
    if failure:
        # Arrow's own message quotes the row, which may be a person's text: drop it and find the place ourselves.
        _blame(path, layout, len(names), failure)
    if layout.quoted:
        _closed(path)


def parquet(path: Path, rows: int = 1 << 18) -> Iterator[pa.Table]:
    """The rows of a Parquet file, `rows` at a time."""
    try:
        with pyarrow.parquet.ParquetFile(str(nonempty(path))) as file:
            for batch in file.iter_batches(rows):
                yield pa.Table.from_batches([batch])
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError("a Parquet file must be whole", file=str(path), reason=str(error)) from None


def parquet_columns(path: Path) -> list[str]:
    """The column names of a Parquet file."""
    try:
        return list(pyarrow.parquet.read_schema(str(nonempty(path))).names)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError("a Parquet file must be whole", file=str(path), reason=str(error)) from None


def header(path: Path, layout: Layout = CSV) -> list[str]:
    """The column names in a text file's first line."""
    with nonempty(path).open("rb") as file:
        first = decoded(file.readline(), path, 1, 0).removeprefix("\ufeff")
    names = next(csv.reader([first], delimiter=layout.delimiter), [])
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
        raise DataError("a header names each column once", file=str(path), row=1, twice=twice)
    return names


def decoded(line: bytes, path: Path, row: int, start: int) -> str:
    """`line` as UTF-8, or a `DataError` with the row and the byte's offset in the file."""
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            "the file must be UTF-8",
            remedy="Convert it, for example with `iconv -f LATIN1 -t UTF-8`.",
            file=str(path),
            row=row,
            byte=start + error.start,
            value=f"0x{line[error.start]:02x}",
        ) from None


def text_source(path: Path, layout: Layout = CSV) -> Source:
    """A delimited text file, which is read again only when there is a row to name."""
    return Source(path.name, lambda records: line_numbers(path, records, layout))


def frame_source(name: str) -> Source:
    """A Parquet file or a data frame: it has no lines, so its first record is row 1."""
    return Source(name, lambda records: [record + 1 for record in records])


def demand(columns: Sequence[str], present: Sequence[str], file: str) -> None:
    """Raise `DataError` unless every one of `columns` is `present`."""
    missing = [column for column in dict.fromkeys(columns) if column not in present]
    if missing:
        remedy = "Rename a column; for a table, name yours in data.options, such as user=customer or item_text=title."
        raise DataError(
            "a needed column is missing", remedy=remedy, file=file, missing=missing, present=list(present)[:20]
        )


def line_numbers(path: Path, records: Sequence[int], layout: Layout = CSV) -> list[int]:
    """The line, counted from 1, on which each data record starts (`records` count from 0 after the header).

    Reads the file up to the last record asked for: a quoted value may span lines and blank lines are no records.
    """
    wanted, record, inside = set(records), -1 if layout.names else -2, False
    found: dict[int, int] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if len(found) == len(wanted):
                break
            if not inside and line.strip(b"\r\n"):
                record += 1
                found.update({record: number} if record in wanted else {})
            inside ^= layout.quoted and line.count(b'"') % 2 == 1
    return [found[record] for record in records]


def _closed(path: Path) -> None:
    """Refuse a file that ends inside quotes: Arrow takes all that follows the opening one for one value."""
    with path.open("rb") as file:
        if sum(block.count(b'"') for block in iter(lambda: file.read(BLOCK), b"")) % 2 == 0:
            return
        file.seek(0)
        inside, opened = False, 0
        for row, line in enumerate(file, 1):
            opened = opened if inside else row
            inside ^= line.count(b'"') % 2 == 1
    raise DataError(
        "a quote that opens also closes", remedy="Double a quote inside a value.", file=str(path), row=opened
    )


def _blame(path: Path, layout: Layout, width: int, failure: str) -> NoReturn:
    """Raise for the first row that is not UTF-8, or else has another number of values than `width`."""
    start = 0
    with path.open("rb") as file:
        for row, line in enumerate(file, 1):
            decoded(line, path, row, start)
            start += len(line)
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if layout.quoted else csv.QUOTE_NONE
    with path.open(encoding="utf-8", newline="") as file, suppress(csv.Error):
        reader, row = csv.reader(file, delimiter=layout.delimiter, quoting=quoting), 1
        for values in reader:
            if values and len(values) != width:
                raise DataError(
                    "every row has the columns of the first",
                    remedy="Repair the row; quote a value that holds the delimiter.",
                    file=str(path),
                    row=row,
                    expected=width,
                    values=len(values),
                )
            row = reader.line_num + 1
    raise DataError("the text file cannot be parsed", file=str(path), reason=failure)


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """(row, object) for every line of a JSON-lines file, gzipped when its name ends in `.gz`."""
    start, row = 0, 0
    with _opened(nonempty(path)) as file:
        try:
            for row, line in enumerate(file, 1):
                if line.strip():
                    yield row, _object(decoded(line, path, row, start), path, row)
                start += len(line)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(
                "a gzip file must be whole",
                remedy="Download it again.",
                file=str(path),
                last_whole_row=row,
                reason=str(error),
            ) from None


def _opened(path: Path) -> BinaryIO | gzip.GzipFile:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _object(line: str, path: Path, row: int) -> dict[str, object]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        python = line.lstrip().startswith("{'")
        raise DataError(
            "every line is one JSON object",
            remedy="This looks like a Python dict: rewrite each line with `json.dumps(ast.literal_eval(line))`."
            if python
            else "Repair or remove the line.",
            file=str(path),
            row=row,
            column=error.colno,
            reason=error.msg,
        ) from None
    if not isinstance(value, dict):
        raise DataError("every line is one JSON object", file=str(path), row=row, value=type(value).__name__)
    return value
