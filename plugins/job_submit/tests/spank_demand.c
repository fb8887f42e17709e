/* SPDX-License-Identifier: Apache-2.0
 *
 * A SPANK plugin for tests: `--test-demand=TEXT` puts any text where the demand goes, as a user who
 * writes it by hand can. */

#include <slurm/spank.h>
#include <string.h>

SPANK_PLUGIN(test_demand, 1)

static char demand[1 << 20];

static int take(int val, const char *text, int remote)
{
	(void)val;
	if (!remote)
		strncpy(demand, text, sizeof(demand) - 1);
	return 0;
}

static struct spank_option option = {"test-demand", "TEXT", "sends this demand", 1, 0, take};

int slurm_spank_init(spank_t spank, int argc, char *argv[])
{
	(void)argc;
	(void)argv;
	demand[0] = '\0';
	return spank_option_register(spank, &option) == ESPANK_SUCCESS ? 0 : -1;
}

int slurm_spank_init_post_opt(spank_t spank, int argc, char *argv[])
{
	(void)argc;
	(void)argv;
	if (spank_remote(spank) == 1 || !demand[0])
		return 0;
	return spank_job_control_setenv(spank, "DISAGG_DEMAND", demand, 1) == ESPANK_SUCCESS ? 0 : -1;
}
