# SPDX-License-Identifier: Apache-2.0
"""reduction_trace.py: what the traces of running stages say of the sums over replicas.

A stage's trace has two tracks: exec, with one span for each instruction, and reduce, with one for
each layer's sum and one for the ties'. A sum is hidden as far as it is over when RD begins."""

import json
import urllib.request


def spans(stage):
    """All spans that a stage's trace holds, by track and step: (name, start, end) in
    microseconds."""
    with urllib.request.urlopen("http://%s/trace" % stage.ready["status_address"],
                                timeout=10) as answer:
        events = json.load(answer)["traceEvents"]
    tracks = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    result = {name: {} for name in tracks.values()}
    for event in events:
        if event["ph"] == "X":
            result[tracks[event["tid"]]].setdefault(event["args"]["step"], []).append(
                (event["name"], event["ts"], event["ts"] + event["dur"]))
    return result


def reductions(stage):
    """Of each step that is whole on both tracks: {"sums": microseconds in sums, "exposed":
    microseconds in RD, "early": sums begun before RD, "names": the spans' names in order}."""
    tracks = spans(stage)
    result = {}
    for step, sums in tracks["reduce"].items():
        waits = [s for s in tracks["exec"].get(step, []) if s[0] == "RD"]
        if not waits or sums[-1][0] != "ties":
            continue
        _, start, end = waits[0]
        result[step] = {"sums": sum(s[2] - s[1] for s in sums), "exposed": end - start,
                        "early": sum(s[1] < start for s in sums), "names": [s[0] for s in sums]}
    return result
