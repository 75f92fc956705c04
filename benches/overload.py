"""Offers a server five times what it can answer, and says what becomes of the requests and of its memory.

    python3 benches/overload.py SERVER TOOL BUNDLE [SECONDS] [TIMES] [DEADLINE_MS]

SERVER and TOOL are the binaries reg4rec-server and reg4rec. Capacity is the most answers a second within the deadline that
a closed loop of 4 to 32 callers got from the same process just before. Everything runs on this machine's cores.
"""

import json
import subprocess
import sys
import threading
import time

from running import start

server, tool, bundle = sys.argv[1:4]
seconds, times, deadline = (float(given) for given in (sys.argv[4:7] + ["60", "5", "100"][len(sys.argv[4:7]):]))


def resident_mib(pid):
    """What the process holds, by the kernel's count."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))


def load(address, *more):
    """One run of the load tool."""
    command = [tool, "load", "--server", f"http://{address}", "--bundle", bundle, "--deadline", f"{deadline:.0f}", "--json", *more]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def told(name, report):
    """A line of the table."""
    answers, ms = report["answers"], report["answered_ms"]
    refused = sum(count for code, count in answers.items() if code != "OK")
    print(
        f"{name:28} due {report['requests']:7} ok {answers.get('OK', 0):7} within {report['goodput_per_second']:7.1f}/s "
        f"refused {refused:7} {({code: count for code, count in answers.items() if code != 'OK'})} "
        f"unanswered {report['given_up']} unsent {report['unsent']} degraded {report['degraded']} "
        f"p50 {ms['p50']:.1f} p99 {ms['p99']:.1f} p99.9 {ms['p999']:.1f} ms",
        flush=True,
    )


process, address, _ = start(server, "--bundle", bundle)
try:
    load(address, "--duration", "5", "--concurrency", "16")  # warm
    capacity = 0.0
    for callers in (4, 8, 16, 32):
        report = load(address, "--duration", "10", "--concurrency", str(callers))
        told(f"closed loop, {callers} callers", report)
        capacity = max(capacity, report["goodput_per_second"])
    held, over = [], threading.Event()

    def watch():
        while not over.wait(1):
            held.append(resident_mib(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    rate = times * capacity
    report = load(address, "--rate", f"{rate:.0f}", "--duration", f"{seconds}", "--picture", "/tmp/overload.svg")
    over.set()
    watcher.join()
    told(f"open loop, {rate:.0f}/s", report)
    print(f"capacity {capacity:.1f}/s, goodput {report['goodput_per_second'] / capacity:.0%} of it")
    third = max(len(held) // 3, 1)
    print("resident MiB, means of thirds:", [round(sum(part) / len(part)) for part in (held[:third], held[third:2 * third], held[2 * third:]) if part])
    report = load(address, "--duration", "10", "--concurrency", "16")
    told("closed loop, 16 callers, after", report)
finally:
    process.terminate()
    print("exit", process.wait(30))
