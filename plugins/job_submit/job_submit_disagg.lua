-- SPDX-License-Identifier: Apache-2.0
--
-- The controller plugin for sites on job_submit/lua: sizes a disaggregated job or refuses it, by
-- the same rule as job_submit_disagg.so. One file, for every release from 20.11 on, Lua 5.1 to 5.4.
--
-- Call it from your own job_submit.lua beside slurm.conf, where it is (`make install` puts it below
-- PREFIX/share):
--
--     local disagg = dofile("/usr/local/share/slurm-disagg/job_submit_disagg.lua")
--     disagg.configure{ max_nodes = 18, allowed_accounts = { "llm" } }   -- optional
--
--     function slurm_job_submit(job_desc, part_list, submit_uid)
--         local rc = disagg.job_submit(job_desc, part_list, submit_uid)
--         if rc ~= slurm.SUCCESS then return rc end
--         ... -- your own rules
--         return slurm.SUCCESS
--     end
--
--     function slurm_job_modify(job_desc, job_rec, part_list, modify_uid)
--         return disagg.job_modify(job_desc, job_rec, part_list, modify_uid)
--     end
--
-- (`require "job_submit_disagg"` does the same once package.path holds the directory.)
-- Jobs without a demand pass untouched.

local M = {}

-- The site's say; `configure` changes it. The keys are those of disagg.conf.
local settings = {
	sizing = true, -- fill what the user left open
	segment = false, -- pass the plan's segment on as --segment (from 25.11 on)
	on_error = "ignore", -- what an error in these settings means; "refuse": no such job passes
	max_nodes = nil, -- the largest job, in nodes
	allowed_accounts = {}, -- empty: all
	allowed_partitions = {}, -- empty: all
	partition_max_nodes = {}, -- { batch = 16 }, in nodes
	partition_max_minutes = {}, -- { debug = 30 }, in minutes
}

local KINDS = {
	sizing = "boolean",
	segment = "boolean",
	on_error = "string",
	max_nodes = "number",
	allowed_accounts = "table",
	allowed_partitions = "table",
	partition_max_nodes = "table",
	partition_max_minutes = "table",
}

local has_errors = false

-- Takes over the site's settings. A key that is unknown or of the wrong type is reported in
-- slurmctld's log and left out, because a typing error must not stop the controller.
function M.configure(given)
	local function wrong(...)
		has_errors = true
		slurm.log_error(...)
	end
	for key, value in pairs(given) do
		if KINDS[key] == nil then
			wrong("disagg: unknown setting '%s' is ignored", tostring(key))
		elseif type(value) ~= KINDS[key] then
			wrong("disagg: setting '%s' must be a %s, and is ignored", key, KINDS[key])
		else
			settings[key] = value
		end
	end
	-- Whoever writes the key wants no job to pass by mistake.
	if given.on_error ~= nil and given.on_error ~= "ignore" and given.on_error ~= "refuse" then
		wrong("disagg: setting 'on_error' must be ignore or refuse, not '%s'", tostring(given.on_error))
		settings.on_error = "refuse"
	end
end

------------------------------------------------------------------------------------------
-- The demand: one line of text, which a user can write by hand, so it is read strictly.

local VARIABLE = "DISAGG_DEMAND"
local MAX_BYTES, MAX_CONFIG_BYTES = 512, 255
local MAX_COUNT, MAX_PER_NODE = 1000000, 65533
local MAX_ENTRIES = 1024

local MAXIMA = {
	nodes = MAX_COUNT,
	tasks = MAX_COUNT,
	tasks_per_node = MAX_PER_NODE,
	gpus_per_node = MAX_PER_NODE,
	segment = MAX_COUNT,
	time_min = MAX_COUNT,
}

