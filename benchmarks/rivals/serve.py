"""The far side of the kernels benchmark: one rival's kernels, in its own environment, called in turns with others'.

`python serve.py RIVAL` imports RIVAL/kernels.py and answers lines of JSON on its input with lines of JSON:

    {"do": "about"}                                   -> {"versions": {...}, "ways": {label: platform}}
    {"do": "build", "way": ..., "file": ..., "options": {...}, "to": ...}
                                                      -> {} and the loss and its gradient in the file "to", or {"why"}
    {"do": "time", "repeats": n}                      -> {"seconds": [...]} of calls of what was built last for "way"

RIVAL/kernels.py has PACKAGES, WAYS (label to platform, cpu or gpu) and build(way, options, arrays), which returns a
function of no arguments: it computes once, waits for it, and returns the loss and its gradient. It raises
LookupError where the rival has no such kernel.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from launch import hide_folder, load, versions


def main(rival: str) -> None:
    """Answers until its input ends."""
    # What libraries print goes to the error output; answers alone go out.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    hide_folder()
    module = load(Path(__file__).resolve().parent / rival, "kernels.py")
    import numpy as np

    calls: dict[str, Any] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        reply: dict[str, Any] = {}
        if asked["do"] == "about":
            reply = {"versions": versions(module.PACKAGES), "ways": module.WAYS}
        elif asked["do"] == "build":
            with np.load(asked["file"]) as stored:
                arrays = {name: stored[name] for name in stored.files}
            try:
                call = module.build(asked["way"], asked["options"], arrays)
                np.savez(asked["to"], *map(np.asarray, call()))
                calls[asked["way"]] = call
            except Exception as error:  # whatever a rival raises is its reason
                reply = {"why": f"{type(error).__name__}: {error}"[:300]}
        else:
            seconds = []
            for _ in range(asked["repeats"]):
                began = time.perf_counter()
                calls[asked["way"]]()
                seconds.append(time.perf_counter() - began)
            reply = {"seconds": seconds}
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
