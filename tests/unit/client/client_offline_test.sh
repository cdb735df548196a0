#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Goal: what needs no server works without one and prints what is promised; errors name file, line
# and key; exit codes hold. Method: the real client's output against texts.
# client_offline_test.sh MILLRACE JOB_FILE
set -euo pipefail

millrace=$PWD/$1
folder=$(mktemp -d "${TEST_TMPDIR:-/tmp}/client-offline-XXXXXX")
cp "$2" "$folder/job.yaml"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
failures=0

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# run CODE ARGUMENTS...
run() {
    local wanted=$1 code=0
    shift
    command="millrace $*"
    out=$("$millrace" "$@" 2>err </dev/null) || code=$?
    err=$(cat err)
    [ "$code" = "$wanted" ] || fail "$command: exit code $code, not $wanted: $err"
}

is() {
    [ "$2" = "$3" ] || fail "$command: $1 is: $2; not: $3"
}

has() {
    case $2 in
    *"$3"*) ;;
    *) fail "$command: $1 lacks: $3; it is: $2" ;;
    esac
}

run 0 version
has stdout "$out" "millrace "
run 0 --version
has stdout "$out" "millrace "
run 0 version -o json
has stdout "$out" '"schema": "millrace.cli/v1"'

run 2
is stdout "$out" ""
has stderr "$err" "Usage: millrace"
run 0 --help
has stdout "$out" "Usage: millrace [options] NOUN [VERB] [arguments]"
run 0 help job plan
has stdout "$out" "Usage: millrace job plan [FILE] [options]"
run 0 job --help
has stdout "$out" "submit FILE"
run 2 jbo
is stderr "$err" "millrace: unknown command jbo; did you mean job?"
run 2 help jbo
run 2 job lst
is stderr "$err" "millrace: job has no verb lst; did you mean job list?"

run 0 job validate job.yaml
is stdout "$out" "job.yaml is valid: job tiny, 4 layers, 1 stage"
run 0 -o json job validate job.yaml
has stdout "$out" '"valid": true'
sed 's/micro_batches: 3/micro_batches: 0/; s/seed: 5/sead: 5/' job.yaml >bad.yaml
run 2 job validate bad.yaml
is stdout "$out" ""
has stderr "$err" "bad.yaml:3: "
has stderr "$err" "sead"
has stderr "$err" "bad.yaml:11: "
has stderr "$err" "micro_batches"
run 2 -o json job validate bad.yaml
has stdout "$out" '"valid": false'
has stdout "$out" '"line": 11'
run 2 job plan bad.yaml
has stderr "$err" "bad.yaml: line 3"
run 2 train bad.yaml
has stderr "$err" "bad.yaml: line 3"
sed 's/pipe: 1/pipe: 9/' job.yaml >wide.yaml
run 2 job validate wide.yaml
has stderr "$err" "9"
run 3 job validate none.yaml
is stderr "$err" "millrace: none.yaml: no such file"

run 0 job plan job.yaml
has stdout "$out" "job tiny: 4 layers"
has stdout "$out" "schedule of stage 0: L0 F0 B0"
run 0 job plan job.yaml -o json
case $out in
'{"schema":"millrace.plan/v1",'* | '{"schema": "millrace.plan/v1",'*) ;;
*) fail "plan JSON begins: ${out:0:60}" ;;
esac

# What the file leaves open follows from --ranks.
sed 's/pipe: 1/pipe: 2/; s/, data: 1//' job.yaml >open.yaml
sed '/^pipeline:/d' job.yaml >bare.yaml
sed 's/topology: {[^}]*}/stages: 2/' job.yaml >short.yaml
run 0 -o json job plan open.yaml --ranks 6
has stdout "$out" '"dims":[2,3,1]'
run 0 -o json job plan short.yaml --ranks 8
has stdout "$out" '"dims":[2,4,1]'
run 0 -o json job plan bare.yaml --ranks 9
has stdout "$out" '"dims":[3,3,1]'
run 0 job plan job.yaml --ranks 1
run 2 job plan short.yaml --ranks 7
is stderr "$err" "millrace: --ranks: 7 ranks do not divide over pipe 2; a multiple of 2 does"
run 2 job plan job.yaml --ranks 2
is stderr "$err" "millrace: --ranks: 2 ranks do not fit one rank; it must be 1"
run 2 job plan bare.yaml --ranks 7
has stderr "$err" "with --ranks 7: line"
has stderr "$err" "pipeline.topology.pipe is 7; it must be at most 4, the number of layers"
run 2 job plan job.yaml --ranks 0
has stderr "$err" "--ranks"
run 2 train short.yaml --ranks 7
has stderr "$err" "7 ranks do not divide over pipe 2"
run 2 job submit short.yaml --ranks 7
has stderr "$err" "7 ranks do not divide over pipe 2"

run 3 train job.yaml
has stderr "$err" "corpus.bin: no such file"
: >corpus.bin
run 2 train job.yaml
has stderr "$err" "corpus.bin is empty"
printf 'abcd' >corpus.bin
run 2 train job.yaml
has stderr "$err" "has 4 tokens"
printf 'abcdefgh' >corpus.bin
run 5 --server 127.0.0.1:1 --timeout 5 train job.yaml
has stderr "$err" "127.0.0.1:1"
run 5 --server 127.0.0.1:1 --timeout 5 job list
has stderr "$err" "127.0.0.1:1"
run 2 --server nonsense job list
has stderr "$err" "nonsense"
run 2 --tls-key x job list
has stderr "$err" "--tls-cert"

run 3 checkpoint list ./none
run 3 checkpoint verify none
mkdir empty
run 0 checkpoint list ./empty
is stdout "$out" ""
run 0 -o json checkpoint list ./empty
has stdout "$out" '"checkpoints": []'
run 3 checkpoint verify empty

if "$millrace" version >/dev/full 2>err; then
    fail "a full stdout is not noticed"
fi

[ "$failures" = 0 ] || exit 1
echo "all commands as promised"
