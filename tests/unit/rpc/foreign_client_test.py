# SPDX-License-Identifier: Apache-2.0
"""Goal: a client that knows nothing of us works: Python's grpcio finds services and types by
reflection, checks health, calls a unary method, reads a server stream, and sends payloads inside
its messages. Method: foreign_client.py (tests/e2e) against the rig's server in a process of its
own.
"""

import base64
import os
import subprocess
import sys
import unittest

import grpc

from foreign_client import ForeignClient

SERVER = os.path.join("tests", "unit", "rpc", "rig_server")


class ForeignClientTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = subprocess.Popen([SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        cls.address = cls.server.stdout.readline().decode().strip()

    @classmethod
    def tearDownClass(cls):
        cls.server.stdin.close()
        assert cls.server.wait(timeout=20) == 0
        cls.server.stdout.close()

    def setUp(self):
        self.client = ForeignClient(self.address)
        self.addCleanup(self.client.close)

    def fails(self, code, text, name, request):
        with self.assertRaises(grpc.RpcError) as caught:
            self.client.call(name, request)
        self.assertEqual(caught.exception.code(), code)
        self.assertIn(text, caught.exception.details())

    def test_services_are_listed_in_both_versions(self):
        wanted = ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",
                  "grpc.reflection.v1alpha.ServerReflection", "millrace.v1.Feed",
                  "millrace.v1.Jobs"]
        self.assertEqual(self.client.services(), wanted)
        with ForeignClient(self.address, "v1alpha") as alpha:
            self.assertEqual(alpha.services(), wanted)
            self.assertEqual(alpha.health(), "SERVING")

    def test_health_is_told(self):
        self.assertEqual(self.client.health(), "SERVING")
        self.assertEqual(self.client.health("millrace.v1.Jobs"), "SERVING")
        self.fails(grpc.StatusCode.NOT_FOUND, "no service nobody", "grpc.health.v1.Health/Check",
                   {"service": "nobody"})
        watch = self.client.watch("grpc.health.v1.Health/Watch", {"service": "nobody"})
        self.assertEqual(next(watch)["status"], "SERVICE_UNKNOWN")
        watch.close()

    def test_unary_call_is_answered(self):
        self.assertEqual(self.client.call("millrace.v1.Jobs/Get", {"job": "tiny-gpt ü"})["name"],
                         "tiny-gpt ü")
        self.fails(grpc.StatusCode.FAILED_PRECONDITION, "état: 100% ünfit\nline two",
                   "millrace.v1.Jobs/Get", {"job": "status"})
        self.fails(grpc.StatusCode.UNIMPLEMENTED, "/millrace.v1.Jobs/List", "millrace.v1.Jobs/List",
                   {})
        self.fails(grpc.StatusCode.INVALID_ARGUMENT, "job has a NUL byte at offset 1 of 3",
                   "millrace.v1.Jobs/Get", {"job": "a\0b"})

    def test_server_stream_is_read(self):
        events = list(self.client.watch("millrace.v1.Jobs/Watch", {"job": "three"}))
        self.assertEqual(len(events), 3)

    def test_payload_within_the_message_comes_back(self):
        payload = bytes(range(256)) * 4000
        requests = [{"job_id": "j", "step": str(i), "payload": base64.b64encode(payload).decode()}
                    for i in range(3)]
        answers = list(self.client.stream("millrace.v1.Feed/Feed", requests))
        self.assertEqual([answer["step"] for answer in answers], ["0", "1", "2"])
        for answer in answers:
            self.assertEqual(base64.b64decode(answer["payload"]), payload)

    def test_bytes_that_are_not_protobuf_are_refused(self):
        with grpc.insecure_channel(self.address) as channel:
            call = channel.unary_unary("/millrace.v1.Jobs/Get")
            with self.assertRaises(grpc.RpcError) as caught:
                call(b"\xff\xff\xff", timeout=10)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        self.assertIn("millrace.v1.JobRequest of 3 bytes", caught.exception.details())

    def test_compressed_message_is_refused(self):
        with grpc.insecure_channel(self.address, compression=grpc.Compression.Gzip) as channel:
            call = channel.unary_unary("/millrace.v1.Jobs/Get")
            with self.assertRaises(grpc.RpcError) as caught:
                call(b"\x0a\x05" + b"x" * 5, timeout=10)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNIMPLEMENTED)


if __name__ == "__main__":
    sys.exit(unittest.main())
