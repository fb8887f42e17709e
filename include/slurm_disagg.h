/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libslurm_disagg: what a disaggregated LLM-serving test runs where on Slurm.
 *
 * A test configuration goes in; a plan comes out: its size, its steps, their
 * environments and commands, and what sbatch is asked for. The library asks
 * Slurm nothing and starts nothing.
 *
 * Compile and link with `pkg-config --cflags --libs slurm_disagg`.
 *
 * Status     Every function that can fail returns a status, DISAGG_STATUS_OK
 *            being 0. It writes its outputs only on success, and no function
 *            reads an output before.
 * NULL       A pointer that is NULL gives DISAGG_STATUS_NULL_POINTER, unless
 *            its description says what NULL means. The functions that free take
 *            NULL and do nothing. `error` may always be NULL.
 * Ownership  A handle (disagg_plan, disagg_instance, ...) is the caller's and is
 *            freed, once, by the function of its name that ends in `_free`. What
 *            is read from a handle (texts, arrays) is borrowed: it lives as long
 *            as the handle and must not be changed. A `char *` stored through a
 *            `char **` is the caller's and is freed with disagg_string_free,
 *            never with free(3). What is given to a function is only read during
 *            the call.
 * Errors     A function that takes `error` stores an error object there when it
 *            fails, and only then. Start with `disagg_error *error = NULL`, and
 *            free what was stored before the variable is used again.
 * Structs    Every struct starts with its size, which the caller sets, so that
 *            later versions can append fields. A library that is older than the
 *            program fills fields that it does not know with zero, and refuses
 *            options that it does not know when they are set.
 * Text       Texts end with NUL and are UTF-8, unless a length is given beside.
 * Threads    Every handle is constant once it is made, so threads may share it
 *            without locks; only freeing needs to come last. Functions that read
 *            the process's environment (disagg_plan_new without
 *            `options->environment`, disagg_environment_new without `base`,
 *            disagg_instance_value without `lookup`) must not run while another
 *            thread changes it with setenv(3). Everything else may be called from
 *            any thread at any time. No function may be called from a signal
 *            handler.
 * Faults     A fault of the library itself gives DISAGG_STATUS_PANIC. It does not
 *            end the process, prints nothing, and leaves every handle good.
 */

#ifndef SLURM_DISAGG_H
#define SLURM_DISAGG_H

/* Generated from src/capi by `make header`; do not edit. */

#include <stddef.h>
#include <stdint.h>

/**
 * The version of the interface that this header describes. It counts up with every addition;
 * what is incompatible gets another SONAME.
 */
#define DISAGG_ABI_VERSION 1

/**
 * What a call came to. A number, once given, is never given another meaning; later versions may
 * add some.
 */
typedef enum {
    /**
     * It did what was asked.
     */
    DISAGG_STATUS_OK = 0,
    /**
     * A pointer that must not be NULL is NULL.
     */
    DISAGG_STATUS_NULL_POINTER = 1,
    /**
     * An argument has no meaning: a `size` that no version has, text that is not UTF-8, a word
     * that is none of those to choose from, an array that is too small.
     */
    DISAGG_STATUS_BAD_ARGUMENT = 2,
    /**
     * The configuration, the site's settings or the environment are missing or wrong: the error's
     * diagnostics say what, where and what to do.
     */
    DISAGG_STATUS_BAD_INPUT = 3,
    /**
     * A text is not a plan's JSON form, or a plan's that another version wrote.
     */
    DISAGG_STATUS_BAD_PLAN = 4,
    /**
     * There is no such step, or nothing with this index.
     */
    DISAGG_STATUS_NOT_FOUND = 5,
    /**
     * A list of nodes cannot be read, or has fewer nodes than the plan.
     */
    DISAGG_STATUS_BAD_NODES = 6,
    /**
     * The operating system refused something, such as the current directory.
     */
    DISAGG_STATUS_SYSTEM = 7,
    /**
     * A fault of the library itself. Nothing was written, every handle is still good; please
     * report the error's text.
     */
    DISAGG_STATUS_PANIC = 100,
} disagg_status;

