// SPDX-License-Identifier: Apache-2.0
/*
 * What a C program sees of the library, one case per run: cases CASE [CONFIG].
 * `cases --list` names them; tests/c_abi.rs runs each under valgrind.
 */
#define _POSIX_C_SOURCE 200809L

#include <pthread.h>
#include <stdbool.h>

#include "check.h"

static const char YAML[] = "benchmark: {mode: e2e, concurrency_list: \"64\"}\n"
                           "hardware: {gpus_per_node: 4, num_ctx_servers: 2, num_gen_servers: 1}\n"
                           "worker_config:\n"
                           "  gen: {tensor_parallel_size: 8}\n"
                           "  ctx: {tensor_parallel_size: 4}\n"
                           "environment:\n"
                           "  worker_env_var: 'CACHE=/tmp/c_${SLURM_LOCALID}\\$ HF_TOKEN=abc "
                           "GONE=[$UCX_TLS]'\n"
                           "slurm: {job_time: '01:30:30'}\n";

/* What an output holds before a call that must not write it. */
static char untouched;
#define UNTOUCHED ((void *)&untouched)

/* No case depends on the environment that the tests run in. */
static char *const NOTHING[] = {NULL};

static disagg_options options(void)
{
    return (disagg_options){
        .size = sizeof(disagg_options),
        .config = "two_kinds.yaml",
        .trtllm_dir = "/src",
        .models_dir = "/models",
        .workspace = "/space",
        .current_dir = "/",
        .environment = NOTHING,
    };
}

static disagg_status plan_text(const char *yaml, disagg_plan **plan, disagg_error **error)
{
    disagg_options o = options();

    return disagg_plan_new_from_yaml(&o, yaml, strlen(yaml), plan, error);
}

static disagg_plan *plan_of(const char *yaml)
{
    disagg_plan *plan = NULL;
    disagg_error *error = NULL;
    const char *text = "";

    if (plan_text(yaml, &plan, &error) != DISAGG_STATUS_OK) {
        disagg_error_text(error, &text);
        fprintf(stderr, "%s\n", text);
        exit(1);
    }
    return plan;
}

static disagg_instance *step_of(const char *yaml, const char *name)
{
    disagg_plan *plan = plan_of(yaml);
    disagg_instance *instance = NULL;

    CHECK_OK(disagg_instance_new(plan, name, &instance, NULL));
    disagg_plan_free(plan);
    return instance;
}

static void layout_has_the_numbers(const char *config)
{
    disagg_plan *plan = plan_of(YAML);
    disagg_layout layout = {.size = sizeof layout};

    (void)config;
    CHECK_OK(disagg_plan_layout(plan, &layout));
    CHECK(layout.size == sizeof layout);
    CHECK(layout.num_ctx_servers == 2 && layout.num_gen_servers == 1);
    CHECK(layout.gpus_per_node == 4 && layout.gpus_per_ctx_server == 4);
    CHECK(layout.gpus_per_gen_server == 8 && layout.nodes_per_gen_server == 2);
    CHECK(layout.nodes_per_ctx_server == 1);
    CHECK(layout.total_nodes == 4 && layout.total_gpus == 16);
    CHECK(layout.llmapi_launch == 1);
    disagg_plan_free(plan);
}

static void job_is_what_sbatch_is_asked_for(const char *config)
{
    disagg_plan *plan = plan_of(YAML);
    disagg_job job = {.size = sizeof job};

    (void)config;
    CHECK_OK(disagg_plan_job(plan, &job));
    CHECK(job.nodes == 4 && job.ntasks == 16 && job.ntasks_per_node == 4);
    CHECK(job.gpus_per_node == 4 && job.segment == 0 && job.minutes == 91);
    CHECK_TEXT(job.time, "01:30:30");
    CHECK_TEXT(job.name, "disagg_perf_test");
    CHECK_TEXT(job.output, "/space/slurm_%j.log");
    CHECK(job.partition == NULL && job.account == NULL);
    disagg_plan_free(plan);
}

