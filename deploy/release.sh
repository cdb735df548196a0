#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Packs the release archive: release.sh OUT.tar.gz FILE...
# The files are the programs and what goes with them, as Bazel built them. Every shared library that
# they need goes into lib/, but for the C library's own and CUDA's, which the target has. Programs
# find lib/ by their own run path ($ORIGIN/../lib, millrace.bzl), so the folder may lie anywhere.
#   millrace/bin/{millrace,millraced}  millrace/lib/*.so*  millrace/tests/gpu/{run,contract}
#   millrace/{README.md,LICENSE,examples/}  millrace/deploy/{install,uninstall,*.md,systemd/}
#   millrace/man/*.[18]  millrace/completions/
set -euo pipefail

out=$1
shift
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
top=$root/millrace
shopt -s nullglob
mkdir -p "$top/bin" "$top/lib" "$top/tests/gpu" "$top/examples" "$top/deploy/systemd" \
    "$top/man" "$top/completions"

for file in "$@"; do
    case $file in
    */tests/gpu/libmillrace_cuda.so | */tests/unit/*) continue ;;
    */libmillrace_cuda.so) target=lib ;;
    */completions/*) target=completions ;;
    */man/*) target=man ;;
    */millrace | */millraced) target=bin ;;
    *tests/gpu/*) target=tests/gpu ;;
    */examples/*) target=examples ;;
    *deploy/systemd/*) target=deploy/systemd ;;
    deploy/*) target=deploy ;;
    *) target=. ;;
    esac
    cp -L --no-preserve=mode "$file" "$top/$target/"
done
rmdir "$top/tests/gpu" "$top/tests" 2>/dev/null || true # a build without CUDA has no tests/gpu
chmod 755 "$top/deploy/install" "$top/deploy/uninstall"
find "$top/bin" "$top/tests" -type f -exec chmod 755 {} + 2>/dev/null || true

# What a program needs, as the loader resolves it here: "name => path".
needed() {
    ldd "$1" | sed -n 's/^[[:space:]]*\([^ ]*\) => \(\/[^ ]*\).*/\1 \2/p'
}

for program in "$top"/bin/* "$top"/tests/gpu/contract; do
    [ -f "$program" ] || continue
    needed "$program" | while read -r name path; do
        case $name in
        ld-linux* | libc.so.* | libm.so.* | libpthread.so.* | libdl.so.* | librt.so.*) ;;
        libcuda* | libcublas* | libcudnn* | libnccl* | libnvrtc*) ;;
        *) [ -e "$top/lib/$name" ] || cp -L --no-preserve=mode "$path" "$top/lib/$name" ;;
        esac
    done
done

tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -C "$root" -czf "$out" millrace
