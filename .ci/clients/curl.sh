#!/usr/bin/env bash
# curl, as a user types it. PLAIN is the daemon's address; the port is asked for at localhost, as users do.
set -euo pipefail

base=http://localhost:${PLAIN##*:}
body=$(mktemp)
trap 'rm -f "$body"' EXIT
passed=0
failed=0

# hold PROMISE STATUS PYTHON CURL_ARGUMENTS…: the status is this, and the expression holds for the JSON body `a`
# (`-`: whatever the body is).
hold() {
    local promise=$1 wanted=$2 expression=$3 status why=""
    shift 3
    status=$(curl --silent --show-error --max-time 10 --output "$body" --write-out '%{http_code}' "$@") || why="curl failed"
    [ -n "$why" ] || [ "$status" = "$wanted" ] || why="status $status, wanted $wanted"
    [ -n "$why" ] || [ "$expression" = - ] || python3 -c 'import json, sys
a = json.load(open(sys.argv[1]))
sys.exit(not eval(sys.argv[2]))' "$body" "$expression" || why="not so: $expression"
    if [ -z "$why" ]; then
        passed=$((passed + 1))
        echo "ok $promise"
    else
        failed=$((failed + 1))
        echo "FAILED $promise: $why: $(head -c 1000 "$body")"
    fi
}

execute=(-X POST "$base/api/v1/execute" -H 'Content-Type: application/json')
hold "execute answers" 200 'a["outputs"][0]["type"] == "text" and "offline" in a["outputs"][0]["text"].lower() and a["metadata"]["request_id"].startswith("req_")' \
    "${execute[@]}" -d '{"tool":"analyze","arguments":{"text":"test"}}'
hold "execute echoes" 200 'a["outputs"][0]["text"] == "Grüße 🚀"' \
    "${execute[@]}" -d '{"tool":"echo","arguments":{"text":"Grüße 🚀"}}'
hold "an unknown tool is 404" 404 'a["error"]["code"] == "TOOL_NOT_FOUND"' \
    "${execute[@]}" -d '{"tool":"analyse","arguments":{"text":"test"}}'
hold "invalid arguments are 400" 400 'a["error"]["code"] == "VALIDATION_ERROR" and "text" in str(a["error"])' \
    "${execute[@]}" -d '{"tool":"analyze","arguments":{"text":7}}'
hold "a body that is no JSON is 400" 400 'a["error"]["code"] == "INVALID_REQUEST"' "${execute[@]}" -d '{"tool":'
hold "it is alive" 200 - "$base/healthz"
hold "it is ready" 200 - "$base/readyz"
hold "statistics are told" 200 'isinstance(a, dict) and "waiters" in json.dumps(a)' "$base/api/v1/stats"
hold "a foreign Host is refused" 403 - -H 'Host: example.com' "$base/api/v1/stats"
hold "a foreign Origin is refused" 403 - -H 'Origin: https://example.com' "${execute[@]}" -d '{"tool":"version","arguments":{}}'

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
