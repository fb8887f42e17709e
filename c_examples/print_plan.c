// SPDX-License-Identifier: Apache-2.0
/*
 * Prints the size of a test, and the environment and command of each step.
 *
 * usage: print_plan CONFIG [TRTLLM_DIR [NODELIST]]
 *
 * CONFIG is a configuration's path, or its name in TRTLLM_DIR. With a node list, such
 * as node[1-8], it also prints the nodes of each step.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include <slurm_disagg.h>

static bool failed(disagg_status status, disagg_error *error)
{
    if (status == DISAGG_STATUS_OK)
        return false;
    fprintf(stderr, "%s\n", disagg_error_text(error));
    disagg_error_free(error);
    return true;
}

static void print_step(const disagg_step *step)
{
    printf("\n%s: %" PRIu32 " nodes from number %" PRIu32 ", %" PRIu32 " tasks, MPI %s\n",
           step->name, step->nodes, step->first_node, step->tasks,
           step->mpi);
    if (step->hostlist != NULL)
        printf("  on       %s\n", step->hostlist);
    printf("  in       %s\n", step->directory);
    for (char *const *name = step->unset; *name != NULL; name++)
        printf("  unset    %s\n", *name);
    for (const disagg_variable *variable = step->set; variable->name != NULL; variable++)
        printf("  set      %s=%s\n", variable->name, variable->secret ? "(secret)" : variable->value);
    for (char *const *argument = step->argv; *argument != NULL; argument++)
        printf("  argument %s\n", *argument);
}

static bool print_plan(const disagg_plan *plan, const char *nodes)
{
    const disagg_job *job = disagg_plan_job(plan);
    const disagg_role *role;

    printf("%" PRIu32 " nodes with %" PRIu32 " GPUs each for %s\n", job->nodes, job->gpus_per_node,
           job->time);
    if (*disagg_plan_warnings(plan) != '\0')
        printf("%s\n", disagg_plan_warnings(plan));
    for (size_t i = 0; (role = disagg_plan_role(plan, i)) != NULL; i++)
        printf("  %-13s %5" PRIu32 " x %" PRIu32 " nodes, %" PRIu32 " tasks\n", role->name,
               role->count, role->nodes, role->tasks);
    for (char *const *name = disagg_plan_steps(plan); *name != NULL; name++) {
        disagg_instance *instance = NULL;
        disagg_error *error = NULL;
        disagg_status status = disagg_instance_new(plan, *name, nodes, &instance, &error);

        if (failed(status, error))
            return false;
        print_step(disagg_instance_step(instance));
        disagg_instance_free(instance);
    }
    return true;
}

int main(int argc, char **argv)
{
    /* To look at a plan, any directories will do. */
    const disagg_setting settings[] = {
        {"trtllm_dir", argc > 2 ? argv[2] : "."},
        {"models_dir", getenv("CLUSTER_LLM_DATA") != NULL ? NULL : "."},
        {NULL, NULL},
    };
    const disagg_options options = {.config = argv[1], .settings = settings};
    disagg_plan *plan = NULL;
    disagg_error *error = NULL;
    disagg_status status;
    bool done;

    if (argc < 2 || argc > 4) {
        fprintf(stderr, "usage: %s CONFIG [TRTLLM_DIR [NODELIST]]\n", argv[0]);
        return 2;
    }
    status = disagg_plan_new(&options, &plan, &error);
    if (failed(status, error))
        return 2;
    done = print_plan(plan, argc > 3 ? argv[3] : NULL);
    disagg_plan_free(plan);
    return done ? 0 : 1;
}
