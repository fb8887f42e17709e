// SPDX-License-Identifier: Apache-2.0
/*
 * Becomes one task of a step: takes the step's environment, changes to its directory
 * and executes its command.
 *
 * usage: srun ... exec_step [PLAN [STEP]]
 *
 * PLAN is the path of a plan (plan.json) or of a configuration (*.yaml); the default
 * is the plan of the job, SLURM_DISAGG_PLAN. STEP is the step's name; the default is
 * DISAGG_SERVING_TYPE of the environment. Without a step, the program lists the names.
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <slurm_disagg.h>

extern char **environ;

static int fail(disagg_error *error)
{
    fprintf(stderr, "exec_step: %s\n", disagg_error_text(error));
    disagg_error_free(error);
    return 2;
}

static disagg_status load(const char *source, disagg_plan **plan, disagg_error **error)
{
    const disagg_setting settings[] = {{"trtllm_dir", "."}, {"models_dir", "."}, {NULL, NULL}};
    const disagg_options options = {.config = source, .settings = settings};
    const char *end = strrchr(source, '.');

    if (end != NULL && strcmp(end, ".yaml") == 0)
        return disagg_plan_new(&options, plan, error);
    return disagg_plan_load(source, plan, error);
}

/* Returns only when the command cannot be started. */
static int become(const disagg_step *step, char *const *environment)
{
    if (chdir(step->directory) != 0) {
        fprintf(stderr, "exec_step: %s: %s\n", step->directory, strerror(errno));
        return 126;
    }
    /* execvp looks the command up in the PATH of this array. It does not change the array. */
    environ = (char **)environment;
    execvp(step->argv[0], step->argv);
    fprintf(stderr, "exec_step: %s: %s\n", step->argv[0], strerror(errno));
    return errno == ENOENT ? 127 : 126;
}

int main(int argc, char **argv)
{
    const char *source = argc > 1 ? argv[1] : getenv("SLURM_DISAGG_PLAN");
    const char *name = argc > 2 ? argv[2] : getenv("DISAGG_SERVING_TYPE");
    disagg_plan *plan = NULL;
    disagg_instance *instance = NULL;
    disagg_environment *environment = NULL;
    disagg_error *error = NULL;
    char **inherited = environ;
    int code = 0;

    if (source == NULL || argc > 3) {
        fprintf(stderr, "usage: %s [PLAN [STEP]], or in a job with SLURM_DISAGG_PLAN\n", argv[0]);
        return 2;
    }
    if (load(source, &plan, &error) != DISAGG_STATUS_OK) {
        code = fail(error);
    } else if (name == NULL) {
        for (char *const *step = disagg_plan_steps(plan); *step != NULL; step++)
            printf("%s\n", *step);
    } else if (disagg_instance_new(plan, name, NULL, &instance, &error) != DISAGG_STATUS_OK ||
               disagg_environment_new(instance, environ, &environment, &error) !=
                   DISAGG_STATUS_OK) {
        code = fail(error);
    } else {
        code = become(disagg_instance_step(instance), disagg_environment_vector(environment));
        environ = inherited;
    }
    disagg_environment_free(environment);
    disagg_instance_free(instance);
    disagg_plan_free(plan);
    return code;
}
