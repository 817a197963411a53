//! The offline model as the model of an agent: tools over real files, in several of the forms that tools have.

use peregrine_core::{
    ChatModel, ChatRequest, ChatResponse, ErrorKind, Finish, Message, Part, ResponseFormat, Role, ToolCall,
    ToolChoice, ToolResult, ToolSpec,
};
use peregrine_providers::offline::OfflineModel;
use serde_json::{Value, json};

use crate::offline::{GUIDE, README, complete};

/// Read-only tools over a folder.
struct Files {
    root: tempfile::TempDir,
    /// Whether results are JSON or lines.
    json: bool,
    tools: Vec<ToolSpec>,
}

impl Files {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("the test's own files and calls are sound");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("the test's own files and calls are sound"))
                .expect("the test's own files and calls are sound");
            std::fs::write(path, text).expect("the test's own files and calls are sound");
        };
        write("README.md", README);
        write("docs/guide.md", GUIDE);
        write(
            "docs/history.md",
            "# History\n\nThe project began in 2019. Nobody remembers the MSRV of then.\n",
        );
        write("Cargo.lock", "msrv msrv msrv\n");
        write("src/main.rs", "//! The entry point.\n\nfn main() {}\n");
        let text = |description: &str| json!({"type": "string", "description": description});
        let tools = vec![
            ToolSpec::new(
                "list_files",
                "List the files that may be read.",
                json!({"type": "object", "properties": {}}),
            ),
            ToolSpec::new(
                "search_files",
                "Search the files for lines that hold a text.",
                json!({"type": "object", "properties": {"query": text("what to look for"), "max_results": {"type": "integer"}}, "required": ["query"]}),
            ),
            ToolSpec::new(
                "read_file",
                "Read a text file.",
                json!({"type": "object", "properties": {"path": text("the file's path"), "start_line": {"type": "integer"}}, "required": ["path"]}),
            ),
        ];
        Self {
            root,
            json: false,
            tools,
        }
    }

    fn with_json(mut self) -> Self {
        self.json = true;
        self
    }

    fn only(mut self, names: &[&str]) -> Self {
        self.tools.retain(|tool| names.contains(&tool.name.as_str()));
        self
    }

    fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        let mut folders = vec![self.root.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("the test's own files and calls are sound") {
                let path = entry.expect("the test's own files and calls are sound").path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    paths.push(
                        path.strip_prefix(self.root.path())
                            .expect("the test's own files and calls are sound")
                            .to_string_lossy()
                            .into_owned(),
                    );
                }
            }
        }
        paths.sort();
        paths
    }

    fn run(&self, call: &ToolCall) -> ToolResult {
        let arguments = call
            .parse_arguments()
            .expect("the test's own files and calls are sound");
        let argument = |name: &str| arguments[name].as_str().unwrap_or_default().to_owned();
        match call.name.as_str() {
            "list_files" if self.json => ToolResult::new(call, json!({"files": self.paths()}).to_string()),
            "list_files" => ToolResult::new(call, self.paths().join("\n")),
            "search_files" => ToolResult::new(call, self.search(&argument("query"))),
            "read_file" => match std::fs::read_to_string(self.root.path().join(argument("path"))) {
                Ok(text) if self.json => ToolResult::new(
                    call,
                    json!({"path": argument("path"), "content": text}).to_string(),
                ),
                Ok(text) => ToolResult::new(call, text),
                Err(error) => ToolResult::error(call, error.to_string()),
            },
            other => panic!("no such tool: {other}"),
        }
    }

    fn search(&self, query: &str) -> String {
        let mut found = Vec::new();
        for path in self.paths() {
            let Ok(text) = std::fs::read_to_string(self.root.path().join(&path)) else {
                continue;
            };
            for (number, line) in (1..).zip(text.lines()) {
                if line.to_lowercase().contains(&query.to_lowercase()) && found.len() < 50 {
                    found.push((path.clone(), number, line.to_owned()));
                }
            }
        }
        if self.json {
            let found = found
                .iter()
                .map(|(path, line, text)| json!({"path": path, "line": line, "text": text}));
            return json!({"matches": found.collect::<Vec<_>>()}).to_string();
        }
        if found.is_empty() {
            return format!("no matches for {query:?}");
        }
        let lines: Vec<String> = found
            .iter()
            .map(|(path, line, text)| format!("{path}:{line}: {text}"))
            .collect();
        lines.join("\n")
    }

    /// The loop of an agent, in one conversation: the calls it makes, round by round, and its answer.
    fn turn(&self, request: &mut ChatRequest, question: &str) -> (Vec<Vec<String>>, ChatResponse) {
        request.messages.push(Message::user(question));
        let mut rounds = Vec::new();
        loop {
            let response = complete(request).expect("the test's own files and calls are sound");
            if response.finish != Finish::ToolCalls {
                assert_eq!(response.tool_calls().count(), 0);
                request.messages.push(response.message.clone());
                return (rounds, response);
            }
            assert_eq!(response.metadata["offline"], true);
            assert!(rounds.len() < 6, "it stops by itself: {rounds:?}");
            let calls: Vec<ToolCall> = response.tool_calls().cloned().collect();
            rounds.push(
                calls
                    .iter()
                    .map(|call| format!("{} {}", call.name, call.arguments))
                    .collect(),
            );
            request.messages.push(response.message);
            let results = calls
                .iter()
                .map(|call| Part::ToolResult(self.run(call)))
                .collect();
            request.messages.push(Message::new(Role::Tool, results));
        }
    }

    fn conversation(&self) -> ChatRequest {
        let system = "Answer from the files, which you read with the tools. Name the file you quote.";
        ChatRequest::new([Message::system(system)]).with_tools(self.tools.clone())
    }

    fn ask(&self, question: &str) -> (Vec<Vec<String>>, String) {
        let (rounds, answer) = self.turn(&mut self.conversation(), question);
        (rounds, answer.message.text())
    }
}

