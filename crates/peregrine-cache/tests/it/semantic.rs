//! The semantic tier: within a context, behind an exact miss, as far as it has learned.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use peregrine_cache::semantic::{Lookup, Semantic, SemanticConfig};
use peregrine_cache::{
    CacheLayer, CachedModel, Key, MemoryConfig, MemoryStore, Selector, Served, Settings, Tag,
};
use peregrine_core::{
    ChatModel, ChatRequest, ChatResponse, EmbedRequest, EmbedResponse, EmbeddingModel, Embeddings, Error,
    Message, ModelInfo, Result, Scope,
};

/// Texts as counts of their letters: alike if they have the same letters.
struct Letters(ModelInfo);

impl EmbeddingModel for Letters {
    fn info(&self) -> &ModelInfo {
        &self.0
    }

    async fn embed(&self, request: &EmbedRequest) -> Result<EmbedResponse> {
        let mut values = Vec::new();
        for text in &request.inputs {
            if text.contains("unembeddable") {
                return Err(Error::truncated("on purpose"));
            }
            let mut counts = [0.0_f32; 26];
            for letter in text.bytes().filter(u8::is_ascii_lowercase) {
                counts[usize::from(letter - b'a')] += 1.0;
            }
            values.extend(counts);
        }
        Ok(EmbedResponse {
            embeddings: Embeddings::new(26, values).unwrap(),
            model: String::new(),
            usage: None,
            raw: Vec::new(),
        })
    }
}

/// Answers with the sorted words, so word order makes no difference; except with "exactly".
#[derive(Clone)]
struct Sorter(ModelInfo, Arc<AtomicUsize>);

impl ChatModel for Sorter {
    fn info(&self) -> &ModelInfo {
        &self.0
    }

    async fn complete(&self, request: &ChatRequest) -> Result<ChatResponse> {
        self.1.fetch_add(1, SeqCst);
        let text = request.messages.last().map(Message::text).unwrap_or_default();
        let mut words: Vec<_> = text.split(' ').collect();
        if !text.contains("exactly") {
            words.sort_unstable();
        }
        Ok(ChatResponse::text(words.join(" ")))
    }
}

fn cached(config: SemanticConfig) -> CachedModel<Sorter> {
    let settings = Settings::new().with_store(MemoryStore::new(&MemoryConfig::default()));
    let layer = CacheLayer::new(settings)
        .with_semantic(config, Letters(ModelInfo::new("test", "letters")).into_handle())
        .unwrap();
    Sorter(ModelInfo::new("test", "sorter"), Arc::default()).layered(layer)
}

/// All orders of some words.
fn orders(words: &[&str]) -> Vec<String> {
    if words.is_empty() {
        return vec![String::new()];
    }
    let mut all = Vec::new();
    for at in 0..words.len() {
        let mut rest = words.to_vec();
        let first = rest.remove(at);
        all.extend(
            orders(&rest)
                .into_iter()
                .map(|rest| format!("{first} {rest}").trim().to_owned()),
        );
    }
    all
}

fn ask(text: &str) -> ChatRequest {
    ChatRequest::new([Message::system("sort"), Message::user(text)]).with_scope(Scope::tenant("a").unwrap())
}

async fn served(model: &CachedModel<Sorter>, request: &ChatRequest) -> Served {
    model.ask(request).await.unwrap().1
}

#[tokio::test]
async fn what_turns_out_right_is_used_more_and_what_turns_out_wrong_is_not() {
    let model = cached(SemanticConfig::default().answering().with_max_error(0.1));
    let mut how = Vec::new();
    for text in orders(&["red", "green", "blue", "white", "black", "pink"]) {
        let (response, by) = model.ask(&ask(&text)).await.unwrap();
        assert_eq!(response.message.text(), "black blue green pink red white");
        if by == Served::Similar {
            assert_eq!(Served::of(&response), Some(Served::Similar));
        }
        how.push(by);
    }
    let used = |how: &[Served]| how.iter().filter(|by| **by == Served::Similar).count();
    assert_eq!(
        used(&how[..6]),
        0,
        "a prompt that was not observed five times is not trusted"
    );
    assert!(
        used(&how) > 100,
        "and then it is: {} of {}",
        used(&how),
        how.len()
    );
    assert_eq!(model.cache().stats().similar as usize, used(&how));

    let model = cached(SemanticConfig::default().answering().with_max_error(0.05));
    let (mut wrong, mut asked) = (0, 0);
    for text in orders(&["exactly", "green", "blue", "white", "black", "pink"]) {
        let (response, _) = model.ask(&ask(&text)).await.unwrap();
        asked += 1;
        wrong += usize::from(response.message.text() != text);
    }
    let stats = model.cache().semantic().unwrap().stats();
    // The bound is one of the mean: 36, and three standard deviations of as many draws.
    assert!(
        asked == 720 && wrong <= 36 + 18,
        "{wrong} of {asked} wrong; {stats:?}"
    );
    assert!(stats.wrong > 100 && stats.right == 0);
}