/**
 * How much a diagnostic weighs.
 */
typedef enum {
    /**
     * Worth knowing; nothing is wrong.
     */
    DISAGG_SEVERITY_NOTE = 0,
    /**
     * Probably a mistake; the plan was made all the same.
     */
    DISAGG_SEVERITY_WARNING = 1,
    /**
     * No plan could be made.
     */
    DISAGG_SEVERITY_ERROR = 2,
} disagg_severity;

/**
 * The environment that a task of a step runs in. It never changes, so any number of threads may
 * use it at the same time; free it once, with `disagg_environment_free`, after the last use. It
 * does not need its instance any more.
 */
typedef struct disagg_environment disagg_environment;

/**
 * Why a call failed: at least one diagnostic. It never changes, so any number of threads may read
 * it at the same time. Freed with `disagg_error_free`.
 */
typedef struct disagg_error disagg_error;

/**
 * One step of a plan. It never changes, so any number of threads may use it at the same time; free
 * it once, with `disagg_instance_free`, after the last use. It does not need its plan any more.
 */
typedef struct disagg_instance disagg_instance;

/**
 * The nodes of an allocation, in its order. It never changes, so any number of threads may use it
 * at the same time; free it once, with `disagg_nodes_free`, after the last use.
 */
typedef struct disagg_nodes disagg_nodes;

/**
 * A plan. It never changes, so any number of threads may use it at the same time; free it once,
 * with `disagg_plan_free`, after the last use. The steps made from it may outlive it.
 */
typedef struct disagg_plan disagg_plan;

/**
 * One thing that is wrong, or worth saying. Its texts belong to the handle that it was read from
 * and live as long.
 */
typedef struct {
    /**
     * Set by the caller: `sizeof (disagg_diagnostic)`.
     */
    size_t size;
    /**
     * What is wrong: one sentence.
     */
    const char *message;
    /**
     * The file, or the name of the text, that it is in; NULL when it is in none.
     */
    const char *file;
    /**
     * What to do about it; NULL when the message says it.
     */
    const char *help;
    /**
     * All of it for a person: `file:line:column: error: message`, the line, a caret, the help.
     */
    const char *text;
    /**
     * How much it weighs.
     */
    disagg_severity severity;
    /**
     * The line in `file`, from 1; 0 without a file.
     */
    uint32_t line;
    /**
     * The column, in characters, from 1; 0 without a file.
     */
    uint32_t column;
    /**
     * How many characters are meant; 0 without a file.
     */
    uint32_t length;
} disagg_diagnostic;

/**
 * The input of a plan. Set every byte to zero, then `size` and the members that you need:
 * `disagg_options options = {.size = sizeof options, .config = "my_test.yaml"};`
 *
 * All but `config` may be NULL: then the environment, the settings files and the defaults decide,
 * in this order. The texts are only read during the call.
 */
