/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libslurm_disagg: the planner of slurm-disagg, for C programs.
 *
 * It turns the configuration of a disaggregated LLM-serving test, or a recipe of any
 * engine, into a plan:
 * the size of the job, its steps, and the nodes, environment and command of each
 * step. It does not talk to Slurm and does not start processes.
 *
 * Compile and link with `pkg-config --cflags --libs slurm_disagg`, for a static
 * program with `pkg-config --static`.
 *
 * Status     Functions that can fail return a disagg_status; DISAGG_STATUS_OK is
 *            0. They write their output only on success and never read it.
 * Errors     On failure, and only then, `*error` receives an error object: what
 *            is wrong and what to do. Start with `disagg_error *error = NULL`, and
 *            free the object before you use the variable again. `error` may be
 *            NULL.
 * NULL       A NULL argument gives DISAGG_STATUS_NULL_POINTER unless the function
 *            says what NULL means. Functions without a status return NULL for it.
 * Ownership  The caller owns handles (disagg_plan, disagg_instance,
 *            disagg_environment, disagg_error) and frees each once, with the
 *            function that ends in `_free`. What is borrowed from a handle lives as
 *            long as the handle and must not be changed. A `char *` that is stored
 *            through a `char **` belongs to the caller; free it with
 *            disagg_string_free, not with free(3). Arguments are only read during
 *            the call.
 * Structs    The library allocates the structs that it returns. Later versions
 *            append fields: check disagg_abi_version. disagg_options,
 *            disagg_setting and disagg_variable do not grow; new inputs become
 *            settings.
 * Text       Texts end with NUL and are UTF-8, except values of environments.
 * Threads    Every function may be called from any thread, but not from a signal
 *            handler. Handles never change, so threads may share them without
 *            locks; free a handle after its last use. disagg_plan_new without
 *            `options->environment` and disagg_environment_new without `base` read
 *            the process's environment: no other thread may change it with
 *            setenv(3) meanwhile.
 * Panics     An internal error gives DISAGG_STATUS_INTERNAL, or NULL. It does not end
 *            the process, prints nothing, and every handle can still be used.
 */

#ifndef SLURM_DISAGG_H
#define SLURM_DISAGG_H

/* Generated from src/capi by `make header`; do not edit. */

#include <stddef.h>
#include <stdint.h>

/**
 * The version of the interface that this header describes. Every addition increases it;
 * incompatible changes get another SONAME.
 */
#define DISAGG_ABI_VERSION 3

/**
 * The result of a call. A number never changes its meaning; later versions may add some.
 */
typedef enum {
    /**
     * Success.
     */
    DISAGG_STATUS_OK = 0,
    /**
     * A pointer is NULL that must not be NULL.
     */
    DISAGG_STATUS_NULL_POINTER = 1,
    /**
     * An argument is invalid: text that is not UTF-8, an unknown setting, a value that the setting
     * does not have.
     */
    DISAGG_STATUS_BAD_ARGUMENT = 2,
    /**
     * The configuration, site.yaml, the environment or a file is missing or wrong.
     */
    DISAGG_STATUS_BAD_INPUT = 3,
    /**
     * The text is not a plan, or a plan of another version.
     */
    DISAGG_STATUS_BAD_PLAN = 4,
    /**
     * The plan has no such step.
     */
    DISAGG_STATUS_NOT_FOUND = 5,
    /**
     * The hostlist is invalid, or has fewer nodes than the plan.
     */
    DISAGG_STATUS_BAD_NODES = 6,
    /**
     * The operating system refused a request, such as the one for the current directory.
     */
    DISAGG_STATUS_SYSTEM = 7,
    /**
     * Internal error: please report the error's text. No output was written, and every handle can
     * still be used.
     */
    DISAGG_STATUS_INTERNAL = 100,
} disagg_status;

/**
 * How a job asks for its GPUs.
 */
typedef enum {
    /**
     * `--gpus-per-node`.
     */
    DISAGG_GPU_REQUEST_PER_NODE = 0,
    /**
     * `--gres=gpu:N`, N as `gpus_per_node`.
     */
    DISAGG_GPU_REQUEST_GRES = 1,
    /**
     * Not at all: Slurm does not count the cluster's GPUs.
     */
    DISAGG_GPU_REQUEST_NONE = 2,
    /**
     * `--gpus` with the GPUs of all nodes together, and `--gpus-per-node`.
     */
    DISAGG_GPU_REQUEST_TOTAL = 3,
} disagg_gpu_request;

/**
 * What a role is for.
 */
