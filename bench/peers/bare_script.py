"""Call a script's functions without any server: `bare_script.py SCRIPT ROW SECONDS` prints the times of the calls.

ROW is one line of CSV. What is printed is JSON: the median in seconds and the calls in a second.
"""

import json
import runpy
import sys
import time

import numpy as np

script, text, seconds = runpy.run_path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
model, times = script["model_fn"](""), []
until = time.perf_counter() + seconds
while time.perf_counter() < until:
    began = time.perf_counter_ns()
    script["predict_fn"](np.fromstring(text, np.float32, sep=","), model)
    times.append(time.perf_counter_ns() - began)
times.sort()
print(json.dumps({"p50_s": times[len(times) // 2] / 1e9, "rps": 1e9 * len(times) / sum(times)}))
