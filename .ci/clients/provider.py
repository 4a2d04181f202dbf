"""An OpenAI-compatible provider that holds its answers until it is told to give them. Standard library only."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOLD_SECONDS = 60


class Provider:
    """Listens while a `with` lasts; each request's answer names its number, so no two are equal."""

    def __init__(self):
        self.keys = []
        self._lock = threading.Lock()
        self._go = threading.Event()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                provider._serve(self)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.release()
        self._server.shutdown()
        self._server.server_close()

    @property
    def requests(self):
        return len(self.keys)

    def answer(self, number):
        return f"This is answer {number} – nobody else's."

    def hold(self):
        self._go.clear()

    def release(self):
        self._go.set()

    def _serve(self, handler):
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            self.keys.append(handler.headers["Authorization"])
            number = len(self.keys)
        if not handler.path.endswith("/v1/chat/completions"):
            handler.send_error(404)
            return
        self._go.wait(HOLD_SECONDS)
        answer = self.answer(number)
        if body.get("stream"):
            kind, payload = "text/event-stream", self._events(body["model"], answer)
        else:
            kind, payload = "application/json", self._whole(body["model"], answer)
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(payload)))
        handler.end_headers()
        try:
            handler.wfile.write(payload)
        except OSError:
            pass  # whoever asked has gone

    @staticmethod
    def _events(model, answer):
        half = len(answer) // 2
        deltas = [{"role": "assistant", "content": answer[:half]}, {"content": answer[half:]}, {}]
        ends = [None, None, "stop"]
        chunks = [
            {"object": "chat.completion.chunk", "model": model, "choices": [{"index": 0, "delta": d, "finish_reason": e}]}
            for d, e in zip(deltas, ends)
        ]
        chunks.append({"object": "chat.completion.chunk", "model": model, "choices": [], "usage": USAGE})
        events = [json.dumps(chunk) for chunk in chunks] + ["[DONE]"]
        return "".join(f"data: {event}\n\n" for event in events).encode()

    @staticmethod
    def _whole(model, answer):
        message = {"role": "assistant", "content": answer}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return json.dumps({"object": "chat.completion", "model": model, "choices": [choice], "usage": USAGE}).encode()


USAGE = {"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16}