typedef enum {
    /**
     * Starts before all others and runs as long as they do.
     */
    DISAGG_PURPOSE_SERVICE = 0,
    /**
     * Runs and ends before the servers start.
     */
    DISAGG_PURPOSE_CHECK = 1,
    /**
     * Serves requests. The run fails when it ends before the client.
     */
    DISAGG_PURPOSE_SERVER = 2,
    /**
     * Passes requests on to servers; otherwise as a server.
     */
    DISAGG_PURPOSE_ROUTER = 3,
    /**
     * Sends requests. Its result is the result of the run.
     */
    DISAGG_PURPOSE_CLIENT = 4,
} disagg_purpose;

/**
 * The environment and the command of one task of a step. It never changes. Free it with
 * `disagg_environment_free`. It does not need its instance any more.
 */
typedef struct disagg_environment disagg_environment;

/**
 * Why a call failed. It never changes. Free it with `disagg_error_free`.
 */
typedef struct disagg_error disagg_error;

/**
 * A step of a plan. It never changes. Free it with `disagg_instance_free`. It does not need its
 * plan any more.
 */
typedef struct disagg_instance disagg_instance;

/**
 * A plan. It never changes. Free it with `disagg_plan_free`. Instances may outlive it.
 */
typedef struct disagg_plan disagg_plan;

/**
 * A setting with its value. The names are those of site.yaml: `trtllm_dir`, `models_dir`,
 * `perf_test_module`, `perf_test_function`, `perf_test_prefix`, `placement`, `frontend_node`,
 * `interface`, `partition`, `account`, `qos`, `reservation`, `constraint`, `exclusive`, `mem`, `gpu_request`,
 * `time`, `job_name`, `segment`, `sbatch_args`, `srun_args`, `mpi_type`, `container_image`,
 * `container_mounts`, `run_script`, `install_script`, `precheck`, `max_failed`, `ucx` (only in the file),
 * `profiles` and `secrets`; and besides them `site`, `workspace`, `prefix_script`, `stage_name`, `cluster_name` and `rules`.
 * Their meanings and values are in docs/user.md.
 */
typedef struct {
    /**
     * The name; NULL ends an array of settings.
     */
    const char *name;
    /**
     * The value; NULL: not set. Of a list, such as `sbatch_args`, one entry.
     */
    const char *value;
} disagg_setting;

/**
 * The input of a plan. Fields that are not needed are NULL:
 * `disagg_options options = {.config = "my_test.yaml"};`
 */
typedef struct {
    /**
     * The test configuration or recipe: the path of a YAML file, or a name of a test's that is looked
     * up in the source tree. A text with a slash, or that ends in `.yaml`, `.yml` or `.json`, is a path. NULL: the
     * test id names it.
     */
    const char *config;
    /**
     * The configuration itself, as YAML. Then no configuration file is read, and `config` is the
     * path that messages and the test's name use.
     */
    const char *config_text;
    /**
     * The test id, such as `disagg_upload-e2e-my_test`.
     */
    const char *test_id;
    /**
     * Settings, which win over site.yaml and the environment; the array ends with a NULL name.
     */
    const disagg_setting *settings;
    /**
     * The absolute directory that relative paths start from. NULL: the process's current
     * directory.
     */
    const char *current_dir;
    /**
     * The environment: `NAME=VALUE` texts, then NULL. NULL: the process's environment.
     */
    char *const *environment;
} disagg_options;

/**
 * The allocation of a plan, with the names of sbatch's options. A NULL text or 0 means that the
 * option is not used.
 */
typedef struct {
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
     * `--partition`.
     */
    const char *partition;
    /**
     * `--account`.
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
     * `--segment`, in nodes.
     */
    uint32_t segment;
    /**
     * The time limit in minutes, rounded up as sbatch does; `UINT32_MAX`: no limit.
     */
    uint32_t minutes;
    /**
     * `--qos`.
     */
    const char *qos;
    /**
     * `--constraint`.
     */
    const char *constraint;
    /**
     * `--reservation`.
     */
    const char *reservation;
    /**
     * `--mem`, in Slurm's form.
     */
    const char *mem;
    /**
     * Further options for sbatch, one word each; the array ends with NULL.
     */
    char *const *sbatch_args;
    /**
     * How the GPUs are asked for.
     */
    disagg_gpu_request gpu_request;
    /**
     * 1: `--exclusive`.
     */
    uint32_t exclusive;
} disagg_job;

/**
 * A kind of step.
 */
typedef struct {
    /**
     * Its name.
     */
    const char *name;
    /**
     * What it is for.
     */
    disagg_purpose purpose;
    /**
     * How many steps it has; 0 when the plan does not run it.
     */
    uint32_t count;
    /**
     * Nodes of each step.
     */
    uint32_t nodes;
    /**
     * Tasks (ranks) of each step.
     */
    uint32_t tasks;
    /**
     * Tasks on each full node of a step.
     */
    uint32_t tasks_per_node;
    /**
     * GPUs that a step uses on each full node; 0: none.
     */
    uint32_t gpus_per_node;
} disagg_role;

