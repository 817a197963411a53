//! A program that makes one call by hand and ends: what the cold start is measured against.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark fails by panicking and tells its results on its standard output"
)]

use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let url = std::env::args().nth(1).unwrap();
    let request = json!({
        "model": "test-model",
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "Write the sentence that has every letter of the alphabet."},
        ],
    });
    let client = reqwest::Client::new();
    let response = client
        .post(format!("{url}/chat/completions"))
        .bearer_auth("sk-test")
        .json(&request)
        .send()
        .await
        .unwrap();
    let answer: Value = response.error_for_status().unwrap().json().await.unwrap();
    println!("{}", answer["choices"][0]["message"]["content"].as_str().unwrap());
}
