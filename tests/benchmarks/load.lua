-- PATCHes random posts, or POSTs many edits of them at once, with captions of which no two are alike, and counts what
-- comes back, by status.
-- What to send stands in the environment (load.py); what came back goes to standard output as one line of JSON.

local threads = {}
local percentiles = {}
for percent = 1, 99 do percentiles[#percentiles + 1] = percent end
for _, percent in ipairs({99.5, 99.9, 99.95, 99.99, 100}) do percentiles[#percentiles + 1] = percent end

function setup(thread)
   threads[#threads + 1] = thread
   thread:set("number", #threads)
end

function init()
   posts = tonumber(os.getenv("BENCH_POSTS"))
   tag = os.getenv("BENCH_TAG")
   tail = os.getenv("BENCH_CAPTION")
   math.randomseed(tonumber(os.getenv("BENCH_SEED")) + number)
   headers = {
      ["Authorization"] = "Bearer " .. os.getenv("BENCH_SECRET"),
      ["Content-Type"] = "application/json",
   }
   local prefer = os.getenv("BENCH_PREFER")
   if prefer and prefer ~= "" then headers["Prefer"] = prefer end
   if os.getenv("BENCH_LARGE") == "1" then
      -- 35 URLs of nearly 2,048 characters: the largest PATCH there is.
      local url = string.rep("a", 2000)
      slides = '/' .. url .. '"'
      for count = 2, 35 do
         slides = slides .. string.format(', "https://cdn.example.com/%d/%s"', count, url)
      end
      slides = slides .. ']}'
   end
   many = tonumber(os.getenv("BENCH_MANY"))
   sent = 0
   counts = {}
end

local function edits()
   local items = {}
   for count = 1, many do
      items[count] = string.format(
         '{"postId": "post_%07d", "caption": "%s.%d.%d.%d %s"}', math.random(posts), tag, number, sent, count, tail
      )
   end
   return '{"edits": [' .. table.concat(items, ", ") .. ']}'
end

function request()
   sent = sent + 1
   if many > 0 then return wrk.format("POST", "/v1/edits", headers, edits()) end
   local path = string.format("/v1/posts/post_%07d", math.random(posts))
   local body
   if slides then
      local name = string.format("%s.%d.%d", tag, number, sent)
      body = string.format('{"contentType": "slides", "contentUrl": ["https://cdn.example.com/%s%s', name, slides)
   else
      body = string.format('{"caption": "%s.%d.%d %s"}', tag, number, sent, tail)
   end
   return wrk.format("PATCH", path, headers, body)
end

function response(status)
   -- Keys are strings: wrk hands tables from thread to thread by name.
   local key = tostring(status)
   counts[key] = (counts[key] or 0) + 1
end

local function object(values)
   local parts = {}
   for key, value in pairs(values) do parts[#parts + 1] = string.format('"%s": %d', key, value) end
   return "{" .. table.concat(parts, ", ") .. "}"
end

function done(summary, latency)
   local statuses = {}
   for _, thread in ipairs(threads) do
      for key, count in pairs(thread:get("counts")) do statuses[key] = (statuses[key] or 0) + count end
   end
   local points = {}
   for _, percent in ipairs(percentiles) do
      local at = percent == 100 and latency.max or latency:percentile(percent)
      points[#points + 1] = string.format("[%g, %d]", percent, at)
   end
   io.write(string.format(
      '\nJSON {"seconds": %.6f, "statuses": %s, "errors": %s, "mean": %.1f, "percentiles": [%s]}\n',
      summary.duration / 1e6, object(statuses), object(summary.errors), latency.mean, table.concat(points, ", ")
   ))
end
