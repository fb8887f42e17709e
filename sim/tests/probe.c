// SPDX-License-Identifier: Apache-2.0
//
// A SPANK plugin for the simulator's tests. What it does is told by its plugstack.conf arguments,
// each "HOOK:ACTION[:ARGUMENT...]"; besides, it logs every callback when "trace=FILE" is given.
// It uses nothing but spank.h's interface, so that the same file runs in a real Slurm too.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

// The interface by hand: the tests run without Slurm's headers, too (tests/header.rs compares).
typedef struct spank_handle *spank_t;
struct spank_option {
	char *name, *arginfo, *usage;
	int has_arg, val;
	int (*cb)(int val, const char *argument, int remote);
};
extern int spank_context(void);
extern int spank_remote(spank_t);
extern int spank_option_register(spank_t, struct spank_option *);
extern int spank_option_getopt(spank_t, struct spank_option *, char **);
extern int spank_get_item(spank_t, int, ...);
extern int spank_getenv(spank_t, const char *, char *, int);
extern int spank_setenv(spank_t, const char *, const char *, int);
extern int spank_unsetenv(spank_t, const char *);
extern int spank_job_control_getenv(spank_t, const char *, char *, int);
extern int spank_job_control_setenv(spank_t, const char *, const char *, int);
extern int spank_job_control_unsetenv(spank_t, const char *);
extern int spank_symbol_supported(const char *);
extern const char *spank_strerror(int);
extern void slurm_error(const char *, ...);
extern void slurm_info(const char *, ...);
extern void slurm_spank_log(const char *, ...);
extern void slurm_xfree(void **);
extern void *slurm_xcalloc(size_t, size_t, _Bool, _Bool, const char *, int, const char *);
extern char *slurm_xstrdup(const char *);

#ifndef VERSION
#define VERSION 0
#endif
#ifndef NAME
#define NAME "probe"
#endif
const char plugin_name[] = NAME;
const char plugin_type[] = "spank";
unsigned int plugin_version = VERSION;

static char trace_path[512];
static spank_t kept;

static int option_called(int val, const char *argument, int remote);

static struct spank_option registered[] = {
	{"probe-config", "FILE", "needs an argument", 1, 11, option_called},
	{"probe-flag", NULL, "takes no argument", 0, 12, option_called},
	{"probe-maybe", "X", "may take an argument", 2, 13, option_called},
};

struct spank_option spank_options[] = {
	{"probe-table", "X", "from the static table", 1, 14, option_called},
	{NULL, NULL, NULL, 0, 0, NULL},
};

// VERSION 0: adopt the running release's version, as an ELF constructor may.
__attribute__((constructor)) static void adopt_version(void)
{
	static const unsigned int versions[] = {0x140b00, 0x150800, 0x160500, 0x170200, 0x170b00,
						0x180500, 0x180b00, 0x190500, 0x190b00, 0x1a0500,
						0x1a0b00};
	long (*api_version)(void) = (long (*)(void))dlsym(RTLD_DEFAULT, "slurm_api_version");
	long api = api_version ? (api_version() >> 16) - 36 : -1;

	if (!VERSION && api >= 0 && api < 11)
		plugin_version = versions[api];
}

static void note(const char *text)
{
	char line[256];
	int fd, size;

	if (!*trace_path)
		return;
	fd = open(trace_path, O_WRONLY | O_APPEND | O_CREAT, 0666);
	if (fd < 0)
		return;
	fchmod(fd, 0666);
	size = snprintf(line, sizeof(line), "%d %d %s\n", spank_context(), geteuid() != 0, text);
	if (write(fd, line, size) != size)
		slurm_error("probe: short write");
	close(fd);
}

static int option_called(int val, const char *argument, int remote)
{
	char text[200];

	snprintf(text, sizeof(text), "option %d %s %d", val, argument ? argument : "NULL", remote);
	note(text);
	if (argument && !strcmp(argument, "refuse"))
		return -1;
	if (argument && !strcmp(argument, "hang"))
		for (;;)
			pause();
	return 0;
}

static char *part(char **rest)
{
	char *text = strsep(rest, ":");

	return text ? text : "";
}

