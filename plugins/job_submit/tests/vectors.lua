-- SPDX-License-Identifier: Apache-2.0
--
-- Holds job_submit_disagg.lua to the same lists as the plugin, in any Lua from 5.1 on:
--     lua vectors.lua job_submit_disagg.lua demand_vectors.txt decisions.txt
-- Prints what differs and the number of cases; exits 1 when something does.

local module_path, demands_path, decisions_path = arg[1], arg[2], arg[3]
local failures, checked = 0, 0

local function check(what, got, expected)
	checked = checked + 1
	if got ~= expected then
		failures = failures + 1
		print(string.format("%s:\n  got      %s\n  expected %s", what, tostring(got),
			tostring(expected)))
	end
end

-- Slurm's table, as far as the module uses it. Numbers are floats, as slurmctld pushes them.
local messages, errors = {}, {}
slurm = {
	SUCCESS = 0,
	ERROR = -1,
	NO_VAL = 4294967294.0,
	NO_VAL16 = 65534.0,
	INFINITE = 4294967295.0,
	user_msg = function(text)
		messages[#messages + 1] = text
	end,
	log_error = function(...)
		errors[#errors + 1] = string.format(...)
	end,
}

-- A job description in which everything is open; writing `gres` gives `tres_per_node` the prefix
-- that 22.05 gives it.
local function job_desc(entries, fields)
	local values = {
		min_nodes = slurm.NO_VAL,
		max_nodes = slurm.NO_VAL,
		num_tasks = slurm.NO_VAL,
		time_limit = slurm.NO_VAL,
		time_min = slurm.NO_VAL,
		ntasks_per_node = slurm.NO_VAL16,
		ntasks_per_tres = slurm.NO_VAL16,
		sockets_per_node = slurm.NO_VAL16,
		segment_size = slurm.NO_VAL16,
		spank_job_env_size = #entries + 0.0,
		spank_job_env = {},
	}
	for i, entry in ipairs(entries) do
		values.spank_job_env[i - 1] = entry
	end
	for key, value in pairs(fields or {}) do
		values[key] = value
	end
	local written = {}
	local desc = setmetatable({}, {
		__index = values,
		__newindex = function(_, key, value)
			if key == "gres" then
				key, value = "tres_per_node", "gres:" .. value:gsub(",", ",gres:")
			end
			values[key], written[key] = value, value
		end,
	})
	return desc, written
end

local function lines(path)
	local file = assert(io.open(path, "rb"))
	local all = file:read("*a")
	file:close()
	return all:gmatch("([^\n]*)\n")
end

local function module()
	return dofile(module_path)
end

local function unescaped(text)
	return (text:gsub("\\x(%x%x)", function(hex)
		return string.char(tonumber(hex, 16))
	end))
end

-- The demand's parser.
for line in lines(demands_path) do
	local verdict, vector = line:match("^(%l+)|(.*)$")
	if verdict then
		local demand, reason = module().parse_demand(unescaped(vector))
		check("demand " .. vector, demand and "ok" or "bad", verdict)
		check("reason of " .. vector, type(reason), demand and "nil" or "string")
	end
end

-- The rule.
local FIELDS = {
	tasks = "num_tasks",
	tasks_per_node = "ntasks_per_node",
	tasks_per_gpu = "ntasks_per_tres",
	minutes = "time_limit",
	min_minutes = "time_min",
	segment = "segment_size",
}
local LISTS = { allowed_accounts = true, allowed_partitions = true }
local LIMITS = { partition_max_nodes = true, partition_max_minutes = true }
local SWITCHES = { on = true, yes = true, off = false, no = false }

local function site(words)
	local settings = {}
	for key, value in words:gmatch("([^ =]+)=(%S+)") do
		if LISTS[key] or LIMITS[key] then
			settings[key] = {}
			for item in value:gmatch("[^,]+") do
				local name, number = item:match("^(.*):(%d+)$")
				if name then
					settings[key][name] = tonumber(number)
				else
					table.insert(settings[key], item)
				end
			end
		elseif SWITCHES[value] ~= nil then
			settings[key] = SWITCHES[value]
		else
			settings[key] = tonumber(value) or value
		end
	end
	return settings
end

local function run(case)
	local fields, parts = {}, {}
	for key, value in case.ask:gmatch("([^ =]+)=(%S+)") do
		if key == "default_partition" then
			parts[value] = { flag_default = 1.0 }
		else
			local number = tonumber(value)
			fields[FIELDS[key] or key] = number and number + 0.0 or unescaped(value)
		end
	end
	local disagg = module()
	disagg.configure(site(case.site))
	local desc, written = job_desc({ "OTHER=1", "DISAGG_DEMAND=" .. case.demand }, fields)
	messages = {}
	local rc = disagg.job_submit(desc, parts, 0)
	if #case.refusals > 0 then
		check(case.name .. " (code)", rc, slurm.ERROR)
		check(case.name, table.concat(messages, "\n"), table.concat(case.refusals, "\n"))
		check(case.name .. " (writes)", next(written), nil)
		return
	end
	check(case.name .. " (code)", rc, slurm.SUCCESS)
	check(case.name .. " (messages)", #messages, 0)
	local fill = {}
	for _, names in ipairs({
		{ "nodes", "min_nodes" },
		{ "tasks", "num_tasks" },
		{ "tasks_per_node", "ntasks_per_node" },
		{ "tres_per_node", "tres_per_node" },
		{ "segment", "segment_size" },
	}) do
		local value = written[names[2]]
		if value ~= nil then
			value = type(value) == "number" and string.format("%d", value) or value
			fill[#fill + 1] = names[1] .. "=" .. value
		end
	end
	check(case.name, table.concat(fill, " "), case.fill)
	check(case.name .. " (max_nodes)", written.max_nodes, written.min_nodes)
	check(case.name .. " (comment)", written.comment, case.comment)
end

local case
for line in lines(decisions_path) do
	local name = line:match("^== (.*)$")
	local key, value = line:match("^(%l+):%s*(.*)$")
	if name then
		if case then
			run(case)
		end
		case = { name = name, demand = case and case.demand, ask = "", site = "", refusals = {} }
	elseif key == "refuse" then
		table.insert(case.refusals, "disagg: " .. value)
	elseif key then
		case[key] = value
	end
end
run(case)

-- What only the script does.
local DEMAND = "DISAGG_DEMAND=v1 nodes=3 tasks=12 tasks_per_node=4 gpus_per_node=4 config=c time_min=240"

local function submit(fields, parts, entries)
	local desc, written = job_desc(entries or { DEMAND }, fields)
	messages = {}
	local rc = module().job_submit(desc, parts, 0)
	return rc, table.concat(messages, "\n"), written
end

local function modify(fields, entries, settings)
	local desc = job_desc({}, fields)
	messages = {}
	local rec = job_desc(entries or { DEMAND }, { time_limit = 300.0 })
	local disagg = module()
	disagg.configure(settings or {})
	local rc = disagg.job_modify(desc, rec, {}, 0)
	return rc, table.concat(messages, "\n")
end

do
	local rc, _, written = submit({}, {}, { "OTHER=1" })
	check("a job without a demand passes", rc, slurm.SUCCESS)
	check("a job without a demand is untouched", next(written), nil)

	local text
	rc, text = submit({}, {}, { "DISAGG_DEMAND=v1 nodes=3" })
	check("a bad demand is refused", rc, slurm.ERROR)
	check("a bad demand's reason", text, "disagg: DISAGG_DEMAND is not a demand that this "
		.. "controller understands: 'tasks' is missing; submit with --disagg-config, and with the "
		.. "plugin of the controller's version")

	local small = { p = { flag_default = 1.0, max_nodes = 2.0, max_time = slurm.INFINITE } }
	_, text = submit({}, small)
	check("a partition's own node limit is known", text, "disagg: the plan of c needs 3 nodes, "
		.. "but a job in partition p may have at most 2 nodes")
	check("a QOS may lift a partition's limit", (submit({ qos = "big" }, small)), slurm.SUCCESS)
	_, text = submit({ qos = "big" }, { p = { flag_default = 1.0, total_nodes = 1.0 } })
	check("a QOS adds no nodes to a partition", text, "disagg: the plan of c needs 3 nodes, "
		.. "but a job in partition p may have at most 1 node")
	_, text = submit({ partition = "p" }, { p = { flag_default = 0.0, max_time = 30.0 } })
	check("a partition's own time limit is known", text, "disagg: the plan of c needs 240 "
		.. "minutes, but a job in partition p may run at most 30 minutes")

	rc, text = modify({ min_nodes = 2.0 })
	check("an update to fewer nodes is refused", rc, slurm.ERROR)
	check("an update's reason", text, "disagg: 2 nodes asked for, but the plan of c needs 3 nodes: "
		.. "leave --nodes out or say --nodes=3")
	check("an update to a range is refused", (modify({ min_nodes = 2.0, max_nodes = 4.0 })),
		slurm.ERROR)
	check("an update to the plan's nodes passes", (modify({ min_nodes = 3.0 })), slurm.SUCCESS)
	check("an update of tasks is refused", (modify({ num_tasks = 7.0 })), slurm.ERROR)
	check("an update of GPUs is refused", (modify({ tres_per_node = "gres:gpu:2" })), slurm.ERROR)
	check("an update of the time passes", (modify({ time_limit = 5.0 })), slurm.SUCCESS)
	_, text = modify({ partition = "p" }, nil, { partition_max_minutes = { p = 250 } })
	check("an update of the partition is refused for the job's time", text, "disagg: 300 minutes "
		.. "asked for, but a job in partition p may run at most 250 minutes: use --time=250")
	check("an update of something else passes", (modify({ comment = "x" })), slurm.SUCCESS)
	check("a job without a demand may be updated", (modify({ min_nodes = 2.0 }, {})), slurm.SUCCESS)

	errors = {}
	module().configure({ max_node = 3, sizing = "off" })
	table.sort(errors)
	check("odd settings are reported", table.concat(errors, "\n"), "disagg: setting 'sizing' must "
		.. "be a boolean, and is ignored\ndisagg: unknown setting 'max_node' is ignored")
end

print(string.format("%s: %d checks, %d failed", jit and jit.version or _VERSION, checked, failures))
os.exit(failures == 0 and checked > 200 and 0 or 1)
