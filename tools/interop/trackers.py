"""Trains a tiny model while a real MLflow server follows, and reads everything back through MLflow's Python client and
through TensorBoard's: every metric of every step, the settings, the state, and that a resumed run is the same run.

    python tools/interop/trackers.py        # from the checkout, after `npm run setup`

Python with mlflow 3.17 and tensorboard 2.21. Takes about a minute.
"""

import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from mlflow.tracking import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

POSTTRAIN = ["npx", "tsx", "src/cli/main.ts"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def posttrain(*words: str, **environment: str) -> str:
    done = subprocess.run(
        [*POSTTRAIN, *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        sys.exit(f"posttrain {' '.join(words)}: {done.stderr}")
    return done.stderr


def start_server(folder: Path) -> tuple[subprocess.Popen, str]:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
        + ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
        + ["--artifacts-destination", str(folder / "artifacts")],
        stdout=open(folder / "server.log", "w"),
        stderr=subprocess.STDOUT,
        # A group of its own, whose workers end with it.
        start_new_session=True,
    )
    for _ in range(240):
        try:
            urllib.request.urlopen(f"{address}/health", timeout=2)
            return server, address
        except OSError:
            time.sleep(0.5)
    sys.exit((folder / "server.log").read_text())


def metrics_of(run: Path) -> dict[str, dict[int, float]]:
    """By name and step, of metrics.jsonl. null stands for what is not finite."""
    found: dict[str, dict[int, float]] = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        values = json.loads(line)
        step = values.pop("step")
        values.pop("time")
        for name, value in values.items():
            found.setdefault(name, {})[step] = math.nan if value is None else value
    return found


def same(found: dict[str, dict[int, float]], wanted: dict[str, dict[int, float]], digits: float):
    assert found.keys() == wanted.keys(), found.keys() ^ wanted.keys()
    for name, by_step in wanted.items():
        assert found[name].keys() == by_step.keys(), (name, found[name].keys(), by_step.keys())
        for step, value in by_step.items():
            other = found[name][step]
            both_nan = math.isnan(value) and math.isnan(other)
            assert both_nan or math.isclose(other, value, rel_tol=digits), (name, step, other, value)


def parsed(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def flat(settings: dict, above: str = "") -> dict[str, object]:
    result: dict[str, object] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            result |= flat(value, f"{above}{name}.")
        else:
            result[above + name] = value
    return result


def check(folder: Path, address: str) -> None:
    client = MlflowClient(address)
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"{n}+1=", "completion": str(n + 1)}) + "\n" for n in range(8)))
    posttrain("init", "--out", f"{folder}/model", "--characters", "0123456789+=", "--hidden-size", "16", "--layers", "1")
    run = folder / "run"
    train = ["train", "sft", "--model", f"{folder}/model", "--data", str(rows), "--out", str(run)]
    sets = ["--set", "batchSize=4", "--set", "track.mlflow=env", "--set", "track.experiment=check"]
    told = posttrain(*train, *sets, "--set", "maxSteps=5", MLFLOW_TRACKING_URI=address)
    assert "mlflow" not in told, told

    experiment = client.get_experiment_by_name("check")
    (first,) = client.search_runs([experiment.experiment_id])
    assert (first.info.run_name, first.info.status) == ("run", "FINISHED"), first.info
    config = json.loads((run / "config.json").read_text())
    wanted = flat(config["config"])
    params = {name: parsed(text) for name, text in first.data.params.items()}
    assert params == wanted, (params, wanted)
    print(f"MLflow has {len(wanted)} settings as config.json has them.")

    posttrain("train", "sft", "--out", str(run), "--resume", "--set", "maxSteps=8", MLFLOW_TRACKING_URI=address)
    (again,) = client.search_runs([experiment.experiment_id])
    assert again.info.run_id == first.info.run_id and again.info.status == "FINISHED", again.info
    assert again.data.tags["posttrain.resumed"].startswith("from step 5; changed maxSteps"), again.data.tags
    metrics = metrics_of(run)
    found = {
        name: {metric.step: metric.value for metric in client.get_metric_history(first.info.run_id, name)}
        for name in again.data.metrics
    }
    same(found, metrics, 0)
    counts = {len(client.get_metric_history(first.info.run_id, name)) for name in found}
    assert counts == {8}, counts
    print(f"MLflow has {len(found)} metrics of 8 steps as metrics.jsonl has them, one run for two processes.")

    events = EventAccumulator(str(run))
    events.Reload()
    tags = events.Tags()["scalars"]
    same({tag: {event.step: event.value for event in events.Scalars(tag)} for tag in tags}, metrics, 1e-6)
    print(f"TensorBoard reads {len(tags)} metrics of 8 steps, in float32.")

    subprocess.run(["npx", "tsx", "tools/interop/tracked.ts", address, str(folder / "hostile")], check=True)
    (hostile,) = client.search_runs([client.get_experiment_by_name("hostile").experiment_id])
    assert hostile.info.status == "KILLED", hostile.info
    assert len(hostile.data.params) == 152 and len(hostile.data.params["long"]) == 6000
    # MLflow keeps what is infinite as the largest number there is.
    most = sys.float_info.max
    wild = {"reward/format:/_a/b_": [(1, 1)], "loss_": [(1, math.nan), (2, most)], "loss__2": [(2, -most)]}
    assert len(hostile.data.metrics) == 800 + len(wild), hostile.data.metrics.keys()
    for name in hostile.data.metrics:
        # They were sent twice.
        history = [(metric.step, metric.value) for metric in client.get_metric_history(hostile.info.run_id, name)]
        wanted = wild[name] if name in wild else [(1, float(name[5:])), (2, float(name[5:]))]
        assert str(history) == str([(step, float(value)) for step, value in wanted]), (name, history)
    print(f"{len(hostile.data.metrics)} metrics with wild names and values arrived once.")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="posttrain-trackers-") as name:
        server, address = start_server(Path(name))
        try:
            check(Path(name), address)
        finally:
            os.killpg(server.pid, 15)
            server.wait()
