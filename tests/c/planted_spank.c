/* SPDX-License-Identifier: Apache-2.0
 *
 * A SPANK plugin that writes behind its memory, which AddressSanitizer must find.
 */
#include <stdlib.h>

extern const char plugin_name[], plugin_type[];
extern const unsigned int plugin_version, spank_plugin_version;
const char plugin_name[] = "planted", plugin_type[] = "spank";
const unsigned int plugin_version = 0x160508, spank_plugin_version = 1;

int slurm_spank_init(void *spank, int argc, char **argv);

int slurm_spank_init(void *spank, int argc, char **argv)
{
    volatile char *memory = malloc(8);

    (void)spank, (void)argc, (void)argv;
    memory[8] = 1;
    free((void *)memory);
    return 0;
}
