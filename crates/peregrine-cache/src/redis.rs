//! Entries in Redis: a tier that processes and machines share.
//!
//! An entry is one string: a header in MessagePack (version, times, tags) and the value behind it. The server counts its
//! time. For each tag, and for all entries, a sorted set holds the keys by the time at which they end; storing an entry is
//! one script, which also drops from those sets what has ended, and lets a set end with its last entry. To remove by a
//! tag is to walk its set, so it costs what it removes.
//!
//! Waits are short (a quarter of a second) and nothing is tried twice: [`Tiers`](crate::Tiers) decide when a server that
//! failed is asked again. The connection is made when it is first needed, on the runtime of whoever needs it.
//!
//! If the server may evict for want of memory, let it be `volatile-ttl` or another `volatile-` policy: the sets of tags
//! must not go before the entries they name, or a removal would miss those. One server, or one with replicas; a cluster
//! would need the keys of one script on one node.

use std::fmt;
use std::time::Duration;

use ::redis::aio::{ConnectionManager, ConnectionManagerConfig};
use ::redis::{Client, RedisError, RedisResult};
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::sync::{Mutex, lock};
use crate::{
    Entry, Error, Key, Lookup, NEVER, Result, Selector, Store, StoreStatus, Survey, Tag, Totals, Value,
};

const VERSION: u8 = 1;
const MAX_TAGS: usize = 32;
/// A header is never longer.
const MAX_HEADER: usize = 640;
/// How many entries a removal looks at in one round trip.
const BATCH: usize = 256;

/// Stores an entry and its tags. KEYS: the entry, then sets. ARGV: the value, its time in ms or nothing, now, its end,
/// its member.
const PUT: &str = "
if ARGV[2] == '' then redis.call('SET', KEYS[1], ARGV[1]) else redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
for i = 2, #KEYS do
  redis.call('ZADD', KEYS[i], ARGV[4], ARGV[5])
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', '(' .. ARGV[3])
  local last = redis.call('ZRANGE', KEYS[i], -1, -1, 'WITHSCORES')
  if last[2] == 'inf' then redis.call('PERSIST', KEYS[i])
  elseif last[2] then redis.call('PEXPIREAT', KEYS[i], string.format('%.0f', tonumber(last[2]) + 60000)) end
end
return 1";

/// Where a [`RedisStore`] is.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisConfig {
    /// Such as `redis://user:password@host:6379/0`. Never shown.
    pub url: String,
    /// With what all keys begin (`peregrine:cache:`). Caches with different prefixes share nothing.
    pub prefix: String,
    /// How long a connection may take (500 ms).
    pub connect_timeout: Duration,
    /// How long an answer may take (250 ms).
    pub response_timeout: Duration,
    /// How large an entry may be (8 MiB).
    pub max_entry_bytes: usize,
}

impl RedisConfig {
    /// A server, with the usual settings.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: "peregrine:cache:".to_owned(),
            connect_timeout: Duration::from_millis(500),
            response_timeout: Duration::from_millis(250),
            max_entry_bytes: 8 << 20,
        }
    }

    /// Says with what all keys begin.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Bounds the waits for a connection and for an answer.
    #[must_use]
    pub fn with_timeouts(mut self, connect: Duration, response: Duration) -> Self {
        self.connect_timeout = connect;
        self.response_timeout = response;
        self
    }

    /// Bounds the size of an entry.
    #[must_use]
    pub fn with_max_entry_bytes(mut self, bytes: usize) -> Self {
        self.max_entry_bytes = bytes;
        self
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("prefix", &self.prefix)
            .field("connect_timeout", &self.connect_timeout)
            .field("response_timeout", &self.response_timeout)
            .finish_non_exhaustive()
    }
}

/// Entries in Redis. See the [module](self) for how they lie there.
pub struct RedisStore {
    client: Client,
    config: ConnectionManagerConfig,
    prefix: String,
    max_entry_bytes: usize,
    connection: Mutex<Option<ConnectionManager>>,
    corrupt: std::sync::atomic::AtomicU64,
}

/// What stands before a value.
#[derive(Debug, Serialize, Deserialize)]
struct Header(u8, u64, u64, u64, Bytes);

