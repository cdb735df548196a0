#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Goal: job import-deepspeed carries over what a ds_config.json says, in the job file's words, and
# names everything else; the known traps of the format do not catch it, such as keys that are read
# and never used (deepspeed.md 22). Method: the real client on
# the files of ds_config/, against stdout and stderr kept beside them; the printed part completes a
# job file that job plan accepts; one mistake at a time with the error it must give.
# client_import_test.sh MILLRACE DS_CONFIG_JSON...
set -euo pipefail

millrace=$PWD/$1
shift
folder=$(mktemp -d "${TEST_TMPDIR:-/tmp}/client-import-XXXXXX")
for file in "$@"; do
    cp "$file" "${file%.json}.yaml" "${file%.json}.err" "$folder/"
done
cp "$(dirname "$1")/megatron.out" "$folder/"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
failures=0

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

same() {
    diff "$1" "$2" || fail "$3"
}

# Parts that a ds_config.json does not say, for a model of four layers.
rest() {
    cat <<'END'
schema: millrace.job/v1
name: imported
model:
  layers:
    - {type: embedding, tie: e, vocab: 256, dim: 8, positions: 4}
    - {type: transformer_block, repeat: 4, dim: 8, heads: 2, name: aX}
    - {type: lm_head, tie: e}
END
}

for file in *.json; do
    name=${file%.json}
    "$millrace" job import-deepspeed "$file" >out 2>err || fail "$name: exit code $?"
    same "$name.yaml" out "$name: stdout"
    same "$name.err" err "$name: stderr"
    # Completed, it is a job file.
    {
        rest
        sed -e 's/, micro_batches:/, sequence_length: 4&/' out
    } >job.yaml
    "$millrace" -o json job plan job.yaml >plan 2>err || fail "$name: plan: $(cat err)"
done

"$millrace" -o json job import-deepspeed megatron.json >out 2>err
same megatron.out out "JSON"
same /dev/null err "JSON: stderr"
"$millrace" job import-deepspeed - <smallest.json 2>err | tail -n +2 >out
tail -n +2 smallest.yaml | same - out "stdin"

# wrong TEXT ERROR [OPTIONS...]: exit code 2, nothing on stdout, the error on stderr.
wrong() {
    local text=$1 wanted=$2 code=0
    shift 2
    printf '%s' "$text" >bad.json
    "$millrace" job import-deepspeed "$@" bad.json >out 2>err || code=$?
    [ "$code" = 2 ] || fail "$text: exit code $code, not 2"
    [ -s out ] && fail "$text: stdout is $(cat out)"
    grep -qF -- "$wanted" err || fail "$text: stderr lacks: $wanted; it is: $(cat err)"
}

micro='"train_micro_batch_size_per_gpu": 4'
wrong "{$micro, \"gradient_accumulation_steps\": 8, \"train_batch_size\": 100}" \
    'bad.json: train_batch_size: it is 100; it must be a multiple of 32, train_micro_batch_size'
wrong "{$micro, \"train_batch_size\": 30}" \
    'it is 30; it must be a multiple of 4, train_micro_batch_size_per_gpu times the replicas'
wrong "{$micro, \"train_batch_size\": 128, \"gradient_clipping\": \"auto\"}" \
    'gradient_clipping: it is "auto", which another program fills in'
wrong '{"train_batch_size": "auto", "optimizer": {"type": "AdamW", "params": {"lr": "auto"}}}' \
    'bad.json: optimizer.params.lr: it is "auto"'
grep -q 'bad.json: train_batch_size: it is "auto"' err || fail "the second error is not told"
wrong '{"gradient_accumulation_steps": 8}' 'train_batch_size: it is missing'
wrong '{"train_batch_size": 8, "train_batch_size": 16}' 'line 1, column '
grep -q 'duplicate object key' err || fail "duplicate keys: $(cat err)"
wrong '{"train_batch_size": 8,, }' 'bad.json: line 1, column '
wrong '[]' 'it is no object'
wrong '' 'bad.json: line 1'
wrong '{"train_batch_size": true}' 'train_batch_size: it is true; it must be a whole number, 1 to'
wrong '{"train_batch_size": 0}' 'train_batch_size: it is 0; it must be a whole number, 1 to'
wrong '{"train_batch_size": 8.5}' 'train_batch_size: it is 8.5; it must be a whole number'
wrong '{"train_batch_size": 1e300}' 'it must be a whole number'
wrong '{"train_batch_size": 100000, "train_micro_batch_size_per_gpu": 1}' \
    'it makes 100000 microbatches of 1; there may be at most 4096 of at most 16777216'
wrong "{$micro, \"gradient_accumulation_steps\": 1, \"train_batch_size\": 8192}" \
    'it asks for 2048 replicas; there may be at most 1024'
wrong "{$micro, \"optimizer\": []}" 'optimizer: it is a list; it must be an object'
wrong "{$micro, \"optimizer\": {\"type\": \"auto\"}}" 'optimizer.type: it is "auto"'
wrong "{$micro, \"optimizer\": {\"type\": 3}}" 'optimizer.type: it is 3; it must be a text'
wrong "{$micro, \"optimizer\": {\"type\": \"Adam\", \"params\": {\"betas\": [0.9, 1]}}}" \
    'optimizer.params.betas: it is a list; it must be a list of two numbers, each of at'
