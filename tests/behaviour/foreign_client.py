"""Asks a server of which it knows only the address, learning its messages through reflection.

usage: foreign_client.py HOST:PORT
"""

import sys

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "reg4rec.v1.RecommendationService"
CATALOGUE = "reg4rec.v1.CatalogService"


def main(address):
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    channel = grpc.insecure_channel(address, options=options)
    database = ProtoReflectionDescriptorDatabase(channel)
    services = set(database.get_services())
    assert {SERVICE, CATALOGUE, "grpc.health.v1.Health"} <= services, services
    pool = descriptor_pool.DescriptorPool(database)
    methods = pool.FindServiceByName(SERVICE).methods_by_name
    assert set(methods) == {"Recommend", "RecommendBatch", "RecommendStream"}, set(methods)

    def ask(name, request, timeout=10):
        method = methods[name]
        answer = message_factory.GetMessageClass(method.output_type)
        path = f"/{SERVICE}/{name}"
        serialize = lambda sent: sent if isinstance(sent, bytes) else sent.SerializeToString()
        return channel.unary_unary(path, serialize, answer.FromString)(request, timeout=timeout)

    def refused(name, request, timeout=10):
        try:
            answer = ask(name, request, timeout)
        except grpc.RpcError as error:
            return error.code(), error.details()
        raise AssertionError(f"accepted: {answer}")

    Request = message_factory.GetMessageClass(methods["Recommend"].input_type)
    Batch = message_factory.GetMessageClass(methods["RecommendBatch"].input_type)

    request = Request(user_id="u", explain=True, attributes={"os": "linux"})
    event = request.history.add(item_id="caf\u00e9", kind=4, value=2.5)
    event.time.GetCurrentTime()
    answer = ask("Recommend", request)
    ids = [item.item_id for item in answer.items]
    assert len(ids) == 10 == len(set(ids)), ids
    assert answer.request_id and answer.variant == "default" and not answer.cold_start, answer

    batch = ask("RecommendBatch", Batch(requests=[Request(user_id="a", k=3), Request()]))
    assert [result.WhichOneof("outcome") for result in batch.results] == ["response", "status"], batch
    assert [wrong.field for wrong in batch.results[1].status.violations] == ["user_id", "history"], batch

    Result = message_factory.GetMessageClass(methods["RecommendStream"].output_type)
    stream = channel.stream_stream(f"/{SERVICE}/RecommendStream", Request.SerializeToString, Result.FromString)
    results = list(stream(iter([Request(user_id="a"), Request(), Request(user_id="b", k=2)]), timeout=10))
    assert [result.WhichOneof("outcome") for result in results] == ["response", "status", "response"], results
    assert len(results[2].response.items) == 2, results[2]

    invalid = grpc.StatusCode.INVALID_ARGUMENT
    assert refused("Recommend", Request()) == (invalid, "2 invalid fields: user_id, history")
    # Field 2, `user_id`, of two bytes that are not UTF-8: no Python message would let that pass.
    code, details = refused("Recommend", b"\x12\x02\xff\xfe")
    assert (code, details) == (invalid, "1 invalid field: user_id"), (code, details)
    # Field 3, `history`, whose length runs past the end of the message.
    code, details = refused("Recommend", b"\x1a\x7f")
    assert code == invalid, (code, details)

    code, details = refused("Recommend", Request(user_id="u" * (64 << 20)), timeout=60)
    assert code in (grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.RESOURCE_EXHAUSTED), (code, details)
    code, details = refused("Recommend", Request(user_id="u"), timeout=0.008)
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED, (code, details)
    assert len(ask("Recommend", Request(user_id="u")).items) == 10
    of_health(channel)
    of_items(channel, pool)
    print("ok")


def of_health(channel):
    """What load balancers ask: the server, its services, its variant; and a watch that tells at once."""
    health = health_pb2_grpc.HealthStub(channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    for service in ["", SERVICE, CATALOGUE, "default"]:
        request = health_pb2.HealthCheckRequest(service=service)
        assert health.Check(request, timeout=10).status == serving, service
        watched = health.Watch(request, timeout=10)
        assert next(watched).status == serving, service
        watched.cancel()
    try:
        health.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=10)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error
    else:
        raise AssertionError("the health of a service that does not exist")


def of_items(channel, pool):
    """What the catalogue's service takes and refuses, over a server that keeps no items."""
    methods = pool.FindServiceByName(CATALOGUE).methods_by_name
    assert set(methods) == {"UpsertItems", "RemoveItems", "SetEligibility", "GetItem", "ListItems"}, set(methods)

    def ask(name, **fields):
        request, answer = (message_factory.GetMessageClass(kind) for kind in (methods[name].input_type, methods[name].output_type))
        call = channel.unary_unary(f"/{CATALOGUE}/{name}", request.SerializeToString, answer.FromString)
        return call(request(**fields), timeout=10)

    def refused(name, **fields):
        try:
            answer = ask(name, **fields)
        except grpc.RpcError as error:
            return error.code(), error.details()
        raise AssertionError(f"accepted: {answer}")

    assert not ask("ListItems", page_size=10).items
    assert refused("GetItem", item_id="hat")[0] == grpc.StatusCode.NOT_FOUND
    item = {"item_id": "hat", "title": "Red hat", "categories": ["Hats", ""], "price": -1.0, "embedding": [0.5]}
    expected = (grpc.StatusCode.INVALID_ARGUMENT, "2 invalid fields: items[0].categories[1], items[0].price")
    assert refused("UpsertItems", items=[item]) == expected, refused("UpsertItems", items=[item])
    item = {"item_id": "hat", "title": "Red hat", "categories": ["Hats"], "price": 1.0, "eligible": False}
    assert refused("UpsertItems", items=[item])[0] == grpc.StatusCode.FAILED_PRECONDITION
    assert refused("SetEligibility", items=[{"item_id": "hat"}])[0] == grpc.StatusCode.FAILED_PRECONDITION
    assert refused("RemoveItems", item_ids=[])[0] == grpc.StatusCode.INVALID_ARGUMENT


if __name__ == "__main__":
    main(sys.argv[1])
