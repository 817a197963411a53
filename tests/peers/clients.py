"""The official Python clients against the test server: does what they read have the meaning that was scripted?

Usage: clients.py BASE_URL, where BASE_URL is what `cargo run -p peregrine-testkit --example llm_server` prints.
Needs the packages openai, anthropic, google-genai and ollama (those that are missing are reported and count as a
failure). Prints a line for each client; exit status 0 if all passed, 1 if not, 2 for wrong usage.
"""

import json
import sys
import traceback

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "where"}},
    "required": ["city"],
    "additionalProperties": False,
}


def check(what, got, wanted):
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r}, wanted {wanted!r}")


def raises(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


def openai_chat(base):
    import openai

    client = openai.OpenAI(base_url=base + "/v1", api_key="k", max_retries=0)
    create = lambda text, **more: client.chat.completions.create(
        model="test-model", messages=[{"role": "user", "content": text}], **more
    )
    r = create("hello")
    check("text", r.choices[0].message.content, "echo: hello")
    check("finish", r.choices[0].finish_reason, "stop")
    check("total", r.usage.total_tokens, r.usage.prompt_tokens + r.usage.completion_tokens)
    assert r._request_id
    chunks = list(create("hello there you", stream=True, stream_options={"include_usage": True}))
    check("stream", "".join(c.choices[0].delta.content or "" for c in chunks if c.choices), "echo: hello there you")
    assert chunks[-1].usage.total_tokens > 0 and len(chunks) > 4

    tools = [{"type": "function", "function": {"name": "weather", "description": "d", "parameters": SCHEMA}}]
    message = create("Paris", tools=tools).choices[0].message
    call = message.tool_calls[0]
    check("call", (call.function.name, json.loads(call.function.arguments)), ("weather", {"city": "Paris"}))
    history = [
        {"role": "user", "content": "Paris"},
        message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ]
    r = client.chat.completions.create(model="test-model", messages=history, tools=tools)
    check("loop", r.choices[0].message.content, "tool said: sunny")
    with client.chat.completions.stream(
        model="test-model", messages=[{"role": "user", "content": "/parallel"}], tools=tools
    ) as stream:
        stream.until_done()
        final = stream.get_final_completion()
    calls = [(c.id, json.loads(c.function.arguments)) for c in final.choices[0].message.tool_calls]
    check("parallel", calls, [("call_one", {"city": "Paris"}), ("call_two", {"city": "Rome"})])
    check("finish", final.choices[0].finish_reason, "tool_calls")

    import pydantic

    class City(pydantic.BaseModel):
        name: str
        people: int

    parsed = client.chat.completions.parse(
        model="test-model", messages=[{"role": "user", "content": "Oslo"}], response_format=City
    )
    check("parsed", parsed.choices[0].message.parsed, City(name="Oslo", people=1))

    check("refusal", create("/refuse").choices[0].message.refusal, "I can not help with that.")
    check("length", create("/length").choices[0].finish_reason, "length")
    check("reasoning", create("/think").choices[0].message.model_extra["reasoning_content"], "Two and two.")
    usage = create("/usage").usage
    check("cached", usage.prompt_tokens_details.cached_tokens, 30)
    check("reasoning tokens", usage.completion_tokens_details.reasoning_tokens, 15)
    error = raises(openai.RateLimitError, lambda: create("/error"))
    check("error", (error.code, error.status_code), ("rate_limit_exceeded", 429))
    error = raises(openai.APIError, lambda: list(create("/break", stream=True)))
    check("broken stream", error.message, "overloaded")
    raises(openai.BadRequestError, lambda: client.chat.completions.create(model="test-model", messages=[]))

    check("models", [m.id for m in client.models.list()], ["test-model"])
    check("model", client.models.retrieve("test-model").id, "test-model")
    coded = client.embeddings.create(model="test-model", input=["a", "b"])
    plain = client.embeddings.create(model="test-model", input=["a", "b"], encoding_format="float")
    check("vectors", len(coded.data), 2)
    for one, two in zip(coded.data, plain.data):
        check("dimensions", len(one.embedding), 32)
        assert all(abs(x - y) < 1e-6 for x, y in zip(one.embedding, two.embedding))
    check("asked", len(client.embeddings.create(model="m", input="a", dimensions=5).data[0].embedding), 5)


def openai_responses(base):
    import openai

    client = openai.OpenAI(base_url=base + "/v1", api_key="k", max_retries=0)
    create = lambda text, **more: client.responses.create(model="test-model", input=text, **more)
    r = create("hello", instructions="be brief")
    check("text", (r.output_text, r.status, r.instructions), ("echo: hello", "completed", "be brief"))
    check("total", r.usage.total_tokens, r.usage.input_tokens + r.usage.output_tokens)
    with client.responses.stream(model="test-model", input="hello there you") as stream:
        events = list(stream)
        final = stream.get_final_response()
    check("stream", "".join(e.delta for e in events if e.type == "response.output_text.delta"), "echo: hello there you")
    check("final", final.output_text, "echo: hello there you")
    check("numbers", [e.sequence_number for e in events if hasattr(e, "sequence_number")][:3], [0, 1, 2])

    tools = [{"type": "function", "name": "weather", "description": "d", "parameters": SCHEMA, "strict": True}]
    r = create("Paris", tools=tools)
    call = r.output[0]
    check("call", (call.type, call.name, json.loads(call.arguments)), ("function_call", "weather", {"city": "Paris"}))
    assert call.call_id != call.id
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    history = [{"role": "user", "content": "Paris"}, call.model_dump(exclude_none=True), result]
    check("loop", client.responses.create(model="test-model", input=history, tools=tools).output_text, "tool said: sunny")
    with client.responses.stream(model="test-model", input="/parallel", tools=tools) as stream:
        stream.until_done()
        final = stream.get_final_response()
    calls = [(o.call_id, json.loads(o.arguments)) for o in final.output if o.type == "function_call"]
    check("parallel", calls, [("call_one", {"city": "Paris"}), ("call_two", {"city": "Rome"})])

    import pydantic

    class City(pydantic.BaseModel):
        name: str
        people: int

    parsed = client.responses.parse(model="test-model", input="Oslo", text_format=City)
    check("parsed", parsed.output_parsed, City(name="Oslo", people=1))

    for thought in (create("/think"), final_of(client, "/think")):
        check("items", [o.type for o in thought.output], ["reasoning", "message"])
        check("summary", thought.output[0].summary[0].text, "Two and two.")
        check("encrypted", thought.output[0].encrypted_content, "c2lnbmF0dXJl")
    refused = final_of(client, "/refuse").output[0].content[0]
    check("refusal", (refused.type, refused.refusal), ("refusal", "I can not help with that."))
    r = create("/length")
    check("length", (r.status, r.incomplete_details.reason), ("incomplete", "max_output_tokens"))
    check("cached", create("/usage").usage.input_tokens_details.cached_tokens, 30)
    raises(openai.RateLimitError, lambda: create("/error"))
    events = list(create("/break", stream=True))
    check("broken stream", (events[-1].type, events[-1].message), ("error", "overloaded"))
    check("count", client.responses.input_tokens.count(model="test-model", input="x" * 40).input_tokens, 10)


def final_of(client, text):
    with client.responses.stream(model="test-model", input=text) as stream:
        stream.until_done()
        return stream.get_final_response()


def anthropic_messages(base):
    import anthropic

    client = anthropic.Anthropic(base_url=base, api_key="k", max_retries=0)
    args = lambda text: {"model": "test-model", "max_tokens": 99, "messages": [{"role": "user", "content": text}]}
    create = lambda text, **more: client.messages.create(**args(text), **more)

    def streamed(text, **more):
        with client.messages.stream(**args(text), **more) as stream:
            pieces = list(stream.text_stream)
            return pieces, stream.get_final_message()

    r = create("hello")
    check("text", (r.content[0].text, r.stop_reason), ("echo: hello", "end_turn"))
    assert r._request_id
    pieces, final = streamed("hello there you")
    check("stream", ("".join(pieces), final.content[0].text), ("echo: hello there you",) * 2)
    assert len(pieces) > 2 and final.usage.output_tokens > 1

    tools = [{"name": "weather", "description": "d", "input_schema": SCHEMA}]
    for r in (create("Paris", tools=tools), streamed("Paris", tools=tools)[1]):
        call = r.content[0]
        check("call", (call.type, call.name, call.input), ("tool_use", "weather", {"city": "Paris"}))
        check("reason", r.stop_reason, "tool_use")
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
    history = [
        {"role": "user", "content": "Paris"},
        {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in r.content]},
        {"role": "user", "content": [result]},
    ]
    r = client.messages.create(model="test-model", max_tokens=99, messages=history, tools=tools)
    check("loop", r.content[0].text, "tool said: sunny")
    for r in (create("/parallel", tools=tools), streamed("/parallel", tools=tools)[1]):
        check("blocks", [block.type for block in r.content], ["text", "tool_use", "tool_use"])
        check("parallel", [(c.id, c.input["city"]) for c in r.content[1:]], [("call_one", "Paris"), ("call_two", "Rome")])
    for r in (create("/think"), streamed("/think")[1]):
        thought = r.content[0]
        check("thinking", (thought.type, thought.thinking, thought.signature), ("thinking", "Two and two.", "c2lnbmF0dXJl"))
        check("then text", r.content[1].text, "The answer is 4.")
    for r in (create("/refuse"), streamed("/refuse")[1]):
        check("refusal", (r.stop_reason, r.stop_details.explanation), ("refusal", "I can not help with that."))
    check("length", create("/length").stop_reason, "max_tokens")
    for r in (create("/usage"), streamed("/usage")[1]):
        usage = r.usage
        check("usage", (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens), (50, 30, 20))
        check("output", usage.output_tokens, 40)
    error = raises(anthropic.RateLimitError, lambda: create("/error"))
    check("error", error.body["error"]["type"], "rate_limit_error")
    error = raises(anthropic.APIStatusError, lambda: streamed("/break"))
    check("broken stream", error.body["error"], {"type": "overloaded_error", "message": "overloaded"})

    check("models", [m.id for m in client.models.list()], ["test-model"])
    check("count", client.messages.count_tokens(model="m", messages=args("x" * 40)["messages"]).input_tokens, 10)