static void test_and_paths_are_named(const char *config)
{
    disagg_plan *plan = plan_of(YAML);
    disagg_test test = {.size = sizeof test};
    disagg_paths paths = {.size = sizeof paths};

    (void)config;
    CHECK_OK(disagg_plan_test(plan, &test));
    CHECK_TEXT(test.node_id, "perf/test_perf_sanity.py::test_e2e[disagg_upload-two_kinds]");
    CHECK_TEXT(test.config, "two_kinds");
    CHECK_TEXT(test.config_path, "/two_kinds.yaml");
    CHECK_TEXT(test.mode, "e2e");
    CHECK_TEXT(test.rules, "classic");
    CHECK_TEXT(test.placement, "exclusive");
    CHECK_TEXT(test.frontend_node, "first");
    CHECK(strlen(test.config_sha256) == 64);
    CHECK_OK(disagg_plan_paths(plan, &paths));
    CHECK_TEXT(paths.source_dir, "/src");
    CHECK_TEXT(paths.models_dir, "/models");
    CHECK_TEXT(paths.workspace, "/space");
    CHECK(paths.run_script == NULL && paths.install_script == NULL);
    disagg_plan_free(plan);
}

static void options_choose(const char *config)
{
    disagg_options o = options();
    disagg_test test = {.size = sizeof test};
    disagg_job job = {.size = sizeof job};
    disagg_plan *plan = NULL;

    (void)config;
    o.placement = "packed";
    o.frontend_node = "own";
    o.rules = "classic";
    o.account = "mine";
    o.time = "UNLIMITED";
    CHECK_OK(disagg_plan_new_from_yaml(&o, YAML, strlen(YAML), &plan, NULL));
    CHECK_OK(disagg_plan_test(plan, &test));
    CHECK_TEXT(test.placement, "packed");
    CHECK_TEXT(test.frontend_node, "own");
    CHECK_OK(disagg_plan_job(plan, &job));
    CHECK_TEXT(job.account, "mine");
    CHECK_TEXT(job.time, "UNLIMITED");
    CHECK(job.minutes == UINT32_MAX && job.nodes == 5);
    disagg_plan_free(plan);
}

static void words_that_are_no_choice_are_refused(const char *config)
{
    disagg_plan *plan = UNTOUCHED;
    disagg_error *error = NULL;
    const char *text = NULL;

    (void)config;
    for (int field = 0; field < 4; field++) {
        disagg_options o = options();

            if (field == 0)
            o.placement = "tight";
        else if (field == 1)
            o.frontend_node = "middle";
        else if (field == 2)
            o.rules = "modern";
        else
            o.current_dir = "relative";
        CHECK_STATUS(disagg_plan_new_from_yaml(&o, YAML, strlen(YAML), &plan, &error),
                     DISAGG_STATUS_BAD_ARGUMENT);
        CHECK_OK(disagg_error_text(error, &text));
        CHECK(strstr(text, "`options->") != NULL);
        disagg_error_free(error);
        error = NULL;
    }
    CHECK(plan == UNTOUCHED);
}

static void given_environment_is_read_instead_of_the_process(const char *config)
{
    char *const given[] = {"CLUSTER_LLM_DATA=/data", "PATH", "MPI_TYPE=pmi2", NULL};
    disagg_options o = options();
    disagg_paths paths = {.size = sizeof paths};
    disagg_step step = {.size = sizeof step};
    disagg_plan *plan = NULL;
    disagg_instance *instance = NULL;

    (void)config;
    CHECK(setenv("CLUSTER_LLM_DATA", "/wrong", 1) == 0);
    o.models_dir = NULL;
    o.environment = given;
    CHECK_OK(disagg_plan_new_from_yaml(&o, YAML, strlen(YAML), &plan, NULL));
    CHECK_OK(disagg_plan_paths(plan, &paths));
    CHECK_TEXT(paths.models_dir, "/data");
    CHECK_OK(disagg_instance_new(plan, "CTX_0", &instance, NULL));
    CHECK_OK(disagg_instance_step(instance, &step));
    CHECK_TEXT(step.mpi, "pmi2");
    disagg_instance_free(instance);
    disagg_plan_free(plan);

    o.environment = NULL;
    CHECK_OK(disagg_plan_new_from_yaml(&o, YAML, strlen(YAML), &plan, NULL));
    CHECK_OK(disagg_plan_paths(plan, &paths));
    CHECK_TEXT(paths.models_dir, "/wrong");
    disagg_plan_free(plan);
}

