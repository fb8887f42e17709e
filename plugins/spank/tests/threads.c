/* SPDX-License-Identifier: Apache-2.0
 *
 * A SPANK plugin that says how many threads its program has in each callback of a client.
 */
#include <dirent.h>
#include <slurm/spank.h>
#include <stdio.h>

SPANK_PLUGIN(threads, 1)

static int say(const char *callback)
{
    DIR *tasks = opendir("/proc/self/task");
    int count = -2; /* . and .. */

    while (tasks != NULL && readdir(tasks) != NULL)
        count++;
    closedir(tasks);
    fprintf(stderr, "threads in %s: %d\n", callback, count);
    return 0;
}

int slurm_spank_init(spank_t spank, int argc, char **argv)
{
    (void)spank, (void)argc, (void)argv;
    return spank_remote(spank) ? 0 : say("init");
}

int slurm_spank_init_post_opt(spank_t spank, int argc, char **argv)
{
    (void)spank, (void)argc, (void)argv;
    return spank_remote(spank) ? 0 : say("init_post_opt");
}
