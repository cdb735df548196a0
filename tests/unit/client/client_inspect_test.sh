#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Goal: checkpoint inspect shows manifest, layers, files and tensors of a checkpoint, no server,
# and names every file that is damaged while it shows the rest. Method: a checkpoint of known bytes,
# against the output kept beside this file; then one damage of each kind.
# client_inspect_test.sh MILLRACE CHECKPOINT_MAKER TEXT JSON
set -euo pipefail

millrace=$PWD/$1
folder=$(mktemp -d "${TEST_TMPDIR:-/tmp}/client-inspect-XXXXXX")
"$2" "$folder/checkpoints"
cp "$3" "$4" "$folder/"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
good=checkpoints/step-000000000007
failures=0

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# run CODE ARGUMENTS...
run() {
    local wanted=$1 code=0
    shift
    command="millrace checkpoint inspect $*"
    "$millrace" checkpoint inspect "$@" >out 2>err </dev/null || code=$?
    [ "$code" = "$wanted" ] || fail "$command: exit code $code, not $wanted: $(cat err)"
}

has() {
    grep -qF -- "$2" "$1" || fail "$command: $1 lacks: $2; it is: $(cat "$1")"
}

run 0 "$good"
sed 's/^CREATED .*/CREATED      (a time)/' out | diff inspect.txt - || fail "the table"
[ -s err ] && fail "$command: $(cat err)"
run 0 -o json "$good"
sed 's/"created_ms": .*/"created_ms": 0,/' out | diff inspect.json - || fail "the JSON"
run 0 -o name "$good/"
[ "$(cat out)" = "$good/" ] || fail "the name: $(cat out)"
run 0 --headers "$good"
has out "CHECKED      sizes and headers"

# damaged KIND-TEXT: the copy "bad" has one bad file, layer 1's model.
file=layer_01-model_states.safetensors
damaged() {
    run 1 bad
    has err "millrace: bad/$file: $1"
    has err "millrace: bad: 1 of 3 files cannot be used"
    has out "PROBLEMS     1"
    has out "1      $file  (damaged)"
    has out "0      layer_00-model_states.safetensors  weight"
    run 1 -o json bad
    has out '"sound": false'
    has out "\"error\": \"$1"
    rm -rf bad
}
copy() {
    cp -r "$good" bad
}

copy
printf X | dd of=bad/$file bs=1 seek=300 conv=notrunc 2>/dev/null
run 0 --headers bad
damaged "E_CKPT_SHA256"
copy
truncate -s -4 bad/$file
run 1 --headers bad
damaged "E_CKPT_TRUNC"
copy
printf more >>bad/$file
damaged "E_CKPT_SIZE"
copy
rm bad/$file
damaged "E_CKPT_MISSING"
copy
mv bad/$file elsewhere
ln -s ../elsewhere bad/$file
run 6 bad
has err "E_CKPT_FILE reason=symlink"
rm -rf bad
copy
printf '\377' | dd of=bad/$file bs=1 seek=3 conv=notrunc 2>/dev/null
run 1 --headers bad
has err "millrace: bad/$file: E_CKPT_"
rm -rf bad

copy
sed -i 's/"step":7/"step":8/; s/"step": 7/"step": 8/' bad/manifest.json
run 1 bad
has err "bad/manifest.json: E_CKPT_MANIFEST"
rm -rf bad
run 3 none
has err "none is no committed checkpoint"
run 3 checkpoints
has err "checkpoints is no committed checkpoint: it has no manifest.json"
run 2

[ "$failures" = 0 ] || exit 1
echo "all that a checkpoint holds is shown"