const MSRV: &str = "\"It is written in Rust and needs Rust 1.95 or newer; the minimum supported version (MSRV) is 1.95.\" (README.md)";

#[test]
fn it_searches_reads_and_quotes() {
    for files in [Files::new(), Files::new().with_json()] {
        let (rounds, answer) = files.ask("What is the MSRV?");
        let expected: [&[&str]; 2] = [
            &["search_files {\"query\":\"MSRV\"}"],
            &[
                "read_file {\"path\":\"README.md\"}",
                "read_file {\"path\":\"docs/history.md\"}",
            ],
        ];
        assert_eq!(rounds, expected);
        assert_eq!(answer.lines().next(), Some(MSRV));
    }
    let (rounds, answer) = Files::new().ask("On which port does Falcon listen?");
    assert_eq!(
        rounds.last().unwrap(),
        &[
            "read_file {\"path\":\"docs/guide.md\"}",
            "read_file {\"path\":\"README.md\"}"
        ]
    );
    assert_eq!(answer, "\"Falcon listens on port 7171.\" (docs/guide.md)");
}

#[test]
fn it_works_with_fewer_tools() {
    let (rounds, answer) = Files::new()
        .only(&["list_files", "read_file"])
        .ask("What is the MSRV?");
    assert_eq!(rounds[0], ["list_files {}"]);
    assert_eq!(rounds[1][0], "read_file {\"path\":\"README.md\"}", "{rounds:?}");
    assert_eq!(answer.lines().next(), Some(MSRV));

    let (rounds, answer) = Files::new().only(&["search_files"]).ask("What is the MSRV?");
    assert_eq!(rounds.len(), 1);
    assert!(
        answer.contains("(MSRV) is 1.95.\" (README.md)"),
        "lines that were found will do: {answer}"
    );

    let (rounds, answer) = Files::new()
        .only(&["read_file"])
        .ask("What does README.md say about the MSRV?");
    assert_eq!(
        rounds,
        [["read_file {\"path\":\"README.md\"}"]],
        "the question names the file"
    );
    assert_eq!(answer.lines().next(), Some(MSRV));

    let (rounds, answer) = Files::new()
        .only(&["read_file"])
        .ask("What does nothing.md say about the MSRV?");
    assert_eq!(
        rounds,
        [["read_file {\"path\":\"nothing.md\"}"]],
        "it fails, and is not tried again"
    );
    assert!(answer.starts_with("The tools gave no text"), "{answer}");
}

#[test]
fn it_looks_everywhere_before_it_says_no() {
    let (rounds, answer) = Files::new().ask("Who is the president of France?");
    let all: Vec<String> = rounds.concat();
    assert!(all.contains(&"list_files {}".to_owned()), "{rounds:?}");
    assert!(
        all.iter().filter(|call| call.starts_with("read_file")).count() >= 3,
        "{rounds:?}"
    );
    assert!(!all.iter().any(|call| call.contains("Cargo.lock")), "{rounds:?}");
    assert!(
        answer.starts_with("I found no sentence that answers this"),
        "{answer}"
    );
    assert!(
        Files::new().ask("Hello!").0.is_empty(),
        "there is nothing to look for"
    );
    let mut unique = all.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), all.len(), "no call twice");
}

