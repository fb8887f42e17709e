// SPDX-License-Identifier: Apache-2.0
/*
 * Becomes one task of a step: writes the step's files, takes its environment, changes to its
 * directory and executes its command.
 *
 * usage: srun ... exec_step [PLAN [STEP]]
 *
 * PLAN is the path of a plan (plan.json), of a configuration or of a recipe (*.yaml); the
 * default is the plan of the job, SLURM_DISAGG_PLAN. STEP is the step's name; the default is
 * DISAGG_SERVING_TYPE of the environment. Without a step, the program lists the names.
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
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

/* Every task writes the same. A launcher would rather write them once, before it starts the step. */
static bool written(const disagg_file *file)
{
    char draft[4096];
    size_t length = strlen(file->text);
    bool done = snprintf(draft, sizeof draft, "%s.%ld", file->path, (long)getpid()) < (int)sizeof draft;
    int fd = done ? open(draft, O_WRONLY | O_CREAT | O_EXCL, 0600) : -1;

    done = fd >= 0 && write(fd, file->text, length) == (ssize_t)length && rename(draft, file->path) == 0;
    if (!done)
        fprintf(stderr, "exec_step: %s: %s\n", file->path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return done;
}

/* Returns only when the command cannot be started. */
static int become(const disagg_step *step, const disagg_environment *environment)
{
    char *const *command = disagg_environment_command(environment);

    for (const disagg_file *file = step->files; file->path != NULL; file++)
        if (!written(file))
            return 126;
    if (chdir(step->directory) != 0) {
        fprintf(stderr, "exec_step: %s: %s\n", step->directory, strerror(errno));
        return 126;
    }
    /* execvp looks the command up in the PATH of this array. It does not change the array. */
    environ = (char **)disagg_environment_vector(environment);
    execvp(command[0], command);
    fprintf(stderr, "exec_step: %s: %s\n", command[0], strerror(errno));
    return errno == ENOENT ? 127 : 126;
}

int main(int argc, char **argv)
{
    const char *source = argc > 1 ? argv[1] : getenv("SLURM_DISAGG_PLAN");
    const char *name = argc > 2 ? argv[2] : getenv("DISAGG_SERVING_TYPE");
    const char *nodes = getenv("SLURM_JOB_NODELIST");
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
    } else if (disagg_instance_new(plan, name, nodes, &instance, &error) != DISAGG_STATUS_OK ||
               disagg_environment_new(instance, environ, &environment, &error) !=
                   DISAGG_STATUS_OK) {
        code = fail(error);
    } else {
        code = become(disagg_instance_step(instance), environment);
        environ = inherited;
    }
    disagg_environment_free(environment);
    disagg_instance_free(instance);
    disagg_plan_free(plan);
    return code;
}
