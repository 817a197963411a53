//! Runs that are kept while they go on: `--durable` and `--resume`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use peregrine::agent::Error as AgentError;
use peregrine::agent::durable::{RunStatus, StoredRun};
use peregrine::checkpoints::{Checkpoints, Durability, Error as StoreError, Kind, RunKey, Span};
use peregrine::core::{ChatModel, ChatRequest, ChatResponse, ModelInfo, RunId, Scope};
use peregrine::{Agent, Error, ErrorKind};

use crate::args::{DurableArgs, Level, RunArgs};
use crate::chat_log;
use crate::command::{self, Command, Recalled};
use crate::failure::Failure;
use crate::output::{Console, Verbosity};
use crate::runs::args::{RunName, StoreArgs, scope_name};
use crate::runs::store::Runs;

/// The version of what is said of a fork.
const LABELS_SCHEMA: u32 = 2_002;
/// So many models a foreign run may have to be forked here.
const MAX_MODELS: u32 = 64;

/// A run that is kept.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) checkpoints: Checkpoints,
    pub(crate) key: RunKey,
    /// What its journal says that no model is told.
    pub(crate) labels: BTreeMap<String, String>,
}

impl Level {
    fn durability(self) -> Durability {
        match self {
            Self::None => Durability::None,
            Self::OnFinish => Durability::OnFinish,
            Self::ProcessSafe => Durability::ProcessSafe,
            Self::PowerSafe => Durability::PowerSafe,
        }
    }
}

impl DurableArgs {
    /// The store for what is begun now, if it is to be kept: because that was asked for, or because what it goes on from
    /// is.
    ///
    /// # Errors
    ///
    /// [`Failure`], with what the store says.
    pub(crate) async fn open(&self) -> Result<Option<Runs>, Failure> {
        match (self.durable, &self.resume) {
            (Some(Level::None), _) | (None, None) => Ok(None),
            _ => Ok(Some(self.at_its_level(Runs::open(&self.store).await?))),
        }
    }

    /// The same runs, kept as durably as was asked for.
    pub(crate) fn at_its_level(&self, runs: Runs) -> Runs {
        runs.with_durability(self.durable.unwrap_or(Level::ProcessSafe).durability())
    }
}

impl Kept {
    /// A run that is to begin, under an id of its own.
    pub(crate) fn begin(runs: &Runs, id: RunId, labels: BTreeMap<String, String>) -> Self {
        Self {
            checkpoints: runs.checkpoints.clone(),
            key: runs.key(id),
            labels,
        }
    }

    /// Whether something was asked in it.
    ///
    /// # Errors
    ///
    /// [`Failure`] if it cannot be read.
    pub(crate) async fn has_begun(&self) -> Result<bool, Failure> {
        match look(&self.checkpoints, &self.key).await {
            Ok(stored) => Ok(stored.status() != RunStatus::New),
            Err(Looked::Failed(Failure::Store(StoreError::NotFound { .. })) | Looked::Chat) => Ok(false),
            Err(Looked::Failed(failure)) => Err(failure),
        }
    }

    /// Says how to go on with a run that ended without an answer, if that is possible.
    pub(crate) async fn how_to_go_on(&self, console: &mut Console) {
        // Who cannot be told cannot go on anyway; why it failed is told elsewhere.
        if let Ok(stored) = look(&self.checkpoints, &self.key).await
            && !matches!(stored.status(), RunStatus::Over | RunStatus::New)
        {
            let run = self.key.run;
            let note = format!("the run is kept; go on with it: peregrine runs resume {run}");
            console.note(Verbosity::Normal, &note);
        }
    }
}

/// Says where a run is kept.
pub(crate) fn announce(runs: &Runs, id: RunId, console: &mut Console) {
    let (scope, place) = (scope_name(&runs.scope), runs.place());
    console.note(
        Verbosity::Normal,
        &format!("run: {id} (of {scope}, kept in {place})"),
    );
}

