"""Shows that the cache of posttrain and that of Python's huggingface_hub are one: either reads what the other downloaded.

    python tools/interop/hubCache.py > tools/interop/hubCache.json

A stand-in for the Hub (test/hubServer.ts) answers both; nothing is asked of the network. Exits with 1 when a file is not
found or differs.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ["npx", "tsx", str(ROOT / "tools/interop/hubCache.ts")]
PYTHON_DOWNLOAD = """
import sys
from huggingface_hub import snapshot_download
print(snapshot_download(sys.argv[1], repo_type=sys.argv[2]))
"""
MODEL_FILES = ["config.json", "model.safetensors", "tokenizer.json", "README.md"]


def run(command, **environment):
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "HF_HUB_DISABLE_XET": "1", **environment}
    )
    if done.returncode != 0:
        raise SystemExit(f"{command} failed:\n{done.stderr}")
    return done.stdout.strip()


def main():
    import huggingface_hub

    results = {}
    server = subprocess.Popen([*SCRIPT, "serve"], stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True)
    endpoint = server.stdout.readline().strip()
    try:
        with tempfile.TemporaryDirectory() as root:
            ours, theirs = Path(root) / "ours", Path(root) / "theirs"
            run([*SCRIPT, "download", "lab/model"], HF_ENDPOINT=endpoint, HF_HUB_CACHE=str(ours), HF_HUB_OFFLINE="0")
            run([*SCRIPT, "data", "lab/rows"], HF_ENDPOINT=endpoint, HF_HUB_CACHE=str(ours), HF_HUB_OFFLINE="0")
            found = {
                name: isinstance(huggingface_hub.try_to_load_from_cache("lab/model", name, cache_dir=ours), str)
                for name in MODEL_FILES
            }
            results["try_to_load_from_cache finds what posttrain downloaded"] = all(found.values())
            snapshot = huggingface_hub.snapshot_download("lab/model", cache_dir=ours, local_files_only=True)
            results["snapshot_download(local_files_only=True) opens it"] = Path(snapshot, "model.safetensors").exists()
            rows = huggingface_hub.snapshot_download(
                "lab/rows", repo_type="dataset", cache_dir=ours, local_files_only=True
            )
            results["and a data set"] = Path(rows, "data/train.jsonl").read_text() == '{"text": "a"}\n'
            scan = huggingface_hub.scan_cache_dir(ours)
            results["scan_cache_dir has no warnings"] = not scan.warnings and len(scan.repos) == 2

            for name, kind in (("lab/model", "model"), ("lab/rows", "dataset")):
                run(
                    [sys.executable, "-c", PYTHON_DOWNLOAD, name, kind], HF_ENDPOINT=endpoint, HF_HUB_CACHE=str(theirs)
                )
            offline = {"HF_HUB_CACHE": str(theirs), "HF_HUB_OFFLINE": "1"}
            folder = Path(run([*SCRIPT, "download", "lab/model"], **offline))
            results["posttrain finds offline what huggingface_hub downloaded"] = (folder / "model.safetensors").exists()
            pinned = run([*SCRIPT, "download", f"lab/model@{folder.name}"], HF_HUB_CACHE=str(theirs), HF_ENDPOINT="http://127.0.0.1:9")
            results["by its commit without asking the Hub"] = pinned == str(folder)
            data = run([*SCRIPT, "data", "lab/rows"], **offline)
            results["and a data set of it"] = Path(data).read_text() == '{"text": "a"}\n'

            def layout(cache):
                paths = (path.relative_to(cache) for path in cache.glob("*s--lab--*/**/*"))
                return sorted(
                    (str(path), os.readlink(cache / path) if (cache / path).is_symlink() else "")
                    for path in paths
                    if path.parts[1] in ("blobs", "refs", "snapshots")
                    and (cache / path).name not in ("generation_config.json",)
                )

            mine, other = layout(ours), layout(theirs)
            results["blobs, refs and links have the same names and targets"] = set(mine) <= set(other) and len(mine) > 15
    finally:
        os.killpg(server.pid, signal.SIGTERM)  # npx and what it started
    print(
        json.dumps(
            {"huggingface_hub": huggingface_hub.__version__, "python": sys.version.split()[0], "results": results},
            indent=2,
        )
    )
    sys.exit(0 if all(results.values()) else 1)


if __name__ == "__main__":
    main()
