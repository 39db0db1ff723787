/*
 * Storage that fails, for LD_PRELOAD: counts every operation that changes what is below one folder, journals it, and
 * lets one fail or kill the process. tests/src/disk builds it, sets the variables and reads what it writes.
 *
 *   SHARP_EYES_DISK             the folder; nothing happens without it
 *   SHARP_EYES_DISK_COUNTS      file of four 64-bit numbers: operations, fsyncs, bytes written, operations that failed.
 *                               It is mapped and shared, so that the count goes on over restarts of the process.
 *   SHARP_EYES_DISK_JOURNAL     file to which every finished operation is appended (struct record), if set
 *   SHARP_EYES_DISK_KILL        SIGKILL just before this operation, counted from 1
 *   SHARP_EYES_DISK_TORN        if set, that operation is a write, and has bytes to tear: half of it is done first
 *   SHARP_EYES_DISK_FAIL        this operation and all that follow fail
 *   SHARP_EYES_DISK_ERROR       with this errno
 *   SHARP_EYES_DISK_HEAL_AFTER  so many operations fail, if set
 *   SHARP_EYES_DISK_HEAL_FILE   none fails once this file exists, if set
 *
 * An operation: a file made or truncated by open, write, ftruncate, rename, unlink, mkdir, rmdir, fsync, fdatasync. One
 * happens at a time, in the order of their numbers. With ENOSPC only what needs space fails (a file or folder made, any
 * write, a file that grows); with EROFS everything but fsync, and opening a file for writing.
 *
 * Left out: "-shm" files (SQLite maps them, and makes them anew), files that are open but deleted, stdio, mapped files,
 * O_SYNC, raw system calls. The ways around, copy_file_range, sendfile and fallocate, are refused as a file system may
 * refuse them, so that the caller falls back on write; the folder is a file system of its own: nothing is moved or linked
 * into it or out of it. Done by plain system calls, so that nothing here meets itself. 64-bit Linux.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

_Static_assert(sizeof(off_t) == 8, "64-bit Linux only");

enum kind { CREATE = 1, TRUNCATE, WRITE, RENAME, UNLINK, MKDIR, RMDIR, FSYNC };

/* In the byte order of the machine; then the path below the folder, then the data (of RENAME: the new path). */
struct record {
	uint64_t number, at_ns, offset; /* offset of TRUNCATE: the new size */
	uint32_t kind, error, path_length, data_length;
};

struct counts {
	uint64_t operations, fsyncs, bytes, failed;
};

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
static char folder[PATH_MAX];
static size_t folder_length;
static struct counts *counts;
static int journal = -1;
static uint64_t kill_at, fail_from, heal_after;
static int torn, fail_with;
static const char *heal_file;

static uint64_t number_in(const char *name)
{
	const char *text = getenv(name);
	return text ? strtoull(text, NULL, 10) : 0;
}

static void give_up(const char *what)
{
	fprintf(stderr, "disk shim: %s: %s\n", what, strerror(errno));
	_exit(97);
}

__attribute__((constructor)) static void start(void)
{
	const char *path = getenv("SHARP_EYES_DISK"), *file;
	if (!path)
		return;
	if (!realpath(path, folder))
		give_up(path);
	file = getenv("SHARP_EYES_DISK_COUNTS");
	int fd = file ? syscall(SYS_openat, AT_FDCWD, file, O_RDWR | O_CREAT | O_CLOEXEC, 0644) : -1;
	if (fd < 0 || syscall(SYS_ftruncate, fd, sizeof *counts))
		give_up("SHARP_EYES_DISK_COUNTS");
	counts = mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (counts == MAP_FAILED)
		give_up("mapping SHARP_EYES_DISK_COUNTS");
	close(fd);
	file = getenv("SHARP_EYES_DISK_JOURNAL");
	if (file && (journal = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644)) < 0)
		give_up(file);
	kill_at = number_in("SHARP_EYES_DISK_KILL");
	torn = getenv("SHARP_EYES_DISK_TORN") != NULL;
	fail_from = number_in("SHARP_EYES_DISK_FAIL");
	fail_with = number_in("SHARP_EYES_DISK_ERROR");
	heal_after = number_in("SHARP_EYES_DISK_HEAL_AFTER");
	heal_file = getenv("SHARP_EYES_DISK_HEAL_FILE");
	folder_length = strlen(folder); /* last: from here on it is watched */
}

/* The path below the folder, "" for the folder itself; NULL for all that is elsewhere or left out. */
static const char *inside(const char *path)
{
	static const char *left_out[] = { "-shm", " (deleted)" };
	size_t length = strlen(path);
	if (strncmp(path, folder, folder_length) || (path[folder_length] && path[folder_length] != '/'))
		return NULL;
	for (size_t n = 0; n < sizeof left_out / sizeof *left_out; n++) {
		size_t end = strlen(left_out[n]);
		if (length >= end && !strcmp(path + length - end, left_out[n]))
			return NULL;
	}
	return path[folder_length] ? path + folder_length + 1 : path + folder_length;
}