static int act(spank_t sp, const char *hook, char *rest)
{
	char buf[256], *argument = NULL;
	char *action = part(&rest), *a = part(&rest), *b = part(&rest);
	int rc = 0;

	if (!strcmp(action, "setenv"))
		rc = spank_setenv(sp, a, b, 1);
	else if (!strcmp(action, "setenv-once"))
		rc = spank_setenv(sp, a, b, 0);
	else if (!strcmp(action, "unsetenv"))
		rc = spank_unsetenv(sp, a);
	else if (!strcmp(action, "getenv"))
		rc = spank_getenv(sp, a, buf, atoi(b));
	else if (!strcmp(action, "control-set"))
		rc = spank_job_control_setenv(sp, a, b, 1);
	else if (!strcmp(action, "control-get")) {
		rc = spank_job_control_getenv(sp, a, buf, sizeof(buf));
		if (!rc)
			slurm_spank_log("control %s=%s", a, buf);
	} else if (!strcmp(action, "control-unset"))
		rc = spank_job_control_unsetenv(sp, a);
	else if (!strcmp(action, "register"))
		rc = spank_option_register(sp, &registered[0]);
	else if (!strcmp(action, "register-nameless")) {
		struct spank_option nameless = {NULL, NULL, "usage", 0, 0, NULL};
		rc = spank_option_register(sp, &nameless);
	} else if (!strcmp(action, "register-long")) {
		static char name[90];
		static struct spank_option tall = {name, NULL, "usage", 0, 0, NULL};
		memset(name, 'x', sizeof(name) - 1);
		rc = spank_option_register(sp, &tall);
	} else if (!strcmp(action, "getopt")) {
		rc = spank_option_getopt(sp, &registered[0], &argument);
		if (!rc)
			slurm_spank_log("getopt %s", argument);
	} else if (!strcmp(action, "item32")) {
		uint32_t value = 0;
		rc = spank_get_item(sp, atoi(a), &value);
		if (!rc)
			slurm_spank_log("item %s=%u", a, value);
	} else if (!strcmp(action, "text")) {
		char *value = NULL;
		rc = spank_get_item(sp, atoi(a), &value);
		if (!rc)
			slurm_spank_log("item %s=%s", a, value);
	} else if (!strcmp(action, "map")) {
		uint32_t value = 0;
		rc = spank_get_item(sp, atoi(a), (uint32_t)atoi(b), &value);
		if (!rc)
			slurm_spank_log("map %s %s=%u", a, b, value);
	} else if (!strcmp(action, "argv")) {
		int argc = 0;
		char **argv = NULL;
		rc = spank_get_item(sp, 9, &argc, &argv);
		if (!rc)
			slurm_spank_log("argv %d %s", argc, argv[argc - 1]);
	} else if (!strcmp(action, "environment")) {
		char **env = NULL;
		rc = spank_get_item(sp, 10, &env);
		for (; !rc && env && *env; env++)
			if (!strncmp(*env, a, strlen(a)))
				slurm_spank_log("environment %s", *env);
	} else if (!strcmp(action, "item-null"))
		rc = spank_get_item(sp, atoi(a), NULL);
	else if (!strcmp(action, "prepend")) {
		int (*prepend)(spank_t, int, const char **) =
			(int (*)(spank_t, int, const char **))dlsym(RTLD_DEFAULT,
								    "spank_prepend_task_argv");
		const char *words[] = {a, b};
		rc = prepend ? prepend(sp, 2, words) : -2;
		slurm_spank_log("prepend %d", rc);
	} else if (!strcmp(action, "keep"))
		kept = sp;
	else if (!strcmp(action, "use-kept"))
		rc = spank_setenv(kept, "A", "1", 1);
	else if (!strcmp(action, "null-handle"))
		rc = spank_remote(NULL);
	else if (!strcmp(action, "environ"))
		rc = setenv(a, b, 1);
	else if (!strcmp(action, "show-environ"))
		slurm_spank_log("environ %s=%s", a, getenv(a) ? getenv(a) : "(unset)");
	else if (!strcmp(action, "cmdline")) {
		int fd = open("/proc/self/cmdline", O_RDONLY), i, size;
		size = fd < 0 ? 0 : read(fd, buf, sizeof(buf) - 1);
		for (i = 0; i < size - 1; i++)
			buf[i] = buf[i] ? buf[i] : ' ';
		buf[size > 0 ? size - 1 : 0] = '\0';
		slurm_spank_log("cmdline %s", buf);
		close(fd);
	} else if (!strcmp(action, "log")) {
		slurm_error("an error %d", 1);
		slurm_info("an info %s", "line");
		slurm_spank_log("100%% seen");
	} else if (!strcmp(action, "context"))
		slurm_spank_log("context %d remote %d", spank_context(), spank_remote(sp));
	else if (!strcmp(action, "supported"))
		slurm_spank_log("supported %s %d", a, spank_symbol_supported(a));
	else if (!strcmp(action, "strerror"))
		slurm_spank_log("strerror %s", spank_strerror(atoi(a)));
	else if (!strcmp(action, "memory")) {
		char *copy = slurm_xstrdup("text");
		void *block = slurm_xcalloc(2, 8, 1, 0, __FILE__, __LINE__, __func__);
		slurm_spank_log("memory %s %d", copy ? copy : "NULL", block != NULL);
		slurm_xfree((void **)&copy);
		slurm_xfree(&block);
	} else if (!strcmp(action, "foreign")) {
		char *mine = (char *)malloc(64) + 16;
		slurm_xfree((void **)&mine);
	} else if (!strcmp(action, "hang"))
		for (;;)
			pause();
	else if (!strcmp(action, "spin")) {
		sigset_t all;
		sigfillset(&all);
		sigprocmask(SIG_SETMASK, &all, NULL);
		for (;;)
			pause();
	} else if (!strcmp(action, "crash"))
		raise(SIGSEGV);
	else if (!strcmp(action, "abort"))
		abort();
	else if (!strcmp(action, "exit"))
		_exit(atoi(a));
	else if (!strcmp(action, "leave"))
		exit(atoi(a));
	else if (!strcmp(action, "chdir"))
		rc = chdir(a);
	else if (!strcmp(action, "block")) {
		sigset_t set;
		sigemptyset(&set);
		sigaddset(&set, SIGUSR1);
		sigprocmask(SIG_BLOCK, &set, NULL);
	} else if (!strcmp(action, "return"))
		return atoi(a);
	if (rc)
		slurm_info("%s: %s gave %d", hook, action, rc);
	return 0;
}