typedef struct {
    /**
     * `sizeof (disagg_options)`.
     */
    size_t size;
    /**
     * The test configuration: the path of a YAML file, or a name to be looked up in the source
     * tree. A text with a slash, or that ends in `.yaml` or `.yml`, is a path.
     */
    const char *config;
    /**
     * The TensorRT-LLM source tree; NULL: the tree that contains the configuration.
     */
    const char *trtllm_dir;
    /**
     * The directory of the models; NULL: `CLUSTER_LLM_DATA` of the environment.
     */
    const char *models_dir;
    /**
     * The directory for the files and results of the run; NULL: `disagg_` and the
     * configuration's name, in the current directory.
     */
    const char *workspace;
    /**
     * The settings file to read instead of those of the machine and the user.
     */
    const char *site;
    /**
     * The rule set, `classic`, `unified` or `current`; NULL: the source tree or the form of the test id decides.
     */
    const char *rules;
    /**
     * How servers share nodes: `exclusive` or `packed`.
     */
    const char *placement;
    /**
     * The node of the router and the client: `first`, `last`, `ctx` or `own`.
     */
    const char *frontend_node;
    /**
     * The Slurm account.
     */
    const char *account;
    /**
     * The Slurm partition.
     */
    const char *partition;
    /**
     * The time limit, in Slurm's form (`04:00:00`).
     */
    const char *time;
    /**
     * The job's name.
     */
    const char *job_name;
    /**
     * The MPI type of the servers' steps, as `srun --mpi` takes it.
     */
    const char *mpi;
    /**
     * The container image that the steps run in.
     */
    const char *container_image;
    /**
     * A script that each step runs instead of its command.
     */
    const char *run_script;
    /**
     * A script that runs on every node before the servers start.
     */
    const char *install_script;
    /**
     * The absolute directory that relative paths start from; NULL: the process's.
     */
    const char *current_dir;
    /**
     * The environment to read instead of the process's: `NAME=VALUE` texts, then NULL. Give one
     * where another thread may change the process's environment meanwhile.
     */
    char *const *environment;
} disagg_options;

/**
 * What a plan says on the size of the test.
 */
typedef struct {
    /**
     * Set by the caller: `sizeof (disagg_layout)`.
     */
    size_t size;
    /**
     * Context servers.
     */
    uint32_t num_ctx_servers;
    /**
     * Generation servers.
     */
    uint32_t num_gen_servers;
    /**
     * GPUs of each node.
     */
    uint32_t gpus_per_node;
    /**
     * World size of a context server: its GPUs, one rank each.
     */
    uint32_t gpus_per_ctx_server;
    /**
     * World size of a generation server.
     */
    uint32_t gpus_per_gen_server;
    /**
     * Nodes that a context server spans.
     */
    uint32_t nodes_per_ctx_server;
    /**
     * Nodes that a generation server spans.
     */
    uint32_t nodes_per_gen_server;
    /**
     * Nodes of the whole job.
     */
    uint32_t total_nodes;
    /**
     * GPUs of the whole job: `total_nodes` times `gpus_per_node`.
     */
    uint32_t total_gpus;
    /**
     * 1 when CTX and GEN steps run under `trtllm-llmapi-launch`, else 0.
     */
    uint32_t llmapi_launch;
} disagg_layout;

/**
 * The test that a plan is for. The texts are borrowed from the plan.
 */
typedef struct {
    /**
     * Set by the caller: `sizeof (disagg_test)`.
     */
    size_t size;
    /**
     * `MODULE::FUNCTION[ID]`, as pytest and the test lists name it.
     */
    const char *node_id;
    /**
     * The pytest module.
     */
    const char *module;
    /**
     * The test function.
     */
    const char *function;
    /**
     * The id in brackets.
     */
    const char *id;
    /**
     * What is measured: `e2e`, `gen_only`, ...
     */
    const char *mode;
    /**
     * The configuration's name.
     */
    const char *config;
    /**
     * The configuration's path.
     */
    const char *config_path;
    /**
     * SHA-256 of the configuration's bytes, in lower-case hexadecimal.
     */
    const char *config_sha256;
    /**
     * The generation of rules that the plan follows.
     */
    const char *rules;
    /**
     * How servers share nodes, by the name that `disagg_options` takes.
     */
    const char *placement;
    /**
     * The node of DISAGG_SERVER and BENCHMARK, by the name that `disagg_options` takes.
     */
    const char *frontend_node;
} disagg_test;

/**
 * The allocation that a plan asks for, in sbatch's terms. The texts are borrowed from the plan.
 */
