#!/usr/bin/env bash
# Runs the peer tests: real servers, started here and stopped again, against the real clients.
#
#   tests/peers/run.sh             llama.cpp's server on tiny generated models (OpenAI Chat, Responses, Anthropic)
#   tests/peers/run.sh --litellm   also LiteLLM's proxy in front of it (Gemini)
#   tests/peers/run.sh --ollama    also the official Ollama client against the test server
#
# Needs Python 3 with venv, the package index, and the generator of tiny models (PEREGRINE_PEERS_KIT, by default
# ../shared/peers beside the project). Everything is kept in target/peers. Exit status 0 passed, 1 failed, 2 could
# not run.
set -euo pipefail
cd "$(dirname "$0")/../.."
kit=${PEREGRINE_PEERS_KIT:-../shared/peers}
work=target/peers
litellm= ollama=
for argument in "$@"; do
    case $argument in
        --litellm) litellm=1 ;;
        --ollama) ollama=1 ;;
        *) echo "usage: tests/peers/run.sh [--litellm] [--ollama]" >&2; exit 2 ;;
    esac
done
could_not() { echo "the peer tests could not run: $*" >&2; exit 2; }
[ -f "$kit/make_tiny_gguf.py" ] || could_not "no generator of tiny models in $kit; set PEREGRINE_PEERS_KIT"
command -v python3 >/dev/null || could_not "there is no python3"

# venv NAME PACKAGE..: a virtual environment with these packages, made once.
venv() {
    local folder=$work/$1; shift
    if [ ! -e "$folder/ready" ]; then
        rm -rf "$folder"
        python3 -m venv "$folder" || could_not "python3 has no venv"
        "$folder/bin/pip" install --quiet --disable-pip-version-check "$@" || could_not "pip could not install $*"
        touch "$folder/ready"
    fi
}

pids=()
stop() { for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done; wait 2>/dev/null || true; }
trap stop EXIT

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# wait_for URL PID LOG: until it answers.
wait_for() {
    for _ in $(seq 300); do
        python3 -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=1)' "$1" 2>/dev/null && return
        kill -0 "$2" 2>/dev/null || { cat "$3" >&2; could_not "a server ended before it answered"; }
        sleep 0.1
    done
    cat "$3" >&2
    could_not "$1 did not answer within 30 seconds"
}

mkdir -p "$work"
venv llama xllamacpp gguf numpy

# serve MODE TEXT [embed]: starts llama.cpp on a model that says TEXT, and leaves its port in `port`.
serve() {
    local model=$work/$1.gguf
    [ -e "$model" ] || "$work/llama/bin/python" "$kit/make_tiny_gguf.py" "$model" "$1" "$2"
    port=$(free_port)
    "$work/llama/bin/python" "$kit/serve_xll.py" "$model" "$port" ${3:+"$3"} >"$work/$1${3:-}.log" 2>&1 &
    pids+=($!)
    wait_for "http://127.0.0.1:$port/health" $! "$work/$1${3:-}.log"
}

serve bigram 'The quick'
export PEREGRINE_TEST_PEER_LLAMA_TEXT_URL=http://127.0.0.1:$port
serve tool 'Done.'
export PEREGRINE_TEST_PEER_LLAMA_TOOL_URL=http://127.0.0.1:$port
tool_port=$port
serve random x
export PEREGRINE_TEST_PEER_LLAMA_RANDOM_URL=http://127.0.0.1:$port
serve random x embed
export PEREGRINE_TEST_PEER_LLAMA_EMBED_URL=http://127.0.0.1:$port
filter=peers::llama

if [ -n "$litellm" ]; then
    venv litellm 'litellm[proxy]'
    cat >"$work/litellm.yaml" <<YAML
model_list:
  - model_name: tool
    litellm_params: {model: openai/tool.gguf, api_base: "http://127.0.0.1:$tool_port/v1", api_key: k}
  - model_name: text
    litellm_params: {model: openai/bigram.gguf, api_base: "$PEREGRINE_TEST_PEER_LLAMA_TEXT_URL/v1", api_key: k}
litellm_settings: {telemetry: false}
YAML
    port=$(free_port)
    key=sk-$(python3 -c 'import secrets; print(secrets.token_hex(24))')
    LITELLM_MASTER_KEY=$key LITELLM_LOCAL_MODEL_COST_MAP=True LITELLM_TELEMETRY=False \
        "$work/litellm/bin/litellm" --config "$work/litellm.yaml" --host 127.0.0.1 --port "$port" --num_workers 1 \
        >"$work/litellm.log" 2>&1 &
    pids+=($!)
    wait_for "http://127.0.0.1:$port/health/liveliness" $! "$work/litellm.log"
    export PEREGRINE_TEST_PEER_LITELLM_URL=http://127.0.0.1:$port PEREGRINE_TEST_PEER_LITELLM_KEY=$key
    filter=peers::
fi

export PEREGRINE_REQUIRE_PEERS=1
# The same features as everywhere else, so that nothing is built anew.
cargo test --workspace --all-features --test it -- "$filter"

if [ -n "$ollama" ]; then
    venv clients openai anthropic google-genai ollama
    cargo build -q --workspace --all-features --example llm_server
    "${CARGO_TARGET_DIR:-target}"/debug/examples/llm_server >"$work/llm_server.log" 2>&1 &
    pids+=($!)
    for _ in $(seq 100); do grep -q http "$work/llm_server.log" && break; sleep 0.1; done
    url=$(grep -o 'http://[0-9.:]*' "$work/llm_server.log" | head -n 1)
    "$work/clients/bin/python" tests/peers/clients.py "$url"
fi