wrong "{$micro, \"optimizer\": {\"type\": \"Adam\", \"params\": {\"lr\": \"1e-3\"}}}" \
    'optimizer.params.lr: it is "1e-3"; it must be a number above 0 and at most 1000'
wrong "{$micro, \"optimizer\": {\"type\": \"SGD\", \"params\": {\"momentum\": 1}}}" \
    'optimizer.params.momentum: it is 1; it must be a number of at least 0 and below 1'
wrong "{$micro, \"optimizer\": {\"type\": \"SGD\", \"params\": {\"nesterov\": true}}}" \
    'optimizer.params.nesterov: it is true; it must be false where momentum is 0'
wrong "{$micro, \"gradient_clipping\": -1}" \
    'gradient_clipping: it is -1; it must be a number of at least 0'
wrong "{$micro, \"fp16\": {\"enabled\": true}, \"bf16\": {\"enabled\": true}}" \
    'fp16: it and bf16 are both enabled; one must be'
wrong "{$micro, \"fp16\": {\"enabled\": \"auto\"}}" 'fp16.enabled: it is "auto"'
wrong "{$micro, \"fp16\": {\"enabled\": true, \"loss_scale\": -2}}" 'fp16.loss_scale: it is -2'
wrong "{$micro, \"scheduler\": {\"type\": \"WarmupCosineLR\"}}" \
    'scheduler.params.total_num_steps: it is missing; WarmupCosineLR needs the number of steps'
short='"params": {"total_num_steps": 500}'
wrong "{$micro, \"scheduler\": {\"type\": \"WarmupDecayLR\", $short}}" \
    'warmup_num_steps: it is 1000 (the default); it must be at most total_num_steps, 500'
wrong "{$micro, \"scheduler\": {\"type\": \"WarmupLR\", \"params\": {\"warmup_num_steps\": 0}}}" \
    'scheduler.params.warmup_num_steps: it is 0; it must be a whole number, 1 to'
wrong "{$micro, \"scheduler\": {\"type\": \"WarmupLR\", \"params\": {\"warmup_type\": \"auto\"}}}" \
    'scheduler.params.warmup_type: it is "auto"'
wrong "{$micro, \"pipeline\": {\"stages\": 0}}" \
    'pipeline.stages: it is 0; it must be a whole number'
wrong "{$micro, \"pipeline\": {\"partition\": \"type:a(\"}}" \
    'pipeline.partition: pattern a(: missing closing parenthesis (byte 2)'
wrong "{$micro, \"zero_optimization\": {\"stage\": 2}}" \
    'zero_optimization.stage: it is 2; it must be 0, or 1 (optimizer state): gradients are not'
wrong "{$micro, \"zero_optimization\": {\"stage\": 3}}" \
    'zero_optimization.stage: it is 3; it must be 0, or 1 (optimizer state): weights are not'
wrong "{$micro, \"zero_optimization\": {\"stage\": 4}}" \
    'zero_optimization.stage: it is 4; it must be a whole number, 0 to 3'
wrong "{$micro, \"zero_optimization\": {\"stage\": \"auto\"}}" \
    'zero_optimization.stage: it is "auto"'
wrong "{$micro, \"zero_optimization\": 1}" 'zero_optimization: it is 1; it must be an object'
wrong "{$micro, \"pipeline\": {\"activation_checkpoint_interval\": \"auto\"}}" \
    'pipeline.activation_checkpoint_interval: it is "auto"'

# The width that the file does not say.
printf '{"train_batch_size": 64, %s}' "$micro" >wide.json
"$millrace" job import-deepspeed --replicas 4 wide.json >out 2>err
grep -q '^batch: {micro_batch_size: 4, micro_batches: 4}$' out || fail "replicas: $(cat out)"
grep -q '^pipeline: {topology: {pipe: 1, data: 4, model: 1}}$' out || fail "replicas: $(cat out)"
grep -q 'replicas' err && fail "replicas: $(cat err)"
wrong "{$micro, \"gradient_accumulation_steps\": 8, \"train_batch_size\": 128}" \
    'which is 4 (microbatch) x 8 (accumulation) x 4 replicas, but --replicas is 3' --replicas 3

code=0
"$millrace" -o json job import-deepspeed bad.json >out 2>err || code=$?
[ "$code" = 0 ] || fail "JSON: exit code $code"
printf '{"train_batch_size": "auto"}' >bad.json
code=0
"$millrace" -o json job import-deepspeed bad.json >out 2>err || code=$?
[ "$code" = 2 ] || fail "JSON of an error: exit code $code"
grep -q '"valid": false' out || fail "JSON of an error: $(cat out)"
grep -q '"job": null' out || fail "JSON of an error: $(cat out)"
code=0
"$millrace" job import-deepspeed none.json >out 2>err || code=$?
[ "$code" = 3 ] || fail "no file: exit code $code"
# -q keeps errors only; what is not carried over is told all the same
"$millrace" -q job import-deepspeed sgd.json 2>err >out
same sgd.err err "quiet"

[ "$failures" = 0 ] || exit 1
echo "all settings carried over or named"