-- The demand as a table, or nil and the reason why the text is none.
function M.parse_demand(text)
	if #text > MAX_BYTES then
		return nil, string.format("it has more than %d bytes", MAX_BYTES)
	end
	for i = 1, #text do
		local byte = text:byte(i)
		if byte < 32 or byte > 126 then
			return nil, string.format("byte %d is not printable ASCII", i - 1)
		end
	end
	if text:sub(1, 3) ~= "v1 " then
		return nil, "it does not start with 'v1 '"
	end
	local demand = {}
	for word in (text:sub(4) .. " "):gmatch("([^ ]*) ") do
		local key, value = word:match("^([^=]*)=(.*)$")
		if key == nil then
			return nil, string.format("'%s' is not key=value", word:sub(1, 32))
		elseif demand[key] ~= nil then
			return nil, string.format("'%s' is given twice", key:sub(1, 32))
		elseif key == "config" then
			if #value > MAX_CONFIG_BYTES or not value:match("^[A-Za-z0-9._+=@-]+$") then
				return nil, "'config' must be 1 to 255 characters of A-Z a-z 0-9 . _ + = @ -"
			end
			demand.config = value
		elseif MAXIMA[key] == nil then
			return nil, string.format("unknown key '%s'", key:sub(1, 32))
		else
			local number = #value <= 7 and value:match("^[1-9][0-9]*$") and tonumber(value)
			-- 0: the plan does not ask Slurm for GPUs, so there is no say in them.
			local min = key == "gpus_per_node" and 0 or 1
			if min == 0 and value == "0" then
				number = 0
			end
			if not number or number > MAXIMA[key] then
				return nil, string.format("'%s' must be a number from %d to %d", key, min, MAXIMA[key])
			end
			demand[key] = number
		end
	end
	for _, key in ipairs({ "nodes", "tasks", "tasks_per_node", "gpus_per_node", "config" }) do
		if demand[key] == nil then
			return nil, string.format("'%s' is missing", key)
		end
	end
	for _, key in ipairs({ "tasks_per_node", "gpus_per_node" }) do
		if demand.nodes * demand[key] > MAX_COUNT then
			return nil, string.format("nodes x %s is more than %d", key, MAX_COUNT)
		end
	end
	if demand.tasks < demand.nodes or demand.tasks > demand.nodes * demand.tasks_per_node then
		return nil, "the tasks do not fit the nodes"
	end
	return demand
end

