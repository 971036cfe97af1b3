"""Presses the red button with nothing but stock grpcio and server reflection.

usage: press.py BUNDLE SLICE REASON

Shares no code and no generated stub with Redbutton: the contract is read from the running controller.
Prints one JSON object: who we are, the services that reflection lists, the order and its outcome per node.
"""

import json
import sys
import tomllib
import uuid

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

PACKAGE = "redbutton.v1"


def caller(channel, pool):
    """Returns call(service, method, **fields): unary, or an iterator when the method streams."""

    def call(service, method, **fields):
        descriptor = pool.FindServiceByName(f"{PACKAGE}.{service}").FindMethodByName(method)
        request = GetMessageClass(descriptor.input_type)(**fields)
        path = f"/{PACKAGE}.{service}/{method}"
        kind = channel.unary_stream if descriptor.server_streaming else channel.unary_unary
        stub = kind(
            path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(descriptor.output_type).FromString,
        )
        return stub(request, timeout=20)

    return call


def main():
    bundle_path, slice_name, reason = sys.argv[1:]
    with open(bundle_path, "rb") as file:
        bundle = tomllib.load(file)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=bundle["ca"].encode(),
        private_key=bundle["key"].encode(),
        certificate_chain=bundle["certificate"].encode(),
    )
    with grpc.secure_channel(bundle["controllers"][0], credentials) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(database)
        call = caller(channel, pool)
        outcome = pool.FindEnumTypeByName(f"{PACKAGE}.Outcome")

        me = call("People", "WhoAmI")
        press = dict(
            idempotency_key=str(uuid.uuid4()),
            reason=reason,
            hold=dict(slice=slice_name, scope=dict(fleet=True), kind="HOLD_KIND_SUSPEND"),
        )
        first = call("Orders", "Press", **press)
        again = call("Orders", "Press", **press)
        nodes = {}
        for event in call("Orders", "Watch", id=first.order.id, until_settled=True):
            for result in event.changed:
                nodes[result.node_name] = outcome.values_by_number[result.outcome].name
            if event.last:
                break
        print(
            json.dumps(
                {
                    "person": me.person.name,
                    "services": sorted(database.get_services()),
                    "order": first.order.id,
                    "created": first.created,
                    "durable": first.durable,
                    "again": {"order": again.order.id, "created": again.created},
                    "nodes": nodes,
                }
            )
        )


if __name__ == "__main__":
    main()
