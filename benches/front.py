"""What the gRPC front adds to the engine: a client's time less the engine's own.

usage: front.py SERVER BUNDLE [SECONDS]

Needs h2load (nghttp2), grpcio and protobuf's reflection. Starts the reg4rec-server at SERVER on free ports and has h2load
ask it in closed loops, which takes little of the machine: one caller, then 8, 32 and 64, SECONDS each (10). Every request
holds the first 20 events of the bundle's golden requests. Prints means in milliseconds: the client's, the server's from the
request's arrival to its answer, the engine's (stages encode and search), the wait for the batch before, and what of the client's
is neither; then requests a second and the mean batch. Stops by itself. The client shares the machine's cores with the server.
"""

import json
import pathlib
import re
import struct
import subprocess
import sys
import tempfile

import grpc

from running import RECOMMEND, counted, messages, start

CALLERS = (1, 8, 32, 64)
LABELS = '{method="Recommend",variant="default"}'
# Not the calls that run when h2load's time is up, which it cancels.
REFUSED = re.compile(r'reg4rec_requests_total\{code="(?!OK"|CANCELLED")\w+",method="Recommend"')


def framed(address, bundle):
    """One request as it goes over the wire."""
    Request, _ = messages(grpc.insecure_channel(address))
    golden = json.loads((pathlib.Path(bundle) / "golden.json").read_text())
    events = [event["item_id"] for request in golden["requests"] for event in request["history"]][:20]
    request = Request()
    for item in events:
        request.history.add(item_id=item, kind=1)
    request.timeout.seconds = 10
    message = request.SerializeToString()
    return struct.pack(">BI", 0, len(message)) + message


def asked(address, body, callers, seconds):
    """Milliseconds of a request by h2load's mean, and how many were answered a second."""
    command = ["h2load", "-c", str(min(callers, 8)), "-m", str(-(-callers // 8)), "-D", str(seconds), "-d", body]
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    url = f"http://{address}{RECOMMEND}"
    told = subprocess.run(command + headers + [url], capture_output=True, text=True, check=True).stdout
    succeeded, failed = (int(re.search(rf"(\d+) {word}", told)[1]) for word in ("succeeded", "failed"))
    if failed or not succeeded:
        sys.exit(f"requests failed:\n{told}")
    number, unit = re.search(r"time for request:\s+\S+\s+\S+\s+([\d.]+)(us|ms|s)", told).groups()
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit], succeeded / seconds


def main(server, bundle, seconds):
    process, address, admin = start(server, "--bundle", bundle)
    try:
        with tempfile.NamedTemporaryFile() as body:
            body.write(framed(address, bundle))
            body.flush()
            asked(address, body.name, 8, 2)
            print("callers  client  server  engine    wait  between  requests/s  mean batch")
            for callers in CALLERS:
                before = counted(admin)
                client, rate = asked(address, body.name, callers, seconds)
                after = counted(admin)
                grown = {name: after[name] - before.get(name, 0.0) for name in after}
                refused = {name: calls for name, calls in grown.items() if calls and REFUSED.match(name)}
                if refused:  # of which h2load, which looks at HTTP's status, knows nothing
                    sys.exit(f"requests failed: {refused}")
                jobs, batches = grown["reg4rec_batch_size_sum"], grown["reg4rec_batch_size_count"]
                took, answered = (grown[f"reg4rec_request_duration_seconds_{of}{LABELS}"] for of in ("sum", "count"))
                encode, search, wait = (
                    grown[f'reg4rec_stage_duration_seconds_sum{{stage="{stage}"}}'] / jobs * 1e3
                    for stage in ("encode", "search", "queue")
                )
                engine = encode + search
                print(
                    f"{callers:>7}  {client:>6.3f}  {took / answered * 1e3:>6.3f}  {engine:>6.3f}  {wait:>6.3f}  "
                    f"{client - engine - wait:>7.3f}  {rate:>10.0f}  {jobs / batches:>10.1f}"
                )
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 10)
