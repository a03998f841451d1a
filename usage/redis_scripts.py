"""What Redis does for a meter, each in one step: nobody comes between its reading and its writing.

A user's account is one hash, so that a cluster has all of it in one place: `s<n>` are the tokens used in slice n of
time, `h<id>` what one reservation holds and until when, `e` the completion that is expected.
"""

_ACCOUNT = """
local key, window, limit, now = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local lease = tonumber(ARGV[4])
if now < 0 then
    local time = redis.call('TIME')
    now = tonumber(time[1]) + tonumber(time[2]) / 1000000
end
local part = window / 64
local used, held, open, last, expected = 0, 0, 0, 0, 256
local slices, holds = {}, {}
local fields = redis.call('HGETALL', key)
for i = 1, #fields, 2 do
    local name, value = fields[i], fields[i + 1]
    local kind = name:sub(1, 1)
    if kind == 's' then
        local slice = tonumber(name:sub(2))
        if slice * part <= now then
            redis.call('HDEL', key, name)
        else
            slices[#slices + 1] = {slice, tonumber(value)}
            used = used + tonumber(value)
            if slice > last then last = slice end
        end
    elseif kind == 'h' then
        local tokens, ends = value:match('(%d+) (%S+)')
        if tonumber(ends) <= now then
            redis.call('HDEL', key, name)
        else
            holds[name:sub(2)] = tonumber(tokens)
            held = held + tonumber(tokens)
            open = open + 1
        end
    else
        expected = tonumber(value)
    end
end
local function number(value) return string.format('%.6f', value) end
local function reset()
    if open > 0 then return number(window) end
    if last > 0 then return number(last * part - now) end
    return '0'
end
local function hold(id, tokens)
    redis.call('HSET', key, 'h' .. id, string.format('%d %.6f', tokens, now + lease))
end
local function keep()
    redis.call('PEXPIRE', key, math.ceil((lease + 2 * window) * 1000))
end
local function use(tokens)
    local slice = math.floor(now / part) + 1 + 64
    redis.call('HINCRBY', key, string.format('s%.0f', slice), tokens)
    return slice
end
"""

# id, prompt, expected (below 0: unknown) -> what came of it, and numbers.
RESERVE = (
    _ACCOUNT
    + """
local id, prompt, completion = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local left = limit - used - held
if prompt > limit then return {'prompt', 0, math.max(left, 0), reset()} end
if completion < 0 then completion = math.floor(expected + 0.5) end
local needed = math.min(prompt + math.min(completion, 64), limit)
if needed > left then
    local short, wait = needed - left, math.min(window, 5)
    table.sort(slices, function(a, b) return a[1] < b[1] end)
    for _, slice in ipairs(slices) do
        short = short - slice[2]
        if short <= 0 then
            wait = slice[1] * part - now
            break
        end
    end
    return {'full', number(wait), math.max(left, 0), reset()}
end
local granted = math.min(prompt + completion, left)
hold(id, granted)
keep()
open = open + 1
return {'held', granted, left - granted, reset()}
"""
)

# id, tokens, what it holds by its own account -> the slice in which that is now used; 0: refused.
TOP_UP = (
    _ACCOUNT
    + """
local id, tokens, own = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
if holds[id] == nil then held = held + own end
if used + held + tokens > limit then return 0 end
local slice = use(own)
hold(id, tokens)
keep()
return string.format('%.0f', slice)
"""
)

# id, tokens used, tokens generated, then a slice and what was counted there, as often as there were top-ups.
SETTLE = (
    _ACCOUNT
    + """
local id, spent, completion = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
redis.call('HDEL', key, 'h' .. id)
local counted = 0
for i = 8, #ARGV, 2 do counted = counted + tonumber(ARGV[i + 1]) end
if spent > counted then
    use(spent - counted)
else
    local back = counted - spent
    for i = #ARGV - 1, 8, -2 do
        if back <= 0 or tonumber(ARGV[i]) * part <= now then break end
        local there = tonumber(redis.call('HGET', key, 's' .. ARGV[i]) or '0')
        local taken = math.min(back, tonumber(ARGV[i + 1]), there)
        if taken > 0 then redis.call('HINCRBY', key, 's' .. ARGV[i], -taken) end
        back = back - taken
    end
end
if completion > 0 then
    redis.call('HSET', key, 'e', number(expected + 0.2 * (completion - expected)))
end
keep()
return 1
"""
)

# An id and what it holds, as often as there are: they are held on, and again where they were lost.
RENEW = (
    _ACCOUNT
    + """
for i = 5, #ARGV, 2 do hold(ARGV[i], holds[ARGV[i]] or tonumber(ARGV[i + 1])) end
keep()
return 1
"""
)

STANDING = _ACCOUNT + "return {math.max(limit - used - held, 0), reset()}"