static void file_and_text_give_the_same_plan(const char *config)
{
    disagg_options o = options();
    disagg_test by_text = {.size = sizeof by_text}, by_file = {.size = sizeof by_file};
    disagg_plan *text = NULL, *file = NULL;
    char yaml[4096];
    FILE *stream = fopen(config, "r");
    size_t length;

    CHECK(stream != NULL);
    length = fread(yaml, 1, sizeof yaml, stream);
    fclose(stream);
    o.config = config;
    CHECK_OK(disagg_plan_new(&o, &file, NULL));
    CHECK_OK(disagg_plan_new_from_yaml(&o, yaml, length, &text, NULL));
    CHECK_OK(disagg_plan_test(text, &by_text));
    CHECK_OK(disagg_plan_test(file, &by_file));
    CHECK_TEXT(by_text.node_id, by_file.node_id);
    CHECK_TEXT(by_text.config_path, by_file.config_path);
    CHECK_TEXT(by_text.config_sha256, by_file.config_sha256);
    disagg_plan_free(text);
    disagg_plan_free(file);
}

static void roles_are_listed_with_their_sizes(const char *config)
{
    static const struct {
        const char *name;
        uint32_t count, nodes, tasks, tasks_per_node;
    } expected[] = {{"GEN", 1, 2, 8, 4},
                    {"CTX", 2, 1, 4, 4},
                    {"DISAGG_SERVER", 1, 1, 1, 1},
                    {"BENCHMARK", 1, 1, 1, 1}};
    disagg_plan *plan = plan_of(YAML);
    disagg_role role = {.size = sizeof role};
    size_t count = 0;

    (void)config;
    CHECK_OK(disagg_plan_role_count(plan, &count));
    CHECK(count == 4);
    for (size_t i = 0; i < count; i++) {
        CHECK_OK(disagg_plan_role(plan, i, &role));
        CHECK_TEXT(role.name, expected[i].name);
        CHECK(role.count == expected[i].count && role.nodes == expected[i].nodes);
        CHECK(role.tasks == expected[i].tasks);
        CHECK(role.tasks_per_node == expected[i].tasks_per_node);
    }
    CHECK_STATUS(disagg_plan_role(plan, count, &role), DISAGG_STATUS_NOT_FOUND);
    CHECK_STATUS(disagg_plan_role(plan, SIZE_MAX, &role), DISAGG_STATUS_NOT_FOUND);
    CHECK_TEXT(role.name, "BENCHMARK");
    disagg_plan_free(plan);
}

static void steps_come_in_order_and_by_name(const char *config)
{
    static const struct {
        const char *name;
        uint32_t first_node;
    } expected[] = {
        {"GEN_0", 0}, {"CTX_0", 2}, {"CTX_1", 3}, {"DISAGG_SERVER", 0}, {"BENCHMARK", 0}};
    disagg_plan *plan = plan_of(YAML);
    disagg_instance *instance = NULL;
    disagg_step step = {.size = sizeof step};
    size_t count = 0;

    (void)config;
    CHECK_OK(disagg_plan_instance_count(plan, &count));
    CHECK(count == 5);
    for (size_t i = 0; i < count; i++) {
        CHECK_OK(disagg_instance_new_at(plan, i, &instance, NULL));
        CHECK_OK(disagg_instance_step(instance, &step));
        CHECK_TEXT(step.name, expected[i].name);
        CHECK(step.first_node == expected[i].first_node);
        CHECK_TEXT(step.directory, "/src/tests/integration/defs");
        CHECK((step.mpi != NULL) == (i < 3));
        disagg_instance_free(instance);
        CHECK_OK(disagg_instance_new(plan, expected[i].name, &instance, NULL));
        disagg_instance_free(instance);
    }
    instance = NULL;
    CHECK_STATUS(disagg_instance_new_at(plan, count, &instance, NULL), DISAGG_STATUS_NOT_FOUND);
    CHECK_STATUS(disagg_instance_new_at(plan, SIZE_MAX, &instance, NULL), DISAGG_STATUS_NOT_FOUND);
    CHECK_STATUS(disagg_instance_new(plan, "CTX_2", &instance, NULL), DISAGG_STATUS_NOT_FOUND);
    CHECK_STATUS(disagg_instance_new(plan, "GEN", &instance, NULL), DISAGG_STATUS_NOT_FOUND);
    CHECK_STATUS(disagg_instance_new(plan, "", &instance, NULL), DISAGG_STATUS_NOT_FOUND);
    CHECK_STATUS(disagg_instance_new(plan, "\xff", &instance, NULL), DISAGG_STATUS_BAD_ARGUMENT);
    CHECK(instance == NULL);
    disagg_plan_free(plan);
}

