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
import urllib.request

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "reg4rec.v1.RecommendationService"
CALLERS = (1, 8, 32, 64)


def start(server, bundle):
    """The process and its two addresses, once it is ready."""
    arguments = [server, "--bundle", bundle, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    said = {}
    for line in process.stdout:
        name, *rest = line.split()
        said[name.rstrip(".")] = rest[-1] if rest else ""
        if name.startswith("ready"):
            return process, said["gRPC"], said["admin"]
    sys.exit(f"the server did not get ready: {said}")


def framed(address, bundle):
    """One request as it goes over the wire."""
    channel = grpc.insecure_channel(address.removeprefix("http://"))
    pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    method = pool.FindServiceByName(SERVICE).FindMethodByName("Recommend")
    golden = json.loads((pathlib.Path(bundle) / "golden.json").read_text())
    events = [event["item_id"] for request in golden["requests"] for event in request["history"]][:20]
    request = message_factory.GetMessageClass(method.input_type)()
    for item in events:
        request.history.add(item_id=item, kind=1)
    request.timeout.seconds = 10
    message = request.SerializeToString()
    return struct.pack(">BI", 0, len(message)) + message


def counted(admin):
    """What the server has counted, by name and labels."""
    page = urllib.request.urlopen(f"{admin}/metrics", timeout=10).read().decode()
    lines = (line.rsplit(" ", 1) for line in page.splitlines() if line and line[0] != "#")
    return {name: float(value) for name, value in lines}


def asked(address, body, callers, seconds):
    """Milliseconds of a request by h2load's mean, and how many were answered a second."""
    command = ["h2load", "-c", str(min(callers, 8)), "-m", str(-(-callers // 8)), "-D", str(seconds), "-d", body]
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    told = subprocess.run(command + headers + [f"{address}/{SERVICE}/Recommend"], capture_output=True, text=True, check=True).stdout
    succeeded, failed = (int(re.search(rf"(\d+) {word}", told)[1]) for word in ("succeeded", "failed"))
    if failed or not succeeded:
        sys.exit(f"requests failed:\n{told}")
    number, unit = re.search(r"time for request:\s+\S+\s+\S+\s+([\d.]+)(us|ms|s)", told).groups()
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit], succeeded / seconds


def main(server, bundle, seconds):
    process, address, admin = start(server, bundle)
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
                grown = lambda name: after[name] - before[name]
                stage = lambda name: grown(f'reg4rec_stage_duration_seconds_sum{{stage="{name}"}}') / jobs * 1e3
                jobs, batches = grown("reg4rec_batch_size_sum"), grown("reg4rec_batch_size_count")
                labels = '{method="Recommend",variant="default"}'
                took, answered = (grown(f"reg4rec_request_duration_seconds_{of}{labels}") for of in ("sum", "count"))
                engine, wait = stage("encode") + stage("search"), stage("queue")
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
