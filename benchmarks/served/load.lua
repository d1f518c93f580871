-- For wrk: its arguments behind "--" are the files of whole requests' bodies, in turn; headers are lines "Name: value"
-- of the first. The last line that it prints is a JSON object of what was measured, times in microseconds.

local requests, at = {}, 0

local function read(path)
  local file = assert(io.open(path, "rb"))
  local content = file:read("*a")
  file:close()
  return content
end

function init(args)
  local headers = {}
  for name, value in read(args[1]):gmatch("([^:\n]+): ([^\n]+)") do headers[name] = value end
  for i = 2, #args do
    table.insert(requests, wrk.format("POST", wrk.path, headers, read(args[i])))
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "micros": %d, "p50": %g, "p99": %g, "most": %g, "refused": %d, "broken": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