static void command_ends_with_null_and_has_its_own_junit_file(const char *config)
{
    disagg_instance *instance = step_of(YAML, "CTX_1");
    disagg_step step = {.size = sizeof step};
    char *const *argv = NULL;
    char *const *unset = NULL;
    bool found = false;

    (void)config;
    CHECK_OK(disagg_instance_step(instance, &step));
    CHECK_TEXT(step.junit_file, "/space/results-CTX_1.xml");
    CHECK_OK(disagg_instance_argv(instance, &argv));
    CHECK_TEXT(argv[0], "/src/tensorrt_llm/llmapi/trtllm-llmapi-launch");
    CHECK_TEXT(argv[1], "pytest");
    for (; *argv != NULL; argv++)
        found = found || strcmp(*argv, "--junit-xml=/space/results-CTX_1.xml") == 0;
    CHECK(found);
    CHECK_OK(disagg_instance_unset(instance, &unset));
    CHECK_TEXT(unset[0], "UCX_TLS");
    CHECK(unset[1] == NULL);
    disagg_instance_free(instance);
}

struct seen {
    int calls;
    bool asked_for_unset;
    char value[32];
};

/* Overwrites its answer at every call, as getenv may. */
static const char *look_up(const char *name, void *context)
{
    struct seen *seen = context;

    seen->calls++;
    if (strcmp(name, "UCX_TLS") == 0)
        seen->asked_for_unset = true;
    if (strcmp(name, "SLURM_LOCALID") != 0)
        return NULL;
    snprintf(seen->value, sizeof seen->value, "%d", 6 + seen->calls);
    return seen->value;
}

static size_t index_of(const disagg_instance *instance, const char *name,
                       disagg_variable *variable)
{
    size_t count = 0;

    CHECK_OK(disagg_instance_variable_count(instance, &count));
    for (size_t i = 0; i < count; i++) {
        CHECK_OK(disagg_instance_variable(instance, i, variable));
        if (strcmp(variable->name, name) == 0)
            return i;
    }
    fprintf(stderr, "no variable %s\n", name);
    exit(1);
}

static void values_are_expanded_by_the_callback(const char *config)
{
    disagg_instance *instance = step_of(YAML, "CTX_1");
    disagg_variable variable = {.size = sizeof variable};
    struct seen seen = {0};
    char *value = NULL;
    size_t index = index_of(instance, "CACHE", &variable);

    (void)config;
    CHECK_TEXT(variable.written, "/tmp/c_${SLURM_LOCALID}$$");
    CHECK(!variable.literal && !variable.secret);
    CHECK_OK(disagg_instance_value(instance, index, look_up, &seen, &value));
    CHECK_TEXT(value, "/tmp/c_7$");
    CHECK(seen.calls == 1);
    disagg_string_free(value);

    index = index_of(instance, "GONE", &variable);
    CHECK_OK(disagg_instance_value(instance, index, look_up, &seen, &value));
    CHECK_TEXT(value, "[]");
    CHECK(!seen.asked_for_unset);
    disagg_string_free(value);

    index = index_of(instance, "HF_TOKEN", &variable);
    CHECK(variable.literal && variable.secret);
    index = index_of(instance, "DISAGG_SERVING_TYPE", &variable);
    CHECK_OK(disagg_instance_value(instance, index, look_up, &seen, &value));
    CHECK_TEXT(value, "CTX_1");
    disagg_string_free(value);

    CHECK(setenv("SLURM_LOCALID", "3", 1) == 0);
    index = index_of(instance, "CACHE", &variable);
    CHECK_OK(disagg_instance_value(instance, index, NULL, NULL, &value));
    CHECK_TEXT(value, "/tmp/c_3$");
    disagg_string_free(value);
    CHECK_STATUS(disagg_instance_value(instance, 1000, look_up, &seen, &value),
                 DISAGG_STATUS_NOT_FOUND);
    disagg_instance_free(instance);
}

static const char *in_vector(char *const *vector, const char *name)
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

