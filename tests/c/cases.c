// SPDX-License-Identifier: Apache-2.0
/*
 * The library as a C program uses it: cases CONFIG. tests/c_abi.rs runs this program
 * under valgrind, in the directory of CONFIG, with /dev/null as standard input.
 */
#define _POSIX_C_SOURCE 200809L

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <slurm_disagg.h>

#define FAIL(...) (fprintf(stderr, "%s:%d: ", __func__, __LINE__), fprintf(stderr, __VA_ARGS__), exit(1))

#define CHECK(condition) ((condition) ? (void)0 : FAIL("false: %s\n", #condition))
#define CHECK_TEXT(got, expected) check_text(__func__, __LINE__, #got, got, expected)
#define CHECK_HAS(text, part) \
    (strstr(text, part) != NULL ? (void)0 : FAIL("no \"%s\" in \"%s\"\n", part, text))
#define CHECK_OK(call) \
    ((call) == DISAGG_STATUS_OK ? (void)0 : FAIL("%s: %s\n", #call, disagg_error_text(error)))

/* The call, which names `error`, fails with a status and a message with a certain part. */
#define CHECK_FAILS(call, expected, part)                                                   \
    do {                                                                                    \
        disagg_error *error = NULL;                                                         \
        disagg_status status = (call);                                                      \
        if (status != (expected))                                                           \
            FAIL("%s: %s, not %s\n", #call, disagg_status_text(status),                     \
                 disagg_status_text(expected));                                             \
        CHECK_HAS(disagg_error_text(error), part);                                          \
        disagg_error_free(error);                                                           \
    } while (0)
#define CHECK_NULL(call, argument) \
    CHECK_FAILS(call, DISAGG_STATUS_NULL_POINTER, "`" argument "` must not be NULL")

/* The error of calls that must succeed. */
static disagg_error *error;

/* What an output holds before a call that must not write it. */
static char untouched;
#define UNTOUCHED ((void *)&untouched)

static const char *config;

static const char YAML[] = "benchmark: {mode: e2e, concurrency_list: \"64\"}\n"
                           "hardware: {gpus_per_node: 4, num_ctx_servers: 2, num_gen_servers: 1}\n"
                           "worker_config:\n"
                           "  gen: {tensor_parallel_size: 8}\n"
                           "  ctx: {tensor_parallel_size: 2}\n"
                           "environment:\n"
                           "  worker_env_var: 'CACHE=/tmp/c_${SLURM_LOCALID}\\$ HF_TOKEN=abc "
                           "GONE=[$UCX_TLS]'\n"
                           "slurm: {job_time: '01:30:30'}\n";

static void check_text(const char *where, int line, const char *what, const char *got,
                       const char *expected)
{
    if (got == NULL || strcmp(got, expected) != 0) {
        fprintf(stderr, "%s:%d: %s is \"%s\", not \"%s\"\n", where, line, what,
                got != NULL ? got : "NULL", expected);
        exit(1);
    }
}

/* A configuration as text, with settings of a test's own after the first two. */
static disagg_status plan_with(const char *yaml, const disagg_setting *more, disagg_plan **plan,
                               disagg_error **error)
{
    static char *const nothing[] = {NULL};
    disagg_setting settings[16] = {
        {"trtllm_dir", "/src"}, {"models_dir", "/models"}, {"workspace", "/space"}};
    disagg_options options = {.config = "two_kinds.yaml",
                              .config_text = yaml,
                              .settings = settings,
                              .current_dir = "/",
                              .environment = nothing};

    for (int i = 3; more != NULL && more->name != NULL; i++)
        settings[i] = *more++;
    return disagg_plan_new(&options, plan, error);
}

static disagg_plan *plan_of(const char *yaml)
{
    disagg_plan *plan = NULL;

    CHECK_OK(plan_with(yaml, NULL, &plan, &error));
    return plan;
}

/* A step outlives its plan. */
static disagg_instance *step_of(disagg_plan *plan, const char *name, const char *nodes)
{
    disagg_instance *instance = NULL;

    CHECK_OK(disagg_instance_new(plan, name, nodes, &instance, &error));
    disagg_plan_free(plan);
    return instance;
}

static void the_job_has_the_size_of_the_test(void)
{
    disagg_plan *plan = plan_of(YAML);
    const disagg_job *job = disagg_plan_job(plan);

    CHECK(job->nodes == 4 && job->ntasks == 16 && job->ntasks_per_node == 4);
    CHECK(job->gpus_per_node == 4 && job->segment == 0 && job->minutes == 91);
    CHECK_TEXT(job->time, "01:30:30");
    CHECK_TEXT(job->name, "disagg_perf_test");
    CHECK_TEXT(job->output, "/space/slurm_%j.log");
    CHECK(job->partition == NULL && job->account == NULL && job->qos == NULL);
    CHECK(job->constraint == NULL && job->reservation == NULL && job->mem == NULL);
    CHECK(job->sbatch_args[0] == NULL && job->exclusive == 0);
    CHECK(job->gpu_request == DISAGG_GPU_REQUEST_PER_NODE);
    CHECK_TEXT(disagg_plan_warnings(plan), "");
    disagg_plan_free(plan);
}

static void settings_choose(void)
{
    static const disagg_setting chosen[] = {{"placement", "packed"}, {"frontend_node", "own"},
                                            {"account", "mine"},     {"time", "UNLIMITED"},
                                            {"partition", NULL},     {NULL, NULL}};
    static const disagg_setting wrong[][2] = {{{"placement", "tight"}},
                                              {{"rules", "modern"}},
                                              {{"plasement", "packed"}},
                                              {{"ucx", "UCX_TLS"}},
                                              {{"account", "\xff"}}};
    static const char *const messages[] = {
        "placement is \"tight\": must be one of: exclusive, packed", "rules is \"modern\": must",
        "unknown setting \"plasement\"; do you mean placement?", "ucx is \"UCX_TLS\": can be set only",
        "`options->account` is not UTF-8 text"};
    disagg_options relative = {.config = "x.yaml", .current_dir = "relative"};
    static const disagg_setting never[] = {{"time", "soon"}, {NULL, NULL}};
    disagg_plan *plan = UNTOUCHED;

    for (int i = 0; i < 5; i++)
        CHECK_FAILS(plan_with(YAML, wrong[i], &plan, &error), DISAGG_STATUS_BAD_ARGUMENT,
                    messages[i]);
    CHECK_FAILS(disagg_plan_new(&relative, &plan, &error), DISAGG_STATUS_BAD_ARGUMENT,
                "`options->current_dir` is \"relative\": use an absolute path");
    CHECK_FAILS(plan_with(YAML, never, &plan, &error), DISAGG_STATUS_BAD_INPUT,
                "error: time (options->settings): ");
    CHECK(plan == UNTOUCHED);
    CHECK_OK(plan_with(YAML, chosen, &plan, &error));
    CHECK_TEXT(disagg_plan_job(plan)->account, "mine");
    CHECK(disagg_plan_job(plan)->minutes == UINT32_MAX && disagg_plan_job(plan)->nodes == 4);
    CHECK(disagg_plan_job(plan)->partition == NULL);
    disagg_plan_free(plan);
}

static void the_environment_is_the_given_one_or_the_process_s(void)
{
    char *const given[] = {"CLUSTER_LLM_DATA=/data", "PATH", "MPI_TYPE=pmi2", "A=\xff", NULL};
    const disagg_setting settings[] = {{"trtllm_dir", "/src"}, {NULL, NULL}};
    disagg_options options = {.config = config, .settings = settings, .environment = given};
    disagg_plan *plan = NULL;
    disagg_instance *instance;
    char *json = NULL;

    CHECK(setenv("CLUSTER_LLM_DATA", "/of_process", 1) == 0);
    CHECK_OK(disagg_plan_new(&options, &plan, &error));
    CHECK_OK(disagg_plan_to_json(plan, &json, &error));
    CHECK_HAS(json, "\"models_dir\":\"/data\"");
    disagg_string_free(json);
    instance = step_of(plan, "CTX_0", NULL);
    CHECK_TEXT(disagg_instance_step(instance)->mpi, "pmi2");
    disagg_instance_free(instance);
    options.environment = NULL;
    CHECK_OK(disagg_plan_new(&options, &plan, &error));
    CHECK_OK(disagg_plan_to_json(plan, &json, &error));
    CHECK_HAS(json, "\"models_dir\":\"/of_process\"");
    disagg_string_free(json);
    disagg_plan_free(plan);
}

static void roles_and_steps_are_in_order(void)
{
    static const struct {
        const char *name, *first;
        disagg_purpose purpose;
        uint32_t count, nodes, tasks, tasks_per_node, gpus_per_node, first_node;
    } expected[] = {{"GEN", "GEN_0", DISAGG_PURPOSE_SERVER, 1, 2, 8, 4, 4, 0},
                    {"CTX", "CTX_0", DISAGG_PURPOSE_SERVER, 2, 1, 2, 2, 2, 2},
                    {"DISAGG_SERVER", "DISAGG_SERVER", DISAGG_PURPOSE_ROUTER, 1, 1, 1, 1, 0, 0},
                    {"BENCHMARK", "BENCHMARK", DISAGG_PURPOSE_CLIENT, 1, 1, 1, 1, 0, 0}};
    static const char *const names[] = {"GEN_0", "CTX_0", "CTX_1", "DISAGG_SERVER", "BENCHMARK"};
    static const char *const none[] = {"CTX_2", "CTX_01", "GEN", "", "GEN_PRECHECK_0"};
    disagg_plan *plan = plan_of(YAML);
    disagg_instance *instance = UNTOUCHED;
    char *const *steps = disagg_plan_steps(plan);

    for (size_t i = 0; i < 4; i++) {
        const disagg_role *role = disagg_plan_role(plan, i);
        const disagg_step *step;

        CHECK_TEXT(role->name, expected[i].name);
        CHECK(role->purpose == expected[i].purpose && role->count == expected[i].count);
        CHECK(role->nodes == expected[i].nodes && role->tasks == expected[i].tasks);
        CHECK(role->tasks_per_node == expected[i].tasks_per_node);
        CHECK(role->gpus_per_node == expected[i].gpus_per_node);
        CHECK_OK(disagg_instance_new(plan, expected[i].first, NULL, &instance, &error));
        step = disagg_instance_step(instance);
        CHECK_TEXT(step->role, role->name);
        CHECK_TEXT(step->directory, "/src/tests/integration/defs");
        CHECK(step->purpose == role->purpose && step->tasks == role->tasks);
        CHECK(step->first_node == expected[i].first_node && step->nodes == role->nodes);
        CHECK_TEXT(step->mpi, i < 2 ? "pmix" : "none");
        CHECK(step->cleared[0] == NULL && step->kept[0] == NULL);
        CHECK(step->gpus_per_node == role->gpus_per_node);
        CHECK(step->hostlist == NULL && step->hosts == NULL && step->task_hosts == NULL);
        disagg_instance_free(instance);
    }
    CHECK(disagg_plan_role(plan, 4) == NULL && disagg_plan_role(plan, SIZE_MAX) == NULL);
    for (int i = 0; i < 5; i++)
        CHECK_TEXT(steps[i], names[i]);
    CHECK(steps[5] == NULL && disagg_plan_steps(plan) == steps);
    CHECK(*disagg_plan_checks(plan) == NULL);
    instance = UNTOUCHED;
    for (int i = 0; i < 5; i++)
        CHECK_FAILS(disagg_instance_new(plan, none[i], NULL, &instance, &error),
                    DISAGG_STATUS_NOT_FOUND, "it has GEN_0, CTX_0..CTX_1, DISAGG_SERVER, BENCHMARK");
    CHECK_FAILS(disagg_instance_new(plan, "\xff", NULL, &instance, &error),
                DISAGG_STATUS_BAD_ARGUMENT, "`name` is not UTF-8 text");
    CHECK(instance == UNTOUCHED);
    disagg_plan_free(plan);
}

static void checks_are_steps_as_far_as_they_run(void)
{
    for (int enabled = 0; enabled < 2; enabled++) {
        const disagg_setting settings[] = {{"trtllm_dir", "/src"},
                                           {"models_dir", "/models"},
                                           {"precheck", enabled ? "true" : "false"},
                                           {"stage_name", "GB200-8_GPUs"},
                                           {NULL, NULL}};
        disagg_options options = {.config = config,
                                  .test_id = "disagg_upload-e2e-two_kinds",
                                  .settings = settings};
        disagg_plan *plan = NULL;
        disagg_instance *instance = NULL;
        const disagg_role *role;
        uint32_t steps = 0;
        char *json = NULL;

        CHECK_OK(disagg_plan_new(&options, &plan, &error));
        for (size_t i = 0; (role = disagg_plan_role(plan, i)) != NULL; i++)
            steps += role->purpose == DISAGG_PURPOSE_CHECK ? role->count : 0;
        for (char *const *check = disagg_plan_checks(plan); *check != NULL; check++, steps--) {
            CHECK_OK(disagg_instance_new(plan, *check, NULL, &instance, &error));
            CHECK(disagg_instance_step(instance)->purpose == DISAGG_PURPOSE_CHECK);
            disagg_instance_free(instance);
        }
        CHECK(steps == 0 && (*disagg_plan_checks(plan) != NULL) == enabled);
        CHECK_TEXT(*disagg_plan_steps(plan), "GEN_0");
        CHECK_OK(disagg_plan_to_json(plan, &json, &error));
        CHECK_HAS(json, "\"stage\":\"GB200-8_GPUs\"");
        disagg_string_free(json);
        disagg_plan_free(plan);
    }
}

static void a_step_has_its_command_and_files(void)
{
    disagg_instance *instance = step_of(plan_of(YAML), "CTX_1", NULL);
    const disagg_step *step = disagg_instance_step(instance);
    const disagg_variable *variable = step->set;
    int found = 0;

    CHECK_TEXT(step->junit_file, "/space/results-CTX_1.xml");
    CHECK_HAS(step->log_file, "_1.log");
    CHECK_TEXT(step->argv[0], "/src/tensorrt_llm/llmapi/trtllm-llmapi-launch");
    CHECK_TEXT(step->argv[1], "pytest");
    for (char *const *argument = step->argv; *argument != NULL; argument++)
        found += strcmp(*argument, "--junit-xml=/space/results-CTX_1.xml") == 0;
    CHECK(found == 1);
    CHECK_TEXT(step->unset[0], "UCX_TLS");
    CHECK(step->unset[1] == NULL);
    CHECK_TEXT(variable->name, "DISAGG_SERVING_TYPE");
    CHECK_TEXT(variable->value, "CTX_1");
    for (; variable->name != NULL; variable++) {
        if (strcmp(variable->name, "CACHE") == 0)
            CHECK_TEXT(variable->value, "/tmp/c_${SLURM_LOCALID}$$");
        CHECK(variable->secret == (strcmp(variable->name, "HF_TOKEN") == 0));
        found++;
    }
    CHECK(found > 5);
    disagg_instance_free(instance);
}

static const char *in(char *const *vector, const char *name)
{
    const char *found = NULL;
    size_t length = strlen(name);

    for (; *vector != NULL; vector++) {
        if (strncmp(*vector, name, length) == 0 && (*vector)[length] == '=') {
            CHECK(found == NULL);
            found = *vector + length + 1;
        }
    }
    return found;
}

static disagg_environment *environment_of(disagg_instance *instance, char *const *base)
{
    disagg_environment *environment = NULL;

    CHECK_OK(disagg_environment_new(instance, base, &environment, &error));
    disagg_instance_free(instance);
    return environment;
}

static void the_environment_of_a_task_is_whole(void)
{
    char *const base[] = {"KEPT=\xff\xfe",  "UCX_TLS=rc",         "CACHE=old",   "ODD",
                          "NCCL_DEBUG=no", "SLURM_LOCALID=\xff", "CACHE=older", NULL};
    disagg_environment *environment = environment_of(step_of(plan_of(YAML), "GEN_0", NULL), base);
    char *const *vector = disagg_environment_vector(environment);

    CHECK_TEXT(in(vector, "KEPT"), "\xff\xfe");
    CHECK_TEXT(in(vector, "CACHE"), "/tmp/c_\xff$");
    CHECK_TEXT(in(vector, "GONE"), "[]");
    CHECK_TEXT(in(vector, "NCCL_DEBUG"), "INFO");
    CHECK_TEXT(in(vector, "DISAGG_SERVING_TYPE"), "GEN_0");
    CHECK_TEXT(vector[1], "ODD");
    CHECK(in(vector, "UCX_TLS") == NULL && in(vector, "CUDA_VISIBLE_DEVICES") == NULL);
    disagg_environment_free(environment);

    CHECK(setenv("KEPT", "here", 1) == 0);
    environment = environment_of(step_of(plan_of(YAML), "GEN_0", NULL), NULL);
    CHECK_TEXT(in(disagg_environment_vector(environment), "KEPT"), "here");
    disagg_environment_free(environment);
}

static void packed_servers_see_their_own_gpus(void)
{
    static const disagg_setting packed[] = {{"placement", "packed"}, {NULL, NULL}};
    static const struct {
        char *listed;
        const char *own;
    } lists[] = {{"CUDA_VISIBLE_DEVICES=4,5,6,7", "6,7"},
                 {"CUDA_VISIBLE_DEVICES=GPU-a,GPU-b", "GPU-a,GPU-b"},
                 {"CUDA_VISIBLE_DEVICES=", "2,3"},
                 {"OTHER=1", "2,3"},
                 {"CUDA_VISIBLE_DEVICES=4", NULL}};

    for (int i = 0; i < 5; i++) {
        char *const base[] = {lists[i].listed, NULL};
        disagg_environment *environment = UNTOUCHED;
        disagg_plan *plan = NULL;
        disagg_instance *instance;

        CHECK_OK(plan_with(YAML, packed, &plan, &error));
        instance = step_of(plan, "CTX_1", NULL);
        CHECK(disagg_instance_step(instance)->shares_node == 1);
        CHECK(disagg_instance_step(instance)->first_gpu == 2);
        if (lists[i].own == NULL) {
            CHECK_FAILS(disagg_environment_new(instance, base, &environment, &error),
                        DISAGG_STATUS_BAD_ARGUMENT, "GPUs 4, but it needs number 2 to 3");
            CHECK(environment == UNTOUCHED);
            disagg_instance_free(instance);
            continue;
        }
        environment = environment_of(instance, base);
        CHECK_TEXT(in(disagg_environment_vector(environment), "CUDA_VISIBLE_DEVICES"),
                   lists[i].own);
        disagg_environment_free(environment);
    }
}

static void a_run_script_finds_the_command_in_its_environment(void)
{
    static const disagg_setting script[] = {{"run_script", "/run.sh"}, {NULL, NULL}};
    char *const base[] = {"SLURM_LOCALID=3", "pytestCommand=old", NULL};
    char *const bytes[] = {"SLURM_LOCALID=\xff", NULL};
    disagg_environment *environment = NULL;
    disagg_plan *plan = NULL;
    disagg_instance *instance;
    const disagg_step *step;
    const char *command;

    CHECK_OK(plan_with(YAML, script, &plan, &error));
    instance = step_of(plan, "GEN_0", NULL);
    step = disagg_instance_step(instance);
    CHECK_TEXT(step->argv[0], "bash");
    CHECK_TEXT(step->argv[1], "/run.sh");
    CHECK(step->argv[2] == NULL);
    CHECK_FAILS(disagg_environment_new(instance, bytes, &environment, &error),
                DISAGG_STATUS_BAD_ARGUMENT, "CACHE is not UTF-8 text");
    environment = environment_of(instance, base);
    command = in(disagg_environment_vector(environment), "pytestCommand");
    CHECK_HAS(command, "env -C /src/tests/integration/defs -u UCX_TLS -u DISAGG_SECRET_0 ");
    CHECK_HAS(command, "'CACHE=/tmp/c_3$' ");
    CHECK(strstr(command, "abc") == NULL);
    CHECK_TEXT(in(disagg_environment_vector(environment), "CACHE"), "/tmp/c_3$");
    disagg_environment_free(environment);
}

static void tasks_of_a_recipe_s_steps_have_commands_of_their_own_and_files(void)
{
    static const char yaml[] =
        "engine: sglang\nmodel: /models/x\ngpus_per_node: 4\nserve_only: true\n"
        "roles: {prefill: {args: {tp-size: 4}}, decode: {args: {tp-size: 8}}}\n";
    char *const nodes[][3] = {{"SLURM_NODEID=0", "A=1", NULL}, {"SLURM_NODEID=1", "A=1", NULL}};
    disagg_plan *plan = plan_of(yaml);
    disagg_instance *instance = NULL;
    char *const *name = disagg_plan_steps(plan);

    CHECK(disagg_plan_job(plan)->nodes == 3);
    CHECK_TEXT(name[0], "PREFILL_0");
    CHECK_TEXT(name[1], "DECODE_0");
    CHECK_OK(disagg_instance_new(plan, "DECODE_0", "n[1-3]", &instance, &error));
    CHECK_TEXT(disagg_instance_step(instance)->hostlist, "n[2-3]");
    CHECK(disagg_instance_step(instance)->tasks == 2);
    CHECK(disagg_instance_step(instance)->files[0].path == NULL);
    for (int node = 0; node < 2; node++) {
        disagg_environment *environment = NULL;
        char *const *word;

        CHECK_OK(disagg_environment_new(instance, nodes[node], &environment, &error));
        CHECK_TEXT(in(disagg_environment_vector(environment), "A"), "1");
        word = disagg_environment_command(environment);
        while (*word != NULL && strcmp(*word, "--node-rank") != 0)
            word++;
        CHECK(*word != NULL);
        CHECK_TEXT(word[1], node == 0 ? "0" : "1");
        disagg_environment_free(environment);
    }
    disagg_instance_free(instance);
    disagg_plan_free(plan);
    instance = step_of(plan_of("engine: trtllm-serve\nmodel: /models/x\ngpus_per_node: 4\n"
                               "serve_only: true\nroles: {prefill: {}, decode: {}}\n"),
                       "ROUTER", "n[1-2]");
    CHECK_TEXT(disagg_instance_step(instance)->files[0].path, "/space/server_config.yaml");
    CHECK_HAS(disagg_instance_step(instance)->files[0].text, "n2:");
    CHECK(disagg_instance_step(instance)->files[1].path == NULL);
    disagg_instance_free(instance);
}

static void steps_get_their_nodes_of_the_allocation(void)
{
    disagg_instance *gen = step_of(plan_of(YAML), "GEN_0", "n[08-10],other");
    disagg_instance *ctx = step_of(plan_of(YAML), "CTX_1", "n8,n9,n10,other,more");
    const disagg_step *step = disagg_instance_step(gen);
    disagg_plan *plan = plan_of(YAML);
    disagg_instance *none = UNTOUCHED;

    CHECK_TEXT(step->hostlist, "n[08-09]");
    CHECK_TEXT(step->hosts[1], "n09");
    CHECK(step->hosts[2] == NULL);
    CHECK_TEXT(step->task_hosts[3], "n08");
    CHECK_TEXT(step->task_hosts[4], "n09");
    CHECK(step->task_hosts[8] == NULL && step->shares_node == 0);
    step = disagg_instance_step(ctx);
    CHECK_TEXT(step->hostlist, "other");
    CHECK_TEXT(step->task_hosts[1], "other");
    CHECK(step->task_hosts[2] == NULL);

    CHECK_FAILS(disagg_instance_new(plan, "CTX_1", "a,b,c", &none, &error), DISAGG_STATUS_BAD_NODES,
                "CTX_1 needs 4 of the allocation's nodes; there are 3");
    CHECK_FAILS(disagg_instance_new(plan, "CTX_1", "n[1-", &none, &error), DISAGG_STATUS_BAD_NODES,
                "error: ");
    CHECK_FAILS(disagg_instance_new(plan, "CTX_1", "n[1-999999999]", &none, &error),
                DISAGG_STATUS_BAD_NODES, "error: ");
    CHECK_FAILS(disagg_instance_new(plan, "CTX_1", "\xff", &none, &error),
                DISAGG_STATUS_BAD_ARGUMENT, "`hostlist` is not UTF-8 text");
    CHECK(none == UNTOUCHED);
    disagg_instance_free(gen);
    disagg_instance_free(ctx);
    disagg_plan_free(plan);
}

static void a_plan_can_be_loaded_from_its_json_form(void)
{
    disagg_plan *plan = plan_of(YAML), *by_text = NULL, *by_path = NULL;
    char *json = NULL, *again = NULL;
    FILE *file = fopen("plan.json", "w");

    CHECK_OK(disagg_plan_to_json(plan, &json, &error));
    CHECK(file != NULL && fputs(json, file) >= 0 && fclose(file) == 0);
    CHECK_OK(disagg_plan_load(json, &by_text, &error));
    CHECK_OK(disagg_plan_load("plan.json", &by_path, &error));
    CHECK_OK(disagg_plan_to_json(by_text, &again, &error));
    CHECK_TEXT(again, json);
    disagg_string_free(again);
    CHECK_OK(disagg_plan_to_json(by_path, &again, &error));
    CHECK_TEXT(again, json);
    disagg_string_free(again);
    disagg_plan_free(by_text);
    disagg_plan_free(by_path);
    disagg_plan_free(plan);

    plan = UNTOUCHED;
    json[strlen(json) / 2] = '\0';
    CHECK_FAILS(disagg_plan_load(json, &plan, &error), DISAGG_STATUS_BAD_PLAN, "plan:1:");
    CHECK_FAILS(disagg_plan_load("{\"schema\": 99}", &plan, &error), DISAGG_STATUS_BAD_PLAN,
                "this version reads schema 1");
    CHECK_FAILS(disagg_plan_load("{\xff", &plan, &error), DISAGG_STATUS_BAD_ARGUMENT, "not UTF-8");
    CHECK_FAILS(disagg_plan_load("", &plan, &error), DISAGG_STATUS_BAD_INPUT, "cannot be opened");
    CHECK_FAILS(disagg_plan_load("/none.json", &plan, &error), DISAGG_STATUS_BAD_INPUT, "/none");
    CHECK(plan == UNTOUCHED);
    disagg_string_free(json);
}

static void file_and_text_give_the_same_plan(void)
{
    const disagg_setting settings[] = {{"trtllm_dir", "/src"}, {"models_dir", "/m"}, {NULL, NULL}};
    disagg_options options = {.config = config, .settings = settings};
    disagg_plan *plan = NULL;
    char yaml[4096] = "", *by_file = NULL, *by_text = NULL;
    FILE *file = fopen(config, "r");

    CHECK(file != NULL && fread(yaml, 1, sizeof yaml - 1, file) > 0 && fclose(file) == 0);
    CHECK_OK(disagg_plan_new(&options, &plan, &error));
    CHECK_OK(disagg_plan_to_json(plan, &by_file, &error));
    disagg_plan_free(plan);
    options.config_text = yaml;
    CHECK_OK(disagg_plan_new(&options, &plan, &error));
    CHECK_OK(disagg_plan_to_json(plan, &by_text, &error));
    disagg_plan_free(plan);
    CHECK_TEXT(by_text, by_file);
    disagg_string_free(by_file);
    disagg_string_free(by_text);
}

static void the_launch_script_starts_the_steps(void)
{
    disagg_plan *plan = plan_of(YAML);
    char *script = NULL;

    CHECK_OK(disagg_plan_launch_script(plan, &script, &error));
    CHECK(strncmp(script, "#!", 2) == 0);
    CHECK_HAS(script, "#SBATCH");
    CHECK_HAS(script, "srun");
    disagg_string_free(script);
    disagg_plan_free(plan);
}

static void errors_have_positions_and_advice_for_c_programs(void)
{
    static const char bad[] = "benchmark: {mode: e2e}\n"
                              "hardware:\n"
                              "  gpus_per_node: zero\n"
                              "  num_gen_server: 1\n"
                              "  num_ctx_servers: -1\n";
    static char *const nothing[] = {NULL};
    disagg_options options = {.config = "two_kinds.yaml", .config_text = YAML, .environment = nothing};
    disagg_options nameless = {.config_text = YAML};
    disagg_options empty = {.current_dir = "/"};
    disagg_plan *plan = UNTOUCHED;

    CHECK_FAILS(plan_with(bad, NULL, &plan, &error), DISAGG_STATUS_BAD_INPUT,
                "two_kinds.yaml:3:18: error: ");
    CHECK_FAILS(plan_with(bad, NULL, &plan, &error), DISAGG_STATUS_BAD_INPUT, "^^^^");
    CHECK_FAILS(plan_with(bad, NULL, &plan, &error), DISAGG_STATUS_BAD_INPUT, ":5:20: error: ");
    CHECK_FAILS(disagg_plan_new(&options, &plan, &error), DISAGG_STATUS_BAD_INPUT,
                "help: set trtllm_dir (options->settings) or trtllm_dir (site.yaml)");
    CHECK_FAILS(disagg_plan_new(&empty, &plan, &error), DISAGG_STATUS_BAD_INPUT,
                "help: give `options->config` or `options->test_id`");
    CHECK_NULL(disagg_plan_new(&nameless, &plan, &error), "options->config");
    CHECK(plan == UNTOUCHED);
}

static void warnings_and_notes_come_with_the_plan(void)
{
    disagg_plan *plan = plan_of("hardware: {gpus_per_node: 4, num_ctx_servers: 1, "
                                "num_gen_servers: 1, gpu_tipe: x}\n"
                                "worker_config: {gen: {tensor_parallel_size: 6}}\n");
    const char *text = disagg_plan_warnings(plan);

    CHECK(strncmp(text, "two_kinds.yaml:1:", 17) == 0);
    CHECK_HAS(text, ": warning: ");
    CHECK_HAS(strstr(text, ": warning: "), "\nnote: ");
    CHECK_HAS(text, "not full");
    disagg_plan_free(plan);
}

static void hostile_configurations_are_errors(void)
{
    static const char *const bad[] = {
        "",
        "\xff\xfe",
        "a: [",
        "just text",
        "- a\n- list\n",
        "a: &a [*a]\n",
        "hardware: {gpus_per_node: 4, num_ctx_servers: 1, num_gen_servers: 0}\n",
        "hardware: {gpus_per_node: 99999999999999, num_ctx_servers: 1, num_gen_servers: 1}\n",
        "hardware: {gpus_per_node: 4, num_ctx_servers: 1, num_gen_servers: 1}\n"
        "environment: {worker_env_var: 'A=$(id)'}\n",
        "hardware: {gpus_per_node: 4, num_ctx_servers: 1, num_gen_servers: 1}\n"
        "slurm: {job_time: \"1\\0\"}\n",
    };
    disagg_plan *plan = plan_of(YAML), *kept = plan;
    disagg_options missing = {.config = "/nonexistent/x.yaml"};
    const size_t length = (4 << 20) + 1;
    char *huge = malloc(length + 1);

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_FAILS(plan_with(bad[i], NULL, &plan, &error),
                    i == 1 ? DISAGG_STATUS_BAD_ARGUMENT : DISAGG_STATUS_BAD_INPUT, "error: ");
        CHECK(plan == kept && disagg_plan_job(plan)->nodes == 4);
    }
    CHECK_FAILS(disagg_plan_new(&missing, &plan, &error), DISAGG_STATUS_BAD_INPUT, "cannot be");
    memset(huge, 'x', length);
    huge[length] = '\0';
    CHECK_FAILS(plan_with(huge, NULL, &plan, &error), DISAGG_STATUS_BAD_ARGUMENT, "the limit is");
    huge[0] = '{';
    CHECK_FAILS(disagg_plan_load(huge, &plan, &error), DISAGG_STATUS_BAD_PLAN, "bytes long");
    free(huge);
    disagg_plan_free(kept);
}

/* tests/c_abi.rs counts the lines with each function. */
static void null_is_an_error_or_harmless(void)
{
    disagg_plan *plan = plan_of(YAML), *new_plan = UNTOUCHED;
    disagg_instance *instance = step_of(plan_of(YAML), "GEN_0", NULL), *new_instance = UNTOUCHED;
    disagg_environment *new_environment = UNTOUCHED;
    disagg_options options = {.config = config};
    char *text = UNTOUCHED;

    CHECK_NULL(disagg_plan_new(NULL, &new_plan, &error), "options");
    CHECK_NULL(disagg_plan_new(&options, NULL, &error), "plan");
    CHECK_NULL(disagg_plan_load(NULL, &new_plan, &error), "source");
    CHECK_NULL(disagg_plan_load("{}", NULL, &error), "plan");
    CHECK_NULL(disagg_plan_to_json(NULL, &text, &error), "plan");
    CHECK_NULL(disagg_plan_to_json(plan, NULL, &error), "json");
    CHECK_NULL(disagg_plan_launch_script(NULL, &text, &error), "plan");
    CHECK_NULL(disagg_plan_launch_script(plan, NULL, &error), "script");
    CHECK_NULL(disagg_instance_new(NULL, "GEN_0", NULL, &new_instance, &error), "plan");
    CHECK_NULL(disagg_instance_new(plan, NULL, NULL, &new_instance, &error), "name");
    CHECK_NULL(disagg_instance_new(plan, "GEN_0", NULL, NULL, &error), "instance");
    CHECK_NULL(disagg_environment_new(NULL, NULL, &new_environment, &error), "instance");
    CHECK_NULL(disagg_environment_new(instance, NULL, NULL, &error), "environment");
    CHECK(new_plan == UNTOUCHED && new_instance == UNTOUCHED);
    CHECK(new_environment == UNTOUCHED && text == UNTOUCHED);
    CHECK(disagg_plan_new(NULL, &new_plan, NULL) == DISAGG_STATUS_NULL_POINTER);
    CHECK(disagg_plan_job(NULL) == NULL && disagg_plan_role(NULL, 0) == NULL);
    CHECK(disagg_plan_steps(NULL) == NULL && disagg_plan_checks(NULL) == NULL);
    CHECK(disagg_instance_step(NULL) == NULL && disagg_environment_vector(NULL) == NULL);
    CHECK(disagg_environment_command(NULL) == NULL);
    CHECK_TEXT(disagg_plan_warnings(NULL), "");
    CHECK_TEXT(disagg_error_text(NULL), "");
    disagg_string_free(NULL);
    disagg_error_free(NULL);
    disagg_environment_free(NULL);
    disagg_instance_free(NULL);
    disagg_plan_free(NULL);
    disagg_instance_free(instance);
    disagg_plan_free(plan);
}

static void versions_agree(void)
{
    CHECK(disagg_abi_version() == DISAGG_ABI_VERSION);
    CHECK_HAS(disagg_version(), ".");
    CHECK_TEXT(disagg_status_text(DISAGG_STATUS_OK), "success");
    CHECK_TEXT(disagg_status_text(12345), "unknown status");
}

/* Plans on its own and reads a plan that it shares. */
static void *planner(void *shared)
{
    for (int i = 0; i < 8; i++) {
        disagg_plan *plan = plan_of(YAML);
        disagg_instance *instance = NULL;
        char *json = NULL;

        CHECK_FAILS(plan_with("a: [", NULL, &plan, &error), DISAGG_STATUS_BAD_INPUT, "error: ");
        CHECK(disagg_plan_job(shared)->nodes == 4);
        CHECK(disagg_instance_new(shared, disagg_plan_steps(shared)[i % 5], "n[1-4]", &instance,
                                  NULL) == DISAGG_STATUS_OK);
        CHECK(disagg_plan_to_json(plan, &json, NULL) == DISAGG_STATUS_OK);
        disagg_string_free(json);
        disagg_instance_free(instance);
        disagg_plan_free(plan);
    }
    return NULL;
}

static void threads_plan_at_once(void)
{
    disagg_plan *shared = plan_of(YAML);
    pthread_t threads[8];

    for (int i = 0; i < 8; i++)
        CHECK(pthread_create(&threads[i], NULL, planner, shared) == 0);
    for (int i = 0; i < 8; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    disagg_plan_free(shared);
}

int main(int argc, char **argv)
{
    config = argc > 1 ? argv[1] : "";
    the_job_has_the_size_of_the_test();
    settings_choose();
    the_environment_is_the_given_one_or_the_process_s();
    roles_and_steps_are_in_order();
    checks_are_steps_as_far_as_they_run();
    a_step_has_its_command_and_files();
    the_environment_of_a_task_is_whole();
    packed_servers_see_their_own_gpus();
    a_run_script_finds_the_command_in_its_environment();
    tasks_of_a_recipe_s_steps_have_commands_of_their_own_and_files();
    steps_get_their_nodes_of_the_allocation();
    a_plan_can_be_loaded_from_its_json_form();
    file_and_text_give_the_same_plan();
    the_launch_script_starts_the_steps();
    errors_have_positions_and_advice_for_c_programs();
    warnings_and_notes_come_with_the_plan();
    hostile_configurations_are_errors();
    null_is_an_error_or_harmless();
    versions_agree();
    threads_plan_at_once();
    printf("done\n");
    return 0;
}
