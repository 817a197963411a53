//! Recorded traffic as replies: what was recorded arrives to the byte, whole and in pieces. Skipped where the
//! recordings are not at hand.

use std::path::PathBuf;

use peregrine_testkit::server::{LlmServer, Recording, seeded_cuts};

use crate::client::{Client, End};
use crate::soon;

/// The recordings beside the workspace, if they are there.
pub(crate) fn recordings() -> Option<Vec<Recording>> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/wire/recordings.jsonl");
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!("skipped: there are no recordings at ../shared/wire");
        return None;
    };
    Some(text.lines().map(|line| Recording::parse(line).unwrap()).collect())
}

#[tokio::test]
async fn every_recording_is_served_as_it_was_recorded() {
    let Some(recordings) = recordings() else { return };
    let server = LlmServer::builder()
        .with_recorded_requests(4)
        .start_blocking()
        .unwrap();
    let mut client = Client::connect(server.addr()).await;
    let mut count = 0_u64;
    for interaction in recordings.iter().flat_map(|recording| &recording.interactions) {
        server.push_any(interaction.reply());
        server.push_any(interaction.reply_cut(&seeded_cuts(count, 20, interaction.body.len())));
        for _ in 0..2 {
            let body = if interaction.method == "GET" {
                String::new()
            } else {
                interaction.request.to_string()
            };
            client
                .send(&interaction.method, &interaction.path, &[], &body)
                .await;
            let answer = soon(client.answer()).await.unwrap();
            assert_eq!((answer.status, answer.end), (interaction.status, End::Whole));
            assert_eq!(answer.header("content-type"), Some(interaction.content_type()));
            assert!(answer.body == interaction.body, "{}", interaction.path);
        }
        count += 1;
    }
    assert!(count > 700, "{count}");
    assert_eq!(server.counters().connections, 1);
}