impl RedisStore {
    /// A store. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the URL is none.
    pub fn new(config: &RedisConfig) -> Result<Self> {
        let RedisConfig {
            url,
            prefix,
            connect_timeout,
            response_timeout,
            max_entry_bytes,
        } = config;
        // What is wrong with an URL may be its password, so it is not told.
        let client = Client::open(url.as_str()).map_err(|_| Error::Config {
            message: "the URL of the Redis server cannot be read".to_owned(),
        })?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(*connect_timeout))
            .set_response_timeout(Some(*response_timeout))
            .set_number_of_retries(0);
        Ok(Self {
            client,
            config,
            prefix: prefix.clone(),
            max_entry_bytes: *max_entry_bytes,
            connection: Mutex::new(None),
            corrupt: std::sync::atomic::AtomicU64::new(0),
        })
    }

    /// What it holds at this time. An entry that was removed by its key, or evicted by the server, may still be counted until
    /// its time. How many bytes they take is not known without reading them.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] or [`Error::Timeout`].
    pub async fn survey(&self, now: u64) -> Result<Survey> {
        let mut connection = self.connection()?;
        let set = self.all_key();
        let mut counts = ::redis::pipe();
        counts.cmd("ZCOUNT").arg(&set).arg(format!("({now}")).arg("+inf");
        counts.cmd("ZCARD").arg(&set);
        let (entries, all): (u64, u64) = failed(counts.query_async(&mut connection).await)?;
        Ok(Survey {
            entries,
            expired: all.saturating_sub(entries),
            ..Survey::default()
        })
    }

    /// How many entries a removal would take away, as [`survey`](Self::survey) counts.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] or [`Error::Timeout`].
    pub async fn count(&self, what: &Selector, now: u64) -> Result<u64> {
        let mut connection = self.connection()?;
        let command = match what {
            Selector::Key(key) => {
                let mut exists = ::redis::cmd("EXISTS");
                exists.arg(self.entry_key(key));
                exists
            }
            Selector::Tag(_) | Selector::All => {
                let set = match what {
                    Selector::Tag(tag) => self.tag_key(tag),
                    _ => self.all_key(),
                };
                let mut count = ::redis::cmd("ZCOUNT");
                count.arg(set).arg(format!("({now}")).arg("+inf");
                count
            }
        };
        failed(command.query_async(&mut connection).await)
    }

    /// What caches over this prefix did that [added](Self::add_totals) theirs.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] or [`Error::Timeout`].
    pub async fn totals(&self) -> Result<Totals> {
        let mut connection = self.connection()?;
        let names = Totals::default().counts().map(|(name, _)| name);
        let read = ::redis::cmd("HMGET")
            .arg(self.totals_key())
            .arg("since")
            .arg(&names)
            .query_async(&mut connection)
            .await;
        let read: Vec<Option<u64>> = failed(read)?;
        let mut counts = read.iter().skip(1).map(|count| count.unwrap_or_default());
        let totals = Totals::from_counts(std::array::from_fn(|_| counts.next().unwrap_or_default()));
        Ok(Totals {
            since: read.first().copied().flatten(),
            ..totals
        })
    }

    /// Adds what a cache did to the totals of this prefix: at its end, or now and then [what came to it](Totals::since).
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] or [`Error::Timeout`].
    pub async fn add_totals(&self, more: &Totals) -> Result<()> {
        let mut connection = self.connection()?;
        let key = self.totals_key();
        let now = crate::Clock::unix_ms(&crate::SystemTimeClock);
        let mut add = ::redis::pipe();
        add.atomic()
            .cmd("HSETNX")
            .arg(&key)
            .arg("since")
            .arg(now)
            .ignore();
        for (name, count) in more.counts().into_iter().filter(|(_, count)| *count > 0) {
            add.cmd("HINCRBY").arg(&key).arg(name).arg(count).ignore();
        }
        failed(add.exec_async(&mut connection).await)
    }

    /// The connection, which is made by its first command.
    fn connection(&self) -> Result<ConnectionManager> {
        if let Some(connection) = &*lock(&self.connection) {
            return Ok(connection.clone());
        }
        let connection = ConnectionManager::new_lazy_with_config(self.client.clone(), self.config.clone());
        let connection = failed(connection)?;
        Ok(lock(&self.connection).get_or_insert(connection).clone())
    }

    fn entry_key(&self, key: &Key) -> String {
        format!("{}e:{key}", self.prefix)
    }

    fn tag_key(&self, tag: &Tag) -> String {
        format!("{}t:{tag}", self.prefix)
    }

    /// The set of all entries.
    fn all_key(&self) -> String {
        format!("{}all", self.prefix)
    }

    /// A hash of counts.
    fn totals_key(&self) -> String {
        format!("{}totals", self.prefix)
    }

    /// The sets that name an entry.
    fn sets<'a>(&'a self, tags: impl IntoIterator<Item = &'a Tag>) -> impl Iterator<Item = String> {
        tags.into_iter()
            .map(|tag| self.tag_key(tag))
            .chain(std::iter::once(self.all_key()))
    }

    fn read<V: Value>(bytes: &[u8]) -> Result<Entry<V>> {
        let (header, payload) = Self::read_header(bytes)?;
        let tags = tags(&header)?;
        let Header(_, created, fresh_until, keep_until, _) = header;
        Ok(Entry {
            value: V::decode(payload)?.into(),
            created,
            fresh_until,
            keep_until,
            tags: tags.into(),
        })
    }

    fn read_header(bytes: &[u8]) -> Result<(Header, &[u8])> {
        let mut rest = bytes;
        let header: Header =
            rmp_serde::from_read(&mut rest).map_err(|_| Error::corrupt("an entry in Redis has no header"))?;
        match header.0 {
            VERSION => Ok((header, rest)),
            version => Err(Error::corrupt(format!(
                "an entry in Redis is of version {version}, which is not known here"
            ))),
        }
    }

    /// Removes those of some entries that have a tag, or all of them; the others are only taken out of the set.
    async fn remove_some(&self, keys: &[Key], tag: Option<&Tag>) -> Result<u64> {
        let mut connection = self.connection()?;
        let mut heads = ::redis::pipe();
        for key in keys {
            heads
                .cmd("GETRANGE")
                .arg(self.entry_key(key))
                .arg(0)
                .arg(MAX_HEADER - 1);
        }
        let heads: Vec<Vec<u8>> = failed(heads.query_async(&mut connection).await)?;
        let mut removal = ::redis::pipe();
        removal.atomic();
        let set = tag.map(|tag| self.tag_key(tag));
        for (key, head) in keys.iter().zip(&heads) {
            let tags = Self::read_header(head).and_then(|(header, _)| tags(&header));
            // Without a header it is gone, or none of ours; it goes all the same.
            let tags = tags.unwrap_or_default();
            let member = &key.as_bytes()[..];
            let other = tag.is_some_and(|tag| !tags.is_empty() && !tags.contains(tag))
                || (tag.is_some() && tags.is_empty() && !head.is_empty());
            if !other {
                removal.cmd("UNLINK").arg(self.entry_key(key));
                for set in self.sets(&tags) {
                    removal.cmd("ZREM").arg(set).arg(member).ignore();
                }
            }
            if let Some(set) = &set {
                removal.cmd("ZREM").arg(set).arg(member).ignore();
            }
        }
        let removed: Vec<u64> = failed(removal.query_async(&mut connection).await)?;
        Ok(removed.into_iter().sum())
    }

    /// Removes what a set names.
    async fn remove_set(&self, set: &str, tag: Option<&Tag>) -> Result<u64> {
        let mut connection = self.connection()?;
        // What is added meanwhile need not go; without this bound, a busy writer could keep this going.
        let mut left: usize = failed(::redis::cmd("ZCARD").arg(set).query_async(&mut connection).await)?;
        let mut removed = 0;
        while left > 0 {
            let count = left.min(BATCH);
            let range = ::redis::cmd("ZRANGE")
                .arg(set)
                .arg(0)
                .arg(count - 1)
                .query_async(&mut connection)
                .await;
            let members: Vec<Vec<u8>> = failed(range)?;
            if members.is_empty() {
                break;
            }
            left -= count;
            let keys: Vec<Key> = members
                .iter()
                .filter_map(|member| <[u8; 32]>::try_from(member.as_slice()).ok())
                .map(Key::from_digest)
                .collect();
            removed += self.remove_some(&keys, tag).await?;
            if keys.len() < members.len() {
                // Somebody else wrote there.
                let mut strange = ::redis::cmd("ZREM");
                strange.arg(set).arg(
                    members
                        .iter()
                        .filter(|member| member.len() != 32)
                        .collect::<Vec<_>>(),
                );
                failed(strange.exec_async(&mut connection).await)?;
            }
        }
        Ok(removed)
    }
}