#[test]
fn a_later_question_uses_what_was_read() {
    let files = Files::new();
    let mut request = files.conversation();
    let (first, _) = files.turn(&mut request, "On which port does Falcon listen?");
    assert_eq!(first.len(), 3);
    let (second, answer) = files.turn(&mut request, "And what does exit status 3 mean?");
    assert!(second.is_empty(), "{second:?}");
    assert_eq!(
        answer.message.text().lines().next().unwrap(),
        "\"Exit status 3 means that a checksum did not match.\" (docs/guide.md)"
    );
    let (third, answer) = files.turn(&mut request, "Which files are there?");
    assert_eq!(third, [["list_files {}"]]);
    assert!(
        answer.message.text().contains("docs/history.md"),
        "{}",
        answer.message.text()
    );
}

#[test]
fn one_call_at_a_time_if_told_so_and_few_rounds_if_told_so() {
    let files = Files::new();
    let mut request = files.conversation();
    request.parallel_tool_calls = Some(false);
    let (rounds, _) = files.turn(&mut request, "What is the MSRV?");
    assert!(rounds.iter().all(|calls| calls.len() == 1), "{rounds:?}");

    let mut request = files.conversation();
    request.messages.push(Message::user("What is the MSRV?"));
    let none = OfflineModel::new().with_max_rounds(0);
    let answer = futures_util::FutureExt::now_or_never(none.complete(&request))
        .unwrap()
        .unwrap();
    assert_eq!(answer.finish, Finish::Stop);
}

#[test]
fn endless_results_end() {
    // Every search finds a hundred new files, and none of them says anything.
    let files = Files::new();
    let mut request = files.conversation();
    request
        .messages
        .push(Message::user("Which colour has the quick brown flying fox?"));
    let mut calls_made = 0;
    for round in 0.. {
        let response = complete(&request).unwrap();
        if response.finish != Finish::ToolCalls {
            break;
        }
        assert!(round < 6);
        let results = response.tool_calls().map(|call| {
            calls_made += 1;
            let lines: Vec<String> = (0..100)
                .map(|n| format!("d{calls_made}/f{n}.md:1: the fox"))
                .collect();
            let text = if call.name == "read_file" {
                "Nothing here.".to_owned()
            } else {
                lines.join("\n")
            };
            Part::ToolResult(ToolResult::new(call, text))
        });
        let results = Message::new(Role::Tool, results.collect());
        request.messages.push(response.message.clone());
        request.messages.push(results);
    }
    assert!(calls_made > 6 && calls_made <= 24, "{calls_made}");
}

