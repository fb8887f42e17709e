// SPDX-License-Identifier: Apache-2.0
/*
 * A program that loads a plugin as Slurm does and prints the three symbols that
 * Slurm reads.
 *
 *   loader API_NUMBER PLUGIN [OTHER_PLUGIN]
 *
 * API_NUMBER is what its slurm_api_version() gives, as Slurm's does in the high
 * 16 bits; "none": it has none. OTHER_PLUGIN is loaded before.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static long api;

#ifdef WITH_API
long slurm_api_version(void);
long slurm_api_version(void)
{
	return api << 16;
}
#endif

/* A symbol of the host's own must not stand in for the plugin's. */
unsigned int plugin_version = 0xdead;

int main(int argc, char **argv)
{
	void *plugin;
	const unsigned int *version;

	if (argc < 3)
		return 2;
	api = strtol(argv[1], NULL, 10);
	if (argc > 3 && !dlopen(argv[3], RTLD_LAZY)) {
		fprintf(stderr, "%s\n", dlerror());
		return 1;
	}
	plugin = dlopen(argv[2], RTLD_LAZY);
	if (!plugin) {
		fprintf(stderr, "%s\n", dlerror());
		return 1;
	}
	version = dlsym(plugin, "plugin_version");
	printf("%s %s %06x %x\n", (const char *)dlsym(plugin, "plugin_name"),
	       (const char *)dlsym(plugin, "plugin_type"), *version, plugin_version);
	return 0;
}
