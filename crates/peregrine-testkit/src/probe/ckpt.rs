//! `ckpt`: the journals of runs, from outside: written, killed, verified, loaded, forked.

use clap::{Args, Subcommand, ValueEnum};
use peregrine_checkpoints::{
    Checkpoints, Draft, Durability, Error as JournalError, History, Journal, Kind, Options, Part, Record,
    RunKey, SnapshotPolicy, Span,
};
use peregrine_core::{Clock as _, Result, RunId, SystemClock};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::failure::Failure;
use crate::output::{Output, hex};

mod durable;

pub(crate) use durable::told;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Append records; print each when it is acknowledged.
    Write(Write),
    /// Read everything and say what is there and what is damaged.
    Verify(Verify),
    /// Print the records with their digests.
    Load(Load),
    /// Make a run that shares the first records of another.
    Fork(Fork),
    /// Take a run's lease, cut what was never finished, and say from where it goes on.
    Resume(Resume),
    /// Go through an agent's run once more, from its records alone, and compare.
    Replay(Replay),
}

/// Which run of which store.
#[derive(Debug, Args)]
pub(crate) struct At {
    /// The store: dir:PATH, sqlite:PATH, postgres://.., or memory: for one that ends with the command.
    #[arg(long)]
    store: String,
    /// The run: an id of 26 characters, or any name, of which an id is made.
    #[arg(long)]
    run: String,
    /// The tenant, or tenant/session, whose run it is.
    #[arg(long, default_value = "probe")]
    scope: String,
}