static int run(spank_t sp, const char *hook, int ac, char **av)
{
	size_t length = strlen(hook);
	int i, rc = 0;

	for (i = 0; i < ac; i++)
		if (!strncmp(av[i], "trace=", 6))
			snprintf(trace_path, sizeof(trace_path), "%s", av[i] + 6);
	note(hook);
	for (i = 0; i < ac && !rc; i++) {
		if (!strncmp(av[i], hook, length) && av[i][length] == ':') {
			char *copy = strdup(av[i] + length + 1);
			rc = act(sp, hook, copy);
			free(copy);
		}
	}
	return rc;
}

#define HOOK(name)                                                     \
	int slurm_spank_##name(spank_t sp, int ac, char **av);         \
	int slurm_spank_##name(spank_t sp, int ac, char **av)          \
	{                                                              \
		return run(sp, #name, ac, av);                         \
	}

int slurm_spank_init(spank_t sp, int ac, char **av);
int slurm_spank_init(spank_t sp, int ac, char **av)
{
	size_t i;

	for (i = 0; i < sizeof(registered) / sizeof(registered[0]); i++)
		if (spank_option_register(sp, &registered[i]))
			slurm_error("probe: --%s was refused", registered[i].name);
	return run(sp, "init", ac, av);
}

HOOK(init_post_opt)
HOOK(local_user_init)
HOOK(user_init)
HOOK(task_init_privileged)
HOOK(task_init)
HOOK(task_post_fork)
HOOK(task_exit)
#ifndef WITHOUT_SLURMD_EXIT
HOOK(slurmd_exit)
#endif
HOOK(exit)
#ifdef WITH_SCRIPTS
HOOK(job_prolog)
HOOK(job_epilog)
#endif
#ifdef WITH_FAILURE_MODE
int slurm_spank_init_failure_mode = 3012;
#endif
#ifdef CRASH_IN_CONSTRUCTOR
__attribute__((constructor)) static void crash(void) { raise(SIGSEGV); }
#endif