static const char *inside_fd(int fd, char *space)
{
	char link[64];
	struct stat about;
	if (!folder_length || fstat(fd, &about) || !(S_ISREG(about.st_mode) || S_ISDIR(about.st_mode)))
		return NULL;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t length = readlink(link, space, PATH_MAX - 1);
	if (length < 0)
		return NULL;
	space[length] = 0;
	return inside(space);
}

static const char *inside_path(int at, const char *path, char *space)
{
	char parent[2 * PATH_MAX] = "";
	if (!folder_length || !path)
		return NULL;
	if (path[0] != '/') {
		if (at == AT_FDCWD)
			strcpy(parent, ".");
		else
			snprintf(parent, sizeof parent, "/proc/self/fd/%d", at);
		strcat(parent, "/");
	}
	strncat(parent, path, PATH_MAX);
	for (size_t length = strlen(parent); length > 1 && parent[length - 1] == '/'; length--)
		parent[length - 1] = 0;
	char *name = strrchr(parent, '/');
	*name++ = 0;
	if (!realpath(*parent ? parent : "/", space) || strlen(space) + strlen(name) + 2 > PATH_MAX)
		return NULL;
	strcat(strcat(space, "/"), name);
	return inside(space);
}

static int failing(uint64_t number)
{
	return fail_from && number >= fail_from && (!heal_after || number < fail_from + heal_after) &&
	       !(heal_file && !syscall(SYS_faccessat, AT_FDCWD, heal_file, F_OK));
}

/* Counts an operation and kills the process before it where it has to; 0, or the errno with which it has to fail. */
static int begin(enum kind kind, int takes_space, int may_tear, uint64_t *number)
{
	*number = __atomic_add_fetch(&counts->operations, 1, __ATOMIC_SEQ_CST);
	if (*number == kill_at && !(torn && may_tear))
		kill(getpid(), SIGKILL);
	if (!failing(*number) || (fail_with == ENOSPC && !takes_space) || (fail_with == EROFS && kind == FSYNC))
		return 0;
	__atomic_add_fetch(&counts->failed, 1, __ATOMIC_SEQ_CST);
	return fail_with;
}

static void write_all(const struct iovec *parts, int count)
{
	ssize_t all = 0;
	for (int n = 0; n < count; n++)
		all += parts[n].iov_len;
	if (syscall(SYS_writev, journal, parts, count) != all)
		give_up("writing the journal");
}

/* Notes how an operation ended, and hands on its result. */
static long end(enum kind kind, uint64_t number, const char *path, uint64_t offset, const void *data, size_t length,
		long result, int refused)
{
	if (refused) {
		errno = refused;
		result = -1;
	}
	int error = result < 0 ? errno : 0;
	if (kind == FSYNC && !error)
		__atomic_add_fetch(&counts->fsyncs, 1, __ATOMIC_SEQ_CST);
	if (kind == WRITE && !error)
		__atomic_add_fetch(&counts->bytes, result, __ATOMIC_SEQ_CST);
	if (journal >= 0) {
		struct timespec now;
		syscall(SYS_clock_gettime, CLOCK_REALTIME, &now); /* not what libfaketime would say */
		if (kind == WRITE)
			length = error ? 0 : result;
		struct record record = { number, now.tv_sec * 1000000000ull + now.tv_nsec, offset, kind, error,
					 strlen(path), length };
		struct iovec parts[] = { { &record, sizeof record }, { (void *)path, record.path_length },
					 { (void *)data, length } };
		write_all(parts, 3);
	}
	errno = error ? error : errno;
	return result;
}

static int do_open(int at, const char *path, int flags, mode_t mode)
{
	char space[PATH_MAX];
	int writes = (flags & O_ACCMODE) != O_RDONLY;
	const char *name = writes || flags & (O_CREAT | O_TRUNC) ? inside_path(at, path, space) : NULL;
	if (!name || (flags & O_TMPFILE) == O_TMPFILE)
		return syscall(SYS_openat, at, path, flags, mode);
	pthread_mutex_lock(&one_at_a_time);
	int there = !syscall(SYS_faccessat, AT_FDCWD, space, F_OK), refused = 0;
	enum kind kind = there ? TRUNCATE : CREATE;
	int counted = there ? flags & O_TRUNC && !(flags & O_EXCL) : flags & O_CREAT;
	uint64_t number = 0;
	if (counted)
		refused = begin(kind, kind == CREATE, 0, &number);
	else if (writes && fail_with == EROFS && failing(counts->operations))
		refused = EROFS;
	long fd = refused ? -1 : syscall(SYS_openat, at, path, flags, mode);
	if (counted)
		fd = end(kind, number, name, 0, NULL, 0, fd, refused);
	else if (refused)
		errno = refused;
	pthread_mutex_unlock(&one_at_a_time);
	return fd;
}

