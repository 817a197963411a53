//! `models`: what is configured and reachable, and never a key.

use peregrine_testkit::server::LlmServer;
use serde_json::{Value, json};

use crate::run::World;

fn provider<'v>(listing: &'v Value, name: &str) -> &'v Value {
    listing["providers"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["name"] == name)
        .unwrap()
}

#[test]
fn a_clean_environment_has_nothing_configured_and_the_offline_model_would_answer() {
    let world = World::new();
    let listing = world.run(&["models", "--json"]).ok().json();
    let openai = provider(&listing, "openai");
    assert_eq!(openai["configured"], false);
    assert_eq!(openai["reachable"], Value::Null);
    assert_eq!(openai["key_variables"][0], "OPENAI_API_KEY");
    let ollama = provider(&listing, "ollama");
    assert_eq!(
        (&ollama["configured"], &ollama["reachable"]),
        (&json!(true), &json!(false))
    );
    assert!(ollama["error"].as_str().unwrap().len() > 5);
    assert_eq!(listing["chosen"]["spec"], "offline");
    assert!(listing["chosen"]["why"].as_str().unwrap().contains("no Ollama"));

    let table = world.run(&["models"]).ok();
    assert!(
        table.out.starts_with("PROVIDER") && table.out.contains("OPENAI_API_KEY is not set"),
        "{table:?}"
    );
    assert!(table.out.contains("would answer: offline"), "{table:?}");
}

#[test]
fn a_configured_provider_lists_its_models() {
    let server = LlmServer::builder()
        .with_models(["falcon-1", "falcon-2"])
        .start_blocking()
        .unwrap();
    let world = World::new()
        .with_variable("OPENAI_API_KEY", "sk-very-secret-0815")
        .with_variable("OPENAI_BASE_URL", &server.url())
        .with_variable("OLLAMA_HOST", &server.addr().to_string());
    let ran = world.run(&["models", "--json"]).ok();
    let listing = ran.json();
    let openai = provider(&listing, "openai");
    assert_eq!(openai["key_variable"], "OPENAI_API_KEY");
    assert_eq!(openai["reachable"], true);
    assert_eq!(openai["models"], json!(["falcon-1", "falcon-2"]));
    assert_eq!(provider(&listing, "ollama")["reachable"], true);
    assert_eq!(listing["chosen"]["provider"], "openai");
    let table = world.run(&["models"]).ok();
    assert!(
        table.out.contains("OPENAI_API_KEY is set") && table.out.contains("falcon-1"),
        "{table:?}"
    );
    for output in [ran.out, ran.err, table.out, table.err] {
        assert!(!output.contains("0815"), "{output}");
    }
}
