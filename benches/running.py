"""What the benchmarks in Python share: a server of their own, what it has counted, and Recommend by reflection.

Recommend needs grpcio, grpcio-reflection and protobuf; the rest nothing.
"""

import os
import subprocess
import sys
import urllib.request

RECOMMEND = "/reg4rec.v1.RecommendationService/Recommend"


def start(server, *arguments, log=None, **environment):
    """The process, its address as HOST:PORT and its admin URL, once it is ready. Its log goes to the file `log`, if any."""
    command = [server, *arguments, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    environment = dict(os.environ, **environment)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
    said = {}
    for line in process.stdout:
        name, *rest = line.split()
        said[name.rstrip(".")] = rest[-1] if rest else ""
        if name.startswith("ready"):
            return process, said["gRPC"].removeprefix("http://"), said["admin"]
    sys.exit("the server ended before it was ready")


def counted(admin):
    """The numbers of the metrics page at the admin URL, by name and labels."""
    page = urllib.request.urlopen(f"{admin}/metrics", timeout=10).read().decode()
    lines = (line.rsplit(" ", 1) for line in page.splitlines() if line and line[0] != "#")
    return {name: float(value) for name, value in lines}


def messages(channel):
    """The classes of Recommend's request and response."""
    from google.protobuf import descriptor_pool, message_factory
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

    pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    service, _, name = RECOMMEND.strip("/").partition("/")
    method = pool.FindServiceByName(service).methods_by_name[name]
    return [message_factory.GetMessageClass(kind) for kind in (method.input_type, method.output_type)]


def caller(channel):
    """The class of Recommend's request, and the call."""
    Request, Response = messages(channel)
    return Request, channel.unary_unary(RECOMMEND, Request.SerializeToString, Response.FromString)
