"""A backend that takes as long as it is told, and a server of its own for it.

    python -m tests.agent_plugin.slow stdio | http

The phrase says what it does: `5 boxes 0.1` yields five boxes, a tenth of a second each; `stuck 5` is deaf for five
seconds; `print` writes to standard output; `crash` fails with a secret in its message. The server says on standard
error what becomes of a question.
"""

from __future__ import annotations

import os
import sys
import time

from groundlink import Locator
from groundlink.backend import BackendInfo, Outcome
from groundlink.detections import Found
from groundlink.errors import Cancelled


class SlowBackend:
    info = BackendInfo("slow", ("gui", "ground", "detect", "read", "point"), scores=True, streams=True, concurrency=8)

    def __init__(self, say=lambda text: None):
        self.say = say
        self.running = 0
        self.ended = []

    @classmethod
    def problem(cls):
        return None

    def run(self, image, query, context):
        words = (query.phrases[0] if query.phrases else "1 boxes 0").split()
        self.running += 1
        self.say("begun")
        how = "failed"
        try:
            if words[0] == "stuck":
                time.sleep(float(words[1]))
            elif words[0] == "print":
                print("a library prints this")
                os.write(1, b"and another one this\n")
            elif words[0] == "crash":
                raise RuntimeError("the secret is in /srv/somebody/key")
            else:
                for number in range(int(words[0])):
                    end = time.monotonic() + float(words[2])
                    while time.monotonic() < end:
                        context.check()
                        time.sleep(0.005)
                    yield Found("box", (number, 0, number + 10, 10), score=0.9)
            how = "answered"
            return Outcome()
        except (Cancelled, GeneratorExit):
            how = "cancelled"
            raise
        finally:
            self.running -= 1
            self.ended.append(how)
            self.say(how)

    def close(self):
        self.say("closed")


def main(transport):
    from agent_plugin.mcp_server import listen, serve_http, serve_stdio, take_stdio
    from agent_plugin.toolbox import Limits, Toolbox

    def say(text):
        print(text, file=sys.stderr, flush=True)

    wire = take_stdio() if transport == "stdio" else None
    toolbox = Toolbox(Locator(SlowBackend(say)), limits=Limits(max_bytes=2**20))
    if wire is not None:
        os._exit(serve_stdio(toolbox, wire))
    os._exit(serve_http(toolbox, listen("127.0.0.1", 0)))


if __name__ == "__main__":
    main(sys.argv[1])
