-- wrk's script: logs batches of METRICS metrics to the runs of the file RUNS, in turns, with the header AUTHORIZATION where there is one.
-- With PAUSE each client waits so many milliseconds between its calls, as training does.
-- Prints one line of JSON at the end.
local runs, number, step, metrics = {}, 0, 0, tonumber(os.getenv("METRICS"))
local threads = 0

function setup(thread)
  threads = threads + 1
  thread:set("first", threads)
end

function init(_)
  for run in io.lines(os.getenv("RUNS")) do runs[#runs + 1] = run end
  number = first
  -- Two processes never log the same row: that would be another path through MLflow.
  step = os.time() * 1000 + first * 100000000
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  if os.getenv("AUTHORIZATION") then wrk.headers["Authorization"] = os.getenv("AUTHORIZATION") end
end

if os.getenv("PAUSE") then
  function delay() return tonumber(os.getenv("PAUSE")) end
end

function request()
  number, step = number + 1, step + 1
  local batch = {}
  for key = 1, metrics do
    batch[key] = string.format('{"key": "m%d", "value": %.6f, "timestamp": %d, "step": %d}', key, (step % 1000) / 7, step, step)
  end
  local body = string.format('{"run_id": "%s", "metrics": [%s]}', runs[number % #runs + 1], table.concat(batch, ","))
  return wrk.format(nil, "/api/2.0/mlflow/runs/log-batch", nil, body)
end

function done(summary, latency, _)
  local errors = summary.errors
  print(string.format('{"answers": %d, "seconds": %.3f, "errors": %d, "p50": %.2f, "p95": %.2f}', summary.requests, summary.duration / 1e6,
    errors.status + errors.timeout + errors.connect + errors.read + errors.write, latency:percentile(50) / 1000, latency:percentile(95) / 1000))
end
