//! The semantic tier at work: what of a request is compared, and what is learned from its answer.

use std::sync::Arc;

use peregrine_core::{
    ChatModel, ChatRequest, ChatResponse, EmbedPurpose, EmbedRequest, EmbeddingHandle, EmbeddingModel as _,
    Role,
};

use super::StoredAnswer;
use super::key::{self, Extent};
use super::model::Inner;
use crate::engine::{Found, Rules};
use crate::semantic::{Candidate, Semantic};
use crate::{Entry, Key, Selector};

type Judge = Arc<dyn Fn(&ChatResponse, &ChatResponse) -> bool + Send + Sync>;

/// How long a text may be to be embedded.
const MAX_TEXT_BYTES: usize = 32 << 10;

pub(super) struct Similar {
    semantic: Arc<Semantic>,
    embedder: EmbeddingHandle,
    judge: Judge,
}

/// Where a request lies among the others.
pub(super) struct Near {
    similar: Arc<Similar>,
    context: Key,
    vector: Vec<f32>,
    candidate: Option<Candidate>,
}

impl Similar {
    pub(super) fn new(semantic: Semantic, embedder: EmbeddingHandle) -> Self {
        Self {
            semantic: Arc::new(semantic),
            embedder,
            judge: Arc::new(says_the_same),
        }
    }

    pub(super) fn with_judge(&self, judge: Judge) -> Self {
        Self {
            semantic: self.semantic.clone(),
            embedder: self.embedder.clone(),
            judge,
        }
    }

    pub(super) fn semantic(&self) -> &Semantic {
        &self.semantic
    }

    /// Embeds the last text and looks around. `None` for requests that end with anything else.
    pub(super) async fn look<M: ChatModel>(
        self: &Arc<Self>,
        inner: &Inner<M>,
        request: &ChatRequest,
    ) -> Option<Near> {
        let last = request.messages.last()?;
        if last.role != Role::User || last.parts.iter().any(|part| part.as_text().is_none()) {
            return None;
        }
        let text = last.text();
        if text.is_empty() || text.len() > MAX_TEXT_BYTES {
            return None;
        }
        let options = &inner.layer.options;
        let scope = options.partition.key(request.scope.as_ref());
        let context = key::of(
            &options.namespace,
            &scope,
            inner.model.info(),
            request,
            Extent::Context,
        )
        .ok()?;
        let embed = EmbedRequest::new([text]).with_purpose(EmbedPurpose::Similarity);
        let embedded = self.embedder.embed(&embed).await;
        let Some(vector) = embedded
            .ok()
            .and_then(|embedded| embedded.embeddings.get(0).map(<[f32]>::to_vec))
        else {
            self.semantic.failed();
            return None;
        };
        Some(Near {
            candidate: self.semantic.find(&context, &vector),
            similar: self.clone(),
            context,
            vector,
        })
    }
}

impl Near {
    /// The candidate's answer, if it may be used and is still there.
    pub(super) async fn usable<M: ChatModel>(
        &self,
        inner: &Inner<M>,
        rules: &Rules,
    ) -> Option<Entry<StoredAnswer>> {
        let candidate = self.candidate.filter(|candidate| candidate.use_it)?;
        match inner
            .layer
            .shared
            .engine
            .find(&candidate.key, rules.max_age)
            .await
        {
            Found::Fresh(entry) => Some(entry),
            Found::Stale(_) | Found::Nothing | Found::Ask => None,
        }
    }

    /// Compares the new answer with the candidate's, and notes the new prompt.
    pub(super) async fn learn<M: ChatModel>(
        self,
        inner: &Inner<M>,
        key: &Key,
        answer: &StoredAnswer,
        rules: &Rules,
    ) {
        let Self {
            similar,
            context,
            vector,
            candidate,
        } = self;
        if let Some(Candidate { key, similarity, .. }) = candidate {
            match inner.layer.shared.engine.find(&key, None).await {
                Found::Fresh(entry) | Found::Stale(entry) => {
                    let right = (similar.judge)(entry.value.original(), answer.original());
                    similar.semantic.feedback(&key, similarity, right);
                }
                Found::Nothing | Found::Ask => similar.semantic.remove(&Selector::Key(key)),
            }
        }
        if rules.stores() {
            similar.semantic.insert(&context, key, &vector, &rules.tags);
        }
    }
}

fn says_the_same(one: &ChatResponse, two: &ChatResponse) -> bool {
    let words = |response: &ChatResponse| {
        let text = response.message.text().to_lowercase();
        text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let calls = |response: &ChatResponse| {
        let calls = response.tool_calls();
        calls
            .map(|call| (call.name.clone(), call.arguments.clone()))
            .collect::<Vec<_>>()
    };
    words(one) == words(two) && calls(one) == calls(two)
}