#[derive(Debug, Args)]
pub(crate) struct Write {
    #[command(flatten)]
    at: At,
    /// How many records.
    #[arg(long, default_value_t = 10)]
    count: u64,
    /// The size of their payloads.
    #[arg(long, default_value_t = 1_024)]
    size: usize,
    /// What an acknowledgement promises.
    #[arg(long, value_enum, default_value_t = Level::ProcessSafe)]
    durability: Level,
    /// Write a snapshot after so many records; 0 is never.
    #[arg(long, default_value_t = 0)]
    snapshot_every: u64,
    /// Take the run from whoever has it.
    #[arg(long)]
    take_over: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Level {
    None,
    #[value(alias = "on_finish")]
    OnFinish,
    #[value(alias = "process", alias = "process_safe")]
    ProcessSafe,
    #[value(alias = "power", alias = "power_safe")]
    PowerSafe,
}

impl Level {
    pub(crate) fn durability(self) -> Durability {
        match self {
            Self::None => Durability::None,
            Self::OnFinish => Durability::OnFinish,
            Self::ProcessSafe => Durability::ProcessSafe,
            Self::PowerSafe => Durability::PowerSafe,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    at: At,
    /// Only what comes before this record.
    #[arg(long)]
    upto: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Load {
    #[command(flatten)]
    at: At,
    /// Only what comes before this record.
    #[arg(long)]
    upto: Option<u64>,
    /// Begin with this record.
    #[arg(long, conflicts_with = "since_snapshot")]
    from: Option<u64>,
    /// Begin with the last snapshot.
    #[arg(long)]
    since_snapshot: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Fork {
    #[command(flatten)]
    at: At,
    /// How many records to share; all that are there if it is not given.
    #[arg(long)]
    upto: Option<u64>,
    /// The new run, as for --run; a new id if it is not given.
    #[arg(long = "as")]
    fork: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Resume {
    #[command(flatten)]
    at: At,
    /// Say first what came of a tool call of an agent's run that is in doubt.
    #[arg(long, value_name = "CALL=RESULT", value_parser = resolution)]
    resolve: Vec<(u64, String)>,
    /// Say first that such a call was not carried out.
    #[arg(long, value_name = "CALL")]
    not_carried_out: Vec<u64>,
    /// Take the run from whoever has it.
    #[arg(long)]
    take_over: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Replay {
    #[command(flatten)]
    at: At,
    /// Only what comes before this record.
    #[arg(long)]
    upto: Option<u64>,
}

pub(crate) async fn run(command: Command, output: &mut Output) -> Result<(), Failure> {
    match command {
        Command::Write(arguments) => Ok(write(&arguments, output).await?),
        Command::Verify(arguments) => Ok(verify(&arguments, output).await?),
        Command::Load(arguments) => Ok(load(&arguments, output).await?),
        Command::Fork(arguments) => Ok(fork(&arguments, output).await?),
        Command::Resume(arguments) => durable::resume(&arguments, output).await,
        Command::Replay(arguments) => durable::replay(&arguments, output).await,
    }
}

fn resolution(text: &str) -> Result<(u64, String), String> {
    text.split_once('=')
        .and_then(|(call, result)| Some((call.parse().ok()?, result.to_owned())))
        .ok_or_else(|| "a call's number and its result are expected, such as 3=sent".to_owned())
}

async fn open(at: &At, durability: Durability) -> Result<(Checkpoints, RunKey)> {
    let scope = crate::request::parse_scope(&at.scope)?;
    let mut options = Options::default();
    (options.durability, options.snapshots) = (durability, SnapshotPolicy::NEVER);
    let checkpoints = Checkpoints::open(&at.store, options).await?;
    let key = RunKey::new(scope, run_id(&at.run));
    Ok((checkpoints, key))
}

/// The id, or one made of the name, the same every time.
pub(crate) fn run_id(name: &str) -> RunId {
    name.parse().unwrap_or_else(|_| {
        let hash: [u8; 32] = Sha256::digest(name.as_bytes()).into();
        let mut time = [0; 8];
        time[2..].copy_from_slice(&hash[..6]);
        let mut random = [0; 10];
        random.copy_from_slice(&hash[6..16]);
        RunId::from_parts(u64::from_be_bytes(time), random)
    })
}

async fn write(arguments: &Write, output: &mut Output) -> Result<()> {
    let durability = arguments.durability.durability();
    let (checkpoints, key) = open(&arguments.at, durability).await?;
    let (mut journal, history) = if arguments.take_over {
        let (journal, history) = checkpoints.take_over(&key).await?;
        (journal, Some(history))
    } else {
        checkpoints.resume_or_create(&key).await?
    };
    output.line(&json!({"opened": {
        "run": key.run,
        "next": journal.next_seq(),
        "token": journal.lease().map(|lease| lease.token),
        "tail": history.and_then(|history| history.tail),
    }}))?;
    // What is only promised when the run finishes is not acknowledged before.
    let mut unfinished = Vec::new();
    for record in 0..arguments.count {
        let snapshot =
            arguments.snapshot_every > 0 && record % arguments.snapshot_every == arguments.snapshot_every - 1;
        let (seq, sha256) = append(&mut journal, &key, arguments.size, snapshot).await?;
        let line = json!({"ack": seq, "sha256": sha256});
        if durability == Durability::OnFinish {
            unfinished.push(line);
        } else {
            output.line(&line)?;
        }
    }
    let next = journal.next_seq();
    journal.finish().await?;
    unfinished.iter().try_for_each(|line| output.line(line))?;
    output.line(&json!({"done": {"run": key.run, "records": arguments.count, "next": next}}))
}

/// Appends bytes that are made of the run and the number, so that every record is another one.
async fn append(journal: &mut Journal, key: &RunKey, size: usize, snapshot: bool) -> Result<(u64, String)> {
    let mut payload = Vec::with_capacity(size + 32);
    let mut block: [u8; 32] = Sha256::digest(format!("{} {}", key.run, journal.next_seq())).into();
    while payload.len() < size {
        payload.extend_from_slice(&block);
        block = Sha256::digest(block).into();
    }
    payload.truncate(size);
    let sha256 = hex(&Sha256::digest(&payload));
    let kind = if snapshot { Kind::Snapshot } else { Kind::Event };
    let seq = journal.append_draft(&Draft::raw(kind, 1, payload)).await?;
    Ok((seq, sha256))
}

async fn verify(arguments: &Verify, output: &mut Output) -> Result<()> {
    let (checkpoints, key) = open(&arguments.at, Durability::ProcessSafe).await?;
    let found = match arguments.upto {
        Some(upto) => checkpoints.verify_upto(&key, upto).await?,
        None => checkpoints.verify(&key).await?,
    };
    output.line(&json!({"verify": {
        "run": key.run,
        "whole": found.is_whole(),
        "origin": found.origin,
        "first": found.first,
        "next": found.next_seq,
        "records": found.next_seq - found.first,
        "parts": found.parts,
        "tail": found.tail,
        "damage": found.damage.as_ref().map(damage),
        "digest": hex(&found.digest),
    }}))?;
    match found.damage {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

fn damage(error: &JournalError) -> Value {
    let mut fields = json!({"cause": error.code(), "message": error.to_string()});
    if let JournalError::Damaged(damage) = error {
        fields["place"] = damage.place.as_str().into();
        fields["offset"] = damage.offset.into();
        fields["seq"] = damage.seq.into();
    }
    fields
}

async fn load(arguments: &Load, output: &mut Output) -> Result<()> {
    let (checkpoints, key) = open(&arguments.at, Durability::ProcessSafe).await?;
    let span = match (arguments.from, arguments.since_snapshot) {
        (Some(seq), _) => Span::from(seq),
        (None, true) => Span::SINCE_SNAPSHOT,
        (None, false) => Span::ALL,
    };
    let wanted = match arguments.upto {
        Some(upto) => span.upto(upto),
        None => span,
    };
    match checkpoints.load(&key, wanted).await {
        Ok(history) => print(&key, &history, output),
        Err(JournalError::Damaged(damage)) => {
            // What comes before the damage is still worth something.
            if let Ok(before) = checkpoints.load(&key, span.upto(damage.seq)).await {
                before
                    .records
                    .iter()
                    .try_for_each(|found| output.line(&record(found)))?;
            }
            Err(JournalError::Damaged(damage).into())
        }
        Err(error) => Err(error.into()),
    }
}

fn print(key: &RunKey, history: &History, output: &mut Output) -> Result<()> {
    let mut all = Sha256::new();
    for found in &history.records {
        all.update(&found.payload);
        output.line(&record(found))?;
    }
    output.line(&json!({"done": {
        "run": key.run,
        "origin": history.origin,
        "records": history.records.len(),
        "next": history.next_seq,
        "tail": history.tail,
        "sha256": hex(&all.finalize()),
    }}))
}

fn record(record: &Record) -> Value {
    let parts = record.parts.iter().map(|part| match part {
        Part::Inline(bytes) => json!({"bytes": bytes.len(), "sha256": hex(&Sha256::digest(bytes))}),
        Part::Stored(part) => json!({"bytes": part.len, "id": part.id.to_string()}),
        _ => Value::Null,
    });
    json!({
        "seq": record.seq,
        "kind": record.kind,
        "schema": record.schema,
        "at": record.at,
        "bytes": record.payload.len(),
        "sha256": hex(&Sha256::digest(&record.payload)),
        "parts": parts.collect::<Vec<_>>(),
    })
}

async fn fork(arguments: &Fork, output: &mut Output) -> Result<()> {
    let (checkpoints, key) = open(&arguments.at, Durability::ProcessSafe).await?;
    let upto = match arguments.upto {
        Some(upto) => upto,
        None => checkpoints.load(&key, Span::from(u64::MAX)).await?.next_seq,
    };
    let fork = match &arguments.fork {
        Some(name) => run_id(name),
        None => run_id(&format!(
            "{} {upto} {} {}",
            key.run,
            SystemClock.unix().0,
            std::process::id()
        )),
    };
    let (journal, history) = checkpoints.fork(&key, upto, fork).await?;
    let next = journal.next_seq();
    journal.finish().await?;
    output.line(&json!({"done": {
        "run": fork,
        "from": key.run,
        "origin": history.origin,
        "shared": upto,
        "next": next,
    }}))
}
