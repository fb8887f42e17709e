// SPDX-License-Identifier: Apache-2.0
/*
 * What a job-submit hook does: from a configuration to node and task counts.
 * What the user left open is filled; what contradicts the test is refused.
 *
 * usage: job_submit_hook CONFIG [NODES [TASKS]]
 *
 * `struct request` stands for the fields of Slurm's job_desc_msg_t, so that the
 * program needs no Slurm. A hook in the controller must not read files: there, a
 * plan comes with the job, and disagg_plan_load_json reads it.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include <slurm_disagg.h>

/* Slurm's mark for what the user did not say. */
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

/* Fills one number, or says that it contradicts the test's. */
static bool settle(const char *what, uint32_t *asked, uint32_t needed, char *why, size_t room)
{
    if (*asked != NO_VAL && *asked != needed) {
        snprintf(why, room, "%" PRIu32 " %s were asked for, and the test takes %" PRIu32, *asked,
                 what, needed);
        return false;
    }
    *asked = needed;
    return true;
}

/* The hook itself: 0, or -1 with a sentence for the user in `why`. */
static int job_submit(struct request *request, const disagg_plan *plan, char *why, size_t room)
{
    disagg_job job = {.size = sizeof job};
    disagg_status status = disagg_plan_job(plan, &job);

    if (status != DISAGG_STATUS_OK) {
        snprintf(why, room, "%s", disagg_status_text(status));
        return -1;
    }
    if (!settle("nodes", &request->min_nodes, job.nodes, why, room) ||
        !settle("nodes at most", &request->max_nodes, job.nodes, why, room) ||
        !settle("tasks", &request->num_tasks, job.ntasks, why, room) ||
        !settle("tasks per node", &request->ntasks_per_node, job.ntasks_per_node, why, room))
        return -1;
    if (request->time_limit == NO_VAL)
        request->time_limit = job.minutes == UINT32_MAX ? INFINITE : job.minutes;
    snprintf(request->tres_per_node, sizeof request->tres_per_node, "gres/gpu:%" PRIu32,
             job.gpus_per_node);
    return 0;
}

/* A plan whose sizes count and whose directories do not. */
static disagg_plan *plan_of(const char *config)
{
    disagg_options options = {
        .size = sizeof options, .config = config, .trtllm_dir = ".", .models_dir = "."};
    disagg_plan *plan = NULL;
    disagg_error *error = NULL;
    disagg_status status = disagg_plan_new(&options, &plan, &error);
    const char *text = disagg_status_text(status);

    if (status != DISAGG_STATUS_OK) {
        if (error != NULL)
            disagg_error_text(error, &text);
        fprintf(stderr, "%s\n", text);
        disagg_error_free(error);
    }
    return plan;
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
    char why[128] = "";
    disagg_plan *plan;
    int answer;

    if (argc < 2 || argc > 4) {
        fprintf(stderr, "usage: %s CONFIG [NODES [TASKS]]\n", argv[0]);
        return 2;
    }
    plan = plan_of(argv[1]);
    if (plan == NULL)
        return 2;
    answer = job_submit(&request, plan, why, sizeof why);
    disagg_plan_free(plan);
    if (answer != 0) {
        printf("refused: %s\n", why);
        return 1;
    }
    printf("min_nodes=%" PRIu32 " max_nodes=%" PRIu32 " num_tasks=%" PRIu32
           " ntasks_per_node=%" PRIu32 " tres_per_node=%s time_limit=%" PRIu32 "\n",
           request.min_nodes, request.max_nodes, request.num_tasks, request.ntasks_per_node,
           request.tres_per_node, request.time_limit);
    return 0;
}