#[async_trait]
impl<V: Value> Store<V> for RedisStore {
    fn get_now(&self, _: &Key, _: u64) -> Result<Lookup<V>> {
        Ok(Lookup::Ask)
    }

    async fn get(&self, key: &Key, now: u64) -> Result<Option<Entry<V>>> {
        let mut connection = self.connection()?;
        // One byte more than an entry has: what somebody else put there may have any size.
        let found = ::redis::cmd("GETRANGE")
            .arg(self.entry_key(key))
            .arg(0)
            .arg(self.max_entry_bytes.saturating_add(MAX_HEADER))
            .query_async(&mut connection)
            .await;
        let read = match found {
            Ok(bytes) if Vec::is_empty(&bytes) => return Ok(None),
            Ok(bytes) if bytes.len() > self.max_entry_bytes.saturating_add(MAX_HEADER) => {
                Err(Error::corrupt("an entry in Redis is too large"))
            }
            Ok(bytes) => Self::read::<V>(&bytes),
            Err(error) if error.code() == Some("WRONGTYPE") => {
                Err(Error::corrupt("an entry in Redis is of another type"))
            }
            Err(error) => return failed(Err(error)),
        };
        match read {
            Ok(entry) => Ok(Some(entry).filter(|entry| entry.is_kept(now))),
            Err(error) => {
                self.corrupt.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let removed = ::redis::cmd("UNLINK")
                    .arg(self.entry_key(key))
                    .exec_async(&mut connection)
                    .await;
                failed(removed)?;
                Err(error)
            }
        }
    }

