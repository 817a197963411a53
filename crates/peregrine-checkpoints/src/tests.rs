//! What all types of this crate have in common.

use std::sync::Arc;

use crate::*;

/// What an agent keeps in its state and moves between tasks.
#[test]
fn what_crosses_tasks_can() {
    fn anywhere<T: Send + Sync + Unpin + 'static>() {}
    anywhere::<Checkpoints>();
    anywhere::<Journal>();
    anywhere::<History>();
    anywhere::<Draft>();
    anywhere::<Error>();
    anywhere::<Options>();
    anywhere::<Arc<dyn Store>>();
    anywhere::<DirStore>();
    anywhere::<MemoryStore>();
    #[cfg(feature = "sqlite")]
    anywhere::<SqliteStore>();
    #[cfg(feature = "postgres")]
    anywhere::<PostgresStore>();
    fn future<T: Send>(_: impl FnOnce(&'static mut Journal) -> T) {}
    future(|journal| journal.append(Kind::Event, 1, "x"));
    future(|journal| journal.settle());
}

#[tokio::test]
async fn debug_shows_no_payload() {
    let store = MemoryStore::new();
    let checkpoints = Checkpoints::new(Arc::new(store.clone()), Options::default());
    let scope = peregrine_core::Scope::tenant("t").unwrap();
    let key = RunKey::new(scope, peregrine_core::RunId::from_parts(1, [1; 10]));
    let mut journal = checkpoints
        .with_durability(Durability::OnFinish)
        .create(&key)
        .await
        .unwrap();
    let draft = Draft::new(Kind::Event, 1, "secret")
        .unwrap()
        .with_part("secret")
        .with_part("secret".repeat(1_000));
    journal.append_draft(&draft).await.unwrap();
    let waiting = format!("{journal:?} {draft:?}");
    journal.finish().await.unwrap();
    let history = checkpoints.load(&key, Span::ALL).await.unwrap();
    let diff = checkpoints.diff(&key, &key).await.unwrap();
    let stored = store
        .read(&key, &store::Range::new(store::Begin::Start, None))
        .await
        .unwrap();
    let shown = format!("{waiting} {history:?} {diff:?} {stored:?} {store:?} {checkpoints:?}");
    // As text, and as the numbers of its bytes.
    assert!(
        !shown.contains("secret") && !shown.contains("115, 101, 99"),
        "{shown}"
    );
}