/**
 * An environment variable of a step.
 */
typedef struct {
    /**
     * Its name; NULL ends an array of variables.
     */
    const char *name;
    /**
     * Its value, where `${NAME}` refers to a variable of the task before any is set, and `$$` is a
     * dollar sign. `disagg_environment_new` replaces both.
     */
    const char *value;
    /**
     * 1 when the value must not be shown to anybody, else 0.
     */
    uint32_t secret;
} disagg_variable;

/**
 * A file that a step's command reads.
 */
typedef struct {
    /**
     * Its absolute path, in the workspace; NULL ends an array of files.
     */
    const char *path;
    /**
     * What is in it. It may hold secrets, so nobody but its owner should be able to read it.
     */
    const char *text;
} disagg_file;

/**
 * A Slurm step. Arrays of texts end with NULL.
 */
typedef struct {
    /**
     * Its name, such as `GEN_0`.
     */
    const char *name;
    /**
     * The name of its role, such as `GEN`.
     */
    const char *role;
    /**
     * The working directory.
     */
    const char *directory;
    /**
     * The command, as `execv` takes it; with a run script, `bash` and the script. Where tasks have
     * different commands it is that of the first node, and `${NAME}` refers to a variable of the
     * task: `disagg_environment_command` is the command of one task.
     */
    char *const *argv;
    /**
     * Variables that are removed from the environment of its tasks.
     */
    char *const *unset;
    /**
     * Beginnings of names: such variables are removed too, except those of `kept`.
     * `disagg_environment_new` removes them where the step runs no script.
     */
    char *const *cleared;
    /**
     * Variables that `cleared` does not remove.
     */
    char *const *kept;
    /**
     * Variables that are set after that; the array ends with a NULL name.
     */
    const disagg_variable *set;
    /**
     * Its log, a file in the workspace.
     */
    const char *log_file;
    /**
     * The JUnit file that its command writes; NULL: none.
     */
    const char *junit_file;
    /**
     * The MPI type (`srun --mpi`); `none`: not an MPI program.
     */
    const char *mpi;
    /**
     * Its nodes as a hostlist (`srun --nodelist`); NULL without an allocation.
     */
    const char *hostlist;
    /**
     * Its nodes: `nodes` names; NULL without an allocation.
     */
    char *const *hosts;
    /**
     * The node of each task, by rank: `tasks` names, as the host file of
     * `srun --distribution=arbitrary` has them; NULL without an allocation.
     */
    char *const *task_hosts;
    /**
     * What its role is for.
     */
    disagg_purpose purpose;
    /**
     * Nodes that it spans.
     */
    uint32_t nodes;
    /**
     * The index of its first node in the allocation, from 0.
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
     * GPUs that it uses on each full node; 0: none.
     */
    uint32_t gpus_per_node;
    /**
     * The index of the first of them, from 0.
     */
    uint32_t first_gpu;
    /**
     * 1 when other servers use the other GPUs of its node, else 0. `disagg_environment_new` then
     * sets `CUDA_VISIBLE_DEVICES`.
     */
    uint32_t shares_node;
    /**
     * 1 when it may share its nodes with other steps (`srun --overlap`), else 0.
     */
    uint32_t overlap;
    /**
     * 1 when one failed task ends the step (`srun --kill-on-bad-exit=1`), else 0.
     */
    uint32_t kill_on_bad_exit;
    /**
     * Files that have to be there before its command starts; the array ends with a NULL path. Only with
     * an allocation do they have the names of its nodes.
     */
    const disagg_file *files;
} disagg_step;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the interface of the loaded library. A program needs at least the
 * `DISAGG_ABI_VERSION` that it was compiled with: an older library's structs are shorter.
 */
uint32_t disagg_abi_version(void);

/**
 * The release of the library, such as `0.1.0`. The text is static.
 */
const char *disagg_version(void);

/**
 * A few words about a status. The text is static. An unknown number gives `unknown status`.
 */
const char *disagg_status_text(uint32_t status);

/**
 * Frees a text that a function stored through a `char **`. NULL is allowed. Borrowed texts must
 * not be freed.
 */
void disagg_string_free(char *string);

/**
 * What is wrong and what to do, for people: one or more lines, each problem as
 * `FILE:LINE:COLUMN: error: MESSAGE`, the line in question and advice. The text is borrowed from
 * the error. NULL gives an empty text.
 */
const char *disagg_error_text(const disagg_error *error);

