// SPDX-License-Identifier: Apache-2.0
/*
 * Prints what a test takes and what each of its steps runs.
 *
 * usage: print_plan CONFIG [TRTLLM_DIR [NODELIST]]
 *
 * CONFIG is a configuration's path, or its name in TRTLLM_DIR. With a node list
 * (node[1-8]) it also says which nodes each step gets.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include <slurm_disagg.h>

/*
 * Says why a call failed, and frees the error. It takes the error's place: C does
 * not say whether a call or the argument beside it is evaluated first.
 */
static bool failed(disagg_status status, disagg_error **error)
{
    const char *text = disagg_status_text(status);

    if (status == DISAGG_STATUS_OK)
        return false;
    if (error != NULL && *error != NULL)
        disagg_error_text(*error, &text);
    fprintf(stderr, "%s\n", text);
    if (error != NULL) {
        disagg_error_free(*error);
        *error = NULL;
    }
    return true;
}

static bool print_step(const disagg_plan *plan, size_t index, const disagg_nodes *nodes)
{
    disagg_step step = {.size = sizeof step};
    disagg_variable variable = {.size = sizeof variable};
    disagg_instance *instance = NULL;
    disagg_error *error = NULL;
    char *const *argv = NULL;
    char *const *unset = NULL;
    char *hosts = NULL;
    size_t count = 0;
    bool done = false;

    if (failed(disagg_instance_new_at(plan, index, &instance, &error), &error))
        return false;
    if (failed(disagg_instance_step(instance, &step), NULL))
        goto out;
    printf("\n%s: %u nodes from the allocation's %u., %u tasks, MPI %s\n", step.name,
           (unsigned)step.nodes, (unsigned)step.first_node + 1, (unsigned)step.tasks,
           step.mpi != NULL ? step.mpi : "none");
    if (nodes != NULL) {
        if (failed(disagg_instance_hostlist(instance, nodes, &hosts, &error), &error))
            goto out;
        printf("  on       %s\n", hosts);
        disagg_string_free(hosts);
    }
    printf("  in       %s\n", step.directory);
    if (failed(disagg_instance_unset(instance, &unset), NULL))
        goto out;
    for (; *unset != NULL; unset++)
        printf("  unset    %s\n", *unset);
    if (failed(disagg_instance_variable_count(instance, &count), NULL))
        goto out;
    for (size_t i = 0; i < count; i++) {
        if (failed(disagg_instance_variable(instance, i, &variable), NULL))
            goto out;
        printf("  set      %s=%s\n", variable.name, variable.secret ? "(secret)" : variable.written);
    }
    if (failed(disagg_instance_argv(instance, &argv), NULL))
        goto out;
    for (; *argv != NULL; argv++)
        printf("  argument %s\n", *argv);
    done = true;
out:
    disagg_instance_free(instance);
    return done;
}

static bool print_plan(const disagg_plan *plan, const disagg_nodes *nodes)
{
    disagg_layout layout = {.size = sizeof layout};
    disagg_test test = {.size = sizeof test};
    disagg_role role = {.size = sizeof role};
    disagg_diagnostic diagnostic = {.size = sizeof diagnostic};
    size_t count = 0;

    if (failed(disagg_plan_test(plan, &test), NULL) ||
        failed(disagg_plan_layout(plan, &layout), NULL))
        return false;
    printf("%s\n%s rules, mode %s, %s placement\n", test.node_id, test.rules, test.mode,
           test.placement);
    printf("%u nodes with %u GPUs each; trtllm-llmapi-launch %s\n", (unsigned)layout.total_nodes,
           (unsigned)layout.gpus_per_node, layout.llmapi_launch ? "used" : "not used");

    if (failed(disagg_plan_diagnostic_count(plan, &count), NULL))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (failed(disagg_plan_diagnostic(plan, i, &diagnostic), NULL))
            return false;
        printf("%s\n", diagnostic.text);
    }
    if (failed(disagg_plan_role_count(plan, &count), NULL))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (failed(disagg_plan_role(plan, i, &role), NULL))
            return false;
        printf("  %-13s %5u x %u nodes, %u tasks\n", role.name, (unsigned)role.count,
               (unsigned)role.nodes, (unsigned)role.tasks);
    }
    if (failed(disagg_plan_instance_count(plan, &count), NULL))
        return false;
    for (size_t i = 0; i < count; i++)
        if (!print_step(plan, i, nodes))
            return false;
    return true;
}

int main(int argc, char **argv)
{
    /* Where the site says nothing, any directories do for looking at a plan. */
    disagg_options options = {
        .size = sizeof options,
        .config = argc > 1 ? argv[1] : NULL,
        .trtllm_dir = argc > 2 ? argv[2] : ".",
        .models_dir = getenv("CLUSTER_LLM_DATA") != NULL ? NULL : ".",
    };
    disagg_plan *plan = NULL;
    disagg_nodes *nodes = NULL;
    disagg_error *error = NULL;
    bool done;

    if (argc < 2 || argc > 4) {
        fprintf(stderr, "usage: %s CONFIG [TRTLLM_DIR [NODELIST]]\n", argv[0]);
        return 2;
    }
    if (failed(disagg_plan_new(&options, &plan, &error), &error))
        return 2;
    if (argc > 3 && failed(disagg_nodes_new(argv[3], &nodes, &error), &error)) {
        disagg_plan_free(plan);
        return 2;
    }
    done = print_plan(plan, nodes);
    disagg_nodes_free(nodes);
    disagg_plan_free(plan);
    return done ? 0 : 1;
}