/* offset -1: where the file stands. */
static ssize_t do_write(int fd, const void *data, size_t length, off_t offset)
{
	char space[PATH_MAX];
	const char *name = inside_fd(fd, space);
	if (!name)
		return offset < 0 ? syscall(SYS_write, fd, data, length) : syscall(SYS_pwrite64, fd, data, length, offset);
	pthread_mutex_lock(&one_at_a_time);
	uint64_t number;
	int refused = begin(WRITE, 1, length > 1, &number), tear = number == kill_at;
	struct stat about;
	off_t at = offset;
	if (fcntl(fd, F_GETFL) & O_APPEND)
		at = fstat(fd, &about) ? 0 : about.st_size;
	else if (offset < 0)
		at = lseek(fd, 0, SEEK_CUR);
	long result = -1;
	if (!refused && offset < 0)
		result = syscall(SYS_write, fd, data, tear ? length / 2 : length);
	else if (!refused)
		result = syscall(SYS_pwrite64, fd, data, tear ? length / 2 : length, offset);
	result = end(WRITE, number, name, at, data, length, result, refused);
	if (tear)
		kill(getpid(), SIGKILL);
	pthread_mutex_unlock(&one_at_a_time);
	return result;
}

static ssize_t do_writev(int fd, const struct iovec *parts, int count, off_t offset)
{
	ssize_t all = 0;
	char space[PATH_MAX];
	if (!inside_fd(fd, space))
		return offset < 0 ? syscall(SYS_writev, fd, parts, count) : syscall(SYS_pwritev, fd, parts, count, offset, 0);
	for (int n = 0; n < count; n++) {
		ssize_t done = do_write(fd, parts[n].iov_base, parts[n].iov_len, offset < 0 ? offset : offset + all);
		if (done < 0)
			return all ? all : done;
		all += done;
		if ((size_t)done < parts[n].iov_len)
			break;
	}
	return all;
}

static int do_truncate(int fd, off_t size)
{
	char space[PATH_MAX];
	struct stat about;
	const char *name = inside_fd(fd, space);
	if (!name)
		return syscall(SYS_ftruncate, fd, size);
	pthread_mutex_lock(&one_at_a_time);
	uint64_t number;
	int refused = begin(TRUNCATE, !fstat(fd, &about) && about.st_size < size, 0, &number);
	long result = end(TRUNCATE, number, name, size, NULL, 0, refused ? -1 : syscall(SYS_ftruncate, fd, size), refused);
	pthread_mutex_unlock(&one_at_a_time);
	return result;
}

static int do_sync(int fd, long call)
{
	char space[PATH_MAX];
	const char *name = inside_fd(fd, space);
	if (!name)
		return syscall(call, fd);
	pthread_mutex_lock(&one_at_a_time);
	uint64_t number;
	int refused = begin(FSYNC, 0, 0, &number);
	long result = end(FSYNC, number, name, 0, NULL, 0, refused ? -1 : syscall(call, fd), refused);
	pthread_mutex_unlock(&one_at_a_time);
	return result;
}

/* unlink, mkdir and rmdir. */
static int do_entry(enum kind kind, int at, const char *path, int flags_or_mode)
{
	char space[PATH_MAX];
	const char *name = inside_path(at, path, space);
	long call = kind == MKDIR ? SYS_mkdirat : SYS_unlinkat;
	if (!name)
		return syscall(call, at, path, flags_or_mode);
	pthread_mutex_lock(&one_at_a_time);
	uint64_t number;
	int refused = begin(kind, kind == MKDIR, 0, &number);
	long result = refused ? -1 : syscall(call, at, path, flags_or_mode);
	result = end(kind, number, name, 0, NULL, 0, result, refused);
	pthread_mutex_unlock(&one_at_a_time);
	return result;
}

static int do_rename(int from_at, const char *from, int to_at, const char *to, unsigned flags)
{
	char space[PATH_MAX], more_space[PATH_MAX];
	const char *old = inside_path(from_at, from, space), *new = inside_path(to_at, to, more_space);
	if (!old && !new)
		return syscall(SYS_renameat2, from_at, from, to_at, to, flags);
	if (!old || !new || flags) {
		errno = flags ? EINVAL : EXDEV;
		return -1;
	}
	pthread_mutex_lock(&one_at_a_time);
	uint64_t number;
	int refused = begin(RENAME, 0, 0, &number);
	long result = refused ? -1 : syscall(SYS_renameat2, from_at, from, to_at, to, 0);
	result = end(RENAME, number, old, 0, new, strlen(new), result, refused);
	pthread_mutex_unlock(&one_at_a_time);
	return result;
}