    async fn put(&self, key: &Key, entry: &Entry<V>, now: u64) -> Result<bool> {
        let mut connection = self.connection()?;
        let payload = entry.value.encode()?;
        let fits = payload.len() <= self.max_entry_bytes && entry.tags.len() <= MAX_TAGS;
        if !fits || !entry.is_kept(now) {
            // What is to be replaced goes all the same.
            self.remove_some(&[*key], None).await?;
            return Ok(false);
        }
        let tags: Vec<u8> = entry.tags.iter().flat_map(|tag| *tag.as_bytes()).collect();
        let header = Header(
            VERSION,
            entry.created,
            entry.fresh_until,
            entry.keep_until,
            Bytes::from(tags),
        );
        let mut value = rmp_serde::to_vec(&header).map_err(|source| Error::Encode {
            message: source.to_string(),
        })?;
        value.extend_from_slice(&payload);
        let (time, end) = match entry.keep_until {
            NEVER => (String::new(), "+inf".to_owned()),
            until => (until.saturating_sub(now).max(1).to_string(), until.to_string()),
        };
        let sets: Vec<String> = self.sets(entry.tags.iter()).collect();
        let mut put = ::redis::cmd("EVAL");
        put.arg(PUT)
            .arg(sets.len() + 1)
            .arg(self.entry_key(key))
            .arg(sets);
        put.arg(value)
            .arg(time)
            .arg(now)
            .arg(end)
            .arg(&key.as_bytes()[..]);
        failed(put.exec_async(&mut connection).await)?;
        Ok(true)
    }

    async fn remove(&self, what: &Selector) -> Result<u64> {
        match what {
            Selector::Key(key) => self.remove_some(&[*key], None).await,
            Selector::Tag(tag) => self.remove_set(&self.tag_key(tag), Some(tag)).await,
            Selector::All => self.remove_set(&self.all_key(), None).await,
        }
    }

    fn status(&self) -> StoreStatus {
        StoreStatus {
            corrupt: self.corrupt.load(std::sync::atomic::Ordering::Relaxed),
            ..StoreStatus::new("redis")
        }
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

fn tags(header: &Header) -> Result<Vec<Tag>> {
    let (tags, rest) = header.4.as_chunks::<16>();
    if !rest.is_empty() || tags.len() > MAX_TAGS {
        return Err(Error::corrupt("an entry in Redis has tags that are none"));
    }
    Ok(tags.iter().copied().map(Tag::from_bytes).collect())
}

/// Their errors as ours.
fn failed<T>(result: RedisResult<T>) -> Result<T> {
    result.map_err(|error: RedisError| {
        if error.is_timeout() {
            Error::Timeout { store: "redis" }
        } else {
            Error::Unavailable {
                store: "redis",
                message: error.to_string(),
            }
        }
    })
}