#[test]
fn folders_are_listed_one_by_one() {
    let tools = [
        ToolSpec::new(
            "list_directory",
            "Lists a directory.",
            json!({"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}),
        ),
        ToolSpec::new(
            "open",
            "Opens a file.",
            json!({"type": "object", "properties": {"file": {"type": "string"}}, "required": ["file"]}),
        ),
    ];
    let mut request = ChatRequest::user("Who painted the ceiling?").with_tools(tools);
    let mut rounds = Vec::new();
    let answer = loop {
        let response = complete(&request).unwrap();
        if response.finish != Finish::ToolCalls {
            break response.message.text();
        }
        let results = response.tool_calls().map(|call| {
            rounds.push(format!("{} {}", call.name, call.arguments));
            let arguments = call.parse_arguments().expect("JSON");
            let argument = arguments["path"]
                .as_str()
                .or(arguments["file"].as_str())
                .unwrap_or_default();
            let text = match argument {
                "." => "art/\nnotes.md",
                "art" => "art/chapel.md",
                "art/chapel.md" => "Michelangelo painted the ceiling.",
                _ => "Nothing.",
            };
            Part::ToolResult(ToolResult::new(call, text))
        });
        let results = Message::new(Role::Tool, results.collect());
        request.messages.push(response.message.clone());
        request.messages.push(results);
    };
    assert_eq!(answer, "\"Michelangelo painted the ceiling.\" (art/chapel.md)");
    assert_eq!(rounds[0], "list_directory {\"path\":\".\"}");
    assert_eq!(rounds[1], "list_directory {\"path\":\"art\"}");
}

fn weather() -> ToolSpec {
    let parameters = json!({"type": "object", "properties": {
        "city": {"type": "string", "description": "the city"},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}
    }, "required": ["city"]});
    ToolSpec::new("get_weather", "The current weather of a city.", parameters)
}

fn delete() -> ToolSpec {
    ToolSpec::new(
        "delete_records",
        "Deletes all records.",
        json!({"type": "object", "properties": {}}),
    )
}

fn calls(response: &ChatResponse) -> Vec<(String, Value)> {
    response
        .tool_calls()
        .map(|call| (call.name.clone(), call.parse_arguments().expect("JSON")))
        .collect()
}

#[test]
fn a_tool_that_the_question_speaks_of_is_called_once() {
    let mut request =
        ChatRequest::user("What is the weather in Paris in celsius?").with_tools([delete(), weather()]);
    let response = complete(&request).unwrap();
    assert_eq!(
        calls(&response),
        [(
            "get_weather".to_owned(),
            json!({"city": "Paris", "unit": "celsius"})
        )]
    );
    assert_eq!(response.metadata["method"], "bm25 tool selection");
    let call = response.tool_calls().next().unwrap().clone();
    request.messages.push(response.message);
    request
        .messages
        .push(Message::tool(ToolResult::new(&call, "21 degrees, clear sky")));
    let answer = complete(&request).unwrap();
    assert_eq!(answer.message.text(), "\"21 degrees, clear sky\" (get_weather)");

    request.messages.push(answer.message);
    request
        .messages
        .push(Message::user("And what is the weather in Oslo?"));
    let next = complete(&request).unwrap();
    assert_eq!(
        calls(&next),
        [("get_weather".to_owned(), json!({"city": "Oslo"}))]
    );
    assert_ne!(
        next.tool_calls().next().unwrap().id,
        call.id,
        "ids are unique in a conversation"
    );

    let other = ChatRequest::user("Tell me a joke").with_tools([delete(), weather()]);
    assert_eq!(complete(&other).unwrap().finish, Finish::Stop);
    let unfilled = ChatRequest::user("What is the weather?").with_tools([weather()]);
    assert_eq!(
        complete(&unfilled).unwrap().finish,
        Finish::Stop,
        "there is no city to ask for"
    );
}

#[test]
fn what_changes_something_is_called_on_order_only() {
    for question in [
        "How do I delete records?",
        "Who deleted all records?",
        "Should I delete the records?",
    ] {
        let request = ChatRequest::user(question).with_tools([delete()]);
        assert_eq!(complete(&request).unwrap().finish, Finish::Stop, "{question}");
    }
    for order in [
        "Delete all records.",
        "Please delete the records",
        "Could you delete the records?",
    ] {
        let request = ChatRequest::user(order).with_tools([delete()]);
        assert_eq!(
            calls(&complete(&request).unwrap()),
            [("delete_records".to_owned(), json!({}))],
            "{order}"
        );
    }
}

#[test]
fn tool_choice_is_kept_to() {
    let with = |question: &str, choice| {
        complete(
            &ChatRequest::user(question)
                .with_tools([weather(), delete()])
                .with_tool_choice(choice),
        )
    };
    let weather_in_rome = "What is the weather in Rome?";
    assert_eq!(
        with(weather_in_rome, ToolChoice::None).unwrap().finish,
        Finish::Stop
    );
    let required = with("Tell me a joke about Rome", ToolChoice::Required).unwrap();
    assert_eq!(calls(&required).len(), 1);
    let named = with("Tell me about Rome", ToolChoice::Tool("get_weather".to_owned())).unwrap();
    assert_eq!(
        calls(&named),
        [("get_weather".to_owned(), json!({"city": "Rome"}))]
    );
    let named = with(weather_in_rome, ToolChoice::Tool("delete_records".to_owned())).unwrap();
    assert_eq!(
        calls(&named),
        [("delete_records".to_owned(), json!({}))],
        "who names it takes it"
    );
    for (question, choice, why) in [
        ("hm", ToolChoice::Tool("get_weather".to_owned()), "\"city\""),
        (
            weather_in_rome,
            ToolChoice::Tool("get_time".to_owned()),
            "\"get_time\"",
        ),
    ] {
        let error = with(question, choice).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(error.to_string().contains(why), "{error}");
    }
    let none = ChatRequest::user("x").with_tool_choice(ToolChoice::Required);
    assert!(
        complete(&none)
            .unwrap_err()
            .to_string()
            .contains("no tool is offered")
    );
    let call = ToolCall::new("1", "delete_records", "{ }");
    let again = ChatRequest::new([
        Message::user("Delete all records."),
        Message::new(Role::Assistant, vec![Part::ToolCall(call.clone())]),
        Message::tool(ToolResult::new(&call, "done")),
    ]);
    let again = again
        .with_tools([delete()])
        .with_tool_choice(ToolChoice::Required);
    assert!(
        complete(&again)
            .unwrap_err()
            .to_string()
            .contains("was made before")
    );
}

#[test]
fn tools_first_then_the_schema() {
    let files = Files::new();
    let schema = json!({"type": "object", "properties": {"port": {"type": "integer"}, "source": {"type": "string"}}, "required": ["port", "source"]});
    let mut request = files
        .conversation()
        .with_response_format(ResponseFormat::schema("port", schema));
    let (rounds, answer) = files.turn(&mut request, "On which port does Falcon listen?");
    assert!(!rounds.is_empty());
    let value: Value = serde_json::from_str(&answer.message.text()).unwrap();
    assert_eq!(value, json!({"port": 7171, "source": "docs/guide.md"}));
}
