#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs a Python test: python.sh FILE, with the folder of cluster.py on the module path. Debian's own
# interpreter, because the gRPC and protobuf modules of the tests are Debian's.
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$PWD/tests/e2e" exec /usr/bin/python3 "$@"
