#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Goal: train and generate speak the protocol (order, window, a feed that breaks), show what happens
# on the right stream and end with the promised exit codes. Method: the real client against a
# cluster that computes nothing (fake_cluster.c) and judges what it is sent.
# client_run_test.sh MILLRACE FAKE_CLUSTER JOB_FILE
set -euo pipefail

millrace=$PWD/$1
fake=$PWD/$2
folder=$(mktemp -d "${TEST_TMPDIR:-/tmp}/client-run-XXXXXX")
cp "$3" "$folder/job.yaml"
trap 'rm -rf "$folder"' EXIT
failures=0

# Token i of the data is i mod 251; 8 rows more than the 5 steps of 6 samples need.
for ((i = 0; i < 153; i++)); do
    printf '%b' "\\x$(printf %02x $((i % 251)))"
done >"$folder/corpus.bin"

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# start SCENARIO: sets address; the cluster lives until stop closes its stdin.
mkfifo "$folder/in" "$folder/out"
start() {
    "$fake" "$1" <"$folder/in" >"$folder/out" &
    fake_pid=$!
    exec {fake_in}>"$folder/in" {fake_out}<"$folder/out"
    read -r -t 20 address <&"$fake_out"
}

# Ends the cluster; what it saw is in $seen.
stop() {
    exec {fake_in}>&-
    seen=$(cat <&"$fake_out")
    exec {fake_out}<&-
    wait "$fake_pid" || fail "$scenario: the cluster blames the client: $seen"
}

# run CODE ARGUMENTS...: runs the client, checks its exit code; stdout in $out, stderr in $err.
run() {
    local wanted=$1 code=0
    shift
    out=$("$millrace" --server "$address" "$@" 2>"$folder/err" </dev/null {fake_in}>&-) || code=$?
    err=$(cat "$folder/err")
    [ "$code" = "$wanted" ] || fail "$scenario: exit code $code, not $wanted: $err"
}

has() {
    case $2 in
    *"$3"*) ;;
    *) fail "$scenario: $1 lacks: $3; it is: $2" ;;
    esac
}

scenario=train
start train
run 0 train "$folder/job.yaml"
[ "$out" = "final loss 0.17" ] || fail "stdout is: $out"
has stderr "$err" "job job-1 queued, position 1: needs 2 stages, 1 is idle"
has stderr "$err" "job job-1 RUNNING on 1 stage"
has stderr "$err" "step 5/5  loss 0.1667"
stop
has "the cluster's view" "$seen" "feed open at 0"

scenario=jsonl
start train
run 0 -o jsonl -q train "$folder/job.yaml"
[ "$(wc -l <<<"$out")" = 5 ] || fail "not 5 lines: $out"
third='{"step":3,"loss":0.25,"grad_norm":0.5,"lr":0.001,"tokens":24,'
third+='"tokens_per_second":1000,"bubble":0.25,"step_seconds":0.024}'
[ "$(sed -n 3p <<<"$out")" = "$third" ] || fail "line 3 is: $(sed -n 3p <<<"$out")"
[ -z "$err" ] || fail "quiet stderr is: $err"
stop

scenario="break"
start break
run 0 train "$folder/job.yaml"
[ "$out" = "final loss 0.17" ] || fail "stdout is: $out"
stop
has "the cluster's view" "$seen" "feed open at 2"

scenario=fail
start fail
run 8 -o jsonl train "$folder/job.yaml"
has stderr "$err" "FAILED at step 1: stage 1 (member m2) is lost"
stop

scenario=hang
start hang
mkfifo "$folder/messages"
"$millrace" --server "$address" train "$folder/job.yaml" 2>"$folder/messages" \
    >"$folder/client-out" </dev/null {fake_in}>&- {fake_out}<&- &
client_pid=$!
exec {messages}<"$folder/messages"
# The message about RUNNING is the event that the client is in the middle of the job.
while read -r -t 20 line <&"$messages"; do
    case $line in *RUNNING*) break ;; esac
done
kill -INT "$client_pid"
code=0
wait "$client_pid" || code=$?
[ "$code" = 130 ] || fail "interrupted: exit code $code: $(cat <&"$messages")"
exec {messages}<&-
stop
has "the cluster's view" "$seen" "cancel"

scenario=text
start text
run 0 generate "$folder/job.yaml" --prompt ab --tokens 6 --temperature 0
[ "$out" = abcdefgh ] || fail "text is: $out"
stop
has "the cluster's view" "$seen" "feed closed after 6"

scenario=text-json
start text
run 0 -o json generate "$folder/job.yaml" --prompt ab --tokens 6 --temperature 0
has stdout "$out" '"text": "cdefgh"'
has stdout "$out" '"schema": "millrace.cli/v1"'
stop

scenario="get"
start train
run 0 -o name job get job-1
[ "$out" = job-1 ] || fail "name is: $out"
run 1 stage list
has stderr "$err" "ListStages"
stop

[ "$failures" = 0 ] || exit 1
echo "all scenarios passed"