-- The demand's text in a job's SPANK environment, or nil. `holder` is a job_desc or a job_rec.
local function demand_text(holder)
	local entries = holder.spank_job_env
	if entries == nil then
		return nil
	end
	local prefix = VARIABLE .. "="
	for i = 0, math.min(holder.spank_job_env_size or 0, MAX_ENTRIES) - 1 do
		local entry = entries[i]
		if entry ~= nil and entry:sub(1, #prefix) == prefix then
			return entry:sub(#prefix + 1)
		end
	end
	return nil
end

------------------------------------------------------------------------------------------
-- GPU requests, in the forms of all releases: gpu:2, gres:gpu:2, gres/gpu:2, gres/gpu:h100=2.

local POWERS = { [""] = 0, k = 1, m = 2, g = 3, t = 4, p = 5 }

-- What stands behind `gpu` in each item of a TRES string that names GPUs.
local function gpu_items(tres)
	local items = {}
	for item in (tres or ""):gmatch("[^,;]+") do
		item = item:match("^%s*(.-)%s*$"):gsub("^gres[:/]", "")
		local rest = item:match("^gpu(.*)$")
		if rest ~= nil and (rest == "" or rest:match("^[:=]")) then
			items[#items + 1] = rest
		end
	end
	return items
end

local function count(digits, suffix)
	local power = suffix and POWERS[suffix:lower()]
	return power and tonumber(digits) * 1024 ^ power
end

-- The GPUs that a TRES string asks for, all types together; nil when it names none.
local function gpus(tres)
	local sum
	for _, item in ipairs(gpu_items(tres)) do
		sum = (sum or 0) + (count(item:match("[:=](%d+)(%a?)$")) or 1)
	end
	return sum
end

-- Whether a TRES string names GPUs of at most one type, and that type.
local function only_type(tres)
	local items, kind = gpu_items(tres), nil
	for i, item in ipairs(items) do
		local this = not count(item:match("^[:=](%d+)(%a?)$")) and item:match("^[:=]([^:=]*)") or nil
		if i > 1 and this ~= kind then
			return false
		end
		kind = this
	end
	return true, kind
end

------------------------------------------------------------------------------------------
-- The rule.

-- A number that the submitter gave, or nil. Open fields hold NO_VAL or, in 16 bits, NO_VAL16; other
-- clients than Slurm's own send 0.
local function said(value, open)
	if value == nil or value == 0 or value == open then
		return nil
	end
	return value
end

local function text(value)
	if value == nil or value == "" then
		return nil
	end
	return value
end

local function ask_of(job_desc)
	local no_val, no_val16 = slurm.NO_VAL, slurm.NO_VAL16
	return {
		min_nodes = said(job_desc.min_nodes, no_val),
		max_nodes = said(job_desc.max_nodes, no_val),
		tasks = said(job_desc.num_tasks, no_val),
		tasks_per_node = said(job_desc.ntasks_per_node, no_val16),
		tasks_per_gpu = said(job_desc.ntasks_per_tres, no_val16),
		tres_per_node = text(job_desc.tres_per_node),
		tres_per_job = text(job_desc.tres_per_job),
		tres_per_task = text(job_desc.tres_per_task),
		tres_per_socket = text(job_desc.tres_per_socket),
		sockets_per_node = said(job_desc.sockets_per_node, no_val16),
		minutes = said(job_desc.time_limit, no_val),
		min_minutes = said(job_desc.time_min, no_val),
		partitions = text(job_desc.partition),
		reservation = text(job_desc.reservation),
		account = text(job_desc.account),
		qos = text(job_desc.qos),
		comment = text(job_desc.comment),
		segment = said(job_desc.segment_size, no_val16),
	}
end

local function many(n, unit)
	return string.format("%.0f %s%s", n, unit, n == 1 and "" or "s")
end

local function per_node(n, unit)
	return many(n, unit) .. " per node"
end

-- Whether the task count follows from the other options: up to 22.05 the clients multiply it out.
local function implied_tasks(ask)
	local nodes = ask.min_nodes or 1
	if ask.tasks_per_node and ask.tasks == ask.tasks_per_node * nodes then
		return true
	end
	local on_node = gpus(ask.tres_per_node)
	local all = on_node and on_node * nodes or gpus(ask.tres_per_job)
	return ask.tasks_per_gpu ~= nil and all ~= nil and ask.tasks == all * ask.tasks_per_gpu
end

local function contradictions(ask, demand, refusals)
	for _, given in ipairs({ { "--time", ask.minutes }, { "--time-min", ask.min_minutes } }) do
		local flag, minutes, needed = given[1], given[2], demand.time_min
		if needed and minutes and minutes < needed then
			refusals[#refusals + 1] = string.format(
				"%s asked for, but the plan of %s needs %s: say %s=%.0f or more",
				many(minutes, "minute"), demand.config, many(needed, "minute"), flag, needed)
		end
	end

	local function refuse(asked, needed, flag, value)
		refusals[#refusals + 1] = string.format(
			"%s asked for, but the plan of %s needs %s: leave %s out%s",
			asked, demand.config, needed, flag,
			value and string.format(" or say %s=%.0f", flag, value) or "")
	end

	local nodes, min, max = demand.nodes, ask.min_nodes or 0, ask.max_nodes or math.huge
	if nodes < min or nodes > max then
		local asked
		if min == max then
			asked = many(min, "node")
		elseif min == 0 then
			asked = "at most " .. many(max, "node")
		elseif max == math.huge then
			asked = "at least " .. many(min, "node")
		else
			asked = string.format("%.0f to %s", min, many(max, "node"))
		end
		refuse(asked, many(nodes, "node"), "--nodes", nodes)
	end

	if ask.tasks and ask.tasks ~= demand.tasks and not implied_tasks(ask) then
		refuse(many(ask.tasks, "task"), many(demand.tasks, "task"), "--ntasks", demand.tasks)
	end

	local function tasks_on_node(asked, flag, value)
		if asked and asked ~= demand.tasks_per_node then
			refuse(per_node(asked, "task"), per_node(demand.tasks_per_node, "task"), flag, value)
		end
	end
	tasks_on_node(ask.tasks_per_node, "--ntasks-per-node", demand.tasks_per_node)
	if demand.gpus_per_node == 0 then
		return
	end
	tasks_on_node(ask.tasks_per_gpu and ask.tasks_per_gpu * demand.gpus_per_node,
		"--ntasks-per-gpu")

	local function gpus_on_node(asked, flag, value)
		if asked and asked ~= demand.gpus_per_node then
			refuse(per_node(asked, "GPU"), per_node(demand.gpus_per_node, "GPU"), flag, value)
		end
	end
	gpus_on_node(gpus(ask.tres_per_node), "--gpus-per-node", demand.gpus_per_node)
	local all, all_asked = nodes * demand.gpus_per_node, gpus(ask.tres_per_job)
	if all_asked and all_asked ~= all then
		refuse(many(all_asked, "GPU"), many(all, "GPU"), "--gpus", all)
	end
	local per_task, per_socket = gpus(ask.tres_per_task), gpus(ask.tres_per_socket)
	gpus_on_node(per_task and per_task * demand.tasks_per_node, "--gpus-per-task")
	gpus_on_node(per_socket and ask.sockets_per_node and per_socket * ask.sockets_per_node,
		"--gpus-per-socket")
end

local function contains(list, name)
	for _, known in ipairs(list) do
		if known == name then
			return true
		end
	end
	return #list == 0
end

local function not_allowed(what, asked, list)
	list = table.concat(list, ",")
	if asked then
		return string.format("%s %s may not run disaggregated jobs on this site: "
			.. "say --%s with one of %s", what, asked, what, list)
	end
	return string.format("disaggregated jobs need --%s on this site%s", what,
		list == "" and "" or ": one of " .. list)
end

-- The smallest of the numbers that are limits.
local function tightest(...)
	local least
	for i = 1, select("#", ...) do
		local n = (select(i, ...))
		if n and n ~= slurm.INFINITE and n ~= slurm.NO_VAL and (not least or n < least) then
			least = n
		end
	end
	return least
end

-- The largest limit of the partitions when every one of them has one below `needed`: Slurm runs
-- the job in any of them.
local function largest(partitions, limit_of, needed)
	local most
	for _, name in ipairs(partitions) do
		local limit = limit_of(name)
		if limit == nil or limit >= needed then
			return nil
		end
		most = math.max(most or 0, limit)
	end
	return most
end

-- The strictest limit of the partitions: Slurm may run the job in any of them.
local function least(partitions, limits)
	local name, max
	for _, this in ipairs(partitions) do
		local limit = limits[this]
		if limit and (not max or limit < max or limit == max and this < name) then
			name, max = this, limit
		end
	end
	return name, max
end

-- The names of a list as Slurm reads it.
local function names_of(list)
	local names = {}
	for name in (list or ""):gmatch("[^,]+") do
		names[#names + 1] = name
	end
	return names
end

local function default_partition(part_list)
	for name, part in pairs(part_list or {}) do
		if part.flag_default == 1 then
			return name
		end
	end
end

-- `update`: what is not given stays as it is in the job, and needs no look.
local function limits(ask, demand, part_list, refusals, update)
	local function refuse(...)
		refusals[#refusals + 1] = string.format(...)
	end
	-- Without sizing Slurm decides how much of a range the job gets.
	local nodes = not settings.sizing and (ask.max_nodes or ask.min_nodes) or demand.nodes
	local needs = "the job may get " .. many(nodes, "node")
	if nodes <= demand.nodes then
		nodes = demand.nodes
		needs = string.format("the plan of %s needs %s", demand.config, many(nodes, "node"))
	end
	if settings.max_nodes and settings.max_nodes < nodes and not update then
		refuse("%s, but this site allows a disaggregated job at most %s", needs,
			many(settings.max_nodes, "node"))
	end

	local accounts, allowed = settings.allowed_accounts, settings.allowed_partitions
	if ask.account and not contains(accounts, ask.account)
		or not ask.account and #accounts > 0 and not update then
		refuse("%s", not_allowed("account", ask.account, accounts))
	end

	local partitions = names_of(ask.partitions)
	if #partitions == 0 and not ask.reservation and not update then
		partitions = names_of(default_partition(part_list))
	end
	if #partitions == 0 and not update and (#allowed > 0 or next(settings.partition_max_nodes)
		or next(settings.partition_max_minutes)) then
		refuse("%s", not_allowed("partition", nil, allowed))
		return
	end
	for _, name in ipairs(partitions) do
		if not contains(allowed, name) then
			refuse("%s", not_allowed("partition", table.concat(partitions, ","), allowed))
			break
		end
	end

	local name, max = least(partitions, settings.partition_max_nodes)
	if max and max < nodes then
		refuse("%s, but a job in partition %s may have at most %s", needs, name, many(max, "node"))
	end
	name, max = least(partitions, settings.partition_max_minutes)
	if max then
		local may = string.format("a job in partition %s may run at most %s", name,
			many(max, "minute"))
		if demand.time_min and demand.time_min > max then
			refuse("the plan of %s needs %s, but %s", demand.config,
				many(demand.time_min, "minute"), may)
		elseif ask.minutes == slurm.INFINITE or not ask.minutes and not update then
			refuse("the job has no time limit, but %s: add --time=%.0f", may, max)
		elseif ask.minutes and ask.minutes > max then
			refuse("%s asked for, but %s: use --time=%.0f", many(ask.minutes, "minute"), may, max)
		end
	end

	-- What Slurm itself does not allow in any of the partitions. A QOS may lift a partition's own
	-- limits, but not its number of nodes.
	local function own(name, field)
		local part = (part_list or {})[name]
		return part and not ask.qos and part[field]
	end
	local names = table.concat(partitions, ",")
	local most = largest(partitions, function(name)
		local part = (part_list or {})[name]
		return tightest(own(name, "max_nodes"), part and part.total_nodes)
	end, demand.nodes)
	if most then
		refuse("the plan of %s needs %s, but a job in partition %s may have at most %s",
			demand.config, many(demand.nodes, "node"), names, many(most, "node"))
	end
	most = demand.time_min and largest(partitions, function(name)
		return tightest(own(name, "max_time"))
	end, demand.time_min)
	if most then
		refuse("the plan of %s needs %s, but a job in partition %s may run at most %s",
			demand.config, many(demand.time_min, "minute"), names, many(most, "minute"))
	end
end

local function fill(job_desc, ask, demand)
	if settings.sizing then
		job_desc.min_nodes = demand.nodes
		job_desc.max_nodes = demand.nodes
		job_desc.num_tasks = demand.tasks
		-- --ntasks-per-gpu and --ntasks-per-node exclude each other.
		if not ask.tasks_per_gpu then
			job_desc.ntasks_per_node = demand.tasks_per_node
		end
		-- Slurm refuses a job that names a type in one place and none in the other.
		local one_type, kind = only_type(ask.tres_per_job)
		if demand.gpus_per_node > 0 and one_type and not (gpus(ask.tres_per_node) or gpus(ask.tres_per_task)
			or gpus(ask.tres_per_socket)) then
			-- The old name `gres` puts the value into the running release's own form.
			local others = ask.tres_per_node and ask.tres_per_node .. "," or ""
			others = ("," .. others):gsub(",gres[:/]", ","):sub(2)
			job_desc.gres = string.format("%sgpu:%s%d", others, kind and kind .. ":" or "",
				demand.gpus_per_node)
		end
	end
	if not ask.comment then
		job_desc.comment = string.format("disagg config=%s nodes=%d gpus=%d", demand.config,
			demand.nodes, demand.nodes * demand.gpus_per_node)
	end
	-- A release that lets Lua set no segment has nil here, never NO_VAL16. topology/block rejects
	-- a job whose nodes are not whole segments.
	if settings.segment and demand.segment and job_desc.segment_size ~= nil and not ask.segment
		and demand.nodes % demand.segment == 0 then
		job_desc.segment_size = demand.segment
	end
end

local function answer(refusals)
	if #refusals == 0 then
		return slurm.SUCCESS
	end
	for _, sentence in ipairs(refusals) do
		-- Users choose the names in it: none may end the line and begin one of its own.
		sentence = sentence:gsub("[^ -~]", function(byte)
			return string.format("\\x%02x", byte:byte())
		end)
		slurm.user_msg("disagg: " .. sentence)
	end
	return slurm.ERROR
end

local function not_understood(reason)
	return { string.format("%s is not a demand that this controller understands: %s; submit with "
		.. "--disagg-config, and with the plugin of the controller's version", VARIABLE, reason) }
end

-- For slurm_job_submit: sizes the job, or tells the submitter why not.
function M.job_submit(job_desc, part_list, _)
	local line = demand_text(job_desc)
	if line == nil then
		return slurm.SUCCESS
	end
	local demand, reason = M.parse_demand(line)
	if demand == nil then
		return answer(not_understood(reason))
	end
	if has_errors and settings.on_error == "refuse" then
		return answer({ "this site's settings for disaggregated jobs have an error, and on_error=refuse "
			.. "lets no such job pass: ask the administrator, for whom slurmctld's log names it" })
	end
	local ask, refusals = ask_of(job_desc), {}
	contradictions(ask, demand, refusals)
	limits(ask, demand, part_list, refusals, false)
	if #refusals == 0 then
		fill(job_desc, ask, demand)
	end
	return answer(refusals)
end

-- For slurm_job_modify: refuses a change that contradicts the plan of the job.
function M.job_modify(job_desc, job_rec, part_list, _)
	local line = demand_text(job_rec)
	local demand = line and M.parse_demand(line)
	if not demand then
		return slurm.SUCCESS
	end
	local ask, refusals = ask_of(job_desc), {}
	-- How long the job may still run is for those to say who watch it.
	ask.minutes, ask.min_minutes = nil, nil
	-- A range is no choice here: the job could start on any number of nodes in it.
	local odd = (ask.min_nodes or demand.nodes) ~= demand.nodes and ask.min_nodes
		or (ask.max_nodes or demand.nodes) ~= demand.nodes and ask.max_nodes
	if odd then
		ask.min_nodes, ask.max_nodes = odd, odd
	end
	contradictions(ask, demand, refusals)
	-- In another partition the job keeps its time.
	ask.minutes = ask.partitions and said(job_rec.time_limit, slurm.NO_VAL)
	limits(ask, demand, part_list, refusals, true)
	return answer(refusals)
end

return M