static void environment_of_a_task_is_whole(const char *config)
{
    char *const base[] = {"KEPT=\xff\xfe", "UCX_TLS=rc",  "CACHE=old", "ODD",
                          "NCCL_DEBUG=no", "SLURM_LOCALID=\xff", "CACHE=older", NULL};
    disagg_instance *instance = step_of(YAML, "GEN_0");
    disagg_environment *environment = NULL;
    char *const *vector = NULL;

    (void)config;
    CHECK_OK(disagg_environment_new(instance, base, &environment, NULL));
    disagg_instance_free(instance);
    CHECK_OK(disagg_environment_vector(environment, &vector));
    CHECK_TEXT(in_vector(vector, "KEPT"), "\xff\xfe");
    CHECK_TEXT(in_vector(vector, "CACHE"), "/tmp/c_\xff$");
    CHECK_TEXT(in_vector(vector, "GONE"), "[]");
    CHECK_TEXT(in_vector(vector, "NCCL_DEBUG"), "INFO");
    CHECK_TEXT(in_vector(vector, "DISAGG_SERVING_TYPE"), "GEN_0");
    CHECK_TEXT(vector[1], "ODD");
    CHECK(in_vector(vector, "UCX_TLS") == NULL);
    disagg_environment_free(environment);

    instance = step_of(YAML, "GEN_0");
    CHECK(setenv("KEPT", "here", 1) == 0);
    CHECK_OK(disagg_environment_new(instance, NULL, &environment, NULL));
    CHECK_OK(disagg_environment_vector(environment, &vector));
    CHECK_TEXT(in_vector(vector, "KEPT"), "here");
    disagg_environment_free(environment);
    disagg_instance_free(instance);
}

static void nodes_are_sliced_and_pinned(const char *config)
{
    disagg_instance *gen = step_of(YAML, "GEN_0");
    disagg_instance *ctx = step_of(YAML, "CTX_1");
    disagg_nodes *nodes = NULL;
    const char *hosts[8] = {NULL};
    char *const *names = NULL;
    char *list = NULL;
    size_t count = 0;

    (void)config;
    CHECK_OK(disagg_nodes_new("n[08-10],other", &nodes, NULL));
    CHECK_OK(disagg_nodes_count(nodes, &count));
    CHECK(count == 4);
    CHECK_OK(disagg_nodes_names(nodes, &names));
    CHECK_TEXT(names[2], "n10");
    CHECK(names[4] == NULL);
    CHECK_OK(disagg_instance_hosts(gen, nodes, hosts, 2));
    CHECK_TEXT(hosts[0], "n08");
    CHECK_TEXT(hosts[1], "n09");
    CHECK_OK(disagg_instance_hosts(ctx, nodes, hosts, 1));
    CHECK_TEXT(hosts[0], "other");
    CHECK_OK(disagg_instance_task_hosts(gen, nodes, hosts, 8));
    CHECK_TEXT(hosts[3], "n08");
    CHECK_TEXT(hosts[4], "n09");
    CHECK_OK(disagg_instance_hostlist(gen, nodes, &list, NULL));
    CHECK_TEXT(list, "n[08-09]");
    disagg_string_free(list);
    disagg_nodes_free(nodes);
    disagg_instance_free(gen);
    disagg_instance_free(ctx);
}

static void lists_that_do_not_fit_are_refused(const char *config)
{
    static const char *const few[] = {"a", "b", "c"};
    static const char *const holes[] = {"a", NULL, "c"};
    static const char *const empty[] = {"a", "", "c"};
    disagg_instance *ctx = step_of(YAML, "CTX_1");
    disagg_nodes *nodes = NULL;
    disagg_error *error = NULL;
    const char *hosts[8] = {"before"};
    const char *text = NULL;
    char *list = NULL;

    (void)config;
    CHECK_STATUS(disagg_nodes_new("n[1-", &nodes, &error), DISAGG_STATUS_BAD_NODES);
    CHECK_OK(disagg_error_text(error, &text));
    CHECK(strstr(text, "column") != NULL);
    disagg_error_free(error);
    CHECK_STATUS(disagg_nodes_new("n[1-999999999]", &nodes, NULL), DISAGG_STATUS_BAD_NODES);
    CHECK_STATUS(disagg_nodes_new_from_names(holes, 3, &nodes, NULL), DISAGG_STATUS_NULL_POINTER);
    CHECK_STATUS(disagg_nodes_new_from_names(empty, 3, &nodes, NULL), DISAGG_STATUS_BAD_NODES);
    CHECK(nodes == NULL);

    CHECK_OK(disagg_nodes_new_from_names(few, 3, &nodes, NULL));
    CHECK_STATUS(disagg_instance_hosts(ctx, nodes, hosts, 8), DISAGG_STATUS_BAD_NODES);
    CHECK_STATUS(disagg_instance_task_hosts(ctx, nodes, hosts, 8), DISAGG_STATUS_BAD_NODES);
    error = NULL;
    CHECK_STATUS(disagg_instance_hostlist(ctx, nodes, &list, &error), DISAGG_STATUS_BAD_NODES);
    CHECK_OK(disagg_error_text(error, &text));
    CHECK(strstr(text, "at least 4 nodes, of the plan's 4; this one has 3") != NULL);
    disagg_error_free(error);
    disagg_nodes_free(nodes);

    CHECK_OK(disagg_nodes_new("n[1-4]", &nodes, NULL));
    CHECK_STATUS(disagg_instance_task_hosts(ctx, nodes, hosts, 3), DISAGG_STATUS_BAD_ARGUMENT);
    CHECK_TEXT(hosts[0], "before");
    disagg_nodes_free(nodes);
    disagg_instance_free(ctx);
}