def gemini(base):
    from google import genai
    from google.genai import errors, types

    client = genai.Client(api_key="k", http_options=types.HttpOptions(base_url=base))
    model = "test-model"
    create = lambda text, **more: client.models.generate_content(model=model, contents=text, **more)
    stream = lambda text, **more: list(client.models.generate_content_stream(model=model, contents=text, **more))
    r = create("hello")
    check("text", (r.text, r.candidates[0].finish_reason.name), ("echo: hello", "STOP"))
    usage = r.usage_metadata
    check("total", usage.total_token_count, usage.prompt_token_count + usage.candidates_token_count)
    chunks = stream("hello there you")
    check("stream", "".join(c.text or "" for c in chunks), "echo: hello there you")
    check("finish", chunks[-1].candidates[0].finish_reason.name, "STOP")

    function = types.FunctionDeclaration(name="weather", description="d", parameters_json_schema=SCHEMA)
    config = types.GenerateContentConfig(
        tools=[types.Tool(function_declarations=[function])],
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    call = create("Paris", config=config).function_calls[0]
    check("call", (call.name, call.args), ("weather", {"city": "Paris"}))
    history = [
        types.Content(role="user", parts=[types.Part(text="Paris")]),
        types.Content(role="model", parts=[types.Part(function_call=call)]),
        types.Content(role="user", parts=[types.Part.from_function_response(name="weather", response={"result": "sunny"})]),
    ]
    check("loop", create(history, config=config).text, "tool said: sunny")
    calls = [call for c in stream("/parallel", config=config) for call in c.function_calls or []]
    check("parallel", [(c.id, c.args["city"]) for c in calls], [("call_one", "Paris"), ("call_two", "Rome")])

    for parts in (
        create("/think").candidates[0].content.parts,
        [p for c in stream("/think") for p in c.candidates[0].content.parts],
    ):
        check("thoughts", "".join(p.text for p in parts if p.thought), "Two and two.")
        check("text", "".join(p.text for p in parts if not p.thought), "The answer is 4.")
        check("signature", [p.thought_signature for p in parts if p.thought_signature], [b"signature"])
    refused = create("/refuse")
    check("refusal", (refused.candidates[0].finish_reason.name, refused.text), ("SAFETY", None))
    check("length", create("/length").candidates[0].finish_reason.name, "MAX_TOKENS")
    usage = create("/usage").usage_metadata
    counts = (usage.prompt_token_count, usage.candidates_token_count, usage.thoughts_token_count, usage.cached_content_token_count)
    check("usage", counts, (100, 25, 15, 30))

    import pydantic

    class City(pydantic.BaseModel):
        name: str
        people: int

    config = types.GenerateContentConfig(response_mime_type="application/json", response_schema=City)
    check("parsed", create("Oslo", config=config).parsed, City(name="Oslo", people=1))

    error = raises(errors.ClientError, lambda: create("/error"))
    check("error", (error.code, error.status), (429, "RESOURCE_EXHAUSTED"))
    error = raises(errors.APIError, lambda: stream("/break"))
    check("broken stream", (error.code, error.message), (529, "overloaded"))

    vectors = client.models.embed_content(model=model, contents=["a", "b"]).embeddings
    check("vectors", [len(v.values) for v in vectors], [32, 32])
    config = types.EmbedContentConfig(output_dimensionality=5)
    check("asked", len(client.models.embed_content(model=model, contents="a", config=config).embeddings[0].values), 5)
    check("count", client.models.count_tokens(model=model, contents="x" * 40).total_tokens, 10)
    check("models", [m.name for m in client.models.list()], ["models/test-model"])
    check("model", client.models.get(model=model).name, "models/test-model")


def ollama_native(base):
    import ollama

    client = ollama.Client(host=base)
    chat = lambda text, **more: client.chat(model="test-model", messages=[{"role": "user", "content": text}], **more)
    r = chat("hello")
    check("text", (r.message.content, r.done, r.done_reason), ("echo: hello", True, "stop"))
    assert r.prompt_eval_count > 0 and r.eval_count > 0 and r.total_duration > 0
    parts = list(chat("hello there you", stream=True))
    check("stream", "".join(p.message.content for p in parts), "echo: hello there you")
    check("done", [p.done for p in parts], [False] * (len(parts) - 1) + [True])
    assert len(parts) > 3 and parts[-1].eval_count > 0

    def weather(city: str) -> str:
        """The weather.

        Args:
          city: where
        """
        return "sunny in " + city

    r = chat("Paris", tools=[weather])
    call = r.message.tool_calls[0].function
    check("call", (call.name, dict(call.arguments)), ("weather", {"city": "Paris"}))
    history = [
        {"role": "user", "content": "Paris"},
        r.message,
        {"role": "tool", "content": weather(**call.arguments), "tool_name": "weather"},
    ]
    check("loop", client.chat(model="test-model", messages=history, tools=[weather]).message.content, "tool said: sunny in Paris")
    calls = [c for p in chat("/parallel", tools=[weather], stream=True) for c in p.message.tool_calls or []]
    check("parallel", [c.function.arguments["city"] for c in calls], ["Paris", "Rome"])
    r = chat("/think", think=True)
    check("thinking", (r.message.thinking, r.message.content), ("Two and two.", "The answer is 4."))
    parts = list(chat("/think", think=True, stream=True))
    check("thinking", "".join(p.message.thinking or "" for p in parts), "Two and two.")
    check("format", json.loads(chat("Oslo", format=SCHEMA).message.content), {"city": "Oslo"})
    check("length", chat("/length").done_reason, "length")
    check("usage", (chat("/usage").prompt_eval_count, chat("/usage").eval_count), (100, 40))
    error = raises(ollama.ResponseError, lambda: chat("/error"))
    check("error", (error.status_code, error.error), (429, "slow down"))
    error = raises(ollama.ResponseError, lambda: list(chat("/break", stream=True)))
    check("broken stream", error.error, "overloaded")

    check("generate", client.generate(model="test-model", prompt="hello").response, "echo: hello")
    parts = list(client.generate(model="test-model", prompt="hello there", stream=True))
    check("generate stream", "".join(p.response for p in parts), "echo: hello there")
    check("load", client.generate(model="test-model").done_reason, "load")
    check("unload", client.chat(model="test-model", keep_alive=0).done_reason, "unload")
    vectors = client.embed(model="test-model", input=["a", "b"]).embeddings
    check("embed", [len(v) for v in vectors], [32, 32])
    check("embed one", client.embed(model="test-model", input="a").embeddings[0], vectors[0])
    check("asked", len(client.embed(model="test-model", input="a", dimensions=5).embeddings[0]), 5)
    check("embeddings", client.embeddings(model="test-model", prompt="a").embedding, vectors[0])
    check("list", [m.model for m in client.list().models], ["test-model"])
    running = client.ps().models[0]
    check("ps", (running.model, running.context_length), ("test-model", 4096))
    assert running.size_vram > 0 and running.expires_at and client.list().models[0].modified_at
    shown = client.show("test-model")
    check("show", (shown.capabilities, shown.details.format), (["completion", "tools"], "gguf"))
    assert shown.modelinfo["llama.context_length"] > 0
    check("unknown", raises(ollama.ResponseError, lambda: client.show("nothing")).status_code, 404)
    # The client has no method for the version; its own HTTP client asks for it.
    assert client._client.get("/api/version").json()["version"]


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    base = sys.argv[1].rstrip("/")
    failed = 0
    for run in (openai_chat, openai_responses, anthropic_messages, gemini, ollama_native):
        try:
            run(base)
            print(f"ok      {run.__name__}")
        except Exception:
            failed += 1
            print(f"FAILED  {run.__name__}")
            traceback.print_exc()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