/// With what a run is asked: what its journal says, or where it is a fork that is asked with something else, what was said
/// then.
///
/// # Errors
///
/// [`Failure`], with what the store says.
pub(crate) async fn labels(
    checkpoints: &Checkpoints,
    stored: &StoredRun,
) -> Result<BTreeMap<String, String>, Failure> {
    if stored.origin().is_some()
        && let Some(key) = beside(stored.key())
    {
        match checkpoints.load(&key, Span::ALL).await {
            Ok(history) => {
                if let Some(record) = history.records.last() {
                    return Ok(record.decode()?);
                }
            }
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(stored.run().spec().template.metadata.clone())
}

/// Says with what a fork is asked, where that is not what the records say that it shares.
///
/// # Errors
///
/// [`Failure`], with what the store says.
pub(crate) async fn say_labels(
    checkpoints: &Checkpoints,
    fork: &RunKey,
    labels: &BTreeMap<String, String>,
) -> Result<(), Failure> {
    let key = beside(fork).ok_or_else(|| invalid("the name of the session is too long".to_owned()))?;
    let mut journal = checkpoints.create(&key).await?;
    journal.append(Kind::Marker, LABELS_SCHEMA, labels).await?;
    Ok(journal.finish().await?)
}

/// Removes what was said of a fork that is gone. What stays harms nobody.
pub(crate) async fn forget_labels(checkpoints: &Checkpoints, fork: &RunKey) {
    if let Some(key) = beside(fork) {
        let _ = checkpoints.remove(&key).await;
    }
}

/// Where that is kept: under the fork's id, in a session beside its own. An agent's journal takes no records of others.
fn beside(run: &RunKey) -> Option<RunKey> {
    let Scope { tenant, session } = &run.scope;
    let session = session.as_ref().map_or("", |session| session.as_str());
    let scope = Scope::new(tenant.as_str(), format!("{session}~command")).ok()?;
    Some(RunKey::new(scope, run.run))
}

/// An agent that only looks, with so many models.
pub(crate) fn looking(checkpoints: &Checkpoints, models: u32) -> Agent {
    let agent = Agent::new(Nobody::new()).with_checkpoints(checkpoints.clone());
    (1..models.min(MAX_MODELS)).fold(agent, |agent, _| agent.with_fallback(Nobody::new()))
}

/// Why a run cannot be looked at.
#[derive(Debug)]
pub(crate) enum Looked {
    /// It is a chat.
    Chat,
    /// It is not there, cannot be read, or is no run of an agent.
    Failed(Failure),
}

/// A run that is to be looked at.
///
/// # Errors
///
/// [`Looked`].
pub(crate) async fn look(checkpoints: &Checkpoints, key: &RunKey) -> Result<StoredRun, Looked> {
    looking(checkpoints, 1)
        .load(key)
        .await
        .map_err(|error| match error {
            AgentError::Checkpoints(StoreError::Unsupported {
                found: chat_log::SCHEMA,
                ..
            }) => Looked::Chat,
            error => Looked::Failed(error.into()),
        })
}

/// A run by its name.
///
/// # Errors
///
/// [`Failure`] if there is none, or it cannot be looked at.
pub(crate) async fn find(args: &StoreArgs, name: &RunName) -> Result<(Runs, StoredRun), Failure> {
    let runs = Runs::find(args).await?;
    let key = runs.named(name).await?;
    match look(&runs.checkpoints, &key).await {
        Ok(stored) => Ok((runs, stored)),
        Err(Looked::Failed(failure)) => Err(failure),
        Err(Looked::Chat) => Err(invalid(format!(
            "this is a chat; go on with it: peregrine chat --resume {}",
            key.run
        ))),
    }
}

/// Puts in what was said before, where nothing is said now.
///
/// # Errors
///
/// [`Failure`] if files are needed, and which they are is not this user's word.
pub(crate) fn as_before(
    labels: &BTreeMap<String, String>,
    needs_files: bool,
    paths: &mut Vec<PathBuf>,
    run: &mut RunArgs,
) -> Result<(), Failure> {
    let recalled = command::recall(labels);
    if let Recalled::Sealed(command) = &recalled {
        if run.system.is_none() {
            run.system.clone_from(&command.system);
        }
        run.temperature = run.temperature.or(command.temperature);
        run.max_tokens = run.max_tokens.or(command.max_tokens);
        run.budget = run.budget.or(command.budget);
        if run.model.is_none() && run.base_url.is_none() {
            if command.secret_base_url {
                return Err(invalid(
                    "the address that the run was asked at is not written down, because it may hold a secret; give it \
                     again with --base-url"
                        .to_owned(),
                ));
            }
            run.base_url.clone_from(&command.base_url);
        }
        run.model.get_or_insert_with(|| command.model.clone());
    }
    // Another model than before never goes on unasked. By its name it is one of those that this user has a key for.
    match &recalled {
        Recalled::Unsealed(command) if run.model.is_none() && run.base_url.is_none() => {
            if command.base_url.is_some() || command.secret_base_url {
                return Err(invalid(format!(
                    "the run was asked at another address, and it was not you on this machine who named it; if what was \
                     said may be sent there, give it again: --base-url {}",
                    command.base_url.as_deref().unwrap_or("URL")
                )));
            }
            run.model = Some(command.model.clone());
        }
        Recalled::Nothing if run.model.is_none() && run.base_url.is_none() => {
            return Err(invalid(
                "the journal does not say who answered before; say who is to answer with --model".to_owned(),
            ));
        }
        _ => {}
    }
    if !needs_files || !paths.is_empty() {
        return Ok(());
    }
    match recalled {
        Recalled::Sealed(Command {
            folder,
            paths: before,
            ..
        }) if !before.is_empty() => {
            for file in [&mut run.record, &mut run.replay].into_iter().flatten() {
                *file = std::path::absolute(&*file).map_err(|error| Failure::io(&error))?;
            }
            // Their names are what the conversation speaks of, so they stay as they were given.
            std::env::set_current_dir(&folder)
                .map_err(|error| invalid(format!("could not go to {}: {error}", folder.display())))?;
            *paths = before;
            Ok(())
        }
        Recalled::Unsealed(command) => {
            let before: Vec<_> = command
                .paths
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            Err(invalid(format!(
                "the run reads files, and it was not you on this machine who named them; if they may be read and sent to \
                 the model, give them again: {} (in {})",
                before.join(" "),
                command.folder.display()
            )))
        }
        _ => Err(invalid(
            "the run reads files, and its journal does not say which; give them again".to_owned(),
        )),
    }
}

fn invalid(message: String) -> Failure {
    Failure::Local {
        kind: ErrorKind::InvalidRequest,
        message,
    }
}

/// The model of an agent that only looks.
struct Nobody(ModelInfo);

impl Nobody {
    fn new() -> Self {
        Self(ModelInfo::new("none", "none"))
    }
}

impl ChatModel for Nobody {
    fn info(&self) -> &ModelInfo {
        &self.0
    }

    async fn complete(&self, _: &ChatRequest) -> peregrine::Result<ChatResponse> {
        Err(Error::invalid_request("nobody is to be asked here"))
    }
}
