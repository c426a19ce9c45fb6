#!/bin/sh
# Replicate's client for Python sends "Prefer: wait" without a number.
#
# What one expects: RFC 7240, 4.3, defines the preference as wait=SECONDS, and the documentation of Replicate's HTTP API
# shows "Prefer: wait=5". A server may think that a bare "wait" is an error.
# What happens: replicate.run(), which asks to wait unless told otherwise, sends the word alone; a number comes only where
# the caller gives one. A server that answers 400 fails every run().
# Source: replicate 1.0.7, replicate/prediction.py, _create_prediction_headers; RFC 7240, 2: a preference that is not
# understood is ignored, and one with an empty value is the same as one without a value.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check replicate==1.0.7
"$folder/venv/bin/python" - <<'PYTHON'
import http.server, json, threading
from importlib.metadata import version
import replicate

seen = []

class Stub(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        seen.append(self.headers.get("Prefer"))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = json.dumps({
            "id": "a", "model": "m", "version": "v", "status": "succeeded", "input": {}, "output": "done", "logs": "",
            "error": None, "metrics": None, "created_at": "2026-01-01T00:00:00Z", "started_at": "2026-01-01T00:00:00Z",
            "completed_at": "2026-01-01T00:00:00Z", "urls": {"get": "/p/a", "cancel": "/p/a/cancel"},
        }).encode()
        self.send_response(201)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass

server = http.server.HTTPServer(("127.0.0.1", 0), Stub)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = replicate.Client(api_token="none", base_url=f"http://127.0.0.1:{server.server_port}")
client.run("owner/name", input={"prompt": "a fox"})
client.run("owner/name", input={"prompt": "a fox"}, wait=5)
server.shutdown()
print("replicate", version("replicate"), "sent Prefer:", seen)
assert seen == ["wait", "wait=5"], seen
PYTHON
