/* Which files are mapped, and which headers are believed. */
#include "pk_shared.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LINK_BYTES = 64 };

static int refuse(const char *why, const char **ret_why)
{
    *ret_why = why;
    return EBADMSG;
}

static bool is_geometry(const perfkit_file_header *header)
{
    int64_t octaves = (int64_t)header->high_exponent - header->low_exponent;
    return header->low_exponent >= PERFKIT_EXPONENT_MIN &&
           header->high_exponent <= PERFKIT_EXPONENT_MAX && octaves > 0 &&
           octaves <= PERFKIT_OCTAVES_MAX && header->scale == PERFKIT_SCALE &&
           header->slot_count == (uint64_t)octaves << PERFKIT_SCALE && header->shard_count > 0 &&
           header->shard_count <= PERFKIT_SHARDS_MAX &&
           header->shard_bytes == perfkit_shard_bytes(header->slot_count) &&
           header->file_bytes == perfkit_file_bytes(header->shard_bytes, header->shard_count);
}

static bool is_named(const perfkit_file_header *header)
{
    return perfkit_is_name(header->name) && perfkit_is_text(header->unit, PERFKIT_UNIT_BYTES) &&
           header->labels[PERFKIT_LABELS_BYTES - 1] == 0 &&
           perfkit_labels_fault(header->labels) == NULL;
}

/* What is wrong with a header of a file of that size; NULL: nothing. */
static const char *find_fault(const perfkit_file_header *header, uint64_t size_bytes)
{
    if (memcmp(header->magic, PERFKIT_MAGIC, sizeof(header->magic)) != 0) {
        return "it is no shared histogram";
    }
    if (header->byte_order == __builtin_bswap32(PERFKIT_BYTE_ORDER)) {
        return "it is of a machine with another byte order";
    }
    if (header->version != PERFKIT_LAYOUT_VERSION) {
        return "it has a layout that this version of perfkit does not know";
    }
    if (header->generation == 0 || header->generation % 2 == 1) {
        return "it is not ready yet";
    }
    if (header->byte_order != PERFKIT_BYTE_ORDER || header->header_bytes != sizeof(*header) ||
        header->checksum != perfkit_header_checksum(header) || !is_geometry(header)) {
        return "its header is damaged";
    }
    if (header->file_bytes != size_bytes) {
        return "its size is not what its header says";
    }
    return is_named(header) ? NULL : "its name, unit or labels are damaged";
}

int pk_shared_view(const uint8_t *base, size_t size_bytes, pk_shared *ret, const char **ret_why)
{
    if (size_bytes < sizeof(ret->header)) {
        return refuse("it is too short for a shared histogram", ret_why);
    }
    memset(ret, 0, sizeof(*ret));
    memcpy(&ret->header, base, sizeof(ret->header));
    ret->base = base;
    const char *fault = find_fault(&ret->header, size_bytes);
    return fault == NULL ? 0 : refuse(fault, ret_why);
}

/* The device that all memfds lie on, of the kernel's own: no other file system can be it, so what
 * lies there is no pipe, no device, and on no server that may not answer. */
static int find_memory_device(struct statx *ret)
{
    int descriptor = (int)syscall(SYS_memfd_create, "perfkit-device", MFD_CLOEXEC);
    if (descriptor < 0) {
        return errno;
    }
    int error = statx(descriptor, "", AT_EMPTY_PATH, STATX_BASIC_STATS, ret) == 0 ? 0 : errno;
    (void)close(descriptor);
    return error;
}

/* Opens a path without a word to its file system, unless it is a memfd. */
static int open_memory(const char *path, int *ret, const char **ret_why)
{
    struct statx device;
    struct statx found;
    char link[LINK_BYTES];
    int error = find_memory_device(&device);
    int place = error == 0 ? open(path, O_PATH | O_CLOEXEC) : -1;
    if (place < 0) {
        return error == 0 ? errno : error;
    }
    if (statx(place, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_BASIC_STATS, &found) != 0) {
        error = errno;
    } else if (found.stx_dev_major != device.stx_dev_major ||
               found.stx_dev_minor != device.stx_dev_minor || !S_ISREG(found.stx_mode)) {
        error = refuse("it is no memfd", ret_why);
    } else {
        (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", place);
        *ret = open(link, O_RDONLY | O_CLOEXEC);
        error = *ret < 0 ? errno : 0;
    }
    (void)close(place);
    return error;
}

/* Maps an open file whose size can no longer change. */
static int map(int descriptor, pk_shared *ret, const char **ret_why)
{
    struct stat found;
    int seals = fcntl(descriptor, F_GET_SEALS);
    if (seals < 0 || (seals & PERFKIT_SEALS) != PERFKIT_SEALS) {
        return refuse("it is not sealed", ret_why);
    }
    if (fstat(descriptor, &found) != 0) {
        return errno;
    }
    uint64_t size_bytes = (uint64_t)found.st_size;
    if (size_bytes < sizeof(perfkit_file_header)) {
        return refuse("it is too short for a shared histogram", ret_why);
    }
    if (size_bytes > perfkit_file_bytes(perfkit_shard_bytes(PERFKIT_OCTAVES_MAX << PERFKIT_SCALE),
                                        PERFKIT_SHARDS_MAX)) {
        return refuse("it is too long for a shared histogram", ret_why);
    }
    void *base = mmap(NULL, size_bytes, PROT_READ, MAP_SHARED, descriptor, 0);
    if (base == MAP_FAILED) {
        return errno;
    }
    int error = pk_shared_view(base, size_bytes, ret, ret_why);
    ret->inode = found.st_ino;
    if (error != 0) {
        (void)munmap(base, size_bytes);
    }
    return error;
}

int pk_shared_open(const char *path, pk_shared *ret, const char **ret_why)
{
    int descriptor;
    int error = open_memory(path, &descriptor, ret_why);
    if (error != 0) {
        return error;
    }
    error = map(descriptor, ret, ret_why);
    (void)close(descriptor);
    return error;
}

void pk_shared_close(pk_shared *shared)
{
    (void)munmap((void *)(uintptr_t)shared->base, shared->header.file_bytes);
    shared->base = NULL;
}
