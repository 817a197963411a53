//! What is asked and what is answered: the same for every framework.

/// The name of the model.
pub const MODEL: &str = "test-model";
/// The key, which the server does not look at.
pub const API_KEY: &str = "sk-test";
/// The instructions.
pub const SYSTEM: &str = "You are a helpful assistant.";
/// A question.
pub const QUESTION: &str = "Write the sentence that has every letter of the alphabet.";
/// Its answer.
pub const TEXT: &str = "The quick brown fox jumps over the lazy dog.";
/// Questions in a row.
pub const TURNS: [&str; 3] = [
    "Which animals are in it?",
    "Which of them is quick?",
    "And which one is lazy, then?",
];
/// How many pieces a stream has.
pub const PIECES: usize = 64;
/// How many run at the same time.
pub const CONCURRENT: usize = 1_000;

/// The name of the tool.
pub const TOOL: &str = "add";
/// What the model is told of it.
pub const TOOL_DESCRIPTION: &str = "Adds two numbers.";
/// The arguments that the model calls it with.
pub const TOOL_ARGUMENTS: (i64, i64) = (40, 2);

/// What the tool does.
pub fn add(a: i64, b: i64) -> i64 {
    a + b
}

/// What the model answers once it was sent the result of the tool, in a conversation of so many messages.
pub fn tool_text(result: &str, messages: usize) -> String {
    format!("the sum is {result}, {messages} messages")
}

/// What the model answers to the questions in a row.
pub fn turn_text(users: usize, messages: usize) -> String {
    format!("{users} questions, {messages} messages")
}

/// A piece of the stream.
pub fn piece(number: usize) -> String {
    format!("piece {number} ")
}

/// The whole stream.
pub fn pieces() -> String {
    (0..PIECES).map(piece).collect()
}