static void json_gives_the_plan_back(const char *config)
{
    disagg_plan *plan = plan_of(YAML);
    disagg_plan *again = NULL;
    disagg_error *error = NULL;
    disagg_diagnostic diagnostic = {.size = sizeof diagnostic};
    char *json = NULL, *same = NULL;

    (void)config;
    CHECK_OK(disagg_plan_to_json(plan, &json, NULL));
    CHECK_OK(disagg_plan_load_json(json, strlen(json), &again, NULL));
    CHECK_OK(disagg_plan_to_json(again, &same, NULL));
    CHECK_TEXT(same, json);
    disagg_plan_free(again);
    disagg_plan_free(plan);

    plan = NULL;
    CHECK_STATUS(disagg_plan_load_json(json, strlen(json) / 2, &plan, &error),
                 DISAGG_STATUS_BAD_PLAN);
    CHECK_OK(disagg_error_diagnostic(error, 0, &diagnostic));
    CHECK(diagnostic.line == 1 && diagnostic.column > 1);
    disagg_error_free(error);
    disagg_string_free(json);
    disagg_string_free(same);
    CHECK_STATUS(disagg_plan_load_json("", 0, &plan, NULL), DISAGG_STATUS_BAD_PLAN);
    CHECK_STATUS(disagg_plan_load_json("{\"schema\": 99}", 14, &plan, NULL),
                 DISAGG_STATUS_BAD_PLAN);
    CHECK_STATUS(disagg_plan_load_json("\xff", 1, &plan, NULL), DISAGG_STATUS_BAD_PLAN);
    CHECK_STATUS(disagg_plan_load_json("{}", SIZE_MAX, &plan, NULL), DISAGG_STATUS_BAD_ARGUMENT);
    CHECK_STATUS(disagg_plan_load("/nonexistent/plan.json", &plan, NULL), DISAGG_STATUS_BAD_INPUT);
    CHECK(plan == NULL);
}

static void launch_script_is_written(const char *config)
{
    disagg_plan *plan = plan_of(YAML);
    char *script = NULL;

    (void)config;
    CHECK_OK(disagg_plan_launch_script(plan, &script, NULL));
    CHECK(strncmp(script, "#!", 2) == 0);
    CHECK(strstr(script, "#SBATCH") != NULL && strstr(script, "srun") != NULL);
    disagg_string_free(script);
    disagg_plan_free(plan);
}

static void errors_have_positions_and_advice(const char *config)
{
    static const char bad[] = "benchmark: {mode: e2e}\n"
                              "hardware:\n"
                              "  gpus_per_node: zero\n"
                              "  num_gen_server: 1\n"
                              "  num_ctx_servers: -1\n";
    disagg_plan *plan = UNTOUCHED;
    disagg_error *error = NULL;
    disagg_diagnostic diagnostic = {.size = sizeof diagnostic};
    disagg_status status = DISAGG_STATUS_OK;
    const char *text = NULL;
    size_t count = 0, errors = 0;

    (void)config;
    CHECK_STATUS(plan_text(bad, &plan, &error), DISAGG_STATUS_BAD_INPUT);
    CHECK(plan == UNTOUCHED);
    CHECK_OK(disagg_error_status(error, &status));
    CHECK(status == DISAGG_STATUS_BAD_INPUT);
    CHECK_OK(disagg_error_count(error, &count));
    CHECK(count >= 3);
    CHECK_OK(disagg_error_text(error, &text));
    CHECK(strstr(text, "two_kinds.yaml:3:18: error: ") != NULL);
    for (size_t i = 0; i < count; i++) {
        CHECK_OK(disagg_error_diagnostic(error, i, &diagnostic));
        CHECK(i > 0 || diagnostic.severity == DISAGG_SEVERITY_ERROR);
        errors += diagnostic.severity == DISAGG_SEVERITY_ERROR;
        if (diagnostic.line == 3) {
            CHECK_TEXT(diagnostic.file, "two_kinds.yaml");
            CHECK(diagnostic.column == 18 && diagnostic.length == 4);
            CHECK(strstr(diagnostic.text, "^^^^") != NULL);
        }
    }
    CHECK(errors >= 3);
    CHECK_STATUS(disagg_error_diagnostic(error, count, &diagnostic), DISAGG_STATUS_NOT_FOUND);
    disagg_error_free(error);
}

