/* SPDX-License-Identifier: Apache-2.0
 *
 * Faults that a sanitizer must find, so that its silence about everything else means something:
 * planted use-after-free | leak | race
 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "slurm_disagg.h"

static int shared;

static void *racer(void *unused)
{
    for (int i = 0; i < 100000; i++)
        shared++;
    return unused;
}

static disagg_error *an_error(void)
{
    disagg_plan *plan = NULL;
    disagg_error *error = NULL;

    disagg_plan_load("/nonexistent", &plan, &error);
    return error;
}

int main(int argc, char **argv)
{
    const char *fault = argc > 1 ? argv[1] : "";

    if (strcmp(fault, "use-after-free") == 0) {
        disagg_error *error = an_error();
        const char *text = disagg_error_text(error);

        disagg_error_free(error);
        printf("%c\n", text[0]);
    } else if (strcmp(fault, "leak") == 0) {
        printf("%d\n", an_error() != NULL);
    } else if (strcmp(fault, "race") == 0) {
        pthread_t threads[2];

        for (int i = 0; i < 2; i++)
            pthread_create(&threads[i], NULL, racer, NULL);
        for (int i = 0; i < 2; i++)
            pthread_join(threads[i], NULL);
    }
    return 0;
}
