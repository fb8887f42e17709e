// SPDX-License-Identifier: Apache-2.0
/*
 * What a job_submit plugin does: from a configuration to the size of the job. It fills
 * in what the user did not request, and rejects requests that contradict the test.
 *
 * usage: job_submit_hook CONFIG [NODES [TASKS]]
 *
 * `struct request` replaces Slurm's job_desc_msg_t, so the program needs no Slurm. A
 * plugin in slurmctld must not read files: there, the plan comes with the job, and
 * disagg_plan_load reads it.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include <slurm_disagg.h>

/* Slurm's values for "not set" and "no limit". */
#define NO_VAL ((uint32_t)0xfffffffe)
#define INFINITE ((uint32_t)0xffffffff)

struct request {
    uint32_t min_nodes;
    uint32_t max_nodes;
    uint32_t num_tasks;
    uint32_t ntasks_per_node;
    uint32_t time_limit; /* minutes */
    char tres_per_node[32];
};

static bool settle(const char *what, uint32_t *requested, uint32_t needed, char *why, size_t room)
{
    if (*requested != NO_VAL && *requested != needed) {
        snprintf(why, room, "the job requests %" PRIu32 " %s, but the test needs %" PRIu32,
                 *requested, what, needed);
        return false;
    }
    *requested = needed;
    return true;
}

/* False with a message for the user in `why`. */
static bool job_submit(struct request *request, const disagg_job *job, char *why, size_t room)
{
    if (!settle("nodes", &request->min_nodes, job->nodes, why, room) ||
        !settle("nodes at most", &request->max_nodes, job->nodes, why, room) ||
        !settle("tasks", &request->num_tasks, job->ntasks, why, room) ||
        !settle("tasks per node", &request->ntasks_per_node, job->ntasks_per_node, why, room))
        return false;
    if (request->time_limit == NO_VAL)
        request->time_limit = job->minutes == UINT32_MAX ? INFINITE : job->minutes;
    snprintf(request->tres_per_node, sizeof request->tres_per_node, "gres/gpu:%" PRIu32,
             job->gpus_per_node);
    return true;
}

static uint32_t number(int argc, char **argv, int index)
{
    return argc > index ? (uint32_t)strtoul(argv[index], NULL, 10) : NO_VAL;
}

int main(int argc, char **argv)
{
    struct request request = {
        .min_nodes = number(argc, argv, 2),
        .max_nodes = number(argc, argv, 2),
        .num_tasks = number(argc, argv, 3),
        .ntasks_per_node = NO_VAL,
        .time_limit = NO_VAL,
    };
    /* The directories do not affect the size. */
    const disagg_setting settings[] = {{"trtllm_dir", "."}, {"models_dir", "."}, {NULL, NULL}};
    const disagg_options options = {.config = argv[1], .settings = settings};
    char why[128] = "";
    disagg_plan *plan = NULL;
    disagg_error *error = NULL;
    bool accepted;

    if (argc < 2 || argc > 4) {
        fprintf(stderr, "usage: %s CONFIG [NODES [TASKS]]\n", argv[0]);
        return 2;
    }
    if (disagg_plan_new(&options, &plan, &error) != DISAGG_STATUS_OK) {
        fprintf(stderr, "%s\n", disagg_error_text(error));
        disagg_error_free(error);
        return 2;
    }
    accepted = job_submit(&request, disagg_plan_job(plan), why, sizeof why);
    disagg_plan_free(plan);
    if (!accepted) {
        printf("rejected: %s\n", why);
        return 1;
    }
    printf("min_nodes=%" PRIu32 " max_nodes=%" PRIu32 " num_tasks=%" PRIu32
           " ntasks_per_node=%" PRIu32 " tres_per_node=%s time_limit=%" PRIu32 "\n",
           request.min_nodes, request.max_nodes, request.num_tasks, request.ntasks_per_node,
           request.tres_per_node, request.time_limit);
    return 0;
}
