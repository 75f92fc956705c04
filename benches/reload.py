"""What reloads cost those who ask meanwhile, and whether memory stays bounded over hundreds of them.

usage: reload.py SERVER BUNDLE [RELOADS]

Needs grpcio, grpcio-reflection and protobuf. Starts the reg4rec-server at SERVER on free ports with a registry of its
own that holds BUNDLE twice, and points it from one to the other RELOADS times (300), with a pause after each. Two
callers meanwhile ask at a steady pace for histories out of the bundle's golden requests. When a reload has ended is read in the
server's log, which costs it nothing. Prints latency of the calls that ran wholly outside of reloads and of those that met one,
how many failed, and the server's resident memory (VmRSS) at the start and as the median and highest of every thirty reloads.
Stops by itself. The callers share the machine's cores with the server.
"""

import json
import os
import pathlib
import shutil
import statistics
import sys
import tempfile
import threading
import time

import grpc

from running import caller, start

TAKEN = "serves now"
CALLERS = 2
PACE = 0.02
PAUSE = 0.5
WINDOW = 30


def point(registry, version):
    place = registry / "default"
    (place / ".current.tmp").write_text(version + "\n")
    os.replace(place / ".current.tmp", place / "current")


def resident(pid):
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


def main(server, bundle, reloads):
    home = pathlib.Path(tempfile.mkdtemp())
    registry = home / "registry"
    for version in ("a", "b"):
        shutil.copytree(bundle, registry / "default" / version)
    point(registry, "a")
    reading, writing = os.pipe()
    settings = {"REG4REC__REGISTRY__POLL_MS": "50", "REG4REC__LOG__FILTER": "info"}
    process, address, _ = start(server, "--registry", registry, log=writing, **settings)
    os.close(writing)
    try:
        with open(reading) as log:
            measure(process, address, log, registry, bundle, reloads)
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(home)


def measure(process, address, log, registry, bundle, reloads):
    channel = grpc.insecure_channel(address)
    Request, call = caller(channel)
    golden = json.loads((pathlib.Path(bundle) / "golden.json").read_text())["requests"]
    histories = [[event["item_id"] for event in one["history"]] for one in golden]

    calls, failed, done = [], [], threading.Event()

    def ask(first):
        nth = 0
        while not done.is_set():
            asked = Request(k=10)
            for item in histories[(first + nth) % len(histories)]:
                asked.history.add(item_id=item)
            begun = time.perf_counter()
            try:
                assert len(call(asked, timeout=30).items) == 10
                calls.append((begun, time.perf_counter()))
            except (grpc.RpcError, AssertionError) as error:
                failed.append(error)
            nth += 1
            time.sleep(max(0.0, PACE - (time.perf_counter() - begun)))

    callers = [threading.Thread(target=ask, args=(first,)) for first in range(CALLERS)]
    for thread in callers:
        thread.start()
    time.sleep(5)
    memory, spans = [resident(process.pid)], []
    for nth in range(1, reloads + 1):
        begun = time.perf_counter()
        point(registry, "b" if nth % 2 else "a")
        if not any(TAKEN in line for line in log):
            sys.exit("the server ended")
        spans.append((begun, time.perf_counter()))
        time.sleep(PAUSE)
        memory.append(resident(process.pid))
    done.set()
    for thread in callers:
        thread.join()

    met, quiet, at = [], [], 0
    for begun, ended in sorted(calls):
        while at < len(spans) and spans[at][1] < begun:
            at += 1
        inside = at < len(spans) and spans[at][0] < ended
        (met if inside else quiet).append((ended - begun) * 1e3)
    took = [ended - begun for begun, ended in spans]
    print(f"{reloads} reloads, median {statistics.median(took):.2f} s, longest {max(took):.2f} s")
    print(f"{len(calls)} calls answered, {len(failed)} failed")
    for name, times in (("without a reload", quiet), ("during a reload", met)):
        times.sort()
        p99 = times[int(len(times) * 0.99) - 1]
        print(f"{name}: {len(times)} calls, p50 {statistics.median(times):.2f} ms, p99 {p99:.2f} ms, max {times[-1]:.2f} ms")
    print(f"resident: {memory[0]:.0f} MiB at the start; median and maximum of")
    for at in range(1, reloads + 1, WINDOW):
        window = memory[at : at + WINDOW]
        last = at + len(window) - 1
        print(f"  reloads {at} to {last}: {statistics.median(window):.0f}, {max(window):.0f} MiB")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) == 4 else 300)