/* Says what a file system says that cannot do a thing; the caller then copies, or does without. */
static int refuse(int inside, int error)
{
	if (inside)
		errno = error;
	return inside;
}

static int is_inside(int fd)
{
	char space[PATH_MAX];
	return inside_fd(fd, space) != NULL;
}

/* The C library's names. */

#define OPEN(NAME)                                                                       \
	int NAME(const char *path, int flags, ...)                                       \
	{                                                                                \
		va_list more;                                                            \
		va_start(more, flags);                                                   \
		mode_t mode = va_arg(more, mode_t);                                      \
		va_end(more);                                                            \
		return do_open(AT_FDCWD, path, flags, mode);                             \
	}
#define OPENAT(NAME)                                                                     \
	int NAME(int at, const char *path, int flags, ...)                               \
	{                                                                                \
		va_list more;                                                            \
		va_start(more, flags);                                                   \
		mode_t mode = va_arg(more, mode_t);                                      \
		va_end(more);                                                            \
		return do_open(at, path, flags, mode);                                   \
	}
OPEN(open) OPEN(open64) OPENAT(openat) OPENAT(openat64)
int __open_2(const char *path, int flags) { return do_open(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return do_open(AT_FDCWD, path, flags, 0); }
int __openat_2(int at, const char *path, int flags) { return do_open(at, path, flags, 0); }
int __openat64_2(int at, const char *path, int flags) { return do_open(at, path, flags, 0); }
int creat(const char *path, mode_t mode) { return do_open(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return do_open(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode); }

ssize_t write(int fd, const void *data, size_t length) { return do_write(fd, data, length, -1); }
ssize_t pwrite(int fd, const void *data, size_t length, off_t at) { return do_write(fd, data, length, at); }
ssize_t pwrite64(int fd, const void *data, size_t length, off_t at) { return do_write(fd, data, length, at); }
ssize_t writev(int fd, const struct iovec *parts, int count) { return do_writev(fd, parts, count, -1); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return do_writev(fd, parts, count, at); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t at) { return do_writev(fd, parts, count, at); }

int ftruncate(int fd, off_t size) { return do_truncate(fd, size); }
int ftruncate64(int fd, off_t size) { return do_truncate(fd, size); }
int fsync(int fd) { return do_sync(fd, SYS_fsync); }
int fdatasync(int fd) { return do_sync(fd, SYS_fdatasync); }

int unlink(const char *path) { return do_entry(UNLINK, AT_FDCWD, path, 0); }
int rmdir(const char *path) { return do_entry(RMDIR, AT_FDCWD, path, AT_REMOVEDIR); }
int unlinkat(int at, const char *path, int flags)
{
	return do_entry(flags & AT_REMOVEDIR ? RMDIR : UNLINK, at, path, flags);
}
int mkdir(const char *path, mode_t mode) { return do_entry(MKDIR, AT_FDCWD, path, mode); }
int mkdirat(int at, const char *path, mode_t mode) { return do_entry(MKDIR, at, path, mode); }
int rename(const char *from, const char *to) { return do_rename(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int from_at, const char *from, int to_at, const char *to) { return do_rename(from_at, from, to_at, to, 0); }
int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags)
{
	return do_rename(from_at, from, to_at, to, flags);
}

int linkat(int from_at, const char *from, int to_at, const char *to, int flags)
{
	char space[PATH_MAX];
	int inside = inside_path(to_at, to, space) != NULL;
	return refuse(inside, EPERM) ? -1 : syscall(SYS_linkat, from_at, from, to_at, to, flags);
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t length, unsigned flags)
{
	return refuse(is_inside(out), EINVAL) ? -1 : syscall(SYS_copy_file_range, in, in_at, out, out_at, length, flags);
}
ssize_t sendfile(int out, int in, off_t *at, size_t length)
{
	return refuse(is_inside(out), EINVAL) ? -1 : syscall(SYS_sendfile, out, in, at, length);
}
ssize_t sendfile64(int out, int in, off64_t *at, size_t length) { return sendfile(out, in, at, length); }
int fallocate(int fd, int mode, off_t at, off_t length)
{
	return refuse(is_inside(fd), EOPNOTSUPP) ? -1 : syscall(SYS_fallocate, fd, mode, at, length);
}
int fallocate64(int fd, int mode, off_t at, off_t length) { return fallocate(fd, mode, at, length); }
int posix_fallocate(int fd, off_t at, off_t length) { return fallocate(fd, 0, at, length) ? errno : 0; }
int posix_fallocate64(int fd, off_t at, off_t length) { return posix_fallocate(fd, at, length); }