#[tokio::test]
async fn nothing_crosses_a_context_and_an_exact_hit_comes_first() {
    let semantic = Semantic::new(SemanticConfig::default().answering()).unwrap();
    let key = |byte| Key::from_digest([byte; 32]);
    semantic.insert(&key(1), &key(10), &[1.0, 0.0], &[]);
    assert!(semantic.find(&key(2), &[1.0, 0.0]).is_none(), "another context");
    assert!(semantic.find(&key(1), &[0.0, 1.0]).is_none(), "nothing similar");
    assert!(semantic.find(&key(1), &[1.0]).is_none(), "another length");
    let candidate = semantic.find(&key(1), &[1.0, 0.1]).unwrap();
    assert_eq!((candidate.key, candidate.use_it), (key(10), false));

    let model = cached(
        SemanticConfig::default()
            .answering()
            .with_max_error(1.0)
            .with_min_observations(0),
    );
    assert_eq!(served(&model, &ask("one two")).await, Served::Miss);
    assert_eq!(served(&model, &ask("two one")).await, Served::Similar);
    assert_eq!(served(&model, &ask("one two")).await, Served::Hit);
    let others = [
        ask("two one").with_scope(Scope::tenant("b").unwrap()),
        ask("two one").with_scope(Scope::new("a", "s").unwrap()),
        ask("two one").with_max_tokens(5),
        ChatRequest::new([Message::system("sort!"), Message::user("two one")])
            .with_scope(Scope::tenant("a").unwrap()),
        ChatRequest::new([Message::user("two one")]).with_scope(Scope::tenant("a").unwrap()),
    ];
    for other in others {
        assert_eq!(served(&model, &other).await, Served::Miss, "{other:?}");
    }
    assert_eq!(served(&model, &ask("unembeddable")).await, Served::Miss);
    assert_eq!(model.cache().semantic().unwrap().stats().failures, 1);
    let end = ask("two one")
        .messages
        .iter()
        .cloned()
        .chain([Message::assistant("so")])
        .collect::<Vec<_>>();
    assert_eq!(
        served(&model, &ChatRequest::new(end)).await,
        Served::Miss,
        "only what the user said last is compared"
    );
}

#[tokio::test]
async fn in_shadow_mode_it_learns_and_never_answers() {
    let model = cached(SemanticConfig::default());
    for text in orders(&["red", "green", "blue", "white", "black"]) {
        assert_eq!(served(&model, &ask(&text)).await, Served::Miss);
    }
    let stats = model.cache().semantic().unwrap().stats();
    assert_eq!((stats.candidates, stats.right, stats.wrong), (119, 119, 0));
    assert!(stats.prompts == 120 && stats.used < 119);
}

#[tokio::test]
async fn what_is_removed_of_a_scope_is_forgotten_here_too() {
    let config = SemanticConfig::default().answering().with_max_error(1.0);
    let model = cached(config.with_min_observations(0));
    let other = |text: &str| ask(text).with_scope(Scope::tenant("b").unwrap());
    for text in ["one two", "three four"] {
        assert_eq!(served(&model, &ask(text)).await, Served::Miss);
        assert_eq!(served(&model, &other(text)).await, Served::Miss);
    }
    let prompts = || model.cache().semantic().unwrap().stats().prompts;
    assert_eq!(prompts(), 4);
    let scope = Tag::scope(&Scope::tenant("b").unwrap().key());
    assert_eq!(model.cache().remove(&Selector::Tag(scope)).await.unwrap(), 2);
    assert_eq!(prompts(), 2);
    assert_eq!(served(&model, &ask("two one")).await, Served::Similar);
    assert_eq!(served(&model, &other("two one")).await, Served::Miss);
    let key = model.cache().key(model.info(), &ask("one two")).unwrap();
    assert_eq!(model.cache().remove(&Selector::Key(key)).await.unwrap(), 1);
    assert_eq!(prompts(), 2, "one of each");
}

#[test]
fn what_it_holds_is_bounded_and_feedback_finds_its_prompt() {
    for lookup in [Lookup::Linear, Lookup::Indexed] {
        let config = SemanticConfig::default()
            .answering()
            .with_max_prompts(10)
            .with_lookup(lookup);
        let semantic = Semantic::new(config).unwrap();
        let key = |number: u8| Key::from_digest([number; 32]);
        for number in 0..100 {
            let angle = f32::from(number) / 10.0;
            let tags = [Tag::label(&(number % 2).to_string())];
            semantic.insert(
                &key(number % 3),
                &key(number),
                &[angle.cos(), angle.sin(), 0.1],
                &tags,
            );
        }
        assert_eq!(semantic.stats().prompts, 10);
        let angle = 9.9_f32;
        let vector = [angle.cos(), angle.sin(), 0.1];
        for _ in 0..200 {
            semantic.feedback(&key(99), 1.0, true);
        }
        let uses = (0..100)
            .filter(|_| semantic.find(&key(0), &vector).unwrap().use_it)
            .count();
        assert!(uses > 20, "{uses}");
        semantic.remove(&Selector::Key(key(99)));
        assert!(
            semantic
                .find(&key(0), &vector)
                .is_none_or(|other| other.key != key(99))
        );
        semantic.feedback(&key(99), 1.0, true);
        semantic.remove(&Selector::Tag(Tag::label("2")));
        assert_eq!(semantic.stats().prompts, 9);
        semantic.remove(&Selector::Tag(Tag::label("1")));
        assert_eq!(semantic.stats().prompts, 5);
        semantic.insert(&key(1), &key(200), &[1.0, 0.0, 0.0], &[Tag::label("1")]);
        semantic.remove(&Selector::Tag(Tag::label("0")));
        assert_eq!(semantic.stats().prompts, 1);
        assert_eq!(semantic.find(&key(1), &[1.0, 0.0, 0.0]).unwrap().key, key(200));
        semantic.remove(&Selector::All);
        assert_eq!(semantic.stats().prompts, 0);
        assert!(semantic.find(&key(1), &[1.0, 0.0, 0.0]).is_none());
    }
    assert!(Semantic::new(SemanticConfig::default().with_max_error(2.0)).is_err());
    assert!(Semantic::new(SemanticConfig::default().with_max_error(f64::NAN)).is_err());
}
