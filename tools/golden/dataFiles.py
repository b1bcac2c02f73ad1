"""Writes test/golden/data: the same rows as Parquet files of several codecs and encodings, and as JSON what they hold.

    python tools/golden/dataFiles.py

with pyarrow. Nothing is random. The files are what `datasets.Dataset.to_parquet` writes: it calls pyarrow too.
"""

import datetime
import decimal
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

OUT = Path(__file__).parents[2] / "test" / "golden" / "data"

CALL = pa.struct([("name", pa.string()), ("arguments", pa.string())])
MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string()), ("tool_calls", pa.list_(CALL))])
SCHEMA = pa.schema(
    [
        ("messages", pa.list_(MESSAGE)),
        ("source", pa.string()),
        ("count", pa.int64()),
        ("small", pa.int32()),
        ("score", pa.float64()),
        ("half", pa.float32()),
        ("price", pa.decimal128(20, 2)),
        ("flag", pa.bool_()),
        ("labels", pa.list_(pa.bool_())),
        ("day", pa.date32()),
        ("at", pa.timestamp("ms")),
        ("none", pa.string()),
    ]
)


def message(role, content, tool_calls=None):
    return dict(role=role, content=content, tool_calls=tool_calls)


def rows():
    made = []
    for index in range(40):
        messages = [message("user", f"Größe {index}? 日本 🙂"), message("assistant", f"line\n{index}")]
        if index % 3 == 0:
            call = dict(name="look", arguments='{"at": %d}' % index)
            messages = [messages[0], message("assistant", None, [call]), message("tool", "", []), messages[1]]
        made.append(
            dict(
                messages=messages,
                source="web" if index % 2 else "book",
                count=(-1) ** index * (2**53 - 1 - index),
                small=None if index == 5 else index - 20,
                score=index / 7,
                half=index / 4,
                price=decimal.Decimal(index * 100 + 5) / 100,
                flag=index % 4 == 0,
                labels=[index % 2 == 0] * (index % 3),
                day=datetime.date(2024, 2, 29) + datetime.timedelta(days=index),
                at=datetime.datetime(2024, 2, 29, 12, 30, 15, 250000),
                none=None,
            )
        )
    return made


def plain(value):
    """As JSON: what is null in a struct is left out, as TRL's remove_none_values does."""
    if isinstance(value, dict):
        return {name: plain(field) for name, field in value.items() if field is not None}
    if isinstance(value, list):
        return [plain(entry) for entry in value]
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, datetime.datetime):
        return value.isoformat(timespec="milliseconds") + "Z"
    if isinstance(value, datetime.date):
        return value.isoformat() + "T00:00:00.000Z"
    return value


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows(), schema=SCHEMA)
    for name, options in {
        "snappy": dict(compression="snappy"),
        "gzip": dict(compression="gzip", use_dictionary=False),
        "zstd": dict(compression="zstd", data_page_version="2.0"),
        "plain": dict(compression="none", use_dictionary=False, version="1.0"),
    }.items():
        pq.write_table(table, OUT / f"{name}.parquet", row_group_size=16, **options)
    for name, column in {
        "longInteger": pa.array([1, 2**53 + 1], pa.int64()),
        "longDecimal": pa.array([decimal.Decimal("1.5"), decimal.Decimal("12345678901234567.89")], pa.decimal128(30, 2)),
        "badText": pa.array([b"good", b"b\xffd"], pa.binary()),
    }.items():
        made = pa.table({"prompt": pa.array(["a", "b"]), "answer": column})
        pq.write_table(made, OUT / f"{name}.parquet", compression="none", store_schema=False)
    expected = [
        {name: plain(value) for name, value in row.items()} for row in rows()
    ]
    header = dict(generator="tools/golden/dataFiles.py", versions=dict(pyarrow=pa.__version__))
    text = json.dumps(header)[:-1] + ', "rows": [\n' + ",\n".join(json.dumps(row) for row in expected) + "\n]}\n"
    (OUT / "rows.json").write_text(text)


if __name__ == "__main__":
    main()
