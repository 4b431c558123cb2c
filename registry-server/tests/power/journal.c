// SPDX-License-Identifier: Apache-2.0
// Preloaded into the registry: notes every change of a file or a folder under
// $JOURNAL_ROOT, and every flush, in $JOURNAL, in their order, one a line:
//   W PATH SIZE   bytes were written or cut off; the file has SIZE bytes now
//   S PATH SIZE   the file or folder was flushed
//   N PATH        a name was made
//   R FROM TO     a name was moved
//   U PATH        a name was removed
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(type, name, ...) \
	static type (*real)(__VA_ARGS__); \
	if (!real) \
		real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static void note(char what, const char *path, const char *rest)
{
	static int journal = -1;
	const char *root = getenv("JOURNAL_ROOT");
	char line[3 * PATH_MAX];
	REAL(ssize_t, "write", int, const void *, size_t);

	if (!root || strncmp(path, root, strlen(root)))
		return;
	if (journal < 0)
		journal = open(getenv("JOURNAL"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
	// One write to a file opened for appending is one line, whoever else writes.
	int length = snprintf(line, sizeof(line), "%c %s%s\n", what, path, rest);
	if (real(journal, line, length) != length)
		abort();
}

static void note_file(char what, int fd)
{
	char link[64], path[PATH_MAX], size[32];
	struct stat status;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t length = readlink(link, path, sizeof(path) - 1);
	if (length <= 0 || path[0] != '/' || fstat(fd, &status))
		return;
	path[length] = 0;
	snprintf(size, sizeof(size), " %lld", (long long)status.st_size);
	note(what, path, size);
}

#define WRITER(name, call, ...) \
	{ \
		REAL(ssize_t, name, __VA_ARGS__); \
		ssize_t result = real call; \
		if (result >= 0) \
			note_file('W', fd); \
		return result; \
	}

ssize_t write(int fd, const void *b, size_t n) WRITER("write", (fd, b, n), int, const void *, size_t)
ssize_t writev(int fd, const struct iovec *v, int n) WRITER("writev", (fd, v, n), int, const struct iovec *, int)
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) WRITER("pwrite64", (fd, b, n, o), int, const void *, size_t, off64_t)
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) WRITER("pwrite", (fd, b, n, o), int, const void *, size_t, off_t)

#define CUTTER(name, type) \
	{ \
		REAL(int, name, int, type); \
		int result = real(fd, n); \
		if (!result) \
			note_file('W', fd); \
		return result; \
	}

int ftruncate(int fd, off_t n) CUTTER("ftruncate", off_t)
int ftruncate64(int fd, off64_t n) CUTTER("ftruncate64", off64_t)

#define FLUSHER(name) \
	{ \
		REAL(int, name, int); \
		int result = real(fd); \
		if (!result) \
			note_file('S', fd); \
		return result; \
	}

int fsync(int fd) FLUSHER("fsync")
int fdatasync(int fd) FLUSHER("fdatasync")

#define OPENER(name) \
	{ \
		mode_t mode = 0; \
		if (flags & (O_CREAT | O_TMPFILE)) { \
			va_list rest; \
			va_start(rest, flags); \
			mode = va_arg(rest, mode_t); \
			va_end(rest); \
		} \
		REAL(int, name, const char *, int, ...); \
		int made = (flags & O_CREAT) && access(path, F_OK); \
		int fd = real(path, flags, mode); \
		if (fd >= 0 && made) \
			note('N', path, ""); \
		return fd; \
	}

int open(const char *path, int flags, ...) OPENER("open")
int open64(const char *path, int flags, ...) OPENER("open64")

int mkdir(const char *path, mode_t mode)
{
	REAL(int, "mkdir", const char *, mode_t);
	int result = real(path, mode);
	if (!result)
		note('N', path, "");
	return result;
}

int rename(const char *from, const char *to)
{
	char rest[PATH_MAX + 1];
	REAL(int, "rename", const char *, const char *);
	int result = real(from, to);
	snprintf(rest, sizeof(rest), " %s", to);
	if (!result)
		note('R', from, rest);
	return result;
}

int unlink(const char *path)
{
	REAL(int, "unlink", const char *);
	int result = real(path);
	if (!result)
		note('U', path, "");
	return result;
}
