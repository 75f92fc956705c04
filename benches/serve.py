"""Latency and throughput of a running server, as a gRPC client in another language sees them.

usage: serve.py HOST:PORT ADMIN_HOST:PORT ITEM_ID [ITEM_ID ...]

Needs grpcio, grpcio-reflection and protobuf. Sends Recommend calls with histories of 10 items drawn from the given
ones: one at a time, then from 8, 32 and 64 closed loops; prints medians, 99th percentiles, requests a second, and the
mean batch that the server formed. Stops by itself. The client shares the machine's cores with the server, and Python is
a slow client: read the throughput as a floor.
"""

import random
import statistics
import sys
import threading
import time

import grpc

from running import caller, counted


def counters(admin):
    values = counted(f"http://{admin}")
    return values["reg4rec_batch_size_sum"], values["reg4rec_batch_size_count"]


def main(address, admin, items):
    channel = grpc.insecure_channel(address)
    Request, call = caller(channel)

    def request(chance):
        made = Request(k=10)
        for item in chance.sample(items, min(10, len(items))):
            made.history.add(item_id=item)
        return made

    def loop(seed, calls, seconds):
        chance = random.Random(seed)
        for _ in range(calls):
            asked = request(chance)
            begun = time.perf_counter()
            assert len(call(asked, timeout=30).items) == 10
            seconds.append(time.perf_counter() - begun)

    loop(0, 50, [])
    print(f"{'callers':>8} {'p50 ms':>8} {'p99 ms':>8} {'requests/s':>11} {'mean batch':>11}")
    for callers, calls in ((1, 400), (8, 100), (32, 50), (64, 40)):
        jobs, batches = counters(admin)
        seconds, begun = [], time.perf_counter()
        threads = [threading.Thread(target=loop, args=(1 + at, calls, seconds)) for at in range(callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        passed = time.perf_counter() - begun
        later = counters(admin)
        seconds.sort()
        p50, p99 = statistics.median(seconds), seconds[int(len(seconds) * 0.99) - 1]
        mean = (later[0] - jobs) / (later[1] - batches)
        print(f"{callers:>8} {p50 * 1e3:>8.2f} {p99 * 1e3:>8.2f} {len(seconds) / passed:>11.0f} {mean:>11.1f}")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
