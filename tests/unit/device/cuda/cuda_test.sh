#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Tests of the CUDA library that need a word from outside. Without --config=cuda they have no files
# and say that they were skipped.
#   cuda_test.sh sdpa_support PROGRAM STUB      the program under the toolkit's driver that is none
#   cuda_test.sh library_exports LIBRARY        it shows one symbol, and has code for both cards
set -euo pipefail

if [ $# = 1 ]; then
    echo "skipped: built without --config=cuda"
    exit 0
fi

case $1 in
sdpa_support)
    stub=$(dirname "$(realpath -s "$3")")
    if [ ! -s "$3" ]; then
        echo "skipped: this toolkit has no stub of the driver (lib64/stubs/libcuda.so)"
        exit 0
    fi
    LD_LIBRARY_PATH=$stub "$2"
    ;;
library_exports)
    shown=$(nm -D --defined-only "$2" | awk '{print $3}' | sed 's/@.*//')
    [ "$shown" = mr_device_cuda_entry ] || { echo "shows: $shown"; exit 1; }
    needed=$(readelf -d "$2" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | tr '\n' ' ')
    for library in libcudart libcublasLt libcudnn; do
        [[ $needed == *"$library.so"* ]] || { echo "does not need $library: $needed"; exit 1; }
    done
    [[ $needed != *libcuda.so* ]] || { echo "needs a driver to load: $needed"; exit 1; }
    ;;
esac
