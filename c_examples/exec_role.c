// SPDX-License-Identifier: Apache-2.0
/*
 * Becomes one task of a step: takes the step's environment, goes to its directory
 * and execs its command.
 *
 * usage: srun ... exec_role [PLAN [ROLE]]
 *
 * PLAN is a plan's file (plan.json) or a configuration (*.yaml); without one the
 * plan is that of the job, SLURM_DISAGG_PLAN. ROLE is a step's name, else
 * DISAGG_SERVING_TYPE of the environment; without either the names are listed.
 * References such as ${SLURM_LOCALID} get the values that srun gave this task.
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <slurm_disagg.h>

extern char **environ;

static int fail(disagg_status status, disagg_error *error)
{
    const char *text = disagg_status_text(status);

    if (error != NULL)
        disagg_error_text(error, &text);
    fprintf(stderr, "exec_role: %s\n", text);
    disagg_error_free(error);
    return 2;
}

static int ends_in(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);

    return length >= tail && strcmp(text + length - tail, end) == 0;
}

static disagg_status load(const char *source, disagg_plan **plan, disagg_error **error)
{
    disagg_options options = {
        .size = sizeof options, .config = source, .trtllm_dir = ".", .models_dir = "."};

    if (source[0] == '{')
        return disagg_plan_load_json(source, strlen(source), plan, error);
    if (ends_in(source, ".yaml") || ends_in(source, ".yml"))
        return disagg_plan_new(&options, plan, error);
    return disagg_plan_load(source, plan, error);
}

static int list(const disagg_plan *plan)
{
    size_t count = 0;
    disagg_status status = disagg_plan_instance_count(plan, &count);

    for (size_t i = 0; status == DISAGG_STATUS_OK && i < count; i++) {
        disagg_step step = {.size = sizeof step};
        disagg_instance *instance = NULL;

        status = disagg_instance_new_at(plan, i, &instance, NULL);
        if (status == DISAGG_STATUS_OK)
            status = disagg_instance_step(instance, &step);
        if (status == DISAGG_STATUS_OK)
            printf("%s\n", step.name);
        disagg_instance_free(instance);
    }
    return status == DISAGG_STATUS_OK ? 0 : fail(status, NULL);
}

/* Returns only when the command cannot be started. */
static int become(const disagg_instance *instance, const disagg_environment *environment)
{
    disagg_step step = {.size = sizeof step};
    char *const *argv = NULL;
    char *const *vector = NULL;
    disagg_status status = disagg_instance_step(instance, &step);

    if (status == DISAGG_STATUS_OK)
        status = disagg_instance_argv(instance, &argv);
    if (status == DISAGG_STATUS_OK)
        status = disagg_environment_vector(environment, &vector);
    if (status != DISAGG_STATUS_OK)
        return fail(status, NULL);
    if (chdir(step.directory) != 0) {
        fprintf(stderr, "exec_role: %s: %s\n", step.directory, strerror(errno));
        return 126;
    }
    /* execvp looks the command up and hands this array on; it changes neither. */
    environ = (char **)vector;
    execvp(argv[0], argv);
    fprintf(stderr, "exec_role: %s: %s\n", argv[0], strerror(errno));
    return errno == ENOENT ? 127 : 126;
}

int main(int argc, char **argv)
{
    const char *source = argc > 1 ? argv[1] : getenv("SLURM_DISAGG_PLAN");
    const char *role = argc > 2 ? argv[2] : getenv("DISAGG_SERVING_TYPE");
    disagg_plan *plan = NULL;
    disagg_instance *instance = NULL;
    disagg_environment *environment = NULL;
    disagg_error *error = NULL;
    char **inherited = environ;
    disagg_status status;
    int code;

    if (source == NULL || argc > 3) {
        fprintf(stderr, "usage: %s [PLAN [ROLE]], or in a job with SLURM_DISAGG_PLAN\n", argv[0]);
        return 2;
    }
    status = load(source, &plan, &error);
    if (status != DISAGG_STATUS_OK)
        return fail(status, error);
    if (role == NULL) {
        code = list(plan);
        disagg_plan_free(plan);
        return code;
    }
    status = disagg_instance_new(plan, role, &instance, &error);
    disagg_plan_free(plan); /* the step lives on */
    if (status != DISAGG_STATUS_OK)
        return fail(status, error);
    status = disagg_environment_new(instance, environ, &environment, &error);
    code = status == DISAGG_STATUS_OK ? become(instance, environment) : fail(status, error);
    environ = inherited;
    disagg_environment_free(environment);
    disagg_instance_free(instance);
    return code;
}