typedef struct {
    /**
     * Set by the caller: `sizeof (disagg_job)`.
     */
    size_t size;
    /**
     * `--job-name`.
     */
    const char *name;
    /**
     * `--output`.
     */
    const char *output;
    /**
     * `--time`, in Slurm's form.
     */
    const char *time;
    /**
     * `--partition`; NULL: Slurm's default.
     */
    const char *partition;
    /**
     * `--account`; NULL: Slurm's default.
     */
    const char *account;
    /**
     * `--nodes`.
     */
    uint32_t nodes;
    /**
     * `--ntasks`: one for each GPU.
     */
    uint32_t ntasks;
    /**
     * `--ntasks-per-node`.
     */
    uint32_t ntasks_per_node;
    /**
     * `--gpus-per-node`.
     */
    uint32_t gpus_per_node;
    /**
     * `--segment`, in nodes; 0: none.
     */
    uint32_t segment;
    /**
     * The time limit in minutes, rounded up as sbatch does; `UINT32_MAX`: no limit.
     */
    uint32_t minutes;
} disagg_job;

/**
 * Where things are. The texts are borrowed from the plan.
 */
typedef struct {
    /**
     * Set by the caller: `sizeof (disagg_paths)`.
     */
    size_t size;
    /**
     * D, the source tree.
     */
    const char *source_dir;
    /**
     * M, the models.
     */
    const char *models_dir;
    /**
     * W, the workspace of the submission.
     */
    const char *workspace;
    /**
     * A script that each step runs instead of its command; NULL: none.
     */
    const char *run_script;
    /**
     * A script that runs on every node before the servers start; NULL: none.
     */
    const char *install_script;
} disagg_paths;

/**
 * A kind of step. The text is borrowed from the plan.
 */
typedef struct {
    /**
     * Set by the caller: `sizeof (disagg_role)`.
     */
    size_t size;
    /**
     * `GEN`, `CTX`, `DISAGG_SERVER` or `BENCHMARK`.
     */
    const char *name;
    /**
     * How many steps of this kind there are: GEN_0, GEN_1, ...
     */
    uint32_t count;
    /**
     * Nodes that each of them spans.
     */
    uint32_t nodes;
    /**
     * Tasks (ranks) of each.
     */
    uint32_t tasks;
    /**
     * Tasks on each full node.
     */
    uint32_t tasks_per_node;
} disagg_role;

/**
 * The size and the flags of a Slurm step. The texts are borrowed from the instance.
 */
typedef struct {
    /**
     * Set by the caller: `sizeof (disagg_step)`.
     */
    size_t size;
    /**
     * The step's name: `GEN_0`, `CTX_3`, `DISAGG_SERVER`, `BENCHMARK`.
     */
    const char *name;
    /**
     * The working directory.
     */
    const char *directory;
    /**
     * The MPI type (`srun --mpi`); NULL for steps that are no MPI programs.
     */
    const char *mpi;
    /**
     * The JUnit file that its command writes; NULL when it writes none.
     */
    const char *junit_file;
    /**
     * Nodes that it spans.
     */
    uint32_t nodes;
    /**
     * Its first node, counted from 0 in the order of the allocation's list.
     */
    uint32_t first_node;
    /**
     * Tasks (ranks).
     */
    uint32_t tasks;
    /**
     * Tasks on each full node.
     */
    uint32_t tasks_per_node;
    /**
     * GPUs that it uses on each full node; 0 for steps that use none.
     */
    uint32_t gpus_per_node;
    /**
     * The first of them, counted from 0.
     */
    uint32_t first_gpu;
    /**
     * 1 when it may share its nodes with other steps (`srun --overlap`), else 0.
     */
    uint32_t overlap;
    /**
     * 1 when one failed task ends the step (`srun --kill-on-bad-exit=1`), else 0.
     */
    uint32_t kill_on_bad_exit;
} disagg_step;

/**
 * An environment variable of a step. The texts are borrowed from the instance.
 */
typedef struct {
    /**
     * Set by the caller: `sizeof (disagg_variable)`.
     */
    size_t size;
    /**
     * Its name.
     */
    const char *name;
    /**
     * Its value as written: `$NAME` and `${NAME}` are references to variables of the step, `$$`
     * is a dollar sign, and nothing else is special. `disagg_instance_value` gives the value.
     */
    const char *written;
    /**
     * 1 when it refers to no variable, so that its value is the same in every task, else 0.
     */
    uint32_t literal;
    /**
     * 1 when its value must not be shown to anybody, else 0.
     */
    uint32_t secret;
} disagg_variable;

