"""MCP's Streamable HTTP for the suite, carried to another door of the daemon. Standard library only.

A session of the older era has one shim, or one WebSocket; so has each request of the newer era, since all that comes back
belongs to it. What the bridge says by itself is what HTTP alone says: sessions, and that a notification was taken.
"""

import base64
import json
import os
import queue
import secrets
import select
import socket
import struct
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION = "io.modelcontextprotocol/protocolVersion"
# Nothing that the suite asks takes so long; then it is told that the door said nothing.
ANSWER_SECONDS = 30
# How often one that only listens is looked after.
LOOK_SECONDS = 0.2


class Shim:
    """`inflightd shim`: a line on its stdin is a message, and so is one on its stdout."""

    def __init__(self, program, address):
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self.process = subprocess.Popen(
            [program, "shim"],
            env=inherited | {"INFLIGHTD_URL": f"ws://{address}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def send(self, text):
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def messages(self):
        return iter(self.process.stdout.readline, b"")

    def close(self):
        try:
            self.process.stdin.close()
            self.process.wait(5)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()


class Socket:
    """The WebSocket with the subprotocol `mcp`: a text frame is a message."""

    def __init__(self, _program, address):
        host, port = address.rsplit(":", 1)
        self.connection = socket.create_connection((host, int(port)), timeout=10)
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        self.connection.sendall(
            f"GET / HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: mcp\r\n\r\n".encode()
        )
        self.stream = self.connection.makefile("rb")
        head = list(iter(lambda: self.stream.readline().strip(), b""))
        if b" 101 " not in head[0] or b"sec-websocket-protocol: mcp" not in [line.lower() for line in head]:
            raise OSError(f"no upgrade: {head}")
        self.connection.settimeout(None)
        self.lock = threading.Lock()

    def send(self, text):
        self.frame(1, text.encode())

    def frame(self, kind, payload):
        mask, size = secrets.token_bytes(4), len(payload)
        length = bytes([size | 128]) if size < 126 else b"\xfe" + struct.pack("!H", size)
        if size > 0xFFFF:
            length = b"\xff" + struct.pack("!Q", size)
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
        with self.lock:
            self.connection.sendall(bytes([128 | kind]) + length + mask + masked)

    def messages(self):
        whole = b""
        while len(start := self.stream.read(2)) == 2:
            kind, size = start[0] & 15, start[1] & 127
            if size == 126:
                (size,) = struct.unpack("!H", self.stream.read(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", self.stream.read(8))
            payload = self.stream.read(size)
            if kind == 9:
                self.frame(10, payload)
            elif kind == 8:
                return
            elif kind in (0, 1):
                whole += payload
                if start[0] & 128:
                    yield whole
                    whole = b""

    def close(self):
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.connection.close()


class Session:
    """One connection, and who waits for what comes over it."""

    def __init__(self, door):
        self.door = door
        self.lock = threading.Lock()
        self.waiting = {}
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        try:
            for text in self.door.messages():
                self.came(text)
        except (OSError, ValueError, struct.error):
            pass
        with self.lock:
            for inbox in self.waiting.values():
                inbox.put(None)

    def came(self, text):
        message = json.loads(text)
        is_answer = "method" not in message
        with self.lock:
            if is_answer and json.dumps(message.get("id")) in self.waiting:
                inbox = self.waiting[json.dumps(message.get("id"))]
            else:
                # It belongs to what is under way, and there is hardly ever more than one.
                inbox = next(reversed(self.waiting.values()), None)
        if inbox is not None:
            inbox.put((is_answer, message))

    def ask(self, message, text):
        inbox = queue.Queue()
        with self.lock:
            self.waiting[json.dumps(message["id"])] = inbox
        self.door.send(text)
        return inbox

    def answered(self, message):
        with self.lock:
            self.waiting.pop(json.dumps(message["id"]), None)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        text = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        message = json.loads(text)
        # One message is one line, however it was written.
        text = json.dumps(message)
        meta = (message.get("params") or {}).get("_meta") or {}
        if message.get("method") == "initialize" and VERSION not in meta:
            name, session = self.server.open()
            return self.carry(session, message, text, {"Mcp-Session-Id": name})
        if "Mcp-Session-Id" not in self.headers:
            _, session = self.server.open()
            self.carry(session, message, text, {})
            return self.server.close(session)
        session = self.server.sessions.get(self.headers["Mcp-Session-Id"])
        if session is None:
            return self.say(404)
        self.carry(session, message, text, {})

    def do_DELETE(self):
        session = self.server.sessions.get(self.headers.get("Mcp-Session-Id"))
        if session is not None:
            self.server.close(session)
        self.say(404 if session is None else 200)

    def do_GET(self):
        self.say(405)

    def carry(self, session, message, text, headers):
        if "id" not in message or "method" not in message:
            session.door.send(text)
            return self.say(202)
        inbox, begun, waited = session.ask(message, text), False, 0
        try:
            while True:
                try:
                    came = inbox.get(timeout=LOOK_SECONDS)
                except queue.Empty:
                    waited += LOOK_SECONDS
                    if self.has_gone():
                        return
                    if begun or waited < ANSWER_SECONDS:
                        continue
                    came = None
                if came is None:
                    return self.end(begun, 504)
                is_answer, message_back = came
                if is_answer and not begun:
                    return self.say(200, json.dumps(message_back).encode(), headers)
                if not begun:
                    self.begin(headers)
                    begun = True
                self.chunk(f"event: message\ndata: {json.dumps(message_back)}\n\n".encode())
                if is_answer:
                    return self.end(begun, 200)
        except OSError:
            self.close_connection = True
        finally:
            session.answered(message)

    def has_gone(self):
        readable, _, _ = select.select([self.connection], [], [], 0)
        gone = bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)
        self.close_connection |= gone
        return gone

    def say(self, status, body=b"", headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if body:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def begin(self, headers):
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def end(self, begun, status):
        if begun:
            self.chunk(b"")
        else:
            self.say(status)


class Bridge(ThreadingHTTPServer):
    """A server that lasts as long as a `with`."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, door, program, address):
        super().__init__(("127.0.0.1", 0), Handler)
        self.make = lambda: door(program, address)
        self.sessions = {}
        self.url = f"http://127.0.0.1:{self.server_port}/mcp"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()
        for session in list(self.sessions.values()):
            self.close(session)

    def handle_error(self, *_):
        # The suite drops connections as it likes; whatever else goes wrong, it misses an answer.
        pass

    def open(self):
        name, session = secrets.token_hex(16), Session(self.make())
        self.sessions[name] = session
        return name, session

    def close(self, session):
        self.sessions = {name: other for name, other in self.sessions.items() if other is not session}
        session.door.close()


DOORS = {"shim": Shim, "socket": Socket}
