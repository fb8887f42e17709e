// SPDX-License-Identifier: Apache-2.0
//
// The functions that a SPANK plugin finds by name in a Slurm process. C, because Rust can't define
// variadic functions; every decision is made behind struct sim_ops, in Rust.

#define _GNU_SOURCE
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

// Laid out as Ops in src/host/shim.rs.
struct sim_ops {
	int (*symbol_supported)(const char *symbol);
	int (*context)(void);
	int (*remote)(void *spank);
	int (*option_register)(void *spank, void *option);
	int (*option_getopt)(void *spank, void *option, char **argument);
	int (*get_item)(void *spank, int item, uint64_t key, void *first, void *second);
	int (*getenv)(void *spank, const char *name, char *buf, int len);
	int (*setenv)(void *spank, const char *name, const char *value, int overwrite);
	int (*unsetenv)(void *spank, const char *name);
	int (*job_control_getenv)(void *spank, const char *name, char *buf, int len);
	int (*job_control_setenv)(void *spank, const char *name, const char *value, int overwrite);
	int (*job_control_unsetenv)(void *spank, const char *name);
	const char *(*strerror)(int error);
	int (*prepend_task_argv)(void *spank, int argc, const char **argv);
	void (*log)(int level, const char *text);
	int (*allocation_fails)(const char *call);
	void (*foreign_pointer)(const char *call);
	long (*api_version)(void);
};

static struct sim_ops ops;

void sim_install(const struct sim_ops *installed);
void sim_install(const struct sim_ops *installed)
{
	ops = *installed;
}

int spank_symbol_supported(const char *symbol) { return ops.symbol_supported(symbol); }
int spank_context(void) { return ops.context(); }
int spank_remote(void *spank) { return ops.remote(spank); }
int spank_option_register(void *spank, void *option) { return ops.option_register(spank, option); }

int spank_option_getopt(void *spank, void *option, char **argument)
{
	return ops.option_getopt(spank, option, argument);
}

// Items whose first argument is a value: S_JOB_PID_TO_GLOBAL_ID, S_JOB_PID_TO_LOCAL_ID,
// S_JOB_LOCAL_TO_GLOBAL_ID, S_JOB_GLOBAL_TO_LOCAL_ID. Two pointers: S_JOB_ARGV,
// S_JOB_SUPPLEMENTARY_GIDS.
int spank_get_item(void *spank, int item, ...)
{
	va_list args;
	uint64_t key = 0;
	void *first = NULL, *second = NULL;

	va_start(args, item);
	switch (item) {
	case 15:
	case 16:
		key = (uint64_t)va_arg(args, pid_t);
		first = va_arg(args, void *);
		break;
	case 17:
	case 18:
		key = va_arg(args, uint32_t);
		first = va_arg(args, void *);
		break;
	case 9:
	case 19:
		first = va_arg(args, void *);
		second = va_arg(args, void *);
		break;
	default:
		if (item >= 0 && item <= 31)
			first = va_arg(args, void *);
	}
	va_end(args);
	return ops.get_item(spank, item, key, first, second);
}

int spank_getenv(void *spank, const char *name, char *buf, int len)
{
	return ops.getenv(spank, name, buf, len);
}

int spank_setenv(void *spank, const char *name, const char *value, int overwrite)
{
	return ops.setenv(spank, name, value, overwrite);
}

int spank_unsetenv(void *spank, const char *name) { return ops.unsetenv(spank, name); }

int spank_job_control_getenv(void *spank, const char *name, char *buf, int len)
{
	return ops.job_control_getenv(spank, name, buf, len);
}

int spank_job_control_setenv(void *spank, const char *name, const char *value, int overwrite)
{
	return ops.job_control_setenv(spank, name, value, overwrite);
}

int spank_job_control_unsetenv(void *spank, const char *name)
{
	return ops.job_control_unsetenv(spank, name);
}

const char *spank_strerror(int error) { return ops.strerror(error); }

#ifdef WITH_PREPEND_TASK_ARGV
int spank_prepend_task_argv(void *spank, int argc, const char **argv)
{
	return ops.prepend_task_argv(spank, argc, argv);
}
#endif

#define LOGGER(name, level)                                               \
	__attribute__((format(printf, 1, 2))) void name(const char *format, ...) \
	{                                                                 \
		char *text = NULL;                                        \
		va_list args;                                             \
		va_start(args, format);                                   \
		if (vasprintf(&text, format, args) >= 0) {                \
			ops.log(level, text);                             \
			free(text);                                       \
		}                                                         \
		va_end(args);                                             \
	}

// The levels of src/trace.rs, in its order.
LOGGER(slurm_error, 0)
LOGGER(slurm_spank_log, 1)
LOGGER(spank_log, 1)
LOGGER(slurm_info, 2)
LOGGER(slurm_verbose, 3)
LOGGER(slurm_debug, 4)
LOGGER(slurm_debug2, 5)
LOGGER(slurm_debug3, 6)

long slurm_api_version(void) { return ops.api_version(); }

// Slurm's allocator keeps a header before each block; xfree() of a pointer without it aborts.
struct header {
	uint64_t magic;
	uint64_t size;
};
#define MAGIC UINT64_C(0x51555a4d58414c4c)

static void *allocate(size_t size)
{
	struct header *header = calloc(1, sizeof(*header) + size);

	if (!header)
		return NULL;
	header->magic = MAGIC;
	header->size = size;
	return header + 1;
}

void *slurm_xcalloc(size_t count, size_t size, bool clear, bool try_only, const char *file,
		    int line, const char *function)
{
	size_t total;

	(void)clear, (void)try_only, (void)file, (void)line, (void)function;
	if (ops.allocation_fails("slurm_xcalloc") || __builtin_mul_overflow(count, size, &total) ||
	    !total)
		return NULL;
	return allocate(total);
}

char *slurm_xstrdup(const char *text)
{
	char *copy;
	size_t size;

	if (!text || ops.allocation_fails("slurm_xstrdup"))
		return NULL;
	size = strlen(text) + 1;
	copy = allocate(size);
	if (copy)
		memcpy(copy, text, size);
	return copy;
}

void slurm_xfree(void **pointer)
{
	struct header *header;

	if (!pointer || !*pointer)
		return;
	// Alignment first: reading before a pointer that is not ours must not fault.
	header = (struct header *)*pointer - 1;
	if (((uintptr_t)header & 7) || header->magic != MAGIC) {
		ops.foreign_pointer("slurm_xfree");
		return;
	}
	header->magic = 0;
	free(header);
	*pointer = NULL;
}
