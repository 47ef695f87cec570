"""A plain gRPC client that knows no proto file: all by server reflection."""

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase)


class ReflectedService:
    """Calls the methods of a service that the server describes."""

    def __init__(self, address, service):
        self.channel = grpc.insecure_channel(address)
        self.database = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = descriptor_pool.DescriptorPool(self.database)
        self.service = self.pool.FindServiceByName(service)

    def message(self, name, **fields):
        descriptor = self.pool.FindMessageTypeByName(name)
        return message_factory.GetMessageClass(descriptor)(**fields)

    def call(self, method_name, request, timeout=60, metadata=()):
        """The reply of a unary call, or an iterator of a server stream."""
        method = self.service.methods_by_name[method_name]
        path = f"/{self.service.full_name}/{method_name}"
        reply = message_factory.GetMessageClass(method.output_type)
        make = (self.channel.unary_stream if method.server_streaming
                else self.channel.unary_unary)
        return make(path, request_serializer=type(request).SerializeToString,
                    response_deserializer=reply.FromString)(
                        request, timeout=timeout, metadata=metadata)

    def close(self):
        self.channel.close()


def reflected_services(address):
    """Names of the services that a server lists."""
    with grpc.insecure_channel(address) as channel:
        return set(ProtoReflectionDescriptorDatabase(channel).get_services())
