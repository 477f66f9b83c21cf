"""`groundlink mcp` as a process: how it starts, what it survives, and how it ends."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from mcp import Client

from groundlink.errors import ERROR_CODES, BackendUnavailable, BadQuery
from tests.agent_plugin.conftest import PROGRAM, WHITE
from tests.agent_plugin.test_mcp import works
from tests.conftest import ROOT, until

HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}


def call(number, phrase, **more):
    arguments = {"image": WHITE, "phrase": phrase, "picture": False, **more}
    params = {"name": "locate", "arguments": arguments}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


class Wire:
    """A client that writes and reads lines by hand."""

    def __init__(self, served):
        self.served = served
        self.send(HELLO)
        assert self.reply()["result"]["serverInfo"]["name"] == "groundlink"
        self.send(INITIALIZED)

    def send(self, message):
        data = message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n"
        self.served.process.stdin.write(data)
        self.served.process.stdin.flush()

    def reply(self):
        """The next message that is no notification; all that comes is JSON-RPC."""
        while True:
            message = json.loads(self.served.process.stdout.readline())
            assert message["jsonrpc"] == "2.0"
            if "method" not in message:
                return message

    def works(self):
        self.send(call("again", "1 boxes 0"))
        reply = self.reply()
        assert reply["id"] == "again" and len(reply["result"]["structuredContent"]["detections"]) == 1


def run(*arguments, **options):
    done = subprocess.run(
        [PROGRAM, "mcp", *arguments], input=b"", capture_output=True, timeout=60, check=False, **options
    )
    assert done.stdout == b"" and b"Traceback" not in done.stderr, done
    return done.returncode, done.stderr.decode()


class TestStart:
    def code(self, error):
        return ERROR_CODES[error].exit_code

    @pytest.mark.parametrize(
        ("arguments", "error", "word"),
        [
            (["--allow-folder", "/no/such/folder"], BadQuery, "/no/such/folder"),
            (["--allow-actions"], BadQuery, "--allow-screen"),
            (["--allow-window", "Trial"], BadQuery, "--allow-actions"),
            (["--backend", "nothing"], BackendUnavailable, "installed: "),
            (["--set", "nothing"], BadQuery, "NAME=VALUE"),
            (["--port", "8001"], BadQuery, "--http"),
            (["--http", "--host", "0.0.0.0"], BadQuery, "no authentication"),
            (["--http", "--host", "::"], BadQuery, "no authentication"),
            (["--http", "--host", "no.such.host.invalid"], BadQuery, "no.such.host.invalid"),
            (["--http", "--host", "192.0.2.1", "--unauthenticated"], BackendUnavailable, "192.0.2.1"),
        ],
    )
    def test_what_cannot_be_is_said(self, arguments, error, word):
        code, said = run(*arguments)
        assert (code, word in said) == (self.code(error), True), said
        assert said.startswith("error: ") and said.count("\n") == 1

    def test_a_port_that_is_in_use(self):
        with socket.create_server(("127.0.0.1", 0)) as other:
            code, said = run("--http", "--port", str(other.getsockname()[1]))
        assert (code, "--port" in said) == (self.code(BackendUnavailable), True), said

    def test_without_the_packages(self, tmp_path):
        (tmp_path / "sitecustomize.py").write_text(
            "import importlib.util as u; find = u.find_spec\n"
            "u.find_spec = lambda name, *more: None if name == 'mcp' else find(name, *more)\n"
        )
        path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
        code, said = run(env=os.environ | {"PYTHONPATH": path})
        assert (code, "pip install 'groundlink[agent]'" in said) == (self.code(BackendUnavailable), True), said

    def test_the_help_needs_none_of_the_packages(self):
        script = "import sys; import agent_plugin.cli; print({'mcp', 'pydantic', 'uvicorn'} & set(sys.modules))"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout == "set()\n"

    def test_other_machines_may_be_let_in_where_it_is_said(self, serve):
        served = serve("mcp", "--http", "--host", "0.0.0.0", "--port", "0", "--unauthenticated")
        assert served.url.startswith("http://0.0.0.0:")
        served.signal(signal.SIGTERM)
        assert served.ends() == 0


class TestStdio:
    def test_ends_with_its_client(self, serve):
        served = serve("slow", "stdio")
        wire = Wire(served)
        wire.works()
        served.process.stdin.close()
        assert served.ends() == 0

    def test_a_client_that_hangs_up_in_the_middle(self, serve):
        served = serve("slow", "stdio")
        Wire(served).send(call(2, "1000 boxes 0.1"))
        served.said("begun")
        served.process.stdin.close()
        assert served.ends() == 0  # with 100 s of work left; the process is gone, and its threads with it

    def test_a_client_that_reads_no_more(self, serve):
        served = serve("slow", "stdio")
        wire = Wire(served)
        served.process.stdout.close()
        wire.send(call(2, "1 boxes 0"))
        assert served.ends(4) == 0

    @pytest.mark.parametrize("what", ["1000 boxes 0.1", "stuck 30", ""])
    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
    def test_ends_when_told(self, serve, what, number, code):
        served = serve("slow", "stdio")
        wire = Wire(served)
        if what:
            wire.send(call(2, what))
            served.said("begun")
        served.signal(number)
        if what.startswith("1000"):
            error = wire.reply()["result"]["structuredContent"]["error"]
            assert error["code"] == "cancelled", "what is under way is told so"
        assert served.ends() == code

    def test_garbage(self, serve):
        wire = Wire(serve("slow", "stdio"))
        for garbage in (b"hello\n", b"\n", b"{}\n", b'{"jsonrpc": "2.0", "id": 7\n', b"\xff\xfe\x00\n", b"[1, 2]\n"):
            wire.send(garbage)
            reply = wire.reply()
            assert reply["id"] is None and reply["error"]["code"] == -32700, garbage
        wire.works()
        for params in ([], {"name": 5}, {}, {"name": "locate", "arguments": [1]}, {"name": "locate", "arguments": "x"}):
            wire.send({"jsonrpc": "2.0", "id": 8, "method": "tools/call", "params": params})
            assert "error" in wire.reply(), params
        wire.send({"jsonrpc": "2.0", "id": 9, "method": "no/such/method"})
        assert wire.reply()["error"]["code"] == -32601
        wire.works()

    def test_a_line_over_the_limit(self, serve):
        served = serve("slow", "stdio")
        wire = Wire(served)
        before = memory(served)
        huge = call(41, "x", image="A" * (200 * 2**20))
        wire.send(huge)
        reply = wire.reply()
        assert reply["id"] == 41 and "limit" in reply["error"]["message"]
        assert memory(served) - before < 60 * 2**20, "it is not kept"
        late = {"jsonrpc": "2.0", "method": "tools/call", "params": huge["params"], "id": "late"}
        wire.send(late)
        assert wire.reply()["id"] == "late"
        wire.works()

    def test_what_libraries_print_is_not_in_the_way(self, serve):
        served = serve("slow", "stdio")
        wire = Wire(served)
        wire.send(call(2, "print"))
        assert wire.reply()["result"]["structuredContent"]["status"] == "not_found"
        served.said("a library prints this", 2)
        served.said("and another one this", 2)
        wire.works()
        served.process.stdin.close()
        assert served.ends() == 0
        assert served.process.stdout.read() == b"", "nothing is left over at the end either"

    def test_a_fault_inside_tells_nothing_of_the_machine(self, serve):
        served = serve("slow", "stdio")
        wire = Wire(served)
        wire.send(call(2, "crash"))
        message = wire.reply()["result"]["structuredContent"]["error"]["message"]
        number = re.search(r"under (\w{8})", message)[1]
        served.said(rf".*{number}.*", 2)
        assert not any("/home" in line or ".py" in line for line in served.errors), served.errors
        wire.works()


def memory(served) -> int:
    """The most memory that a process has had, in bytes."""
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024


class TestHttp:
    def post(self, served, body, path=None, **headers):
        url = urlsplit(served.url)
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=20)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        asked = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", **headers}
        connection.request("POST", path or url.path, data, asked)
        reply = connection.getresponse()
        told = reply.status, dict(reply.getheaders()), reply.read()
        connection.close()
        return told

    async def test_bodies_that_are_none(self, serve):
        served = serve("slow", "http")
        assert self.post(served, b"hello")[0] == 400
        assert self.post(served, b"{}")[0] == 400
        assert self.post(served, b"\xff\xfe")[0] == 400
        assert self.post(served, HELLO, **{"Content-Type": "text/plain"})[0] == 400
        assert self.post(served, HELLO, "/")[0] == 404
        assert self.post(served, b"x" * (8 * 2**20))[0] == 413
        assert self.post(served, call(2, "x"), **{"mcp-session-id": "forged"})[0] == 404
        # One that lies about its length, and hangs up.
        url = urlsplit(served.url)
        with socket.create_connection((url.hostname, url.port)) as client:
            client.sendall(b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n")
            client.sendall(b"Content-Length: 5000\r\n\r\n{")
        async with Client(served.url) as client:
            await works(client)
        assert not any("Traceback" in line for line in served.errors)

    async def test_web_pages_are_kept_out(self, serve):
        served = serve("slow", "http")
        assert self.post(served, HELLO, Host="evil.example")[0] == 421
        assert self.post(served, HELLO, Origin="http://evil.example")[0] == 403
        assert self.post(served, HELLO)[0] == 200

    def test_a_client_that_hangs_up_in_the_middle(self, serve):
        """With the handshake of old a call goes on without its client; it is in nobody's way."""
        served = serve("slow", "http")
        status, headers, _ = self.post(served, HELLO)
        session = {"mcp-session-id": headers["mcp-session-id"], "mcp-protocol-version": "2025-06-18"}
        assert (status, self.post(served, INITIALIZED, **session)[0]) == (200, 202)
        url = urlsplit(served.url)
        body = json.dumps(call(2, "5 boxes 0.1")).encode()
        with socket.create_connection((url.hostname, url.port)) as client:
            head = "".join(f"{name}: {value}\r\n" for name, value in session.items())
            client.sendall(
                f"POST /mcp HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n"
                f"Accept: application/json, text/event-stream\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            served.said("begun")
        served.said("answered|cancelled", 3)
        status, _, body = self.post(served, call(3, "1 boxes 0"), **session)
        assert status == 200 and b'"status":"found"' in body

    @pytest.mark.parametrize("what", ["1000 boxes 0.1", "stuck 30", ""])
    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
    def test_ends_when_told(self, serve, what, number, code):
        served = serve("slow", "http")
        session = {"mcp-session-id": self.post(served, HELLO)[1]["mcp-session-id"]}
        self.post(served, INITIALIZED, **session)
        client = None
        if what:
            program = f"""
import asyncio
from mcp import Client
async def main():
    async with Client({served.url!r}) as client:
        result = await client.call_tool("locate", {{"image": {WHITE!r}, "phrase": {what!r}}})
        print(result.structured_content["error"]["code"], flush=True)
asyncio.run(main())
"""
            client = subprocess.Popen(
                [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT
            )
            served.said("begun")
        try:
            served.signal(number)
            assert served.ends() == code
            if what.startswith("1000"):
                assert client.stdout.readline() == b"cancelled\n"
            assert not [line for line in served.errors if "ERROR" in line]
        finally:
            if client is not None:
                client.kill()
                client.wait()
                client.stdout.close()


def test_a_second_interrupt_is_for_those_in_a_hurry(serve):
    served = serve("slow", "stdio")
    Wire(served).send(call(2, "stuck 30"))
    served.said("begun")
    started = time.monotonic()
    served.signal(signal.SIGINT)
    time.sleep(0.1)
    served.signal(signal.SIGINT)
    until(lambda: served.process.poll() is not None, 2)
    assert (served.ends(), time.monotonic() - started < 1.0) == (130, True)
