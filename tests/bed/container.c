// SPDX-License-Identifier: Apache-2.0
/*
 * A container plugin for tests. It behaves as pyxis 0.24 with enroot 4.1 was measured to, in what other plugins
 * and their users notice:
 *
 * - Options: --container-image, -name, -mounts, -workdir, -env and -writable, or PYXIS_CONTAINER_IMAGE, … in the
 *   environment of the step. Of several --container-env only the last counts; mounts add up.
 * - Whether a named container is there is looked up before the tasks start; the first task of the step on its
 *   node unpacks it. So two steps at once collide, and what a killed step leaves is taken for the whole.
 * - All tasks get the environment of the step's first task and then the image's, except for the names that
 *   --container-env lists. All of that, and the new root, is there from this plugin's task_init on.
 * - The root is read-only unless --container-writable says otherwise.
 *
 * An image is a tar file with etc/environment. Programs, libraries and accounts are the host's.
 * Argument in plugstack.conf: data=DIR for the unpacked images, one directory for each node. Each line of
 * DIR/NODE/unpacked is a container that was unpacked. Unpacking takes the seconds that DIR/slow says.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <slurm/spank.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

SPANK_PLUGIN(container, 1)

enum { IMAGE, NAME, MOUNTS, WORKDIR, ENV, WRITABLE, OPTIONS };
static const char *const variables[OPTIONS] = {"IMAGE", "NAME", "MOUNTS", "WORKDIR", "ENV", "WRITABLE"};

static char *given[OPTIONS];
static const char *data;
/* Of this step on this node: its root, and what its first task leaves for the others. */
static char directory[512], root[PATH_MAX], state[PATH_MAX];
static bool reuse, temporary, exists = true;

static int failed(const char *format, ...)
{
    char text[2 * PATH_MAX];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    slurm_error("container: %s", text);
    return -1;
}

static int take(int option, const char *value, int remote)
{
    char *before = given[option];
    (void)remote;
    value = value ? value : "y";
    /* Slurm hands an option on twice. */
    if (option != MOUNTS || !before || strstr(before, value))
        given[option] = option == MOUNTS && before ? before : strdup(value);
    else if (asprintf(&given[option], "%s,%s", before, value) < 0)
        return -1;
    return 0;
}

static struct spank_option options[] = {
    {"container-image", "FILE", "the image", 1, IMAGE, take},
    {"container-name", "NAME", "keep the container by this name, or use the one that is there", 1, NAME, take},
    {"container-mounts", "SOURCE:TARGET[:ro],...", "mounts", 1, MOUNTS, take},
    {"container-workdir", "PATH", "working directory", 1, WORKDIR, take},
    {"container-env", "NAME,...", "variables that win over the image's", 1, ENV, take},
    {"container-writable", NULL, "the root is writable", 0, WRITABLE, take},
};

int slurm_spank_init(spank_t spank, int argc, char **argv)
{
    if (argc != 1 || strncmp(argv[0], "data=", 5))
        return failed("plugstack.conf: it takes data=DIR");
    data = argv[0] + 5;
    for (size_t i = 0; spank_context() != S_CTX_SLURMD && i < sizeof options / sizeof *options; i++)
        if (spank_option_register(spank, &options[i]) != ESPANK_SUCCESS)
            return failed("%s cannot be registered", options[i].name);
    return 0;
}

static bool is_enabled(void) { return given[IMAGE] || given[NAME]; }

int slurm_spank_init_post_opt(spank_t spank, int argc, char **argv)
{
    char name[64], value[4096], host[64];
    (void)argc, (void)argv;
    if (spank_context() != S_CTX_REMOTE)
        return 0;
    for (int i = 0; i < OPTIONS; i++) {
        snprintf(name, sizeof name, "PYXIS_CONTAINER_%s", variables[i]);
        if (!given[i] && spank_getenv(spank, name, value, sizeof value) == ESPANK_SUCCESS)
            given[i] = strdup(value);
    }
    gethostname(host, sizeof host);
    snprintf(directory, sizeof directory, "%s/%s", data, host);
    return is_enabled() && mkdir(directory, 0777) == 0 ? chmod(directory, 01777) : 0;
}

