//! One batch: what fails is halved until the bad item stands alone.
//!
//! Algorithm: a batch that fails in a way that one item may be to blame for is halved, and each half is tried. One bad
//! item of n costs 2 log2(n) extra calls. Two bounds keep a failure that no half escapes from from costing a call an
//! item: the extra calls of a batch, and the failures in a row without any success in between, which say that the
//! whole request is wrong.

use peregrine_core::{
    EmbedRequest, EmbedResponse, Error, ErrorKind, ProtocolError, RawResponse, Result, Usage,
};

use super::Vector;

/// After so many failures in a row the items are not to blame.
const MAX_BARREN: u32 = 8;

/// An item of a batch.
pub(super) trait Item: Send {
    fn text(&self) -> &str;
    /// Takes the result, as soon as there is one.
    fn finish(self, result: Result<Vector>);
}

/// What a batch took.
#[derive(Debug, Default)]
pub(super) struct Spent {
    pub(super) calls: u64,
    pub(super) usage: Option<Usage>,
    pub(super) model: Option<String>,
    pub(super) raw: Vec<RawResponse>,
}

/// How to embed a group.
pub(super) trait Caller {
    /// Asks for the vectors of these texts, and counts the calls that it takes.
    fn call(
        &self,
        request: &EmbedRequest,
        calls: &mut u64,
    ) -> impl Future<Output = Result<EmbedResponse>> + Send;
}

/// Embeds the items of one batch; each of them is finished exactly once. `template` is the request without its inputs.
pub(super) async fn embed_batch<I: Item>(
    caller: impl Caller + Sync,
    template: &EmbedRequest,
    items: Vec<I>,
    max_extra_calls: u32,
) -> Spent {
    let mut batch = Batch {
        caller,
        template,
        spent: Spent::default(),
        barren: 0,
    };
    let mut extra = 0;
    let mut failing: Vec<_> = batch.attempt(items).await.into_iter().collect();
    while let Some((mut left, error)) = failing.pop() {
        let hopeless = extra + 2 > max_extra_calls || batch.barren >= MAX_BARREN;
        if left.len() == 1 || hopeless || !may_be_an_item(error.kind()) {
            for item in left {
                item.finish(Err(error.clone()));
            }
            continue;
        }
        let right = left.split_off(left.len() / 2);
        extra += 2;
        let left = batch.attempt(left).await;
        let right = batch.attempt(right).await;
        failing.extend(right);
        failing.extend(left);
    }
    batch.spent
}

struct Batch<'a, C> {
    caller: C,
    template: &'a EmbedRequest,
    spent: Spent,
    /// How many calls failed since the last one that did not.
    barren: u32,
}

impl<C: Caller> Batch<'_, C> {
    /// Tries a group; gives it back with the error if it fails.
    async fn attempt<I: Item>(&mut self, group: Vec<I>) -> Option<(Vec<I>, Error)> {
        match self.vectors(&group).await {
            Ok(vectors) => {
                self.barren = 0;
                for (item, vector) in group.into_iter().zip(vectors) {
                    item.finish(Ok(vector));
                }
                None
            }
            Err(error) => {
                self.barren += 1;
                Some((group, error))
            }
        }
    }

    async fn vectors<I: Item>(&mut self, group: &[I]) -> Result<Vec<Vector>> {
        let request = EmbedRequest {
            inputs: group.iter().map(|item| item.text().to_owned()).collect(),
            ..self.template.clone()
        };
        let response = self.caller.call(&request, &mut self.spent.calls).await?;
        if let Some(usage) = response.usage {
            self.spent.usage = Some(self.spent.usage.unwrap_or_default() + usage);
        }
        self.spent.raw.extend(response.raw);
        self.spent.model = Some(response.model);
        let found = response.embeddings.len();
        if found != group.len() {
            let message = format!("asked for {} vectors, but {found} came", group.len());
            return Err(ProtocolError::new(message).into());
        }
        Ok(response.embeddings.iter().map(Vector::from).collect())
    }
}

/// Whether one item may be to blame for a failure of this kind. Some servers fail outright at an item that they do not
/// like, so a failed server is among them; an absent or busy one is not.
fn may_be_an_item(kind: ErrorKind) -> bool {
    use ErrorKind as Kind;
    matches!(
        kind,
        Kind::InvalidRequest
            | Kind::ContextLength
            | Kind::RequestTooLarge
            | Kind::ResponseTooLarge
            | Kind::ContentFilter
            | Kind::UnexpectedStatus
            | Kind::Server
            | Kind::Protocol
    )
}