/**
 * Looks a variable up: returns its value, or NULL when it is not set. The value is copied before
 * the next call. `context` is what was given with the function. It must return: no `longjmp`, no
 * C++ exception.
 */
typedef const char *(*disagg_lookup)(const char *name, void *context);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the interface that the loaded library has. A program needs one that is at least
 * the `DISAGG_ABI_VERSION` that it was compiled with.
 */
uint32_t disagg_abi_version(void);

/**
 * The release of the library, as text (`0.1.0`). It is never freed.
 */
const char *disagg_version(void);

/**
 * A few words on a status, for messages without an error object. The text is never freed. A number
 * that is no status of this version gives `unknown status`.
 */
const char *disagg_status_text(uint32_t status);

/**
 * Frees a text that a function handed over. NULL is allowed. A text that is borrowed from a
 * handle must not be given.
 */
void disagg_string_free(char *string);

/**
 * The status that the failed call returned.
 */
disagg_status disagg_error_status(const disagg_error *error, disagg_status *status);

/**
 * All diagnostics of an error as one text for a person, several lines long. It is borrowed from
 * the error.
 */
disagg_status disagg_error_text(const disagg_error *error,
                                const char **text);

/**
 * How many diagnostics an error has; at least one.
 */
disagg_status disagg_error_count(const disagg_error *error, size_t *count);

/**
 * One diagnostic of an error by its index, from 0: errors come first, so the one with index 0 is
 * why the call failed. Its texts are borrowed from the error.
 */
disagg_status disagg_error_diagnostic(const disagg_error *error,
                                      size_t index,
                                      disagg_diagnostic *diagnostic);

/**
 * Frees an error and the texts borrowed from it. NULL is allowed.
 */
void disagg_error_free(disagg_error *error);

/**
 * Makes a plan from a configuration and stores it in `*plan`; free it with `disagg_plan_free`.
 *
 * It reads the configuration, the site's settings files and the environment. `error` may be NULL;
 * else, on failure, `*error` receives an error object to be freed with `disagg_error_free`.
 */
disagg_status disagg_plan_new(const disagg_options *options,
                              disagg_plan **plan,
                              disagg_error **error);

/**
 * The same from `length` bytes of YAML at `yaml`: no configuration file is read, and
 * `options->config` only says what the text is called. The test's name is its last part, without
 * `.yaml`.
 */
disagg_status disagg_plan_new_from_yaml(const disagg_options *options,
                                        const char *yaml,
                                        size_t length,
                                        disagg_plan **plan,
                                        disagg_error **error);

/**
 * Reads a plan from a file with its JSON form (`plan.json` of a workspace), and stores it in
 * `*plan`; free it with `disagg_plan_free`. `error`: as for `disagg_plan_new`.
 */
disagg_status disagg_plan_load(const char *path,
                               disagg_plan **plan,
                               disagg_error **error);

/**
 * Reads a plan from `length` bytes of its JSON form at `json`, such as the value of
 * `SLURM_DISAGG_PLAN` in a job, and stores it in `*plan`; free it with `disagg_plan_free`.
 * `error`: as for `disagg_plan_new`.
 */
disagg_status disagg_plan_load_json(const char *json,
                                    size_t length,
                                    disagg_plan **plan,
                                    disagg_error **error);

/**
 * Frees a plan and the texts borrowed from it. NULL is allowed.
 */
void disagg_plan_free(disagg_plan *plan);

/**
 * Fills `*layout`, whose `size` the caller has set.
 */
disagg_status disagg_plan_layout(const disagg_plan *plan, disagg_layout *layout);

/**
 * Fills `*test`, whose `size` the caller has set. The texts are borrowed from the plan.
 */
disagg_status disagg_plan_test(const disagg_plan *plan, disagg_test *test);