int slurm_spank_user_init(spank_t spank, int argc, char **argv)
{
    uint32_t job, step;
    (void)argc, (void)argv;
    if (!is_enabled())
        return 0;
    spank_get_item(spank, S_JOB_ID, &job);
    spank_get_item(spank, S_JOB_STEPID, &step);
    snprintf(state, sizeof state, "%s/.step-%u.%u", directory, job, step);
    temporary = !given[NAME];
    if (temporary)
        snprintf(root, sizeof root, "%s/pyxis_%u.%u", directory, job, step);
    else
        snprintf(root, sizeof root, "%s/pyxis_%s", directory, given[NAME]);
    reuse = access(root, F_OK) == 0;
    exists = reuse || given[IMAGE];
    return 0;
}

static int run(const char *script, const char *first, const char *second)
{
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        execl("/bin/sh", "sh", "-c", script, "sh", first, second, (char *)NULL);
        _exit(127);
    }
    return child > 0 && waitpid(child, &status, 0) == child ? status : -1;
}

static const char *const unpack =
    "test ! -e \"$2\" || { echo \"[ERROR] File already exists: $2\" >&2; exit 1; }\n"
    "mkdir \"$2\" && tar -xf \"$1\" -C \"$2\" etc && sleep \"$(cat \"${2%/*/*}/slow\")\" && tar -xf \"$1\" -C \"$2\" &&\n"
    "echo \"${2##*/}\" >>\"${2%/*}/unpacked\"";

static bool is_in(const char *list, const char *name, size_t length)
{
    for (const char *at = list; at && *at; at += strcspn(at, ",") + (at[strcspn(at, ",")] == ','))
        if (strcspn(at, ",") == length && strncmp(at, name, length) == 0)
            return true;
    return false;
}

/* Writes what all tasks of the step get: the job's environment, which this task has, then the image's. */
static void write_environment(spank_t spank, FILE *file)
{
    static const char denied[] = "PATH,LD_LIBRARY_PATH,LD_PRELOAD,SLURM_PROCID,SLURM_LOCALID,SLURM_TASK_PID,PMIX_RANK,PMI_FD";
    char path[PATH_MAX + 32], line[4096], **environment;
    FILE *image;
    spank_get_item(spank, S_JOB_ENV, &environment);
    for (; *environment; environment++)
        if (!is_in(denied, *environment, strcspn(*environment, "=")))
            fwrite(*environment, 1, strlen(*environment) + 1, file);
    snprintf(path, sizeof path, "%s/etc/environment", root);
    for (image = fopen(path, "r"); image && fgets(line, sizeof line, image);) {
        line[strcspn(line, "\n")] = '\0';
        fwrite(line, 1, strlen(line) + 1, file);
    }
    if (image)
        fclose(image);
}

/* The first task makes the container; the others wait for it. */
static int start_once(spank_t spank)
{
    static char entry[1 << 20];
    size_t length = 0;
    int byte, file = open(state, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    FILE *stream = file < 0 || flock(file, LOCK_EX) ? NULL : fdopen(file, "r+");
    if (!stream)
        return failed("%s: %m", state);
    if ((byte = getc(stream)) == EOF) {
        byte = reuse || run(unpack, given[IMAGE], root) == 0 ? 'y' : 'n';
        putc(byte, stream);
        if (byte == 'y')
            write_environment(spank, stream);
        fseek(stream, 1, SEEK_SET);
    }
    if (byte != 'y') {
        fclose(stream);
        return failed("failed to create container filesystem for image: %s", given[IMAGE]);
    }
    for (const char *const *name = (const char *const[]){"LANG", "LANGUAGE", "LC_ALL", NULL}; *name; name++)
        if (!is_in(given[ENV], *name, strlen(*name)))
            spank_unsetenv(spank, *name);
    while ((byte = getc(stream)) != EOF && length < sizeof entry) {
        entry[length++] = (char)byte;
        char *value = byte == '\0' ? strchr(entry, '=') : NULL;
        if (value) {
            *value = '\0';
            spank_setenv(spank, entry, value + 1, !is_in(given[ENV], entry, (size_t)(value - entry)));
        }
        length = byte == '\0' ? 0 : length;
    }
    fclose(stream);
    return 0;
}

static void write_to(const char *path, const char *text)
{
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0 || write(file, text, strlen(text)) < 0)
        failed("%s: %m", path);
    close(file);
}

