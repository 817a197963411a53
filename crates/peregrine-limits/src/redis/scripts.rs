//! What runs inside of Redis, each as one atomic step, in microseconds of the server's clock.
//!
//! Keys, with the limiter's name as hash tag so that a cluster keeps them together: the state (a hash of levels, rates and
//! what was learned), the processes that are alive (a sorted set by the end of their lease), and how many requests each
//! of them has in flight (a hash of absolute counts, so that a lost message is put right by the next one). A process whose
//! lease has ended is forgotten with what it had in flight. Messages of a process are numbered, because those of several
//! threads may pass each other: an older count never replaces a newer one.
//!
//! The clock of the server is a wall clock, and may be set. Where it goes back, everything is counted from the new time on,
//! and what lay in the future by the old time is moved along: nothing stands still until the old time is reached again.
//! Processes with other limits share the levels; what was learned is forgotten when the limits change.

/// Both scripts begin with the time, the leases and the levels, to which they add what is given back.
const COMMON: &str = r"
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local state, alive, counts = KEYS[1], KEYS[2], KEYS[3]
local process, in_flight, lease_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local number, least = tonumber(ARGV[15]), { tonumber(ARGV[16]), tonumber(ARGV[17]) }
local fresh, concurrency, limits = ARGV[4] == '1', tonumber(ARGV[5]), ARGV[6]
local amount = { tonumber(ARGV[7]), tonumber(ARGV[11]) }
local rate = { tonumber(ARGV[8]), tonumber(ARGV[12]) }
local cap = { tonumber(ARGV[9]), tonumber(ARGV[13]) }
local give = { tonumber(ARGV[10]), tonumber(ARGV[14]) }
local h = redis.call('HMGET', state, 'limits', 'at', 'level1', 'level2', 'rate1', 'rate2', 'cap1', 'cap2', 'pause')
if h[1] and h[1] ~= limits then
  redis.call('HDEL', state, 'rate1', 'rate2', 'cap1', 'cap2', 'learned1', 'learned2')
  h[5], h[6], h[7], h[8] = nil, nil, nil, nil
end
local at = tonumber(h[2] or now)
if at > now then
  local back = at - now
  if back > 1000000 then
    for _, one in ipairs(redis.call('ZRANGE', alive, 0, -1)) do
      redis.call('ZINCRBY', alive, string.format('%.0f', -back / 1000), one)
    end
    if h[9] then h[9] = string.format('%.0f', tonumber(h[9]) - back) end
    redis.call('HSET', state, 'pause', h[9] or '0')
  end
  at = now
end
local dead = redis.call('ZRANGEBYSCORE', alive, '-inf', string.format('%.0f', now / 1000))
for _, gone in ipairs(dead) do
  redis.call('ZREM', alive, gone)
  redis.call('HDEL', counts, gone)
end
redis.call('ZADD', alive, string.format('%.0f', now / 1000 + lease_ms), process)
local function count(n)
  local last = string.match(redis.call('HGET', counts, process) or '', ' (%d+)$')
  if not last or tonumber(last) <= number then
    redis.call('HSET', counts, process, string.format('%d %.0f', n, number))
  end
end
count(in_flight)
local level = {}
for q = 1, 2 do
  rate[q] = tonumber(h[4 + q] or rate[q]) / 1000
  cap[q] = tonumber(h[6 + q] or cap[q]) / 1000
  local before = tonumber(h[2 + q] or (fresh and cap[q] or 0))
  before = before + (now - at) * rate[q] / 60000000
  -- What is owed has an end.
  if give[q] < 0 then give[q] = math.max(give[q], math.min(-least[q] - before, 0)) end
  level[q] = math.min(before + give[q], cap[q])
end
local function keep()
  redis.call('HSET', state, 'limits', limits, 'at', string.format('%.0f', now),
    'level1', string.format('%.9f', level[1]), 'level2', string.format('%.9f', level[2]))
  for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, 3600000) end
end
";

/// Books: takes what is asked for, into debt, and says how long to wait for it. `{booked, wait, processes, now, used of 1,
/// used of 2}`.
pub(super) fn book() -> String {
    format!(
        "{COMMON}{}",
        r"
local processes = redis.call('ZCARD', alive)
if concurrency > 0 then
  local all = 0
  for _, n in ipairs(redis.call('HVALS', counts)) do all = all + tonumber(string.match(n, '^%d+')) end
  if all > concurrency then
    count(math.max(in_flight - 1, 0))
    keep()
    return { 0, 0, processes, string.format('%.0f', now), 0, 0 }
  end
end
local wait = math.max(tonumber(h[9] or 0) - now, 0)
local used = { 0, 0 }
for q = 1, 2 do
  if rate[q] > 0 then
    local missing = math.min(amount[q], cap[q]) - level[q]
    if missing > 0 then wait = math.max(wait, math.ceil(missing * 60000000 / rate[q])) end
    level[q] = level[q] - amount[q]
    if level[q] * 2 < cap[q] then used[q] = 1 end
  end
end
keep()
return { 1, wait, processes, string.format('%.0f', now), used[1], used[2] }
"
    )
}

/// Gives back and renews the lease, no more. The number of processes.
pub(super) fn give() -> String {
    format!(
        "{COMMON}{}",
        r"
keep()
return redis.call('ZCARD', alive)
"
    )
}

/// Stores what was learned if nobody else did since it was read: version, next version, the learners, rates and capacities,
/// a pause in microseconds from now, the most that is left at each level (or nothing), and the limits.
pub(super) const LEARN: &str = r"
local state = KEYS[1]
if redis.call('HGET', state, 'limits') ~= ARGV[12] then return 0 end
if (redis.call('HGET', state, 'version') or '') ~= ARGV[1] then return 0 end
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
redis.call('HSET', state, 'version', ARGV[2], 'learned1', ARGV[3], 'learned2', ARGV[4])
for q = 1, 2 do
  local rate, cap, left = ARGV[3 + 2 * q], ARGV[4 + 2 * q], tonumber(ARGV[9 + q])
  if rate ~= '' then redis.call('HSET', state, 'rate' .. q, rate, 'cap' .. q, cap) end
  if left and tonumber(redis.call('HGET', state, 'level' .. q) or 0) > left then
    redis.call('HSET', state, 'level' .. q, string.format('%.9f', left))
  end
end
local pause = now + tonumber(ARGV[9])
if tonumber(ARGV[9]) > 0 and pause > tonumber(redis.call('HGET', state, 'pause') or 0) then
  redis.call('HSET', state, 'pause', string.format('%.0f', pause))
end
return 1
";