static void warnings_and_notes_come_with_the_plan(const char *config)
{
    disagg_plan *plan = plan_of("benchmark: {mode: e2e}\n"
                                "hardware: {gpus_per_node: 4, num_ctx_servers: 1, "
                                "num_gen_servers: 1, gpu_tipe: x}\n"
                                "worker_config: {gen: {tensor_parallel_size: 6}}\n");
    disagg_diagnostic diagnostic = {.size = sizeof diagnostic};
    size_t count = 0;

    (void)config;
    CHECK_OK(disagg_plan_diagnostic_count(plan, &count));
    CHECK(count == 2);
    CHECK_OK(disagg_plan_diagnostic(plan, 0, &diagnostic));
    CHECK(diagnostic.severity == DISAGG_SEVERITY_WARNING && diagnostic.line == 2);
    CHECK_OK(disagg_plan_diagnostic(plan, 1, &diagnostic));
    CHECK(diagnostic.severity == DISAGG_SEVERITY_NOTE && diagnostic.line == 0);
    CHECK(diagnostic.file == NULL && strstr(diagnostic.message, "not full") != NULL);
    CHECK_STATUS(disagg_plan_diagnostic(plan, 2, &diagnostic), DISAGG_STATUS_NOT_FOUND);
    disagg_plan_free(plan);
}

static void hostile_configurations_are_errors(const char *config)
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
    disagg_options o = options();
    disagg_plan *plan = NULL;
    disagg_error *error = NULL;
    const char *text = NULL;

    (void)config;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        disagg_status status = plan_text(bad[i], &plan, &error);

        if (status != DISAGG_STATUS_BAD_INPUT) {
            fprintf(stderr, "%s: %s\n", bad[i], disagg_status_text(status));
            exit(1);
        }
        CHECK_OK(disagg_error_text(error, &text));
        CHECK(strstr(text, "error: ") != NULL);
        disagg_error_free(error);
    }
    CHECK_STATUS(disagg_plan_new_from_yaml(&o, YAML, SIZE_MAX, &plan, NULL),
                 DISAGG_STATUS_BAD_ARGUMENT);
    CHECK_STATUS(disagg_plan_new_from_yaml(&o, YAML, (size_t)1 << 30, &plan, NULL),
                 DISAGG_STATUS_BAD_ARGUMENT);
    o.config = "/nonexistent/x.yaml";
    CHECK_STATUS(disagg_plan_new(&o, &plan, NULL), DISAGG_STATUS_BAD_INPUT);
    CHECK(plan == NULL);
}

static void handles_are_good_after_an_error(const char *config)
{
    disagg_plan *plan = plan_of(YAML);
    disagg_plan *kept = plan;
    disagg_layout layout = {.size = sizeof layout};
    disagg_error *error = NULL;

    (void)config;
    for (int i = 0; i < 3; i++) {
        CHECK_STATUS(plan_text("a: [", &plan, &error), DISAGG_STATUS_BAD_INPUT);
        CHECK(plan == kept && error != NULL);
        disagg_error_free(error);
        error = NULL;
        CHECK_OK(disagg_plan_layout(plan, &layout));
        CHECK(layout.total_nodes == 4);
    }
    disagg_plan_free(kept);
}

static void steps_outlive_their_plan(const char *config)
{
    disagg_plan *plan = plan_of(YAML);
    disagg_instance *instance = NULL;
    disagg_nodes *nodes = NULL;
    char *list = NULL;

    (void)config;
    CHECK_OK(disagg_instance_new(plan, "CTX_0", &instance, NULL));
    disagg_plan_free(plan);
    CHECK_OK(disagg_nodes_new("n[1-4]", &nodes, NULL));
    CHECK_OK(disagg_instance_hostlist(instance, nodes, &list, NULL));
    CHECK_TEXT(list, "n3");
    disagg_string_free(list);
    disagg_nodes_free(nodes);
    disagg_instance_free(instance);
}