/* Mounts a directory or file of the host in the container, or without a source an empty directory. */
static int mount_at(const char *source, const char *target, bool read_only)
{
    char path[2 * PATH_MAX];
    struct stat found = {.st_mode = S_IFDIR};
    snprintf(path, sizeof path, "%s%s", root, target);
    if (source && stat(source, &found))
        return failed("--container-mounts: source path does not exist: %s", source);
    for (char *slash = strchr(path + strlen(root) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0755);
        *slash = '/';
    }
    if (S_ISDIR(found.st_mode))
        mkdir(path, 0755);
    else
        close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    int done = source ? mount(source, path, NULL, MS_BIND | MS_REC, NULL) : mount("tmpfs", path, "tmpfs", 0, NULL);
    if (done == 0 && read_only)
        done = mount(NULL, path, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL);
    return done ? failed("%s at %s: %m", source ? source : "tmpfs", path) : 0;
}

static int mount_all(spank_t spank)
{
    static const char *const of_the_host[] = {
        "/usr", "/bin", "/sbin", "/lib", "/lib64", "/dev", "/proc", "/sys", "/etc/passwd", "/etc/group", "/etc/hosts"};
    char pmix[PATH_MAX];
    int done = 0;
    for (size_t i = 0; i < sizeof of_the_host / sizeof *of_the_host; i++)
        if (access(of_the_host[i], F_OK) == 0)
            done |= mount_at(of_the_host[i], of_the_host[i], false);
    done |= mount_at(NULL, "/tmp", false) | mount_at(NULL, "/run", false);
    if (spank_getenv(spank, "PMIX_SERVER_TMPDIR", pmix, sizeof pmix) == ESPANK_SUCCESS)
        done |= mount_at(pmix, pmix, false);
    for (char *rest = given[MOUNTS], *entry; (entry = strsep(&rest, ","));) {
        char *source = strsep(&entry, ":"), *target = strsep(&entry, ":");
        done |= target ? mount_at(source, target, entry && strcmp(entry, "ro") == 0)
                       : failed("--container-mounts: invalid format: %s", source);
    }
    return done;
}

static int enter(spank_t spank)
{
    struct statvfs found;
    char map[64];
    uid_t user = getuid();
    gid_t group = getgid();
    prctl(PR_SET_DUMPABLE, 1);
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS))
        return failed("a user and a mount namespace: %m");
    write_to("/proc/self/setgroups", "deny");
    snprintf(map, sizeof map, "%u %u 1", user, user);
    write_to("/proc/self/uid_map", map);
    snprintf(map, sizeof map, "%u %u 1", group, group);
    write_to("/proc/self/gid_map", map);
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) || mount(root, root, NULL, MS_BIND | MS_REC, NULL) ||
        statvfs(root, &found))
        return failed("%s: %m", root);
    if (mount_all(spank))
        return -1;
    unsigned long flags = MS_BIND | MS_REMOUNT | MS_RDONLY | (found.f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC));
    if (!given[WRITABLE] && mount(NULL, root, NULL, flags, NULL))
        return failed("%s cannot be made read-only: %m", root);
    if (chdir(root) || chroot(".") || chdir(given[WORKDIR] ? given[WORKDIR] : "/"))
        return failed("couldn't chdir to %s: %m", given[WORKDIR] ? given[WORKDIR] : "/");
    return 0;
}

int slurm_spank_task_init(spank_t spank, int argc, char **argv)
{
    (void)argc, (void)argv;
    if (!is_enabled())
        return 0;
    if (!exists)
        return failed("error: a container with name \"%s\" does not exist, and --container-image is not set", given[NAME]);
    return start_once(spank) ? -1 : enter(spank);
}

int slurm_spank_exit(spank_t spank, int argc, char **argv)
{
    (void)spank, (void)argc, (void)argv;
    if (spank_context() == S_CTX_REMOTE && *state)
        return run(temporary ? "rm -rf \"$1\" \"$2\"" : "rm -f \"$1\"", state, root) ? -1 : 0;
    return 0;
}
