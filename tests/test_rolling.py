"""Replicas behind nginx are restarted one after the other under load, and no caller notices."""

import json
import subprocess
import sys
import time
from pathlib import Path

from model_store.store import Store, open_store
from tests.conftest import free_port, wait_until_ready
from tests.load import Load
from tests.test_nginx import ROW, needs_nginx, nginx
from tests.toys import publish_toy


def start(store: Store, port: int) -> subprocess.Popen[str]:
    """A replica."""
    command = [sys.executable, "-m", "app", "--store", store.url, "--port", str(port)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)


def restart(process: subprocess.Popen[str], store: Store, port: int) -> subprocess.Popen[str]:
    """End a replica as an orchestrator does, and put another in its place."""
    process.terminate()
    assert process.wait(30) == 0
    process = start(store, port)
    wait_until_ready(process, f"http://127.0.0.1:{port}")
    return process


@needs_nginx
def test_rolling_restarts_under_load_fail_no_request(tmp_path: Path, *, torture: bool) -> None:
    store = open_store(str(tmp_path / "store"))
    store.promote("toy", publish_toy(store).version)
    restarts, ports = (200 if torture else 6), (free_port(), free_port())
    replicas = {port: start(store, port) for port in ports}
    began = time.monotonic()
    try:
        for port, process in replicas.items():
            wait_until_ready(process, f"http://127.0.0.1:{port}")
        with nginx(tmp_path, *(f"127.0.0.1:{port}" for port in ports)) as client:
            bodies = [json.dumps(ROW).encode()]
            with Load(client.base_url.port or 0, "/predict", bodies, connections=8) as load:
                for number in range(restarts):
                    port = ports[number % 2]
                    replicas[port] = restart(replicas[port], store, port)
    finally:
        for process in replicas.values():
            process.kill()
            process.wait()
    answers = load.answers
    failed = sum(times for (_, status, _), times in answers.seen.items() if status != 200)
    print(
        f"\n{len(answers.seconds)} requests on 8 connections, {restarts} restarts in "
        f"{time.monotonic() - began:.0f} s, {failed} failed, {len(answers.dropped)} connections dropped, "
        f"p99 {1000 * answers.quantile(0.99):.1f} ms, worst {1000 * answers.quantile(1.0):.0f} ms"
    )
    assert (failed, answers.dropped) == (0, [])
    assert len(answers.seconds) > 100 * restarts
