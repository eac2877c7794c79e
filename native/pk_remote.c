#include "pk_remote.h"

#include <errno.h>
#include <string.h>

static const uint64_t ADDRESS_MIN = 4096;
static const uint64_t ADDRESS_LIMIT = 1ULL << 47;

bool pk_remote_is_address(uint64_t address, size_t size)
{
    return address >= ADDRESS_MIN && address % 8 == 0 && size <= ADDRESS_MIN * 1024 &&
           address < ADDRESS_LIMIT - size;
}

static void *to_pointer(uint64_t address)
{
    return (void *)(uintptr_t)address; /* of the other process, never followed here */
}

int pk_remote_read(pid_t pid, uint64_t address, void *buffer, size_t size)
{
    struct iovec local = {buffer, size};
    struct iovec remote = {to_pointer(address), size};
    ssize_t count = process_vm_readv(pid, &local, 1, &remote, 1, 0);
    if (count < 0) {
        return errno;
    }
    return (size_t)count == size ? 0 : EFAULT;
}

bool pk_gather_add(pk_gather *gather, uint64_t address, size_t size)
{
    if (gather->count >= PK_REMOTE_PIECE_LIMIT || !pk_remote_is_address(address, size)) {
        return false;
    }
    gather->pieces[gather->count++] = (struct iovec){to_pointer(address), size};
    return true;
}

int pk_gather_read(const pk_gather *gather, pid_t pid, void *buffer, size_t size, size_t *ret)
{
    *ret = 0;
    struct iovec local = {buffer, size};
    if (gather->count == 0) {
        return 0;
    }
    ssize_t count = process_vm_readv(pid, &local, 1, gather->pieces, gather->count, 0);
    if (count < 0) {
        return errno;
    }
    *ret = (size_t)count;
    return 0;
}

uint64_t pk_remote_word(const void *buffer, size_t offset)
{
    uint64_t word;
    memcpy(&word, (const char *)buffer + offset, sizeof word);
    return word;
}
