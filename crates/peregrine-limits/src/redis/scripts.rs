//! What runs inside of Redis, each as one atomic step, in microseconds of the server's clock.
//!
//! Keys, with the limiter's name as hash tag so that a cluster keeps them together: the state (a hash of levels, rates and
//! what was learned), the processes that are alive (a sorted set by the end of their lease), and how many requests each
//! of them has in flight (a hash of absolute counts, so that a lost message is put right by the next one). A process whose
//! lease has ended is forgotten with what it had in flight. A server clock that goes back stands still.

/// Both scripts begin with the time, the leases and the levels, to which they add what is given back.
const COMMON: &str = r"
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local state, alive, counts = KEYS[1], KEYS[2], KEYS[3]
local process, in_flight, lease_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local fresh, concurrency, limits = ARGV[4] == '1', tonumber(ARGV[5]), ARGV[6]
local amount = { tonumber(ARGV[7]), tonumber(ARGV[11]) }
local rate = { tonumber(ARGV[8]), tonumber(ARGV[12]) }
local cap = { tonumber(ARGV[9]), tonumber(ARGV[13]) }
local give = { tonumber(ARGV[10]), tonumber(ARGV[14]) }
local h = redis.call('HMGET', state, 'limits', 'at', 'level1', 'level2', 'rate1', 'rate2', 'cap1', 'cap2', 'pause')
if h[1] ~= limits then
  redis.call('DEL', state)
  h = {}
end
local at = tonumber(h[2] or now)
if at > now then now = at end
local dead = redis.call('ZRANGEBYSCORE', alive, '-inf', string.format('%.0f', now / 1000))
for _, gone in ipairs(dead) do
  redis.call('ZREM', alive, gone)
  redis.call('HDEL', counts, gone)
end
redis.call('ZADD', alive, string.format('%.0f', now / 1000 + lease_ms), process)
redis.call('HSET', counts, process, in_flight)
local level = {}
for q = 1, 2 do
  rate[q] = tonumber(h[4 + q] or rate[q]) / 1000
  cap[q] = tonumber(h[6 + q] or cap[q]) / 1000
  local before = tonumber(h[2 + q] or (fresh and cap[q] or 0))
  level[q] = math.min(before + (now - at) * rate[q] / 60000000 + give[q], cap[q])
end
local function keep()
  redis.call('HSET', state, 'limits', limits, 'at', string.format('%.0f', now),
    'level1', string.format('%.9f', level[1]), 'level2', string.format('%.9f', level[2]))
  for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, 3600000) end
end
";

/// Books: takes what is asked for, into debt, and says how long to wait for it. `{booked, wait, processes, now, used of 1,
/// used of 2, share left of 1, share left of 2}`.
pub(super) fn book() -> String {
    format!(
        "{COMMON}{}",
        r"
local processes = redis.call('ZCARD', alive)
if concurrency > 0 then
  local all = 0
  for _, n in ipairs(redis.call('HVALS', counts)) do all = all + n end
  if all > concurrency then
    redis.call('HSET', counts, process, in_flight - 1)
    keep()
    return { 0, 0, processes, string.format('%.0f', now), 0, 0, '1', '1' }
  end
end
local wait = math.max(tonumber(h[9] or 0) - now, 0)
local used, left = { 0, 0 }, { '1', '1' }
for q = 1, 2 do
  if rate[q] > 0 then
    local missing = math.min(amount[q], cap[q]) - level[q]
    if missing > 0 then wait = math.max(wait, math.ceil(missing * 60000000 / rate[q])) end
    level[q] = level[q] - amount[q]
    if level[q] * 2 < cap[q] then used[q] = 1 end
    left[q] = string.format('%.6f', level[q] / cap[q])
  end
end
keep()
return { 1, wait, processes, string.format('%.0f', now), used[1], used[2], left[1], left[2] }
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
/// a pause in microseconds from now, and which levels are to be emptied.
pub(super) const LEARN: &str = r"
local state = KEYS[1]
if (redis.call('HGET', state, 'version') or '') ~= ARGV[1] then return 0 end
local t = redis.call('TIME')
local now = math.max(t[1] * 1000000 + t[2], tonumber(redis.call('HGET', state, 'at') or 0))
redis.call('HSET', state, 'version', ARGV[2], 'learned1', ARGV[3], 'learned2', ARGV[4])
for q = 1, 2 do
  local rate, cap, empty = ARGV[3 + 2 * q], ARGV[4 + 2 * q], ARGV[9 + q]
  if rate ~= '' then redis.call('HSET', state, 'rate' .. q, rate, 'cap' .. q, cap) end
  if empty == '1' and tonumber(redis.call('HGET', state, 'level' .. q) or 0) > 0 then
    redis.call('HSET', state, 'level' .. q, '0')
  end
end
local pause = now + tonumber(ARGV[9])
if tonumber(ARGV[9]) > 0 and pause > tonumber(redis.call('HGET', state, 'pause') or 0) then
  redis.call('HSET', state, 'pause', string.format('%.0f', pause))
end
return 1
";