/**
 * Fills `*job`, whose `size` the caller has set. The texts are borrowed from the plan.
 */
disagg_status disagg_plan_job(const disagg_plan *plan, disagg_job *job);

/**
 * Fills `*paths`, whose `size` the caller has set. The texts are borrowed from the plan.
 */
disagg_status disagg_plan_paths(const disagg_plan *plan, disagg_paths *paths);

/**
 * How many kinds of steps a plan has.
 */
disagg_status disagg_plan_role_count(const disagg_plan *plan, size_t *count);

/**
 * Fills `*role`, whose `size` the caller has set, with a kind of step by its index, from 0: GEN,
 * CTX, DISAGG_SERVER, BENCHMARK, as far as the plan has them.
 */
disagg_status disagg_plan_role(const disagg_plan *plan,
                               size_t index,
                               disagg_role *role);

/**
 * How many warnings and notes there are on a plan.
 */
disagg_status disagg_plan_diagnostic_count(const disagg_plan *plan, size_t *count);

/**
 * Fills `*diagnostic`, whose `size` the caller has set, with a warning or note by its index, from
 * 0; warnings come first. The texts are borrowed from the plan.
 */
disagg_status disagg_plan_diagnostic(const disagg_plan *plan,
                                     size_t index,
                                     disagg_diagnostic *diagnostic);

/**
 * Writes a plan's JSON form, on one line, and stores it in `*json`; free it with
 * `disagg_string_free`. It holds the values of all variables, secret ones too. `error`: as for
 * `disagg_plan_new`.
 */
disagg_status disagg_plan_to_json(const disagg_plan *plan,
                                  char **json,
                                  disagg_error **error);

/**
 * Writes the launch script: a batch script that starts all steps of the plan, waits for them and
 * cleans up. It is stored in `*script`; free it with `disagg_string_free`. `error`: as for
 * `disagg_plan_new`.
 */
disagg_status disagg_plan_launch_script(const disagg_plan *plan,
                                        char **script,
                                        disagg_error **error);

/**
 * How many steps a plan has.
 */
disagg_status disagg_plan_instance_count(const disagg_plan *plan, size_t *count);

/**
 * Makes a step of a plan by its name (`GEN_0`, `CTX_3`, `DISAGG_SERVER`, `BENCHMARK`) and stores
 * it in `*instance`; free it with `disagg_instance_free`. `error`: as for `disagg_plan_new`.
 */
disagg_status disagg_instance_new(const disagg_plan *plan,
                                  const char *name,
                                  disagg_instance **instance,
                                  disagg_error **error);

/**
 * The same by its index, from 0: GEN servers, CTX servers, DISAGG_SERVER, BENCHMARK.
 */
disagg_status disagg_instance_new_at(const disagg_plan *plan,
                                     size_t index,
                                     disagg_instance **instance,
                                     disagg_error **error);

/**
 * Frees a step and what is borrowed from it. NULL is allowed.
 */
void disagg_instance_free(disagg_instance *instance);

/**
 * Fills `*step`, whose `size` the caller has set. The texts are borrowed from the instance.
 */
disagg_status disagg_instance_step(const disagg_instance *instance,
                                   disagg_step *step);

/**
 * The command of a step: an array that ends with NULL, as `execv` takes it. It is borrowed from
 * the instance and must not be changed.
 */
disagg_status disagg_instance_argv(const disagg_instance *instance,
                                   char *const **argv);

/**
 * The names of the variables that are removed from a step's environment before any is set: an
 * array that ends with NULL. It is borrowed from the instance and must not be changed.
 */
disagg_status disagg_instance_unset(const disagg_instance *instance,
                                    char *const **names);

/**
 * How many variables a step sets.
 */
disagg_status disagg_instance_variable_count(const disagg_instance *instance,
                                             size_t *count);

/**
 * Fills `*variable`, whose `size` the caller has set, with a variable that a step sets, by its
 * index, from 0, in the order in which they are set. The texts are borrowed from the instance.
 */
