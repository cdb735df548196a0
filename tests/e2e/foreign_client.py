#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A client that knows nothing of Millrace: Debian's grpcio and protobuf, and what the server tells
about itself. Message types come from server reflection at run time; no file of ours is read.

As a module: ForeignClient(address).services(), .health(service), .call(method, request),
.stream(method, requests). As a program it checks a server from outside:
    foreign_client.py ADDRESS [--call SERVICE/METHOD JSON ...]
and prints one JSON line per answer; any failure ends it with a traceback and exit status 1.
"""

import argparse
import json
import sys

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

TIMEOUT_SECONDS = 10

_FIELD = descriptor_pb2.FieldDescriptorProto


def _add_message(file, name, fields):
    message = file.message_type.add(name=name)
    for number, field, kind, label, type_name in fields:
        message.field.add(name=field, number=number, type=kind, label=label, type_name=type_name)


def _reflection_file():
    """The part of the reflection protocol that is used here; field numbers are the protocol's."""
    file = descriptor_pb2.FileDescriptorProto(
        name="reflection_subset.proto", package="reflection_subset", syntax="proto3")
    text, raw, one, many = _FIELD.TYPE_STRING, _FIELD.TYPE_BYTES, 1, 3
    nested = _FIELD.TYPE_MESSAGE
    _add_message(file, "Request", [
        (1, "host", text, one, None),
        (3, "file_by_filename", text, one, None),
        (4, "file_containing_symbol", text, one, None),
        (7, "list_services", text, one, None)])
    _add_message(file, "Service", [(1, "name", text, one, None)])
    _add_message(file, "ServiceList", [(1, "service", nested, many, ".reflection_subset.Service")])
    _add_message(file, "Files", [(1, "file_descriptor_proto", raw, many, None)])
    _add_message(file, "Error", [
        (1, "error_code", _FIELD.TYPE_INT32, one, None),
        (2, "error_message", text, one, None)])
    _add_message(file, "Response", [
        (4, "files", nested, one, ".reflection_subset.Files"),
        (6, "services", nested, one, ".reflection_subset.ServiceList"),
        (7, "error", nested, one, ".reflection_subset.Error")])
    # list_services is sent even when empty: it is the question.
    oneof = file.message_type[0].oneof_decl.add(name="ask")
    assert oneof is not None
    for field in file.message_type[0].field[1:]:
        field.oneof_index = 0
    return file


def _types(pool, names):
    factory = message_factory.MessageFactory(pool)
    return [factory.GetPrototype(pool.FindMessageTypeByName(name)) for name in names]


class ForeignClient:
    """One connection; closes with close() or at the end of a with block."""

    def __init__(self, address, version="v1", credentials=None):
        options = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", 64 << 20)]
        self._channel = (grpc.secure_channel(address, credentials, options) if credentials
                         else grpc.insecure_channel(address, options))
        own = descriptor_pool.DescriptorPool()
        own.Add(_reflection_file())
        self._request, self._response = _types(
            own, ["reflection_subset.Request", "reflection_subset.Response"])
        self._reflect = self._channel.stream_stream(
            "/grpc.reflection.%s.ServerReflection/ServerReflectionInfo" % version,
            request_serializer=self._request.SerializeToString,
            response_deserializer=self._response.FromString)
        self._pool = descriptor_pool.DescriptorPool()
        self._files = set()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    def close(self):
        self._channel.close()

    def _ask(self, **question):
        answers = list(self._reflect(iter([self._request(**question)]), timeout=TIMEOUT_SECONDS))
        assert len(answers) == 1, answers
        answer = answers[0]
        if answer.HasField("error"):
            raise KeyError("%s: %s (code %d)" % (
                question, answer.error.error_message, answer.error.error_code))
        return answer

    def services(self):
        """Names of all services, sorted."""
        return sorted(s.name for s in self._ask(list_services="*").services.service)

    def _learn(self, symbol):
        files = [descriptor_pb2.FileDescriptorProto.FromString(data) for data in
                 self._ask(file_containing_symbol=symbol).files.file_descriptor_proto]
        known = {file.name: file for file in files}

        def add(file):
            if file.name in self._files:
                return
            self._files.add(file.name)
            for imported in file.dependency:
                add(known[imported])
            self._pool.Add(file)

        for file in files:
            add(file)

    def method(self, name):
        """The descriptor of "package.Service/Method"."""
        service, _, method = name.partition("/")
        try:
            found = self._pool.FindServiceByName(service)
        except KeyError:
            self._learn(service)
            found = self._pool.FindServiceByName(service)
        return found.methods_by_name[method]

    def _classes(self, name):
        method = self.method(name)
        return _types(self._pool, [method.input_type.full_name, method.output_type.full_name])

    @staticmethod
    def _shown(message):
        return json_format.MessageToDict(message, preserving_proto_field_name=True,
                                         including_default_value_fields=True)

    def call(self, name, request=None, timeout=TIMEOUT_SECONDS):
        """A unary call; request and answer are dicts in protobuf's JSON form."""
        asked, answered = self._classes(name)
        run = self._channel.unary_unary("/" + name, request_serializer=asked.SerializeToString,
                                        response_deserializer=answered.FromString)
        return self._shown(run(json_format.ParseDict(request or {}, asked()), timeout=timeout))

    def raw(self, path, body, timeout=TIMEOUT_SECONDS):
        """Sends bytes as they are to a method's path; the status code's name and its text."""
        run = self._channel.unary_unary(path, request_serializer=lambda sent: sent,
                                        response_deserializer=lambda received: received)
        try:
            run(body, timeout=timeout)
        except grpc.RpcError as error:
            return error.code().name, error.details()
        return "OK", ""

    def watch(self, name, request=None, timeout=TIMEOUT_SECONDS):
        """A server stream: yields answers as dicts; stop iterating to leave it."""
        asked, answered = self._classes(name)
        run = self._channel.unary_stream("/" + name, request_serializer=asked.SerializeToString,
                                         response_deserializer=answered.FromString)
        stream = run(json_format.ParseDict(request or {}, asked()), timeout=timeout)
        try:
            for answer in stream:
                yield self._shown(answer)
        finally:
            stream.cancel()

    def stream(self, name, requests, timeout=TIMEOUT_SECONDS):
        """A bidi stream: sends the dicts of requests, yields answers as dicts."""
        asked, answered = self._classes(name)
        run = self._channel.stream_stream("/" + name, request_serializer=asked.SerializeToString,
                                          response_deserializer=answered.FromString)
        sent = (json_format.ParseDict(request, asked()) for request in requests)
        for answer in run(sent, timeout=timeout):
            yield self._shown(answer)

    def health(self, service=""):
        """SERVING, NOT_SERVING, or a grpc.RpcError with NOT_FOUND."""
        return self.call("grpc.health.v1.Health/Check", {"service": service})["status"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--call", nargs=2, action="append", default=[],
                        metavar=("SERVICE/METHOD", "JSON"))
    arguments = parser.parse_args()
    for version in ("v1alpha", "v1"):
        with ForeignClient(arguments.address, version) as client:
            services = client.services()
            assert "grpc.health.v1.Health" in services, services
            for service in services:
                health = client.health(service)
                assert health in ("SERVING", "NOT_SERVING"), (service, health)
            print(json.dumps({"reflection": version, "services": services,
                              "health": client.health()}))
            for name, request in arguments.call if version == "v1" else []:
                print(json.dumps({name: client.call(name, json.loads(request))}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