static void structs_may_be_larger_than_the_library_knows(const char *config)
{
    struct {
        disagg_layout known;
        uint64_t later;
    } layout = {.known = {.size = sizeof layout}, .later = 7};
    struct {
        disagg_options known;
        uint64_t later;
    } asked = {.known = options()};
    disagg_plan *plan = NULL;

    (void)config;
    asked.known.size = sizeof asked;
    CHECK_OK(disagg_plan_new_from_yaml(&asked.known, YAML, strlen(YAML), &plan, NULL));
    CHECK_OK(disagg_plan_layout(plan, &layout.known));
    CHECK(layout.known.size == sizeof layout);
    CHECK(layout.known.total_nodes == 4 && layout.later == 0);
    disagg_plan_free(plan);

    asked.later = 1;
    CHECK_STATUS(disagg_plan_new_from_yaml(&asked.known, YAML, strlen(YAML), &plan, NULL),
                 DISAGG_STATUS_BAD_ARGUMENT);
}

static void versions_agree(const char *config)
{
    (void)config;
    CHECK(disagg_abi_version() == DISAGG_ABI_VERSION);
    CHECK(strchr(disagg_version(), '.') != NULL);
    CHECK_TEXT(disagg_status_text(DISAGG_STATUS_OK), "success");
    CHECK_TEXT(disagg_status_text(12345), "unknown status");
}

/* Plans on its own and reads a plan that it shares. */
static void *planner(void *shared)
{
    for (int i = 0; i < 50; i++) {
        disagg_layout layout = {.size = sizeof layout};
        disagg_plan *plan = plan_of(YAML);
        disagg_instance *instance = NULL;
        disagg_error *error = NULL;
        char *json = NULL;

        CHECK_STATUS(plan_text("a: [", &plan, &error), DISAGG_STATUS_BAD_INPUT);
        disagg_error_free(error);
        CHECK_OK(disagg_plan_layout(shared, &layout));
        CHECK(layout.total_nodes == 4);
        CHECK_OK(disagg_instance_new_at(shared, (size_t)i % 5, &instance, NULL));
        CHECK_OK(disagg_plan_to_json(plan, &json, NULL));
        disagg_string_free(json);
        disagg_instance_free(instance);
        disagg_plan_free(plan);
    }
    return NULL;
}

static void two_threads_plan_at_once(const char *config)
{
    disagg_plan *shared = plan_of(YAML);
    pthread_t threads[2];

    (void)config;
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&threads[i], NULL, planner, shared) == 0);
    for (int i = 0; i < 2; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    disagg_plan_free(shared);
}

#define CASE(name) {#name, name}

static const struct {
    const char *name;
    void (*run)(const char *config);
} CASES[] = {
    CASE(layout_has_the_numbers),
    CASE(job_is_what_sbatch_is_asked_for),
    CASE(test_and_paths_are_named),
    CASE(options_choose),
    CASE(words_that_are_no_choice_are_refused),
    CASE(given_environment_is_read_instead_of_the_process),
    CASE(file_and_text_give_the_same_plan),
    CASE(roles_are_listed_with_their_sizes),
    CASE(steps_come_in_order_and_by_name),
    CASE(command_ends_with_null_and_has_its_own_junit_file),
    CASE(values_are_expanded_by_the_callback),
    CASE(environment_of_a_task_is_whole),
    CASE(nodes_are_sliced_and_pinned),
    CASE(lists_that_do_not_fit_are_refused),
    CASE(json_gives_the_plan_back),
    CASE(launch_script_is_written),
    CASE(errors_have_positions_and_advice),
    CASE(warnings_and_notes_come_with_the_plan),
    CASE(hostile_configurations_are_errors),
    CASE(handles_are_good_after_an_error),
    CASE(steps_outlive_their_plan),
    CASE(structs_may_be_larger_than_the_library_knows),
    CASE(versions_agree),
    CASE(two_threads_plan_at_once),
};

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "--list";
    const char *config = argc > 2 ? argv[2] : "";
    int ran = 0;

    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        if (strcmp(name, "--list") == 0) {
            printf("%s\n", CASES[i].name);
            ran++;
        } else if (strcmp(name, CASES[i].name) == 0) {
            CASES[i].run(config);
            ran++;
        }
    }
    if (ran == 0)
        fprintf(stderr, "there is no case %s\n", name);
    return ran == 0 ? 2 : 0;
}