disagg_status disagg_instance_variable(const disagg_instance *instance,
                                       size_t index,
                                       disagg_variable *variable);

/**
 * The value of a variable that a step sets, by its index, in the environment of one task.
 *
 * `lookup` gives that environment, before the step's variables are removed and set; it is called
 * on this thread, with `context`, once per reference. NULL: the process's environment. The value
 * is stored in `*value`; free it with `disagg_string_free`.
 */
disagg_status disagg_instance_value(const disagg_instance *instance,
                                    size_t index,
                                    disagg_lookup lookup,
                                    void *context,
                                    char **value);

/**
 * Makes the environment of a task: what is in `base`, without what the step removes, and with what
 * it sets, references expanded. Made in the task itself, or from the task's own environment,
 * `${SLURM_LOCALID}` and the like have the values of this task.
 *
 * `base` is an array of `NAME=VALUE` texts that ends with NULL, such as `environ`; NULL: the
 * process's environment. The result is stored in `*environment`; free it with
 * `disagg_environment_free`. `error`: as for `disagg_plan_new`.
 */
disagg_status disagg_environment_new(const disagg_instance *instance,
                                     char *const *base,
                                     disagg_environment **environment,
                                     disagg_error **error);

/**
 * The environment as an array of `NAME=VALUE` texts that ends with NULL, as `execve` takes it. It
 * is borrowed from the environment and must not be changed.
 */
disagg_status disagg_environment_vector(const disagg_environment *environment,
                                        char *const **vector);

/**
 * Frees an environment and the array borrowed from it. NULL is allowed.
 */
void disagg_environment_free(disagg_environment *environment);

/**
 * Reads a hostlist in Slurm's notation (`node[1-3,7]`, the value of `SLURM_JOB_NODELIST`) and
 * stores the nodes in `*nodes`; free them with `disagg_nodes_free`. `error`: as for
 * `disagg_plan_new`.
 */
disagg_status disagg_nodes_new(const char *hostlist,
                               disagg_nodes **nodes,
                               disagg_error **error);

/**
 * The same from an array of `count` names, each the name of one node.
 */
disagg_status disagg_nodes_new_from_names(const char *const *names,
                                          size_t count,
                                          disagg_nodes **nodes,
                                          disagg_error **error);

/**
 * How many nodes there are.
 */
disagg_status disagg_nodes_count(const disagg_nodes *nodes, size_t *count);

/**
 * The names of the nodes: an array that ends with NULL. It is borrowed from the nodes and must not
 * be changed.
 */
disagg_status disagg_nodes_names(const disagg_nodes *nodes,
                                 char *const **names);

/**
 * Frees the nodes and their names. NULL is allowed.
 */
void disagg_nodes_free(disagg_nodes *nodes);

/**
 * Fills `hosts`, an array with room for `capacity` names, with the nodes that a step gets: as many
 * as `disagg_step.nodes` says. The names are borrowed from the nodes.
 */
disagg_status disagg_instance_hosts(const disagg_instance *instance,
                                    const disagg_nodes *nodes,
                                    const char **hosts,
                                    size_t capacity);

/**
 * Fills `hosts`, an array with room for `capacity` names, with the node of each task of a step, in
 * the order of ranks: as many as `disagg_step.tasks` says. This is what a host file for
 * `srun --distribution=arbitrary` holds. The names are borrowed from the nodes.
 */
disagg_status disagg_instance_task_hosts(const disagg_instance *instance,
                                         const disagg_nodes *nodes,
                                         const char **hosts,
                                         size_t capacity);

/**
 * Writes the nodes that a step gets as a hostlist, for `srun --nodelist`, and stores it in
 * `*hostlist`; free it with `disagg_string_free`. `error`: as for `disagg_plan_new`.
 */
disagg_status disagg_instance_hostlist(const disagg_instance *instance,
                                       const disagg_nodes *nodes,
                                       char **hostlist,
                                       disagg_error **error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SLURM_DISAGG_H */
