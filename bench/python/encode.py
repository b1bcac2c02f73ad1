"""Token ids per second of the Rust library, called from Python for one row after the other, on one thread."""

import gzip
import json
import os
import re
import time

import tokenizers

from worker import read_job, report

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


def read(path):
    with gzip.open(os.path.join(ROOT, path), "rt", encoding="utf-8") as file:
        return file.read()


def rows_of(job):
    one_row = job["characters"] == job["rowCharacters"]
    text = ("" if one_row else "\n").join(json.loads(read(job["texts"])))
    # White space as JavaScript has it: with U+FEFF, without the separators below U+0020 and U+0085.
    kept = re.sub("[\t-\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff]", "", text) if one_row else text
    repeated = kept * (job["characters"] // len(kept) + 1)
    return [repeated[start : start + job["rowCharacters"]] for start in range(0, job["characters"], job["rowCharacters"])]


def main():
    job = read_job()
    tokenizer = tokenizers.Tokenizer.from_str(read(job["tokenizer"]))
    rows = rows_of(job)

    def encode_all():
        return sum(len(tokenizer.encode(row).ids) for row in rows)

    encode_all()
    speeds = []
    end = time.perf_counter() + job["seconds"]
    while len(speeds) < job["rounds"] or time.perf_counter() < end:
        start = time.perf_counter()
        ids = encode_all()
        speeds.append(ids / (time.perf_counter() - start))
    report({"tokens/s": speeds}, {"tokenizers": tokenizers.__version__})


main()