/**
 * Frees an error and its text. NULL is allowed.
 */
void disagg_error_free(disagg_error *error);

/**
 * Makes a plan and stores it in `*plan`. It reads the configuration, site.yaml and the
 * environment.
 */
disagg_status disagg_plan_new(const disagg_options *options,
                              disagg_plan **plan,
                              disagg_error **error);

/**
 * Reads a plan and stores it in `*plan`. `source` is the value of `SLURM_DISAGG_PLAN` in a job, the
 * text of `disagg_plan_to_json`, or the path of a file with such a text.
 */
disagg_status disagg_plan_load(const char *source,
                               disagg_plan **plan,
                               disagg_error **error);

/**
 * Frees a plan and what is borrowed from it. NULL is allowed.
 */
void disagg_plan_free(disagg_plan *plan);

/**
 * The allocation of a plan. It is borrowed from the plan. NULL gives NULL.
 */
const disagg_job *disagg_plan_job(const disagg_plan *plan);

/**
 * A role of a plan by its index, from 0, in the order in which the roles start. It is borrowed from
 * the plan. NULL after the last role.
 */
const disagg_role *disagg_plan_role(const disagg_plan *plan,
                                    size_t index);

/**
 * The names of the plan's steps, without checks, in the order in which they start: an array that
 * ends with NULL. It is borrowed from the plan. NULL gives NULL.
 */
char *const *disagg_plan_steps(const disagg_plan *plan);

/**
 * The names of the plan's checks, which run at the same time before the other steps start: as
 * `disagg_plan_steps`.
 */
char *const *disagg_plan_checks(const disagg_plan *plan);

/**
 * The warnings and notes about a plan, as a text for people; empty when there are none. It is
 * borrowed from the plan. NULL gives an empty text.
 */
const char *disagg_plan_warnings(const disagg_plan *plan);

/**
 * Stores the JSON form of a plan, one line, in `*json`; free it with `disagg_string_free`. It
 * contains the values of all variables, including secrets.
 */
disagg_status disagg_plan_to_json(const disagg_plan *plan,
                                  char **json,
                                  disagg_error **error);

/**
 * Stores the plan's launch script in `*script`; free it with `disagg_string_free`. It is a batch
 * script that starts all steps, waits for them and cleans up.
 */
disagg_status disagg_plan_launch_script(const disagg_plan *plan,
                                        char **script,
                                        disagg_error **error);

/**
 * Makes a step of a plan and stores it in `*instance`. `name` is one of `disagg_plan_steps` or
 * `disagg_plan_checks`. `hostlist` is the allocation, such as the value of `SLURM_JOB_NODELIST`
 * (`node[1-3,7]`); NULL: the nodes are not known, and the step's fields for them are NULL. For a plan with
 * the setting `interface` it has the nodes' addresses there.
 */
disagg_status disagg_instance_new(const disagg_plan *plan,
                                  const char *name,
                                  const char *hostlist,
                                  disagg_instance **instance,
                                  disagg_error **error);

/**
 * Frees a step and what is borrowed from it. NULL is allowed.
 */
void disagg_instance_free(disagg_instance *instance);

/**
 * The size, the nodes, the environment and the command of a step. They are borrowed from the
 * instance. NULL gives NULL.
 */
const disagg_step *disagg_instance_step(const disagg_instance *instance);

/**
 * Makes the environment and the command of a task and stores them in `*environment`: `base` without
 * the variables that the step removes, and with those that it sets. References are replaced with
 * values of `base`, so the task's own environment gives the values of this task (`SLURM_NODEID`,
 * `SLURM_LOCALID` and the like).
 *
 * `base` is an array of `NAME=VALUE` texts that ends with NULL, such as `environ`. NULL: the
 * process's environment. For a step that shares its node, `CUDA_VISIBLE_DEVICES` of `base` must
 * list the GPUs of the job on the node or of the step, or be missing.
 */
disagg_status disagg_environment_new(const disagg_instance *instance,
                                     char *const *base,
                                     disagg_environment **environment,
                                     disagg_error **error);

/**
 * The environment as `execve` takes it: an array of `NAME=VALUE` texts that ends with NULL. It is
 * borrowed from the environment. NULL gives NULL.
 */
char *const *disagg_environment_vector(const disagg_environment *environment);

/**
 * The command of the task as `execvp` takes it, to be run in the step's directory: an array of texts
 * that ends with NULL. It is borrowed from the environment. NULL gives NULL.
 */
char *const *disagg_environment_command(const disagg_environment *environment);

/**
 * Frees an environment and its arrays. NULL is allowed.
 */
void disagg_environment_free(disagg_environment *environment);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SLURM_DISAGG_H */
